#!/usr/bin/env bash
# Kills the gateway with SIGKILL under load, N times (50 unless told), and checks that nothing it had
# acknowledged is lost, that nothing arrives changed and that attempt numbers only rise.
set -euo pipefail
cd "$(dirname "$0")/.."
FOREBAY_KILLS="${1:-50}" cargo test --locked --test it -- --nocapture nothing_acknowledged_is_lost
