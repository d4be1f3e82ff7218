//! Mistakes, one at a time and ten at once: each is said where it is, with what to do.

use super::*;

#[test]
fn a_config_of_ten_mistakes_gets_ten_located_messages() {
    let text = r#"ingress:
  listen: localhost:8080
  limits:
    body_timeout: 10
journal:
  max_size: 10GB
provders: {}
sources:
  acme-eu:
    provider: acmee
    secret: ${NOT_SET}
    to: [ap]
  open:
    to: []
destinations:
  app:
    url: 127.0.0.1:3000
    tiemout: 3s
providers:
  acme:
    verify: { token: { header: X-Token } }
"#;
    let wanted = "\
forebay.yaml:2:11: ingress.listen: `localhost:8080` is not an address; write `127.0.0.1:8080`
forebay.yaml:4:19: ingress.limits.body_timeout: `10` has no unit; write `10s` for seconds (units: ms, s, m, h, d)
forebay.yaml:6:13: journal.max_size: `10GB` has an unknown unit; the units are B, KiB, MiB, GiB and TiB
forebay.yaml:7:1: provders: unknown key; did you mean `providers`?
forebay.yaml:10:15: sources.acme-eu.provider: there is no provider `acmee`; did you mean `acme`?
forebay.yaml:11:13: sources.acme-eu.secret: the environment variable `NOT_SET` is not set; set it (`export NOT_SET=…`) or write `{ file: … }`
forebay.yaml:12:10: sources.acme-eu.to[0]: there is no destination `ap`; did you mean `app`?
forebay.yaml:13:3: sources.open.provider: source `open` does not say who sends; name the `provider`, or write `verify: none`
forebay.yaml:17:10: destinations.app.url: `127.0.0.1:3000` is not a URL to deliver to; write `http://127.0.0.1:3000`
forebay.yaml:18:5: destinations.app.tiemout: unknown key; did you mean `timeout`?
";
    assert_eq!(said(text), wanted);
}

/// Goes through a table: `| ` begins lines that are put into [`WHOLE`] at `place`, `> ` what is said of that: column,
/// severity, path and message, a line each.
///
/// `place` is `source`, `destination` or `preset` for a line more there, empty for one at the end, or the line of
/// [`WHOLE`] that they stand instead of.
pub(super) fn check(place: &str, table: &str) {
    let mut lines = table.lines().skip(1).peekable();
    while lines.peek().is_some() {
        let put: String = run(&mut lines, '|').iter().map(|line| format!("    {line}\n")).collect();
        let text = match place {
            "" => format!("{WHOLE}{}", put.trim_start()),
            "source" => WHOLE.replace("    to: [app]\n", &format!("{put}    to: [app]\n")),
            "destination" => format!("{WHOLE}{put}"),
            "preset" => WHOLE.replace("    event:", &format!("{put}    event:")),
            replaced => {
                let line = WHOLE.lines().find(|line| line.trim() == replaced).unwrap();
                let put = if line.starts_with("    ") { put } else { put.replacen("    ", "  ", 1) };
                WHOLE.replace(&format!("{line}\n"), &put)
            }
        };
        let said = said(&text);
        let column = |line: &str| line.splitn(3, ':').nth(2).unwrap_or(line).to_owned();
        let found: Vec<String> = said.lines().map(column).collect();
        assert_eq!(found, run(&mut lines, '>'), "\n{text}\n{said}");
    }
}

/// The lines from here on that begin with `mark`, without it.
fn run<'t>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'t str>>, mark: char) -> Vec<&'t str> {
    let mut run = Vec::new();
    while let Some(line) = lines.next_if(|line| line.starts_with(mark)) {
        run.push(line.trim_start_matches(mark).strip_prefix(' ').unwrap_or_default());
    }
    assert!(!run.is_empty(), "a table has `{mark}` here");
    run
}

