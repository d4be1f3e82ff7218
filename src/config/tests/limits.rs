//! Limits and proxies: what is made of them, and when they would surprise.

use super::mistakes::check;
use super::*;
use crate::limit::{Per, RateLimit};

#[test]
fn a_limit_is_short_or_long_and_one_or_several() {
    let limits = |written: &str| {
        let text = WHOLE.replace("    to: [app]", &format!("    rate_limit: {written}\n    to: [app]"));
        let outside = "ingress: { listen: 0.0.0.0:80, limits: { unverified: 9/m } }\n"; // or a proxy would hide clients
        good(&format!("{text}{outside}")).sources[0].rate_limits.clone()
    };
    let limit = |rate: &str, burst, per| RateLimit { rate: crate::base::Rate::parse(rate).unwrap(), burst, per };
    assert_eq!(limits("5/s"), [limit("5/s", 5, Per::Source)]);
    let header = Per::Header(http::HeaderName::from_static("x-tenant"));
    assert_eq!(
        limits("[{ rate: 1/h, burst: 7, per: \"header:X-Tenant\" }, 5/m, { rate: 3/s, per: client_ip }]"),
        [limit("1/h", 7, header), limit("5/m", 5, Per::Source), limit("3/s", 3, Per::ClientIp)]
    );
    assert_eq!(limits("{ rate: 1/h, burst: 8760 }"), [limit("1/h", 8760, Per::Source)], "a year to come back");
    assert_eq!(limits("{ rate: 4294967295/s, burst: 4294967295 }").len(), 1);
    let unverified = |written: &str| {
        let ingress = format!("ingress: {{ listen: 0.0.0.0:80, limits: {{ unverified: {written} }} }}\n");
        good(&format!("{WHOLE}{ingress}")).ingress.limits.unverified
    };
    assert_eq!(unverified("off"), None);
    assert_eq!(unverified("9/m"), Some(limit("9/m", 9, Per::Unverified)));
    assert_eq!(unverified("{ rate: 9/m, burst: 2 }"), Some(limit("9/m", 2, Per::Unverified)));
}

#[test]
fn a_quota_that_loses_webhooks_is_a_warning() {
    let text = WHOLE.replace("    event:", "    retries: { after_429: false }\n    event:");
    let said = said(&text.replace("    to: [app]", "    rate_limit: 5/s\n    to: [app]"));
    assert!(said.contains("sources.hooks.rate_limit: `acme` does not send again after a 429"), "{said}");
}

/// Where only this machine reaches the listeners, an unnamed proxy stands for every sender.
#[test]
fn limits_on_clients_that_a_proxy_hides_are_a_warning() {
    let limits = "    allow_ips: [192.0.2.0/24]\n    rate_limit: [5/s, { rate: 1/s, per: client_ip }]\n    to: [app]";
    let text = WHOLE.replace("    to: [app]", limits);
    let with = |ingress: &str| said(&format!("{text}ingress: {{ {ingress} limits: {{ unverified: 10/m }} }}\n"));
    let warned = with("listen: [127.0.0.1:80, \"[::1]:80\"],");
    let paths: Vec<&str> = warned.lines().filter_map(|line| line.split(": ").nth(2)).collect();
    assert_eq!(paths, ["sources.hooks.allow_ips", "sources.hooks.rate_limit", "ingress.limits.unverified"], "{warned}");
    assert_eq!(warned.matches("name the proxy in `ingress.trusted_proxies`").count(), 3, "{warned}");
    assert_eq!(with("listen: [127.0.0.1:80, 192.0.2.1:80],"), "", "somebody else may reach it");
    assert_eq!(with("trusted_proxies: [127.0.0.1],"), "");
    let inside = text.replace("192.0.2.0/24", "127.0.0.0/8").replace("client_ip", "source");
    assert_eq!(said(&inside), "", "nothing asks who the client is");
}

/// A listener with `proxy_protocol` believes whoever may send a header.
#[test]
fn a_proxy_header_that_everybody_may_send_is_a_warning() {
    let with = |address: &str, more: &str| {
        said(&format!("{WHOLE}ingress: {{ listen: {{ address: \"{address}\", proxy_protocol: true }} {more} }}\n"))
    };
    for address in ["0.0.0.0:80", "fd:"] {
        let warned = with(address, "");
        assert!(warned.contains("ingress.listen: everybody who reaches it can say in a PROXY header"), "{warned}");
        assert_eq!(with(address, ", trusted_proxies: [10.0.0.0/8]"), "");
    }
    assert_eq!(with("127.0.0.1:80", "") + &with("unix:/run/x", ""), "");
}

