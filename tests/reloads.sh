#!/usr/bin/env bash
# Reloads the config once a second, N times (600 unless told), under 200 requests a second, with a bad config between the
# good ones, and checks that every request was answered 200 and every event delivered.
set -euo pipefail
cd "$(dirname "$0")/.."
FOREBAY_RELOADS="${1:-600}" cargo test --locked --test it -- --nocapture a_storm_of_reloads_disturbs_nobody