#[test]
fn each_mistake_of_the_two_sides_is_said() {
    check(
        "",
        r#"
| ingress: { listen: [] }
> 20: ingress.listen: an empty list takes no webhooks; write an address, like `127.0.0.1:8080`
| ingress: { listen: ":80" }
> 20: ingress.listen: `:80` is not an address; write `0.0.0.0:80` for every address, `127.0.0.1:80` for this machine
| ingress: { listen: 8080 }
> 20: ingress.listen: `8080` is not an address; write `127.0.0.1:8080`
| ingress: { listen: "unix:run/x" }
> 20: ingress.listen: `run/x` is no absolute path of a file; write one like `unix:/run/forebay/hooks.sock`
| ingress: { listen: "fd:2" }
> 20: ingress.listen: `fd:2` is never handed over; the first descriptor that is has number 3
| ingress: { listen: "fd:a:b" }
> 20: ingress.listen: `fd:a:b` holds no name; write one like `fd:web`, or `fd:` for all
| ingress: { listen: ["fd:", "fd:web"] }
> 28: ingress.listen[1]: this address is there already; leave one of them out
| ingress: { listen: ["unix:/run/x", "unix:/run/x"] }
> 36: ingress.listen[1]: this address is there already; leave one of them out
| ingress: { listen: { address: 0.0.0.0:80, proxy_protocol: v1 } }
> 59: ingress.listen.proxy_protocol: `v1` is not a switch; write `true` or `false`
| admin: { listen: "unix:/run/x" }
> 18: admin.listen: `unix:/run/x` is only for the public side; write an address and a port
| ingress: { listen: [1.2.3.4:5, 1.2.3.4:5] }
> 32: ingress.listen[1]: this address is there already; leave one of them out
| ingress: { listen: [{ tls: off }] }
> 21: ingress.listen[0].address: no address; write one, like `address: 0.0.0.0:8443`
| ingress: { tls: { cert: a.pem } }
> 12: ingress.tls.key: no key; write the path of a PEM file
| ingress: { health_path: ok }
> 25: ingress.health_path: `ok` does not begin with `/`; write `/ok`
| ingress: { health_path: /hooks }
> 3: sources.hooks: its path is `ingress.health_path`, too; give one of them another
| ingress: { limits: { headers: 0 } }
> 31: ingress.limits.headers: `0` is not a whole number from 1 to 4294967295; write one
| ingress: { limits: { header_bytes: 8191B } }
> 36: ingress.limits.header_bytes: too small for a request's head; write 8KiB or more
| ingress: { limits: { body_min_rate: 1KiB } }
> 37: ingress.limits.body_min_rate: `1KiB` is not a rate of bytes; write a size and `/s`, like `1KiB/s`
| ingress: { limits: { idle_timeout: 0s } }
> 36: ingress.limits.idle_timeout: `0s` is no time at all; write a longer one
| ingress: { limits: { per_client: 0 } }
> 34: ingress.limits.per_client: `0` is not a whole number from 1 to 4294967295; write one
| ingress: { limits: { write_timeout: 10 } }
> 37: ingress.limits.write_timeout: `10` has no unit; write `10s` for seconds (units: ms, s, m, h, d)
| admin: { listen: 127.0.0.1:8080 }
> 18: admin.listen: the public side's address, too; give the private side its own
| admin: { listen: 0.0.0.0:9090 }
> 18: admin.listen: not a loopback address, and no token protects it; set `admin.token`, or listen on 127.0.0.1
| admin: { listen: 0.0.0.0:9090, token: "${EMPTY}" }
> 18: admin.listen: not a loopback address, and no token protects it; set `admin.token`, or listen on 127.0.0.1
| admin: { token: "  " }
> 17: admin.token: an empty token; write one, or leave the key out
| admin: { token: "${SHORT}" }
> 17: warning: admin.token: shorter than 16 bytes, so it can be guessed; take one from `openssl rand -hex 32`
| admin: { token: "${LINE}" }
> 17: admin.token: a token goes in a header: printable ASCII characters without spaces; write another
| admin: { token: "${NONE}" }
> 17: admin.token: the environment variable `NONE` is not set; set it (`export NONE=…`) or write `{ file: … }`
| admin: { token: "${SECRET}", read_token: "${NONE}" }
> 42: admin.read_token: the environment variable `NONE` is not set; set it (`export NONE=…`) or write `{ file: … }`
| admin: { token: on }
> 17: admin.token: `on` is a switch and no secret; write `${VAR}` or `{ file: … }`
| admin: { read_token: "${SECRET}" }
> 10: admin.read_token: means nothing without `token`, as everybody may operate then; set `admin.token`, too
| admin: { open_metrics: maybe }
> 24: admin.open_metrics: `maybe` is not a switch; write `true` or `false`
| journal: { max_size: 0B }
> 22: journal.max_size: 0 is no size here; write one above it
| journal: { max_size: 4095KiB }
> 22: journal.max_size: too small for a journal; write 4MiB or more
| journal: { dir: Cargo.toml }
> 17: journal.dir: a file stands there; name a directory, or one that can be made
| journal: { dir: Cargo.toml/data }
> 17: journal.dir: a file stands on the way there; name a directory, or one that can be made
| journal: { nats: {} }
> 12: journal.nats: `nats` is not available in this version yet; leave it out
| log: { format: jsno }
> 16: log.format: `jsno` is not one of the words here; did you mean `json`?
| log: { level: inof }
> 15: log.level: `inof` is not a level; write error, warn, info, debug or trace, or a filter like `info,forebay=debug`
| shutdown_grace: [30s]
> 17: shutdown_grace: a list stands here; write one value
| alerts: { url: x }
> 1: alerts: `alerts` is not available in this version yet; leave it out
| colour: red
> 1: colour: unknown key; there are `include`, `ingress`, `admin`, `journal`, `providers`, `sources`, `destinations`, `log`, `shutdown_grace`
"#,
    );
}

