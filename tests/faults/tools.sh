# What the scripts that make faults have in common; they read it with `.`.

fail() {
    echo "$0: FAILED, NOTHING WAS CHECKED: $1" >&2
    exit 2
}

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null || fail "$1 is not installed; install $2"
    echo "$0: installing $2" >&2
    [[ ${updated:-} ]] || apt-get -qq update >/dev/null || true # a list that is there already may do
    updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2" >/dev/null || fail "$1 is not installed; install $2"
}

# The binary to be tried: the one that FOREBAY names, or a debug build of this tree.
built() {
    if [[ ${FOREBAY:-} ]]; then
        echo "$FOREBAY"
        return
    fi
    cargo build --quiet --locked --bin forebay >&2
    echo "${CARGO_TARGET_DIR:-target}/debug/forebay"
}