#[test]
fn each_mistake_of_a_limit_is_said() {
    check(
        "source",
        r#"
| allow_ips: provider
> 16: sources.hooks.allow_ips: the preset `acme` lists no networks; write them here
| allow_ips: [10.0.0.0/33]
> 17: sources.hooks.allow_ips[0]: `10.0.0.0/33` is not an address or a network; write one like `10.1.2.3` or `10.0.0.0/8`
| allow_ips: ["::ffff:203.0.113.0/95"]
> 17: sources.hooks.allow_ips[0]: `::ffff:203.0.113.0/95` is more than all IPv4 addresses mapped into IPv6; write the IPv4 network, like `203.0.113.0/24`
| allow_ips: []
> 16: sources.hooks.allow_ips: an empty list lets nobody in; write networks, or `off`
| rate_limit: { burst: 3 }
> 5: sources.hooks.rate_limit.rate: no rate; write one, like `rate: 100/s`
| rate_limit: { rate: 1/d }
> 25: sources.hooks.rate_limit.rate: `1/d` has an unknown unit; the units are /s, /m and /h
| rate_limit: { rate: 1/s, per: client-ip }
> 35: sources.hooks.rate_limit.per: `client-ip` is not one of the words here; did you mean `client_ip`?
| rate_limit: { rate: 1/s, per: "header:" }
> 35: sources.hooks.rate_limit.per: `` is not a header's name; write one like `header:X-Tenant`
| rate_limit: { rate: 1/s, per: "header:Forebay-Event-Id" }
> 35: sources.hooks.rate_limit.per: `Forebay-Event-Id` is taken out of every request; name a header that senders set
| rate_limit: { rate: 1/h, burst: 8761 }
> 37: sources.hooks.rate_limit.burst: a burst of 8761 takes more than a year to come back at 1/h; write 8760 at most, or a faster rate
| rate_limit: [{ rate: 1/s, per: unverified }, { rate: 1/s, burts: 2 }]
> 36: sources.hooks.rate_limit[0].per: `unverified` is not one of the words here; there are `source`, `client_ip`, `header:NAME`
> 63: sources.hooks.rate_limit[1].burts: unknown key; did you mean `burst`?
"#,
    );
    check(
        "",
        r#"
| ingress: { trusted_proxies: [10.0.0.0/8, 10.0.0.0/33] }
> 42: ingress.trusted_proxies[1]: `10.0.0.0/33` is not an address or a network; write one like `10.1.2.3` or `10.0.0.0/8`
| ingress: { trusted_proxies: [] }
> 29: ingress.trusted_proxies: an empty list trusts nobody; write networks, or `off`
| ingress: { trusted_proxies: ["::ffff:10.0.0.1/64"] }
> 30: ingress.trusted_proxies[0]: `::ffff:10.0.0.1/64` is more than all IPv4 addresses mapped into IPv6; write the IPv4 network, like `10.0.0.1/24`
| ingress: { trusted_proxies: ["::ffff:0:0/96"] }
> 30: warning: ingress.trusted_proxies[0]: everybody is trusted, so every sender can say that it is somebody else; name the proxies alone
| ingress: { trusted_proxies: [127.0.0.1, "::/0"] }
> 41: warning: ingress.trusted_proxies[1]: everybody is trusted, so every sender can say that it is somebody else; name the proxies alone
| ingress: { limits: { unverified: 10 } }
> 34: ingress.limits.unverified: `10` has no unit; write `10/s` for so many a second (units: /s, /m, /h)
| ingress: { limits: { unverified: { burst: 10 } } }
> 22: ingress.limits.unverified.rate: no rate; write one, like `rate: 100/s`
| ingress: { limits: { unverified: { rate: 2/m, burst: 4294967295 } } }
> 54: ingress.limits.unverified.burst: a burst of 4294967295 takes more than a year to come back at 2/m; write 1051200 at most, or a faster rate
"#,
    );
}

#[test]
fn a_network_mapped_into_ipv6_is_the_ipv4_one() {
    for (written, meant) in [
        ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.7/32"),
        ("::ffff:203.0.113.7/97", "128.0.0.0/1"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("2001:db8::7/64", "2001:db8::/64"),
        ("::fffe:203.0.113.7/120", "::fffe:203.0.113.0/120"),
    ] {
        let text = WHOLE.replace("    to: [app]", &format!("    allow_ips: [\"{written}\"]\n    to: [app]"));
        let config = good(&format!("{text}ingress: {{ listen: 0.0.0.0:80, trusted_proxies: [\"{written}\"] }}\n"));
        let meant: ipnet::IpNet = meant.parse().unwrap();
        assert_eq!(
            (&config.sources[0].allow_ips[..], &config.ingress.trusted_proxies[..]),
            (&[meant][..], &[meant][..])
        );
    }
}

#[test]
fn allow_ips_takes_the_presets_list() {
    let text = WHOLE.replace("    event:", "    ips: [192.0.2.0/24, 2001:db8::1]\n    event:");
    let text =
        text.replace("    to: [app]", "    allow_ips: provider\n    to: [app]") + "ingress: { listen: 0.0.0.0:80 }\n";
    let listed = ["192.0.2.0/24".parse().unwrap(), "2001:db8::1/128".parse().unwrap()];
    assert_eq!(good(&text).sources[0].allow_ips, listed);
    let one = text.replace("allow_ips: provider", "allow_ips: 198.51.100.0/24");
    assert_eq!(good(&one).sources[0].allow_ips, ["198.51.100.0/24".parse().unwrap()]);
}
