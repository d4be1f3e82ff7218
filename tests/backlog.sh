#!/usr/bin/env bash
# A backlog of N events (a million unless told) through the built gateway: how fast they are taken while it grows, what memory
# and disk it takes, how long opening takes with it, after a kill and after a close, and how fast it drains. It measures; it
# judges nothing. Goals: docs/journal.md, "Opening".
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --locked --release --bin forebay --example backlog
release=${CARGO_TARGET_DIR:-target}/release
exec "$release/examples/backlog" "$release/forebay" --events "${1:-1000000}" "${@:2}"
