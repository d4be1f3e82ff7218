//! The keys of the config: one table that parsing, `forebay schema` and `forebay schema --defaults` share.
//!
//! Paths are written with dots; `*` is a name that people choose. The items of a list have the path of the list.

use Given::{Default, Derived, Optional, Required};
use Kind::{
    Address, Count, Duration, FileName, Header, Json, Listener, Method, Moment, Name, Names, Network, Number, OneOf,
    Rate, RateOfBytes, Same, Secret, Section, Size, Status, Switch, Text, Texts, Url,
};
use Shape::{List, One, OneOrList};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it is.
    pub path: &'static str,
    /// What stands there, besides a mapping of the keys below it, if there are any.
    pub kind: Kind,
    /// Whether several may stand there.
    pub shape: Shape,
    /// Whether `off` may stand there.
    pub off: bool,
    /// What is taken where it is absent.
    pub given: Given,
    /// What it is, in a line.
    pub doc: &'static str,
}

/// What stands at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but the keys below it.
    Section,
    /// A mapping of names that people choose; the keys below each are at `*`.
    Names,
    /// A mapping of names to texts.
    Texts,
    /// The same as at another path.
    Same(&'static str),
    /// Any JSON value.
    Json,
    /// Any text.
    Text,
    /// A text that is never printed.
    Secret,
    /// The name of something else in the config.
    Name,
    /// A file's or directory's path.
    FileName,
    /// A header's name.
    Header,
    /// An HTTP method.
    Method,
    /// An HTTP status.
    Status,
    /// An IP address and a port.
    Address,
    /// The same, or `unix:/path`, or `fd:` and perhaps a name or number.
    Listener,
    /// An IP address, or a network as of CIDR.
    Network,
    /// An absolute `http` or `https` URL.
    Url,
    /// A date or an RFC 3339 time.
    Moment,
    /// `30s`.
    Duration,
    /// `1MiB`.
    Size,
    /// `1KiB/s`.
    RateOfBytes,
    /// `50/s`.
    Rate,
    /// A whole number, at least this.
    Count(u32),
    /// A number, at least 1.
    Number,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// Whether one or several may stand at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One.
    One,
    /// One, or a list.
    OneOrList,
    /// A list.
    List,
}

/// What is taken where a key is absent. All texts are YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// This.
    Default(&'static str),
    /// Something that depends on other keys: how, in words, and an example.
    Derived(&'static str, &'static str),
    /// Nothing; an example.
    Optional(&'static str),
    /// It must be there; an example.
    Required(&'static str),
}

impl Key {
    /// Its last word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The path of the mapping it is in; empty for the file's own keys.
    #[must_use]
    pub fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }

    /// A value that could stand there, as YAML.
    #[must_use]
    pub fn example(&self) -> &'static str {
        match self.given {
            Default(text) | Derived(_, text) | Optional(text) | Required(text) => text,
        }
    }

    const fn many(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    const fn or_off(self) -> Self {
        Self { off: true, ..self }
    }
}

/// The keys right below `path`, in reading order.
pub fn children(path: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.parent() == path && key.name() != "*")
}

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `path` is a key.
#[must_use]
pub fn is_key(path: &str) -> bool {
    find(path).is_some()
}

/// Whether `path` is a key of the contract that this version does not have yet.
#[must_use]
pub fn not_yet(path: &str) -> bool {
    NOT_YET.contains(&path)
}

const fn key(path: &'static str, kind: Kind, given: Given, doc: &'static str) -> Key {
    Key { path, kind, shape: One, off: false, given, doc }
}

const fn section(path: &'static str, doc: &'static str) -> Key {
    key(path, Section, Optional("{}"), doc)
}

