//! A request, as a signature sees it.

use http::header::GetAll;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

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
            headers: &head.headers,
            body: &received.body,
        }
    }
}

/// How often a header came.
pub(super) enum Times<'a> {
    Never,
    Once(&'a HeaderValue),
    Often,
}

impl<'a> Request<'a> {
    /// The values of the header `name`, counted: a second one is never silently ignored.
    pub(super) fn header(&self, name: &HeaderName) -> Times<'a> {
        let mut values = GetAll::into_iter(self.headers.get_all(name));
        match (values.next(), values.next()) {
            (None, _) => Times::Never,
            (Some(value), None) => Times::Once(value),
            (Some(_), Some(_)) => Times::Often,
        }
    }
}
