#!/usr/bin/env bash
# Simulates the gateway on failing disks, clocks and applications (docs/simulation.md): SEEDS seeds from FIRST, once with faults
# until the end, and a fifth as many once with faults that heal. 10,000 from 0 unless told: tests/simulate.sh [SEEDS] [FIRST]
# Prints how often each fault was met, and for each seed that went wrong what to run to see it again.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds="${1:-10000}" first="${2:-0}"
run() {
    FOREBAY_FIRST="$first" FOREBAY_SEEDS="$1" cargo test --release --locked --test simulation -- --nocapture --exact "$2"
}
failed=0
run "$seeds" no_fault_breaks_a_promise || failed=1
run "$((seeds / 5))" once_all_is_well_everything_comes_to_its_end || failed=1
exit "$failed"
