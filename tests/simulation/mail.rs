//! What senders send: signed by the book, not by the gateway's own code.

use std::net::Ipv4Addr;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use forebay::base::UnixMillis;
use forebay::event::{Client, Head};
use forebay::intake::Inbound;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use sha2::Sha256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Its id is signed.
    Shop,
    /// Its id is not signed, and bound to the body.
    Code,
    /// The application answers.
    Live,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Shop => "shop",
            Self::Code => "code",
            Self::Live => "live",
        }
    }
}

/// A webhook. Those of one group are one event to the gateway.
#[derive(Clone, Debug)]
pub struct Mail {
    pub source: Source,
    pub group: usize,
    pub body: Bytes,
    pub genuine: bool,
}

impl Mail {
    pub fn new(source: Source, group: usize, number: usize, bytes: usize, genuine: bool) -> Self {
        let body = Bytes::from(format!(r#"{{"type":"note","mail":{number},"pad":"{}"}}"#, "x".repeat(bytes)));
        Self { source, group, body, genuine }
    }

    /// The number of the mail with this body.
    pub fn number(body: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(body).ok()?;
        text.split_once(r#""mail":"#)?.1.split(',').next()?.parse().ok()
    }

    /// The request, as it is sent `now`.
    pub fn request(&self, now: UnixMillis) -> Inbound {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: String| {
            headers.insert(name, HeaderValue::try_from(value).expect("ASCII"));
        };
        let id = format!("m{}", self.group);
        match self.source {
            Source::Shop | Source::Live => {
                let seconds = now.seconds();
                let key = if self.genuine { "simulation-secret-of-shop" } else { "simulation-secret-of-mallory" };
                let content = [format!("{id}.{seconds}.").as_bytes(), &self.body].concat();
                set("webhook-signature", format!("v1,{}", BASE64.encode(&mac(key, &content))));
                set("webhook-timestamp", seconds.to_string());
                set("webhook-id", id);
            }
            Source::Code => {
                let key = if self.genuine { "simulation-secret-of-code" } else { "simulation-secret-of-mallory" };
                set("x-hub-signature-256", format!("sha256={}", HEXLOWER.encode(&mac(key, &self.body))));
                set("x-github-event", "push".to_owned());
                set("x-github-delivery", id);
            }
        }
        set("content-type", "application/json".to_owned());
        let client = Client { ip: Ipv4Addr::LOCALHOST.into(), tls: false, host: None };
        let path = format!("/{}", self.source.name()).into_boxed_str();
        let head = Head { method: Method::POST, path, query: None, headers, client, received_at: now };
        Inbound { host: None, head, body: Full::new(self.body.clone()).map_err(|never| match never {}).boxed() }
    }
}

fn mac(key: &str, content: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length will do");
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}
