#!/usr/bin/env bash
# A small journal with records of most kinds, half of it sealed: each byte of it is flipped and each length of it cut off, and it is opened. Nothing
# panics, only what is touched is lost, no wrong byte is given. Takes about ten minutes; the everyday tests try one byte in 149.
set -euo pipefail
cd "$(dirname "$0")/.."
FOREBAY_DAMAGE=all cargo test --locked --release --lib -- --nocapture every_byte::
