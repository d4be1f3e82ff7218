#!/usr/bin/env bash
# Forebay in front of a sample application: builds both, shows what happens to webhooks while the application is
# away, and leaves both running until Ctrl-C. Needs Rust and a C compiler.
#
#   examples/quickstart/run.sh           the tour, then everything stays up
#   examples/quickstart/run.sh --exit    the tour; 0 if every step did what it says
#
# GITHUB_WEBHOOK_SECRET      the secret to sign with; default: a new one
# FOREBAY_QUICKSTART_PORTS   public, admin and application port; default `8080 9090 3000`; `free` takes three that are
# FOREBAY_QUICKSTART_DIR     where the journal, the logs and the secret go; default `data`
set -euo pipefail
cd "$(dirname "$0")/../.."

# ---- The tour ----

tour() {
    step "The gateway starts, and the application behind it"
    start_gateway
    start_app
    say "Senders come in at   http://$public/webhooks/github"
    say "You look in at       http://$admin"
    say "The application is   http://$app/hooks/github"

    step "A webhook arrives: signed as GitHub would, verified, kept, delivered"
    send 1
    until_true 30 "the webhook reaches the application" arrived "${ids[@]}"
    show_arrivals "${ids[@]}"

    step "The application goes away; three more webhooks come"
    stop_app
    send 3
    until_true 30 "all three are listed as pending" listed pending "${ids[@]}"
    say "The sender got its 200 each time, since they are safe on disk. They wait:"
    run events list --status pending
    if arrived_any "${ids[@]}"; then fail "a webhook reached an application that is not there"; fi

    step "The application comes back; what waited arrives, and nobody had to send it again"
    start_app
    until_true 60 "all three reach the application" arrived "${ids[@]}"
    show_arrivals "${ids[@]}"
    until_true 30 "all three are listed as delivered" listed delivered "${ids[@]}"
    run events list --limit 4
}

stay() {
    local with=""
    if [[ $config != config/forebay.yaml ]]; then with=" -c $config"; fi
    step "Both stay up until Ctrl-C. From another terminal, in $PWD:"
    cat <<TEXT

   another webhook    GITHUB_WEBHOOK_SECRET=\$(cat $secret_file) $forebay$with send github
   a forged one       GITHUB_WEBHOOK_SECRET=\$(cat $secret_file) $forebay$with send github --secret wrong
   or by hand         curl -i http://$public/webhooks/github -d '{"unsigned": true}'
   what is kept       $forebay$with events list
   one of them        $forebay$with events show ${ids[0]}
   send it again      $forebay$with events replay ${ids[0]}
   stop the app       kill $app_pid
   and start it       $app_bin $app
   metrics            http://$admin/metrics
   the gateway's log  tail -f $gateway_log

What reaches the application:
TEXT
    tail -n 0 -f "$app_log" &
    tail_pid=$!
    trap 'exit 0' INT TERM HUP
    wait "$gateway_pid" || true
    fail "the gateway has stopped by itself"
}

# ---- What the tour does ----

start_gateway() {
    : >"$gateway_log"
    launch "$gateway_log" "$forebay" -c "$config" serve
    gateway_pid=$launched
    until_true 30 "the gateway is ready" logged "$gateway_log" '"message":"ready"'
}

start_app() {
    : >"$app_log"
    launch "$app_log" "$app_bin" "$app"
    app_pid=$launched
    until_true 30 "the application listens" logged "$app_log" 'listens on'
}

stop_app() {
    end "$app_pid"
    app_pid=""
    say "The application has stopped: connections to it are refused."
    : >"$app_log"
}

