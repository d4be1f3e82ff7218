#!/usr/bin/env bash
# Kills the gateway with SIGKILL under load, N times (50 unless told) in each mode, every other time inside a commit, and
# checks that nothing it had acknowledged is lost, that nothing arrives changed, that duplicates are still known, that dead
# letters stay and that attempt numbers only rise. From 50 kills on it fails where fewer than a fifth met a commit.
set -euo pipefail
cd "$(dirname "$0")/.."
FOREBAY_KILLS="${1:-50}" cargo test --locked --test it -- --nocapture nothing_acknowledged_is_lost
