#!/usr/bin/env bash
# The gateway in a memory cgroup of 128 MiB: 10,000 idle connections, 2,000 bodies of 1 MiB less a byte held at the same
# time, hostile JSON and forms. It is not killed, and takes no more than 64 MiB + connections × 64 KiB + in_flight_bytes.
#
#   tests/memory.sh [--profile release | dev]
#
# Needs root, cgroup version 1 with its memory controller at /sys/fs/cgroup/memory, Python 3, and `ulimit -Hn` of 12000.
# Where one of them is missing it says so and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release
if [[ ${1:-} == --profile ]]; then profile=$2; fi
fail() { echo "tests/memory.sh: FAILED, NOTHING WAS CHECKED: $1" >&2; exit 2; }
[[ $EUID == 0 ]] || fail "it makes a cgroup, for which it has to be root"
[[ -d /sys/fs/cgroup/memory ]] || fail "there is no memory controller of cgroup version 1 at /sys/fs/cgroup/memory"
command -v python3 >/dev/null || fail "python3 is not installed"
cargo build --quiet --locked --profile "$profile" --bin forebay --example app --example sender
directory=$profile
[[ $profile == dev ]] && directory=debug
exec python3 tests/load/memory.py "${CARGO_TARGET_DIR:-target}/$directory"
