//! `admin`: the private side.

use std::net::SocketAddr;

use crate::admin::Settings;
use crate::base::Secret;
use crate::config::reader::{Map, Outside};

use super::values;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

pub fn settings(root: &Map<'_>) -> Settings {
    let Some(map) = root.section("admin") else {
        return Settings { listen: LISTEN, token: None, read_token: None, open_metrics: false };
    };
    let listen = map.get("listen");
    let settings = Settings {
        listen: listen.as_ref().and_then(values::address).unwrap_or(LISTEN),
        token: token(&map, "token"),
        read_token: token(&map, "read_token"),
        open_metrics: map.switch("open_metrics").unwrap_or(false),
    };
    let open = settings.token.is_none() && map.field().reader().outside() == Outside::Needed;
    if let Some(field) = listen.filter(|_| open && !settings.listen.ip().is_loopback()) {
        field.error("not a loopback address, and no token protects it; set `admin.token`, or listen on 127.0.0.1");
    }
    if settings.read_token.is_some() && open {
        map.missing(
            "read_token",
            "means nothing without `token`, as everybody may operate then; set `admin.token`, too",
        );
    }
    settings
}

/// A token; none where it is absent, off, or a variable that holds nothing.
fn token(map: &Map<'_>, key: &str) -> Option<Secret> {
    let field = map.unless_off(key)?;
    let text = field.secret_text()?;
    if text.value.is_empty() && text.outside {
        return None;
    }
    if text.value.trim().is_empty() {
        field.error("an empty token; write one, or leave the key out");
        return None;
    }
    if text.value.trim() != text.value || !text.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        field.error("a token goes in a header: printable ASCII characters without spaces; write another");
        return None;
    }
    if text.value.len() < 16 {
        field.warn("shorter than 16 bytes, so it can be guessed; take one from `openssl rand -hex 32`");
    }
    Some(Secret::new(text.value))
}
