#!/usr/bin/env bash
# Cuts the power under a loaded gateway N times (20 unless told) on each of ext4 and xfs, or on the one that is named: a file
# system in a file is shut down by FS_IOC_GOINGDOWN, once its own log flushed and once dropped, half of the time under a
# stopped gateway and half under one that sees its disk go. It is mounted again, the gateway is started again, and everything
# that was acknowledged has to be there, with the right bytes. Then a gateway whose flushes do nothing (strace suppresses
# them) has to lose something: otherwise this would notice nothing.
#
#   tests/power-cuts.sh [N] [ext4|xfs]
#
# Root, for mounts and loop devices. Missing tools (mkfs.ext4, mkfs.xfs, strace) are installed by apt. FOREBAY names another binary.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/faults/tools.sh

runs=${1:-20}
kinds=(ext4 xfs)
if [[ ${2:-} ]]; then kinds=("$2"); fi
[[ $EUID == 0 ]] || fail "it mounts file systems, for which it has to be root"
need python3 python3
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need strace strace
[[ -e /dev/loop-control ]] || fail "there are no loop devices (/dev/loop-control)"
binary=$(built)
faults() {
    # In a namespace of its own: whoever copied the mount would keep the file system that was shut down.
    unshare --mount --propagation private python3 -B tests/faults/run.py --binary "$binary" "$@"
}
for kind in "${kinds[@]}"; do
    faults --runs "$runs" power "kind=$kind"
    faults --runs 10 power "kind=$kind" control=yes
done
