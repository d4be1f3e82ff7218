#!/usr/bin/env bash
# The JSON Schemas of `forebay schema`, by a validator that is not ours: valid themselves, they take every config and preset of
# this repository, and refuse the bad ones that a schema can know about.
# Needs Python 3 with venv, and a package index for check-jsonschema, which goes into target/. FOREBAY names the binary.
set -euo pipefail
cd "$(dirname "$0")/.."

need() {
    command -v "$1" >/dev/null || { echo "tests/schema.sh: $1 is not installed; $2" >&2; exit 2; }
}
need python3 "install Python 3 with its venv module"
forebay=${FOREBAY:-target/debug/forebay}
[ -x "$forebay" ] || { echo "tests/schema.sh: there is no $forebay; \`cargo build\` makes it" >&2; exit 2; }

venv=target/schema-venv
[ -x "$venv/bin/check-jsonschema" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet check-jsonschema; }
validate() { "$venv/bin/check-jsonschema" "$@"; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$forebay" schema > "$dir/config.json"
"$forebay" schema --preset > "$dir/preset.json"
"$forebay" schema --defaults > "$dir/defaults.yaml"

validate --check-metaschema "$dir/config.json" "$dir/preset.json"
validate --schemafile "$dir/config.json" config/forebay.yaml examples/*.yaml
validate --schemafile "$dir/preset.json" config/providers/*.yaml

# What a schema cannot know: what a name refers to, what the environment and files hold, what two keys mean together.
beyond='^(address-(by-name|of-both|twice)|admin-|allow-ips-that|body-limit|burst|dedupe-|duration-of|header-|host-|include-|journal'
beyond+='|level|method-of|path-(of|with-(dots|half|the))|paths|patterns|preset-(whose|with-an-odd)|provider-that|proxy|public-url'
beyond+='|respond-with-what-is|retry-max|route-(to|twice)|secret-(blank|for|in|missing|of|that-is-a-private|unset|empty|with-a-bad)|secrets-past'
beyond+='|size-of|tls-files|tolerance|url-with-a-(f|p)|variable-with|yaml-(key|source)-twice)'
refused=0
for file in tests/data/bad-configs/*.yaml; do
    if validate --schemafile "$dir/config.json" "$file" >"$dir/said" 2>&1; then
        grep -qE "$beyond" <<<"$(basename "$file")" || { echo "the schema takes $file" >&2; exit 1; }
    else
        refused=$((refused + 1))
    fi
done
echo "of the bad configs the schema refuses $refused"
[ "$refused" -ge 50 ]
