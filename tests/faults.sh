#!/usr/bin/env bash
# Faults made from outside for the built binary, part after part; each says what it did and how often the fault was really
# met, and fails where that is too seldom. docs/durability.md says what each is about.
#
#   tests/faults.sh                  all parts, as for a release: about half an hour, root
#   tests/faults.sh --short          a little of those that need no privileges: half a minute
#   tests/faults.sh PART [N]         one part, N times
#
# Parts: kills proxy-kills order flushes writes reads slow calls while-written opening drain attempts files (strace, no privileges);
#        space outage inodes read-only descriptors (root: they mount small file systems).
# strace is installed by apt if missing. FOREBAY names another binary. Loopback only; scratch files in TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/faults/tools.sh

part() { # PART N
    local function own=() more=()
    case $1 in
        kills) function=kills.at_random ;;          # kill -9 under load, every other time inside a commit, N times
        proxy-kills) function=kills.at_random more=(mode=proxy) ;; # the same in proxy mode
        order) function=flushes.order ;;            # acknowledgements after their flush, in a trace of N
        flushes) function=flushes.at_each_flush ;;  # EIO from fdatasync number 1 to N
        writes) function=flushes.at_each_write ;;   # EIO, ENOSPC, EINTR, a write cut short: at write number 1 to N
        reads) function=flushes.at_each_read ;;     # EIO from read number 1 to N
        slow) function=flushes.slow ;;              # flushes of 2 s for N seconds; one of 60 s
        calls) function=kills.at_each_call ;;       # kill -9 at call number 1 to N of each kind, while trimming
        while-written) function=kills.while_written ;; # kill -9 while a checkpoint is written, claims are sealed, merged: N of each
        opening) function=kills.in_opening ;;       # kill -9 while opening, N times
        drain) function=kills.in_the_drain ;;       # kill -9 and SIGTERM in the drain, N times
        attempts) function=kills.around_an_attempt ;; # kill -9 before and after the application's answer, N times
        files) function=files.run ;;                # locks, foreign and old segments, broken indexes: N times
        space) function=full.space ;;               # a disk full N times
        outage) function=full.outage ;;             # events fill the disk, and failed attempts what is left: N times
        inodes) function=full.inodes ;;             # no inodes, N times
        read-only) function=full.read_only ;;       # remounted read-only, N times
        descriptors) function=full.descriptors ;;   # 64 descriptors, N connections
        *) fail "there is no part $1" ;;
    esac
    if [[ $function == full.* && $function != full.descriptors ]]; then
        [[ $EUID == 0 ]] || fail "$1 mounts a file system, for which it has to be root"
        own=(unshare --mount --propagation private)
    fi
    if [[ $1 == inodes || $1 == read-only ]]; then need mkfs.ext4 e2fsprogs; fi
    printf '== %s %s\n' "$1" "$2"
    "${own[@]}" python3 -B tests/faults/run.py --binary "$binary" --runs "$2" "$function" "${more[@]}"
}

need python3 python3
need strace strace
strace -qq -o /dev/null true || fail "strace may trace nothing here (ptrace is not allowed)"
binary=$(built)
case ${1:-} in
    --short)
        parts=(order 50 flushes 4 opening 5)
        ;;
    '')
        parts=(kills 1000 proxy-kills 1000 order 1000 flushes 100 writes 20 reads 60 slow 30 calls 30 while-written 20 opening 100 drain 60 attempts 20 files 5
            space 100 outage 3 inodes 5 read-only 10 descriptors 200)
        ;;
    *) parts=("$1" "${2:-10}") ;;
esac
for ((at = 0; at < ${#parts[@]}; at += 2)); do
    part "${parts[at]}" "${parts[at + 1]}"
done