# Sends this many webhooks; sets `ids` to their event ids. Each has to be answered 200.
send() {
    local line said
    prompt send github --count "$1"
    said=$("$forebay" -c "$config" send github --count "$1" 2>&1) || { echo "$said"; fail "not every webhook was accepted"; }
    ids=()
    while read -r line; do
        say "$line"
        if [[ $line =~ ^200\ .*\"id\":\"(evt_[0-9a-z]+)\" ]]; then ids+=("${BASH_REMATCH[1]}"); fi
    done <<<"$said"
    if ((${#ids[@]} != $1)); then fail "$1 webhooks were sent, ${#ids[@]} were answered 200 with an event id"; fi
}

# listed STATUS ID...: whether the gateway lists all of these with this status.
listed() {
    local status=$1 page id
    shift
    page=$("$forebay" -c "$config" events list --status "$status" --limit 500 --json 2>/dev/null) || return 1
    for id; do
        [[ $page == *"\"id\":\"$id\""* ]] || return 1
    done
}

# Whether the application has told of all of these events.
arrived() {
    local id
    for id; do
        logged "$app_log" "  $id  " || return 1
    done
}

arrived_any() {
    local id
    for id; do
        if logged "$app_log" "  $id  "; then return 0; fi
    done
    return 1
}

show_arrivals() {
    local id line
    say "The application got:"
    while IFS= read -r line; do
        for id; do
            if [[ $line == *"  $id  "* ]]; then say "$line"; fi
        done
    done <"$app_log"
}

# ---- Processes ----

# launch LOG COMMAND...: in the background and in a process group of its own, so that Ctrl-C reaches this script alone,
# which then ends what it began in order.
launch() {
    local log=$1
    shift
    set -m
    "$@" </dev/null >>"$log" 2>&1 &
    launched=$!
    set +m
}

end() {
    if [[ $1 ]] && kill -TERM "$1" 2>/dev/null; then wait "$1" 2>/dev/null || true; fi
}

clean_up() {
    local code=$?
    trap - INT TERM HUP # a second Ctrl-C does not wait
    if [[ $tail_pid ]]; then kill "$tail_pid" 2>/dev/null || true; fi
    if [[ $gateway_pid$app_pid ]]; then printf '\nStopping both.\n'; fi
    end "$gateway_pid"
    end "$app_pid"
    if [[ $secret_file ]]; then rm -f "$secret_file"; fi
    exit "$code"
}

# until_true SECONDS WHAT COMMAND...: asks again and again.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        lives "$gateway_pid" || fail "the gateway has stopped"
        lives "$app_pid" || { cat "$app_log"; fail "the application has stopped"; }
        if ((SECONDS >= deadline)); then fail "waited in vain: $what"; fi
        sleep 0.1
    done
}

# No process at all is as good as a live one: it is not there on purpose.
lives() {
    [[ -z $1 ]] || kill -0 "$1" 2>/dev/null
}

logged() {
    [[ $(<"$1") == *"$2"* ]]
}

taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# ---- Words ----

step() {
    number=$((number + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$number" "$1" "$plain"
}

say() {
    printf '   %s\n' "$1"
}

prompt() {
    printf '   %s$ forebay %s%s\n' "$dim" "$*" "$plain"
}

# Shows a command of forebay and what it says.
run() {
    local line said
    prompt "$@"
    said=$("$forebay" -c "$config" "$@" 2>&1) || { echo "$said"; fail "forebay $* did not work"; }
    while IFS= read -r line; do say "$line"; done <<<"$said"
}

fail() {
    printf '\nquickstart: %s\n' "$1" >&2
    if [[ -s $gateway_log ]]; then
        printf 'the end of the gateway'\''s log, %s:\n' "$gateway_log" >&2
        tail -n 20 "$gateway_log" >&2
    fi
    exit 1
}

# ---- Setting up ----

gateway_pid="" app_pid="" tail_pid="" launched="" secret_file="" gateway_log="" app_log="" number=0 ids=()
bold="" dim="" plain=""
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi
case "${1:-}" in
    "") then=stay ;;
    --exit) then=exit ;;
    *) echo "usage: examples/quickstart/run.sh [--exit]" >&2 && exit 2 ;;
esac
command -v cargo >/dev/null || fail "cargo is not installed; get Rust from https://rustup.rs"
command -v cc >/dev/null || fail "there is no C compiler; install gcc or clang (SQLite and the cryptography are C)"

free_port() {
    port=$((20000 + RANDOM % 10000))
    if [[ " $ports " == *" $port "* ]] || taken "$port"; then free_port; fi
}

ports=${FOREBAY_QUICKSTART_PORTS:-8080 9090 3000}
if [[ $ports == free ]]; then
    ports=""
    for _ in public admin app; do
        free_port
        ports="$ports $port"
    done
fi
read -r public admin app rest <<<"$ports"
[[ $app && ! $rest ]] || fail "FOREBAY_QUICKSTART_PORTS is \`$ports\`; write three ports"
for port in $public $admin $app; do
    [[ $port =~ ^[1-9][0-9]*$ ]] || fail "FOREBAY_QUICKSTART_PORTS: \`$port\` is not a port"
    if taken "$port"; then
        fail "port $port is taken; stop what listens there, or choose others: FOREBAY_QUICKSTART_PORTS='18080 19090 13000' $0"
    fi
done
public=127.0.0.1:$public admin=127.0.0.1:$admin app=127.0.0.1:$app

printf 'Building the gateway and the sample application (the first time takes about two minutes).\n'
cargo build --locked --bin forebay --example app
forebay=${CARGO_TARGET_DIR:-target}/debug/forebay
app_bin=${CARGO_TARGET_DIR:-target}/debug/examples/app

trap clean_up EXIT
trap 'exit 130' INT TERM HUP
umask 077
dir=${FOREBAY_QUICKSTART_DIR:-data}
mkdir -p "$dir"
gateway_log=$dir/quickstart-gateway.log app_log=$dir/quickstart-app.log

config=config/forebay.yaml
if [[ "$public $admin $app $dir" != "127.0.0.1:8080 127.0.0.1:9090 127.0.0.1:3000 data" ]]; then
    text=$(<"$config")
    for change in "127.0.0.1:8080>$public" "127.0.0.1:9090>$admin" "127.0.0.1:3000>$app" "dir: data>dir: $dir"; do
        [[ $text == *"${change%%>*}"* ]] || fail "$config does not say \`${change%%>*}\`, so it cannot be changed"
        text=${text/"${change%%>*}"/"${change#*>}"}
    done
    config=$dir/quickstart.yaml
    printf '%s\n' "$text" >"$config"
fi

# The secret goes by the environment to the gateway, and by a file that only its owner reads to other terminals.
unset FOREBAY_CONFIG FOREBAY_ADMIN FOREBAY_ADMIN_TOKEN
if [[ -z ${GITHUB_WEBHOOK_SECRET:-} ]]; then
    GITHUB_WEBHOOK_SECRET=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
fi
export GITHUB_WEBHOOK_SECRET
printf '%s' "$GITHUB_WEBHOOK_SECRET" >"$dir/quickstart.secret"
secret_file=$dir/quickstart.secret

tour
if [[ $then == stay ]]; then stay; fi
