#!/usr/bin/env bash
# Restarts the gateway with SIGTERM under load, N times (50 unless told) on a socket of its own and N times on an inherited
# one. Checks that it exits with 0 within its grace period, that nothing acknowledged is lost, that no answer is torn, and that
# behind an inherited socket nobody is refused or reset. A line for each says what the senders met.
set -euo pipefail
cd "$(dirname "$0")/.."
FOREBAY_RESTARTS="${1:-50}" cargo test --locked --test it -- --nocapture restarts::
