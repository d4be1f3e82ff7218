#!/usr/bin/env bash
# Sends N ids (10,000 unless told), 64 times each at once, and checks that each is stored once and arrives once.
set -euo pipefail
cd "$(dirname "$0")/.."
FOREBAY_IDS="${1:-10000}" cargo test --locked --test it -- --nocapture identical_webhooks_at_once