#[test]
fn proxy_mode_without_a_route_is_said() {
    check(
        "to: [app]",
        r#"
| to: []
| mode: proxy
> 11: sources.hooks.mode: `to` names no destination, so nobody would answer; name one, or write `mode: store`
> 3: warning: destinations.app: no source sends to `app`; name it in a `to`, or take it out
"#,
    );
}

#[test]
fn each_mistake_of_a_source_is_said() {
    check(
        "source",
        r#"
| path: hooks
> 11: sources.hooks.path: `hooks` does not begin with `/`; write `/hooks`
| path: /a b
> 11: sources.hooks.path: `/a b` has ' ' in it, which no path has; percent-encode it or leave it out
| path: /a%2
> 11: sources.hooks.path: `/a%2` has a `%` without two hex digits behind it; write `%25` for the character
| path: /a/../b
> 11: sources.hooks.path: `/a/../b` has a `.` or `..` between slashes, which senders take out of a URL; write the path without
| path: /zürich
> 11: sources.hooks.path: `/zürich` has 'ü' in it, which no path has; percent-encode it or leave it out
| path: /a/{b
> 11: sources.hooks.path: a brace is no parameter; write `{name}`, or `{{` for the brace itself
| path: /a/{*b}/c
> 11: sources.hooks.path: a `{*rest}` can only be the whole last segment; move it there
| host: example.com:80
> 11: sources.hooks.host: `example.com:80` is not a host's name; write one like `hooks.example.com` or `*.example.com`, without a port
| host: "*.192.0.2.1"
> 11: sources.hooks.host: `*.192.0.2.1` is no request's host: nothing is below an address; write the address alone
| methods: [post]
> 15: sources.hooks.methods[0]: `post` is not a method; write it in capitals, like `POST`
| methods: []
> 14: sources.hooks.methods: no method is taken; write `[POST]`
| verify: none
> 13: sources.hooks.verify: `provider` and `verify` both stand here; keep `provider` to check signatures
| mode: prox
> 11: sources.hooks.mode: `prox` is not one of the words here; did you mean `proxy`?
| tolerance: false
> 16: warning: sources.hooks.tolerance: `acme` signs no time, so this means nothing; take it out
> 16: sources.hooks.tolerance: `false` may be a slip; write `off` if a signed request is to be good for ever
| tolerance: 5m
> 16: warning: sources.hooks.tolerance: `acme` signs no time, so this means nothing; take it out
| deadline: soon
> 15: sources.hooks.deadline: `soon` is not a duration; write a whole number and a unit, like `30s`
| body_limit: 1GiB
> 17: sources.hooks.body_limit: with a head more than `ingress.limits.in_flight_bytes`, so such a body never gets in; raise that, too
| dedupe: { key: id }
> 20: sources.hooks.dedupe.key: `id` is not a place; write `header:NAME`, `json:/path/to/it`, `query:NAME`, `form:NAME` or `param:NAME`
| dedupe: { key: "json:id" }
> 20: sources.hooks.dedupe.key: `id` is not a JSON pointer; begin with `/`, and write `~0` for `~`, `~1` for `/` in a key
| dedupe: { key: [] }
> 20: sources.hooks.dedupe.key: an empty list makes no key; write places, `signed`, `body` or `off`
| dedupe: { on_dead: retry }
> 24: sources.hooks.dedupe.on_dead: `retry` is not one of the words here; there are `requeue`, `drop`
| respond: { status: 302 }
> 24: sources.hooks.respond.status: 302 is no success to `acme`, so what is kept would count as failed; write a status from 200 to 299
| respond: { status: 410 }
> 24: sources.hooks.respond.status: 410 is no success to `acme`, so what is kept would count as failed; write a status from 200 to 299
| respond: { status: 700 }
> 24: sources.hooks.respond.status: `700` is not a status from 100 to 599; write one of these
| respond: { content_type: json }
> 30: sources.hooks.respond.content_type: `json` is not a content type; write one like `text/plain`
| quarantine: {}
> 5: sources.hooks.quarantine: `quarantine` is not available in this version yet; leave it out
"#,
    );
    check(
        "to: [app]",
        r#"
| to: [app, { destination: app, path: /x, when: x }]
> 45: sources.hooks.to[1].when: `when` is not available in this version yet; leave it out
| to: app
> 9: sources.hooks.to: one value stands here; write a list, `to: [NAME]`
|
> 3: sources.hooks.to: nothing says where its events go; write `to: [NAME]`, or `to: []` to capture only
| to: []
> 3: warning: destinations.app: no source sends to `app`; name it in a `to`, or take it out
| to: [app, { destination: app }]
> 15: sources.hooks.to[1]: this destination and path are there already; leave one of them out
| to: [app, { destination: app, path: "/{tenant}" }]
> 41: sources.hooks.to[1].path: `{` and `}` are not available in this version yet; write the path itself
| to: [app, { path: /x }]
> 15: sources.hooks.to[1].destination: no destination; write its name
"#,
    );
    check(
        "provider: acme",
        r#"
| verify: strict
> 13: sources.hooks.verify: only `none` can stand here; to check signatures, name the `provider` instead
"#,
    );
    check(
        "hooks:",
        r#"
| hooks now:
> 3: sources.hooks now: not a name; a name is 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, and starts with a letter or digit
"#,
    );
}

#[test]
fn each_mistake_of_a_secret_is_said() {
    check(
        "secret: ${SECRET}",
        r#"
|
> 3: sources.hooks.secret: source `hooks` has no secret; write `secret: ${HOOKS_SECRET}`
| secret: ~
> 5: sources.hooks.secret: source `hooks` has no secret; write `secret: ${HOOKS_SECRET}`
| secret: ${EMPTY}
> 13: sources.hooks.secret: the secret of source `hooks` is empty; set it, or write `verify: none` if anybody may send to `hooks`
| secret: ${BLANK}
> 13: sources.hooks.secret: the secret of source `hooks` is empty; set it, or write `verify: none` if anybody may send to `hooks`
| secret: ${NONE}
> 13: sources.hooks.secret: the environment variable `NONE` is not set; set it (`export NONE=…`) or write `{ file: … }`
| secret: ${SHORT}
> 13: warning: sources.hooks.secret: shorter than 16 bytes, so it can be guessed; take a longer one if the provider lets you
| secret: ${LINE}
> 13: warning: sources.hooks.secret: has white space at an end, which counts; take it away unless the provider has it, too
| secret: { secret: "${NONE}" }
> 23: sources.hooks.secret.secret: the environment variable `NONE` is not set; set it (`export NONE=…`) or write `{ file: … }`
| secrets: [{ value: "${NONE}" }]
> 24: sources.hooks.secrets[0].value: the environment variable `NONE` is not set; set it (`export NONE=…`) or write `{ file: … }`
| secret: off
> 13: sources.hooks.secret: `off` is a switch and no secret; write `${VAR}` or `{ file: … }`
| secret: false
> 13: sources.hooks.secret: `false` is a switch and no secret; write `${VAR}` or `{ file: … }`
| secret: 12345678901234567890
> 13: sources.hooks.secret: a number stands here, which other programs write in another way; put the secret in quotes
| secret: "12345678901234567890"
| path: hooks
> 11: sources.hooks.path: `hooks` does not begin with `/`; write `/hooks`
| secret: aaaaaaaaaaaaaaaaaaaaaaaa
> 13: warning: sources.hooks.secret: has fewer than 6 different characters, so it can be guessed; take a random one
| secret: True
> 13: sources.hooks.secret: `True` is a switch and no secret; write `${VAR}` or `{ file: … }`
| secrets: [~]
> 15: sources.hooks.secrets[0]: nothing stands here; write a value
| secret: { value: "${SECRET}", not_after: 2001-01-01 }
> 13: sources.hooks.secret: past its `not_after`, so every request would be answered 401; add a secret that is good now
| secrets: [{ value: "${SECRET}", not_after: 2001-01-01 }, { value: "${OLD_SECRET}", not_after: 2001-01-02 }]
> 14: sources.hooks.secrets: past its `not_after`, so every request would be answered 401; add a secret that is good now
| secret: [a]
> 13: sources.hooks.secret: a list stands here; write it under `secrets`
| secrets: abc
> 14: sources.hooks.secrets: one value stands here; write it under `secret`, or a list of them here
| secrets: []
> 14: sources.hooks.secrets: source `hooks` has no secret; write at least one
| secret: { tokn: x }
> 13: sources.hooks.secret: source `hooks` has no `secret`; write `secret: ${HOOKS_SECRET}`
> 15: sources.hooks.secret: `acme` has no secret of this name; there are `secret`
| secrets: [{ value: "${SECRET}", not_after: soon }]
> 48: sources.hooks.secrets[0].not_after: `soon` is not a date or a time; write one like `2027-01-31` or `2027-01-31T12:00:00Z`
| secret: ${SECRET}
| secrets: ["${SECRET}"]
> 14: sources.hooks.secrets: `secret` and `secrets` both stand here; keep `secrets`, the first of them signs
"#,
    );
    check(
        "provider: acme",
        r#"
| verify: none
> 13: warning: sources.hooks.verify: nothing is checked: anybody who finds `hooks` can send to it
> 13: sources.hooks.secret: `verify: none` checks nothing, so this means nothing; take one of them away
"#,
    );
    check(
        "verify: { hmac: { hash: sha256, signature: { header: X-Sig, encoding: hex } } }",
        r#"
| secrets: { one: ~, two: ~ }
| verify: { any: [{ token: { header: A, secret: one } }, { token: { header: B, secret: two } }] }
> 13: sources.hooks.secret: `acme` needs 2 secrets; write them by name, `{ one: …, two: … }`
| verify: { hmac: { hash: sha256, key: hex, signature: { header: X-Sig } } }
> 13: sources.hooks.secret: not hex, as this provider's secrets are; copy it again from the provider, whole
"#,
    );
}

#[test]
fn each_mistake_of_a_destination_is_said() {
    check(
        "url: http://127.0.0.1:3000/hooks",
        r#"
| {}
> 3: destinations.app.url: no url; write where the service is, like `url: http://127.0.0.1:3000/hooks`
| url: ftp://x/
> 10: destinations.app.url: `ftp://x/` is not a URL to deliver to; begin with `http://` or `https://` and a host
| url: http://user:word@x/
> 10: destinations.app.url: a URL with a user or an `@` in it; set the header `Authorization` under `headers.set`
| url: http://localhost:8080/other
> 10: warning: destinations.app.url: this is `ingress.listen`, so the gateway would send to itself; write where the application is
| url: http://x/#a
> 10: destinations.app.url: `http://x/#a` is not a URL to deliver to; leave the part from `#` on out: it is never sent
| url: unix:/run/x
> 10: destinations.app.url: `unix:` is not available in this version yet; write an http or https URL
"#,
    );
    check(
        "destination",
        r#"
| timeout: 10
> 14: destinations.app.timeout: `10` has no unit; write `10s` for seconds (units: ms, s, m, h, d)
| connect_timeout: 1h
> 22: warning: destinations.app.connect_timeout: longer than `timeout`, which ends the attempt first; make it shorter
| concurrency: -1
> 18: destinations.app.concurrency: `-1` is not a whole number from 1 to 4294967295; write one
| rate_limit: 50
> 17: destinations.app.rate_limit: `50` has no unit; write `50/s` for so many a second (units: /s, /m, /h)
| retry: { factor: 0.5 }
> 22: destinations.app.retry.factor: `0.5` is not a number from 1 to 100; write one, like `2`
| retry: { factor: nan }
> 22: destinations.app.retry.factor: `nan` is not a number from 1 to 100; write one, like `2`
| retry: { max: 1ms }
> 19: destinations.app.retry.max: shorter than `initial`; make it the longer one
| retry: { jitter: some }
> 22: destinations.app.retry.jitter: `some` is not one of the words here; there are `full`, `off`
| retry: { give_up_on: [200] }
> 27: destinations.app.retry.give_up_on[0]: `200` is not a status from 300 to 599; write one of these
| headers: { set: { "a b": x } }
> 23: destinations.app.headers.set.a b: `a b` is not a header's name; write one like `X-Env`
| headers: { set: { Forebay-Event-Id: x } }
> 23: destinations.app.headers.set.Forebay-Event-Id: the gateway writes this header itself; leave it out
| headers: { remove: [Host] }
> 25: destinations.app.headers.remove[0]: the gateway writes this header itself; leave it out
| headers: { set: { X: "a\nb" } }
> 26: destinations.app.headers.set.X: not a header's value; leave out line breaks and control characters
| order: source
> 5: destinations.app.order: `order` is not available in this version yet; leave it out
"#,
    );
}

#[test]
fn each_mistake_of_a_preset_is_said() {
    check(
        "verify: { hmac: { hash: sha256, signature: { header: X-Sig, encoding: hex } } }",
        r#"
|
> 3: providers.acme.verify: nothing says how it signs; write one of hmac, ed25519, token, basic, any, all
| verify: {}
> 13: providers.acme.verify: nothing to check here; write one of hmac, ed25519, token, basic, any, all
| verify: { any: [] }
> 20: providers.acme.verify.any: an empty list checks nothing; write at least one check
| verify: { hmac: { hash: md5, signature: { header: X } } }
> 29: providers.acme.verify.hmac.hash: `md5` is not one of the words here; there are `sha1`, `sha256`, `sha384`, `sha512`
| verify: { hmac: { signature: { header: X } } }
> 15: providers.acme.verify.hmac.hash: no hash; write one of sha1, sha256, sha384, sha512
| verify: { hmac: { hash: sha256 } }
> 15: providers.acme.verify.hmac.signature: nothing says where the signature is; write `{ header: NAME, encoding: hex }`
| verify: { hmac: { hash: sha256, signature: { header: X }, content: "{field:t}" } }
> 72: providers.acme.verify.hmac.content: `{field:…}` is a field of the signature's list, and `signature.list` is not set; set it
> 72: warning: providers.acme.verify.hmac.content: does not sign the `{body}`, so anybody can change it on the way
| verify: { hmac: { hash: sha256, signature: { header: X }, content: "{bdy}" } }
> 72: providers.acme.verify.hmac.content: `{bdy}` stands for nothing; there are body, method, path, query, url, header:NAME, json:/a/b, query:NAME, form:NAME, param:NAME and field:NAME
| verify: { hmac: { hash: sha256, signature: { header: X }, timestamp: { from: "header:T" } } }
> 82: providers.acme.verify.hmac.timestamp.from: `content` does not sign this time, so it proves nothing; add it there or take it out
| verify: { hmac: { hash: sha256, signature: { header: X, list: { items: "::", key: v } } } }
> 76: providers.acme.verify.hmac.signature.list.items: "::" is not one ASCII character; write one
| verify: { hmac: { hash: sha256, signature: { header: X, list: { items: "=", key: v } } } }
> 67: providers.acme.verify.hmac.signature.list: `items` and `pair` are the same character; they must differ
| verify: { token: { header: X, secret: key } }
> 43: providers.acme.verify.token.secret: `key` is not among `secrets`; there are `secret`
| verify: { token: { header: X }, hmac: {} }
> 22: providers.acme.verify.token: `hmac` and `token` both stand here; put them under `any` or `all`
"#,
    );
    check(
        "preset",
        r#"
| secrets: { secret: ~, other: ~ }
> 15: providers.acme.verify.hmac.secret: there are several secrets; say which: secret, other
| methods: [get]
> 15: providers.acme.methods[0]: `get` is not a method; write it in capitals, like `POST`
| redact: ["body"]
> 14: providers.acme.redact[0]: `body` is not a place; write `header:NAME`, `json:/path/to/it`, `query:NAME`, `form:NAME` or `param:NAME`
| params: {}
> 5: providers.acme.params: `params` is not available in this version yet; leave it out
| answer: { within: 3 }
> 23: providers.acme.answer.within: `3` has no unit; write `3s` for seconds (units: ms, s, m, h, d)
"#,
    );
}

#[test]
fn a_preset_with_a_problem_is_one_problem() {
    let said = said(&WHOLE.replace("hash: sha256", "hash: sha3"));
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_config_without_sources_is_a_warning() {
    let wanted = "warning: no sources, so no webhook is taken; write one under `sources`\n";
    assert_eq!(said("log: {}\n"), format!("forebay.yaml:1:1: {wanted}"));
    let wanted = wanted.replace("warning: ", "warning: sources: ");
    assert_eq!(said("log: {}\nsources: {}\n"), format!("forebay.yaml:2:1: {wanted}"));
}
