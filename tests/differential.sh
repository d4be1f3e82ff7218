#!/usr/bin/env bash
# Sends hostile byte streams and N mutations of them (300 unless told) to a gateway in front of nginx, HAProxy, Node and
# gunicorn in turn, and checks that each of these saw exactly the requests that the gateway had kept, byte for byte.
# Installs what is missing: nginx, haproxy and node by apt, gunicorn by pip below target/.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null && return
    echo "tests/differential.sh: installing $2" >&2
    [[ ${updated:-} ]] || apt-get update --quiet --quiet || true # a list that is there already may do
    updated=yes
    apt-get install --yes --quiet "$2" >/dev/null || { echo "tests/differential.sh: $1 is missing; install $2" >&2; exit 2; }
}
need python3 python3
need nginx nginx
need haproxy haproxy
need node nodejs

venv=${CARGO_TARGET_DIR:-target}/differential
if ! "$venv/bin/gunicorn" --version >/dev/null 2>&1; then
    python3 -m venv "$venv" || { need pip3 python3-venv; python3 -m venv "$venv"; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'gunicorn==23.0.0'
fi

cargo build --locked --quiet
exec python3 -B tests/differential/run.py --mutations "${1:-300}" --binary "${CARGO_TARGET_DIR:-target}/debug/forebay" \
    --gunicorn "$venv/bin/gunicorn" --corpus tests/data/framing/hostile.jsonl
