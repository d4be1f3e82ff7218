#!/usr/bin/env bash
# Genuine senders while the gateway is under attack: 200 signed webhooks a second, and beside them, in turn,
# slowhttptest's four modes with 2,000 connections, floods over HTTP/2, a full table of connections, and a noisy
# neighbour. All genuine requests have to be answered 2xx, with a p99 of at most 50 ms or three times that of a quiet
# gateway; memory and descriptors have to come back. Loopback only.
#
#   tests/floods.sh [--short | --full] [--profile release | dev] [--only WORDS]
#
# --short, the default, takes 5 s each, --full 60 s. Needs Python 3, slowhttptest (installed by apt if missing, as root),
# and `ulimit -Hn` of 8192.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=5 profile=release only=()
while (($#)); do
    case $1 in
        --short) seconds=5 ;;
        --full) seconds=60 ;;
        --profile) profile=$2; shift ;;
        --only) only=(--only "$2"); shift ;;
        *) echo "usage: tests/floods.sh [--short | --full] [--profile release | dev] [--only WORDS]" >&2; exit 2 ;;
    esac
    shift
done
command -v python3 >/dev/null || { echo "tests/floods.sh: python3 is not installed" >&2; exit 2; }
if ! command -v slowhttptest >/dev/null; then
    apt-get update -qq || true # a list that is there already may do
    apt-get install -y -qq slowhttptest >/dev/null ||
        { echo "tests/floods.sh: slowhttptest is not installed, and apt does not install it" >&2; exit 2; }
fi
cargo build --quiet --locked --profile "$profile" --bin forebay --example app --example sender
directory=$profile
[[ $profile == dev ]] && directory=debug
exec python3 tests/load/floods.py "${CARGO_TARGET_DIR:-target}/$directory" --seconds "$seconds" "${only[@]}"
