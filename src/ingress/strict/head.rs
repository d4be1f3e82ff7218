//! One head: what its lines say about the message, and whether they say it clearly (RFC 9112, sections 3 to 6).

use std::net::Ipv6Addr;
use std::str::from_utf8;

use super::Fault;
use super::ascii::{HOST, PATH, QUERY, TOKEN, is, span};

/// The longest method; the longest one registered has 17 letters.
pub(super) const METHOD_MAX: usize = 32;
/// The longest target.
pub(super) const TARGET_MAX: usize = 8 << 10;
/// The longest name of a header; none registered has a tenth of it.
const NAME_MAX: usize = 256;

/// What the lines of a head have said so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    version: Version,
    /// Whether the method is one that has a body: in HTTP/1.0 only a length says where that ends.
    has_body: bool,
    /// The authority of a target that is a whole URL.
    authority: Option<Box<[u8]>>,
    host: bool,
    expect: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// How the body that follows a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// By its length, perhaps 0.
    Length(u64),
    /// By itself.
    Chunked,
}

impl Head {
    /// Reads a request line.
    pub(super) fn begin(line: &[u8]) -> Result<Self, Fault> {
        let (method, rest) = line.split_at_checked(span(TOKEN, line)).ok_or(Fault::RequestLine)?;
        let rest = rest.strip_prefix(b" ").ok_or(Fault::RequestLine)?;
        if method.is_empty() || method.len() > METHOD_MAX {
            return Err(Fault::RequestLine);
        }
        let (target, version) = rest.split_last_chunk::<9>().ok_or(Fault::Version)?;
        let version = match version {
            b" HTTP/1.1" => Version::Http11,
            b" HTTP/1.0" => Version::Http10,
            _ => return Err(Fault::Version),
        };
        if target.len() > TARGET_MAX {
            return Err(Fault::TargetTooLong);
        }
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(Fault::Tunnel);
        }
        let authority = authority(method, target)?.map(Box::from);
        let has_body = matches!(method, b"POST" | b"PUT" | b"PATCH");
        Ok(Self { version, has_body, authority, host: false, expect: false, length: None, chunked: false })
    }

    /// Reads a header line.
    pub(super) fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (name, value) = field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => Err(Fault::Tunnel),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Fault> {
        let agrees = self.authority.as_ref().is_none_or(|authority| authority.eq_ignore_ascii_case(value));
        if self.host || !agrees || !is_host(value) {
            return Err(Fault::Host);
        }
        self.host = true;
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.expect || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Fault::Expectation);
        }
        self.expect = true;
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.length.is_some() || self.chunked {
            return Err(Fault::Framing);
        }
        self.length = Some(content_length(value).ok_or(Fault::Framing)?);
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Fault> {
        let twice = self.length.is_some() || self.chunked;
        if twice || self.version == Version::Http10 || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::Framing);
        }
        self.chunked = true;
        Ok(())
    }

    /// The head is complete.
    pub(super) fn end(&self) -> Result<Body, Fault> {
        if !self.host && (self.version == Version::Http11 || self.authority.is_some()) {
            return Err(Fault::Host);
        }
        if self.version == Version::Http10 && self.has_body && self.length.is_none() {
            return Err(Fault::Framing); // it would end with the connection, wherever that is cut
        }
        Ok(if self.chunked { Body::Chunked } else { Body::Length(self.length.unwrap_or(0)) })
    }
}

/// The name and the value of a header line.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let (name, rest) = line.split_at_checked(span(TOKEN, line)).ok_or(Fault::Field)?;
    let value = rest.strip_prefix(b":").ok_or(Fault::Field)?;
    match name.len() {
        0 => Err(Fault::Field),
        1..=NAME_MAX => Ok((name, trim(value))),
        _ => Err(Fault::HeadTooLarge),
    }
}

/// Without the spaces and tabs around it (RFC 9110, section 5.6.3), and no other white space.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Checks a target, and gives its authority if it is a whole URL.
fn authority<'t>(method: &[u8], target: &'t [u8]) -> Result<Option<&'t [u8]>, Fault> {
    if target.starts_with(b"/") {
        return if is_path_and_query(target) { Ok(None) } else { Err(Fault::Target) };
    }
    if target == b"*" && method == b"OPTIONS" {
        return Ok(None);
    }
    let after = |scheme: &[u8]| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after(b"http://").or_else(|| after(b"https://")).ok_or(Fault::Target)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).ok_or(Fault::Target)?;
    if is_host(authority) && is_path_and_query(path) { Ok(Some(authority)) } else { Err(Fault::Target) }
}

fn is_path_and_query(text: &[u8]) -> bool {
    let rest = text.get(span(PATH, text)..).unwrap_or_default();
    rest.is_empty() || (rest.starts_with(b"?") && rest.iter().all(|byte| is(QUERY, *byte)))
}

/// Digits and nothing else, few enough for everybody's integers; leading zeros change nothing.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 20 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = from_utf8(value).ok()?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

/// A name or address and perhaps a port: nothing empty, no user, no path, no list, nothing encoded.
pub(in crate::ingress) fn is_host(host: &[u8]) -> bool {
    let port = match host.strip_prefix(b"[") {
        None => {
            let (name, port) = host.split_at_checked(span(HOST, host)).unwrap_or_default();
            if name.is_empty() {
                return false;
            }
            port
        }
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b']').unwrap_or(rest.len());
            let (address, port) = rest.split_at_checked(end).unwrap_or_default();
            let is_address = from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok());
            let Some(port) = port.strip_prefix(b"]").filter(|_| is_address) else { return false };
            port
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] => matches!(digits.len(), 1..=5) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}
