//! Hosts and paths of sources, and where two of them clash.

use std::collections::HashMap;

use crate::config::reader::Map;
use crate::source::SourceSettings;

/// Whose each path is, in words, by host, in a router like the one that will serve them.
#[derive(Default)]
pub struct Paths {
    hosts: HashMap<Option<String>, matchit::Router<String>>,
}

impl Paths {
    /// Takes a source's path in, or reports why it cannot be. The path itself is not quoted: part of it may be a secret.
    pub fn add(&mut self, source: &SourceSettings, map: &Map<'_>) {
        let router = self.hosts.entry(source.host.clone()).or_default();
        let place = map.get("path").unwrap_or_else(|| map.field().clone()).location();
        let owner = format!("source `{}` ({place})", source.name);
        let Err(error) = router.insert(source.path.as_str(), owner) else { return };
        let message = match error {
            matchit::InsertError::Conflict { with } => {
                let other = router.at(&with).map_or("another source", |found| found.value);
                format!("takes the same requests as {other}; give one of them another path or host")
            }
            matchit::InsertError::InvalidCatchAll => {
                "a `{*rest}` can only be the whole last segment; move it there".to_owned()
            }
            matchit::InsertError::InvalidParamSegment => "a segment has two parameters; one is the most".to_owned(),
            _ => "a brace is no parameter; write `{name}`, or `{{` for the brace itself".to_owned(),
        };
        match map.get("path") {
            Some(field) => field.error(message),
            None => map.missing("path", message),
        }
    }
}

/// A host's name in lower case, perhaps `*.` before it; an address of IPv6 in brackets, as a request has it.
pub fn host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if name != text && address.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("`{text}` is no request's host: nothing is below an address; write the address alone"));
    }
    if let Ok(address) = address.parse::<std::net::Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    let label = |label: &str| {
        let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        !label.is_empty() && label.len() <= 63 && inside
    };
    let is_ip = name.parse::<std::net::IpAddr>().is_ok();
    if is_ip || (name.len() <= 253 && name.split('.').all(label)) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!(
            "`{text}` is not a host's name; write one like `hooks.example.com` or `*.example.com`, without a port"
        ))
    }
}
