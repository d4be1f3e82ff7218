//! A request, as a signature sees it.

use http::{HeaderMap, Method};

use crate::event::Received;

/// A request, as a signature sees it: every part byte for byte.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path.
    pub path: &'a str,
    /// The query, without the `?`.
    pub query: Option<&'a str>,
    /// What the `{param}` segments of the source's path matched: name and value.
    pub params: &'a [(Box<str>, Box<str>)],
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> From<&'a Received> for Request<'a> {
    fn from(received: &'a Received) -> Self {
        let head = &received.head;
        Self {
            method: &head.method,
            path: &head.path,
            query: head.query.as_deref(),
            params: &received.params,
            headers: &head.headers,
            body: &received.body,
        }
    }
}