/// Keys of later versions: known, and refused.
const NOT_YET: &[&str] = &[
    "alerts",
    "telemetry",
    "ingress.listen.tls.acme",
    "ingress.tls.acme",
    "journal.nats",
    "sources.*.params",
    "sources.*.quarantine",
    "sources.*.trust",
    "sources.*.to.transform",
    "sources.*.to.when",
    "destinations.*.health_check",
    "destinations.*.order",
    "destinations.*.sign",
    "destinations.*.tls",
    "destinations.*.urls",
    "providers.*.params",
];

/// The keys, in reading order: a line each.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("include", FileName, Optional("[conf.d/*.yaml]"), "Files beside this one with more sources, destinations and providers; * ? [a-z] in a file's name.").many(OneOrList),
    section("ingress", "The public side: where senders come in."),
    key("ingress.listen", Listener, Default("127.0.0.1:8080"), "Where it listens: an address, unix:/path, fd: for inherited sockets, or { address, tls, proxy_protocol }.").many(OneOrList),
    key("ingress.listen.address", Listener, Required("127.0.0.1:8080"), "The address; port 0 takes a free one."),
    key("ingress.listen.tls", Section, Derived("as ingress.tls", "{ cert: tls/hooks.crt, key: tls/hooks.key }"), "This listener's certificates; off for plain HTTP.").many(OneOrList).or_off(),
    key("ingress.listen.tls.cert", FileName, Required("tls/hooks.crt"), "The certificate chain, leaf first: a PEM file beside this file."),
    key("ingress.listen.tls.key", FileName, Required("tls/hooks.key"), "Its key: a PEM file beside this file."),
    key("ingress.listen.tls.client_ca", FileName, Optional("tls/clients.pem"), "Authorities one of which must have signed a client's certificate: a PEM file."),
    key("ingress.listen.proxy_protocol", Switch, Default("false"), "true: every connection begins with a PROXY header, version 1 or 2, or is closed."),
    key("ingress.tls", Section, Optional("{ cert: tls/hooks.crt, key: tls/hooks.key }"), "Certificates of every listener without its own; a list for several names.").many(OneOrList).or_off(),
    key("ingress.tls.cert", FileName, Required("tls/hooks.crt"), "The certificate chain, leaf first: a PEM file beside this file."),
    key("ingress.tls.key", FileName, Required("tls/hooks.key"), "Its key: a PEM file beside this file."),
    key("ingress.tls.client_ca", FileName, Optional("tls/clients.pem"), "Authorities one of which must have signed a client's certificate: a PEM file."),
    key("ingress.public_url", Url, Optional("https://hooks.example.com"), "What stands before a source's path in the URL that providers send to; some sign it."),
    key("ingress.trusted_proxies", Network, Optional("[10.0.0.0/8]"), "Proxies whose X-Forwarded-* or Forwarded is believed; nobody's if absent.").many(List).or_off(),
    key("ingress.health_path", Text, Default("off"), "A path that answers 200, for load balancers that probe the public port.").or_off(),
    section("ingress.limits", "Limits on connections and requests."),
    key("ingress.limits.connections", Count(1), Default("10000"), "Connections at the same time."),
    key("ingress.limits.per_client", Count(1), Default("1024"), "Those of one client (an IPv4 address, an IPv6 /64) at the same time; trusted proxies and loopback are exempt."),
    key("ingress.limits.header_bytes", Size, Default("32KiB"), "A request's head."),
    key("ingress.limits.headers", Count(1), Default("100"), "Header lines of a request."),
    key("ingress.limits.handshake_timeout", Duration, Default("5s"), "For a TLS handshake."),
    key("ingress.limits.header_timeout", Duration, Default("10s"), "For a request's head, from its first byte."),
    key("ingress.limits.body_timeout", Duration, Default("30s"), "For a request's body."),
    key("ingress.limits.body_min_rate", RateOfBytes, Default("1KiB/s"), "What a body must keep up after its first 5 seconds; 0B/s for no minimum."),
    key("ingress.limits.idle_timeout", Duration, Default("30s"), "A connection without a request is closed after this."),
    key("ingress.limits.write_timeout", Duration, Default("10s"), "A connection whose peer reads nothing of our answer is closed after this."),
    key("ingress.limits.in_flight_bytes", Size, Default("64MiB"), "Requests in memory, heads and bodies, all together; of several sources none may take all of it."),
    key("ingress.limits.unverified", Rate, Default("off"), "What one client may send that fails verification: { rate, burst }; then all it sends is answered 429.").or_off(),
    key("ingress.limits.unverified.rate", Rate, Required("10/m"), "How many in a time, evenly."),
    key("ingress.limits.unverified.burst", Count(1), Derived("the rate's number", "20"), "How many at once after a quiet time."),
    section("admin", "The private side: health, metrics, API."),
    key("admin.listen", Address, Default("127.0.0.1:9090"), "Where it listens; anything but loopback needs a token."),
    key("admin.token", Secret, Optional("${FOREBAY_ADMIN_TOKEN:-}"), "Its holder may read and operate.").or_off(),
    key("admin.read_token", Secret, Optional("${FOREBAY_READ_TOKEN:-}"), "Its holder may read; needs a token, too.").or_off(),
    key("admin.open_metrics", Switch, Default("false"), "/metrics needs no token although there is one."),
    section("journal", "The durable store of events."),
    key("journal.dir", FileName, Default("data"), "Its directory, relative to the current directory."),
    key("journal.max_size", Size, Default("10GiB"), "Everything in it together; when space is short, delivered history goes first."),
    section("journal.retention", "How long what is settled is kept, at most."),
    key("journal.retention.delivered", Duration, Default("7d"), "Delivered and captured events."),
    key("journal.retention.dead", Duration, Default("30d"), "Dead letters."),
    key("journal.encryption_key", Secret, Optional("{ file: journal.key }"), "Headers and bodies are sealed at rest with it: 32 bytes; of a list the first seals (off: none does), all open.").many(OneOrList).or_off(),
    key("providers", Names, Optional("{}"), "Presets of your own, by name, as in docs/presets.md."),
    key("providers.dir", FileName, Optional("providers"), "A directory of presets, NAME.yaml each, beside this file."),
    key("providers.*", Section, Optional("{}"), "One preset: how a provider signs, and what it sends."),
    key("providers.*.title", Text, Derived("the name", "Acme"), "The provider's name as people write it."),
    key("providers.*.docs", Text, Optional("https://example.com/webhooks"), "Where the provider documents its webhooks."),
    key("providers.*.aliases", Name, Optional("[acme-legacy]"), "Other names it is found under.").many(List),
    key("providers.*.secrets", Names, Derived("one called secret", "{ secret: where to find it }"), "The secrets it needs: name and hint."),
    key("providers.*.secrets.*", Text, Optional("where to find it"), "One secret: where to find it, or { hint, optional }.").or_off(),
    key("providers.*.secrets.*.hint", Text, Optional("where to find it"), "Where to find it at the provider."),
    key("providers.*.secrets.*.optional", Switch, Default("false"), "A source may leave it out; checks of an `any` that need it then do not count."),
    key("providers.*.methods", Method, Default("[POST]"), "The methods it sends with.").many(List),
    key("providers.*.verify", Section, Required("{ token: { header: X-Token } }"), "What must hold: one of hmac, ed25519, token, basic, any, all."),
    key("providers.*.verify.hmac", Section, Optional("{ hash: sha256, signature: { header: X-Sig, encoding: hex }, content: \"{body}\" }"), "A keyed hash over parts of the request."),
    key("providers.*.verify.hmac.hash", OneOf(&["sha1", "sha256", "sha384", "sha512"]), Required("sha256"), "The hash function."),
    key("providers.*.verify.hmac.secret", Name, Derived("the only one", "secret"), "Which secret is the key."),
    key("providers.*.verify.hmac.key", OneOf(&["utf8", "base64", "hex"]), Default("utf8"), "How the secret's text becomes the key: a word, or { strip, encoding }."),
    key("providers.*.verify.hmac.key.strip", Text, Optional("whsec_"), "A prefix that is taken off first, where it is there."),
    key("providers.*.verify.hmac.key.encoding", OneOf(&["utf8", "base64", "hex"]), Default("utf8"), "How the rest is written."),
    key("providers.*.verify.hmac.signature", Section, Required("{ header: X-Sig, encoding: hex }"), "Where the signature is."),
    key("providers.*.verify.hmac.signature.header", Header, Required("X-Signature"), "The header it is in."),
    key("providers.*.verify.hmac.signature.from", Text, Optional("query:sig"), "The place it is in, instead of a header."),
    key("providers.*.verify.hmac.signature.prefix", Text, Optional("sha256="), "What stands before the signature."),
    key("providers.*.verify.hmac.signature.list", Section, Optional("{ items: \",\", pair: \"=\", key: v1 }"), "The header's shape, where it is a list of pairs."),
    key("providers.*.verify.hmac.signature.list.items", Text, Default("\",\""), "The character between two items."),
    key("providers.*.verify.hmac.signature.list.pair", Text, Default("\"=\""), "The character between key and value."),
    key("providers.*.verify.hmac.signature.list.key", Text, Required("v1"), "The key whose values are signatures."),
    key("providers.*.verify.hmac.signature.encoding", OneOf(&["hex", "base64", "base64url"]), Default("hex"), "How the signature is written."),
    key("providers.*.verify.hmac.content", Text, Default("\"{body}\""), "What is signed: {body} {method} {path} {query} {url} {header:X} {json:/a} {query:x} {form:x} {param:x} {field:k}."),
    key("providers.*.verify.hmac.timestamp", Section, Optional("{ from: \"header:X-Time\" }"), "The signed time."),
    key("providers.*.verify.hmac.timestamp.from", Text, Required("header:X-Time"), "Where it is: a place that is signed, or field:k."),
    key("providers.*.verify.hmac.timestamp.unit", OneOf(&["s", "ms", "rfc3339"]), Default("s"), "How it is written."),
    key("providers.*.verify.hmac.timestamp.tolerance", Duration, Default("5m"), "How far from now it may be, either way."),
    key("providers.*.verify.ed25519", Section, Optional("{ signature: { header: X-Sig }, content: \"{body}\" }"), "An Ed25519 signature over parts of the request."),
    key("providers.*.verify.ed25519.secret", Name, Derived("the only one", "secret"), "Which secret is the public key."),
    key("providers.*.verify.ed25519.key", OneOf(&["hex", "base64"]), Default("hex"), "How the public key is written: a word, or { strip, encoding }."),
    key("providers.*.verify.ed25519.key.strip", Text, Optional("whpk_"), "A prefix that is taken off first, where it is there."),
    key("providers.*.verify.ed25519.key.encoding", OneOf(&["hex", "base64"]), Default("hex"), "How the rest is written."),
    key("providers.*.verify.ed25519.signature", Section, Required("{ header: X-Sig, encoding: hex }"), "Where the signature is."),
    key("providers.*.verify.ed25519.signature.header", Header, Required("X-Signature"), "The header it is in."),
    key("providers.*.verify.ed25519.signature.from", Text, Optional("query:sig"), "The place it is in, instead of a header."),
    key("providers.*.verify.ed25519.signature.prefix", Text, Optional("sha256="), "What stands before the signature."),
    key("providers.*.verify.ed25519.signature.list", Section, Optional("{ items: \",\", pair: \"=\", key: v1 }"), "The header's shape, where it is a list of pairs."),
    key("providers.*.verify.ed25519.signature.list.items", Text, Default("\",\""), "The character between two items."),
    key("providers.*.verify.ed25519.signature.list.pair", Text, Default("\"=\""), "The character between key and value."),
    key("providers.*.verify.ed25519.signature.list.key", Text, Required("v1"), "The key whose values are signatures."),
    key("providers.*.verify.ed25519.signature.encoding", OneOf(&["hex", "base64", "base64url"]), Default("hex"), "How the signature is written."),
    key("providers.*.verify.ed25519.content", Text, Default("\"{body}\""), "What is signed: {body} {method} {path} {query} {url} {header:X} {json:/a} {query:x} {form:x} {param:x} {field:k}."),
    key("providers.*.verify.ed25519.timestamp", Section, Optional("{ from: \"header:X-Time\" }"), "The signed time."),
    key("providers.*.verify.ed25519.timestamp.from", Text, Required("header:X-Time"), "Where it is: a place that is signed, or field:k."),
    key("providers.*.verify.ed25519.timestamp.unit", OneOf(&["s", "ms", "rfc3339"]), Default("s"), "How it is written."),
    key("providers.*.verify.ed25519.timestamp.tolerance", Duration, Default("5m"), "How far from now it may be, either way."),
    key("providers.*.verify.token", Section, Optional("{ header: X-Token }"), "A secret sent as it is."),
    key("providers.*.verify.token.header", Header, Required("X-Token"), "The header that carries it."),
    key("providers.*.verify.token.from", Text, Optional("query:token"), "The place that carries it, instead of a header; `*` in a JSON pointer is every item."),
    key("providers.*.verify.token.secret", Name, Derived("the only one", "secret"), "Which secret it must equal."),
    key("providers.*.verify.token.prefix", Text, Optional("\"Bearer \""), "What stands before it."),
    key("providers.*.verify.basic", Section, Optional("{ password: secret }"), "A name and a password: HTTP's basic authentication."),
    key("providers.*.verify.basic.username", Name, Optional("username"), "Which secret the name must equal; any name if absent."),
    key("providers.*.verify.basic.password", Name, Derived("the only one", "secret"), "Which secret the password must equal."),
    key("providers.*.verify.any", Same("providers.*.verify"), Optional("[{ token: { header: X-Token } }]"), "One of these must hold.").many(List),
    key("providers.*.verify.all", Same("providers.*.verify"), Optional("[{ token: { header: X-Token } }]"), "Each of these must hold.").many(List),
    key("providers.*.handshakes", Section, Optional("[{ name: ping, when: { present: [\"header:X-Challenge\"] }, respond: { body: \"{header:X-Challenge}\" } }]"), "Its checks of the endpoint, which the gateway answers itself.").many(List),
    key("providers.*.handshakes.name", Name, Required("ping"), "What logs call it."),
    key("providers.*.handshakes.signed", Switch, Default("true"), "Answered only after verify held."),
    key("providers.*.handshakes.method", Method, Derived("the preset's methods", "GET"), "The method it comes with."),
    key("providers.*.handshakes.when", Section, Optional("{ equals: { \"json:/type\": ping } }"), "Which requests are it: all of this holds."),
    key("providers.*.handshakes.when.equals", Texts, Optional("{ \"json:/type\": ping }"), "What stands at a place, exactly."),
    key("providers.*.handshakes.when.present", Text, Optional("[\"header:X-Challenge\"]"), "Places where something stands.").many(List),
    key("providers.*.handshakes.when.absent", Text, Optional("[\"header:X-Signature\"]"), "Places where nothing stands.").many(List),
    key("providers.*.handshakes.check", Same("providers.*.verify"), Optional("{ token: { header: X-Token } }"), "What must hold of one that is not signed."),
    key("providers.*.handshakes.compute", Names, Optional("{ answer: { hmac: { hash: sha256, content: \"{json:/challenge}\" } } }"), "Values for the answer, by name."),
    key("providers.*.handshakes.compute.*", Section, Optional("{ hmac: { hash: sha256, content: \"{json:/challenge}\" } }"), "One value."),
    key("providers.*.handshakes.compute.*.hmac", Section, Required("{ hash: sha256, content: \"{json:/challenge}\" }"), "A keyed hash."),
    key("providers.*.handshakes.compute.*.hmac.hash", OneOf(&["sha1", "sha256", "sha384", "sha512"]), Required("sha256"), "The hash function."),
    key("providers.*.handshakes.compute.*.hmac.secret", Name, Derived("the only one", "secret"), "Which secret is the key."),
    key("providers.*.handshakes.compute.*.hmac.key", OneOf(&["utf8", "base64", "hex"]), Default("utf8"), "How the secret's text becomes the key: a word, or { strip, encoding }."),
    key("providers.*.handshakes.compute.*.hmac.key.strip", Text, Optional("whsec_"), "A prefix that is taken off first, where it is there."),
    key("providers.*.handshakes.compute.*.hmac.key.encoding", OneOf(&["utf8", "base64", "hex"]), Default("utf8"), "How the rest is written."),
    key("providers.*.handshakes.compute.*.hmac.content", Text, Required("\"{json:/challenge}\""), "What it is computed over: text and {places}."),
    key("providers.*.handshakes.compute.*.hmac.encoding", OneOf(&["hex", "base64", "base64url"]), Default("hex"), "How it is written."),
    key("providers.*.handshakes.respond", Section, Optional("{ body: \"{header:X-Challenge}\" }"), "The answer: text with {places} and {compute:NAME}."),
    key("providers.*.handshakes.respond.status", Status, Default("200"), "The status, 200 to 299."),
    key("providers.*.handshakes.respond.headers", Texts, Optional("{ X-Hook-Secret: \"{header:X-Hook-Secret}\" }"), "Headers."),
    key("providers.*.handshakes.respond.body", Text, Default("\"\""), "The body."),
    key("providers.*.handshakes.respond.content_type", Text, Default("text/plain"), "The body's type."),
    key("providers.*.handshakes.respond.json", Json, Optional("{ type: 1 }"), "The body as JSON, its values escaped; instead of body."),
    section("providers.*.event", "Where an event's facts are: header:X, json:/pointer, query:x, form:x or param:x, `|` between alternatives."),
    key("providers.*.event.id", Text, Optional("\"header:X-Id | json:/id\""), "The provider's id for the event."),
    key("providers.*.event.type", Text, Optional("json:/type"), "What the event is about."),
    key("providers.*.event.dedupe", Text, Derived("the id", "json:/id"), "What makes two requests one event: a place, a list of them, signed, body or off.").many(OneOrList).or_off(),
    section("providers.*.answer", "What the provider wants to hear, and by when."),
    key("providers.*.answer.within", Duration, Optional("10s"), "How long it waits for an answer."),
    key("providers.*.answer.respond", Section, Optional("{ status: 200 }"), "The answer to a stored event, where the usual one does not suit."),
    key("providers.*.answer.respond.status", Status, Default("200"), "The status, 200 to 299."),
    key("providers.*.answer.respond.body", Text, Optional("\"\""), "The body."),
    key("providers.*.answer.respond.content_type", Text, Derived("text/plain, JSON for the usual body", "text/plain"), "The body's type."),
    key("providers.*.answer.success", Status, Derived("every 2xx", "[200]"), "The statuses that it takes for success.").many(List),
    key("providers.*.answer.ends_on", Status, Optional("[410]"), "The statuses by which it ends the subscription.").many(List),
    section("providers.*.retries", "How the provider retries."),
    key("providers.*.retries.horizon", Duration, Optional("72h"), "For how long the same event may come again."),
    key("providers.*.retries.after_429", Switch, Default("true"), "Whether it sends again after a 429."),
    key("providers.*.retries.note", Text, Optional("Retries by hand only."), "Anything a reader should know."),
    key("providers.*.ips", Network, Optional("[192.0.2.0/24]"), "The networks that it says it sends from, for `allow_ips: provider`.").many(List),
    key("providers.*.redact", Text, Optional("[\"header:X-Token\", \"json:/token\"]"), "What else is secret in a request.").many(List),
    key("providers.*.sample", Section, Optional("{ headers: { X-Event: ping }, body: '{\"id\":\"{id}\"}' }"), "A request for `forebay send`; {id} becomes a fresh id."),
    key("providers.*.sample.headers", Texts, Optional("{ X-Event: ping }"), "Headers beside the signature's own."),
    key("providers.*.sample.body", Text, Default("\"{}\""), "The body."),
    key("sources", Names, Optional("{}"), "The public endpoints, by name."),
    key("sources.*", Section, Optional("{ provider: acme, secret: \"${SECRET}\", to: [app] }"), "One public endpoint."),
    key("sources.*.path", Text, Derived("/NAME", "/webhooks/{tenant}"), "Its path; {param} and a last {*rest} match."),
    key("sources.*.public_url", Url, Derived("ingress.public_url", "https://hooks.example.com"), "What stands before the path in the URL that the provider sends to; needed where that is signed."),
    key("sources.*.host", Text, Optional("hooks.example.com"), "Its host; *.example.com for all below. Any host if absent."),
    key("sources.*.methods", Method, Derived("the preset's", "[POST]"), "The methods it takes.").many(List),
    key("sources.*.provider", Name, Optional("acme"), "Who sends: a preset's name. Or leave it out and say verify: none."),
    key("sources.*.verify", OneOf(&["none"]), Optional("none"), "none: nothing is checked, anybody can send."),
    key("sources.*.secret", Secret, Optional("${ACME_WEBHOOK_SECRET}"), "The provider's secret; a mapping of names where it has several."),
    key("sources.*.secrets", Secret, Optional("[\"${NEW_SECRET}\", { value: \"${OLD_SECRET}\", not_after: 2027-01-01 }]"), "Several secrets while rotating, the first signs.").many(List),
    key("sources.*.secrets.value", Secret, Required("${OLD_SECRET}"), "A secret."),
    key("sources.*.secrets.not_after", Moment, Optional("2027-01-01"), "The last day (UTC) or moment at which it is good."),
    key("sources.*.tolerance", Duration, Derived("the preset's", "5m"), "How far a signed time may be from now; off must be spelled out.").or_off(),
    key("sources.*.mode", OneOf(&["store", "proxy"]), Default("store"), "store: kept, answered, then delivered. proxy: the application answers while it can."),
    key("sources.*.deadline", Duration, Derived("0.8 × what the provider waits, else 8s", "8s"), "From the complete head of a request to our answer."),
    key("sources.*.body_limit", Size, Default("1MiB"), "The largest body."),
    key("sources.*.allow_ips", Network, Optional("[140.82.112.0/20]"), "Who may send: networks, or `provider` for those that its preset lists; everybody if absent.").many(OneOrList).or_off(),
    key("sources.*.rate_limit", Rate, Default("off"), "How often: { rate, burst, per }, or a list; more is answered 429.").many(OneOrList).or_off(),
    key("sources.*.rate_limit.rate", Rate, Required("100/s"), "How many in a time, evenly."),
    key("sources.*.rate_limit.burst", Count(1), Derived("the rate's number", "200"), "How many at once after a quiet time."),
    key("sources.*.rate_limit.per", Text, Default("source"), "What is counted together: source, header:NAME, or client_ip (before the body is read)."),
    key("sources.*.dedupe", Section, Derived("the preset's", "{ key: json:/id, window: 72h }"), "When two requests are one event.").or_off(),
    key("sources.*.dedupe.key", Text, Derived("the preset's", "header:X-Acme-Id"), "A place, a list of them together, signed, body or off.").many(OneOrList).or_off(),
    key("sources.*.dedupe.window", Duration, Derived("the provider's retry horizon, else 72h; at least 2 × tolerance", "72h"), "For how long."),
    key("sources.*.dedupe.on_dead", OneOf(&["requeue", "drop"]), Default("requeue"), "What a duplicate does to a dead delivery of its original."),
    key("sources.*.respond", Section, Derived("the preset's", "{ status: 200 }"), "What the sender of a stored event is told."),
    key("sources.*.respond.status", Status, Derived("the preset's, else 200", "202"), "The status, 200 to 299."),
    key("sources.*.respond.body", Text, Derived("the preset's, else {\"id\":\"evt_…\"}", "ok"), "The body."),
    key("sources.*.respond.content_type", Text, Derived("the preset's; text/plain for a body of your own, JSON for the usual one", "text/plain"), "The body's type."),
    key("sources.*.to", Name, Required("[app]"), "Where its events go: names, or { destination, path }; [] to capture only.").many(List),
    key("sources.*.to.destination", Name, Required("app"), "The destination's name."),
    key("sources.*.to.path", Text, Derived("the path of the destination's url", "/hooks/acme"), "The path that replaces the destination's."),
    key("destinations", Names, Optional("{}"), "The internal services, by name."),
    key("destinations.*", Section, Optional("{ url: \"http://127.0.0.1:3000/\" }"), "One internal service."),
    key("destinations.*.url", Url, Required("http://127.0.0.1:3000/hooks"), "Where it is."),
    key("destinations.*.timeout", Duration, Default("30s"), "For one attempt, connecting included."),
    key("destinations.*.connect_timeout", Duration, Default("3s"), "For connecting, TLS included."),
    key("destinations.*.concurrency", Count(1), Default("32"), "Attempts at the same time."),
    key("destinations.*.rate_limit", Rate, Default("off"), "Attempts in a time; more wait.").or_off(),
    section("destinations.*.retry", "When to try again, and when to give up."),
    key("destinations.*.retry.initial", Duration, Default("1s"), "The longest wait before the second attempt."),
    key("destinations.*.retry.factor", Number, Default("2"), "By how much the longest wait grows."),
    key("destinations.*.retry.max", Duration, Default("10m"), "The longest wait of all."),
    key("destinations.*.retry.jitter", OneOf(&["full"]), Default("full"), "full: anything up to the longest wait; off: the longest wait.").or_off(),
    key("destinations.*.retry.max_age", Duration, Default("72h"), "A delivery older than this that fails is dead."),
    key("destinations.*.retry.max_attempts", Count(1), Default("~"), "A delivery that has failed this often is dead.").or_off(),
    key("destinations.*.retry.give_up_on", Status, Default("[410]"), "Statuses that end a delivery at once.").many(List),
    key("destinations.*.retry.retry_after_max", Duration, Default("1h"), "The longest Retry-After that is honoured in full."),
    section("destinations.*.breaker", "When to leave it alone for a while."),
    key("destinations.*.breaker.failures", Count(1), Default("5"), "Failures in a row that open the breaker."),
    key("destinations.*.breaker.cooldown", Duration, Default("10s"), "How long it stays open before one attempt probes."),
    section("destinations.*.headers", "Changes to the headers on the way."),
    key("destinations.*.headers.set", Texts, Default("{}"), "Headers to set: name and value."),
    key("destinations.*.headers.remove", Header, Default("[]"), "Headers to take out.").many(List),
    section("log", "What the gateway says about itself."),
    key("log.format", OneOf(&["auto", "text", "json"]), Default("auto"), "auto is text on a terminal, JSON elsewhere."),
    key("log.level", Text, Default("info"), "error, warn, info, debug, trace; or a filter such as info,forebay::deliver=debug."),
    key("shutdown_grace", Duration, Default("30s"), "How long a shutdown waits for what is under way."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_parent_before_it_and_stands_once() {
        for (index, key) in KEYS.iter().enumerate() {
            let before = KEYS.get(..index).unwrap();
            assert!(before.iter().all(|other| other.path != key.path), "{} twice", key.path);
            assert!(key.parent().is_empty() || before.iter().any(|other| other.path == key.parent()), "{}", key.path);
            assert!(!not_yet(key.path), "{} is in both tables", key.path);
        }
        for path in NOT_YET {
            let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
            assert!(parent.is_empty() || is_key(parent), "{path} is nowhere");
        }
    }
}
