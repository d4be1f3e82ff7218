//! What is decided before a body is read, and the reading of the body under its limits.

mod body;
mod budget;

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use ipnet::IpNet;

use crate::base::ByteSize;
use crate::event::Head;

pub use body::{BodyLimits, GRACE, read_body};
pub use budget::{Budget, Lease, Share};

/// Why a request was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The journal cannot take events.
    #[error("the journal has no room")]
    NoRoom {
        /// When to try again.
        retry_after: Duration,
    },
    /// The client's address is not on the source's list.
    #[error("the client's address is not allowed")]
    Client,
    /// The client is over its limit.
    #[error("the client is over its limit")]
    TooFast(#[from] crate::limit::OverLimit),
    /// The bodies in flight fill their budget.
    #[error("too many bytes in flight")]
    Busy,
    /// The body is larger than the source takes.
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The body took too long, or came too slowly.
    #[error("the body came too slowly")]
    TooSlow,
    /// The body ended early.
    #[error("the body could not be read")]
    Broken,
    /// The body's framing is broken.
    #[error("the body is malformed")]
    Malformed,
    /// The body is encoded, and the preset does not sign encoded bytes.
    #[error("the body has a Content-Encoding")]
    Encoded,
}

/// What a request takes beside the bytes of its head and its body: tasks, and what is read off it.
pub const BYTES_OF_A_REQUEST: u64 = 4 << 10;

/// What a header takes beside its name and its value.
const BYTES_OF_A_HEADER: usize = 64;

/// What a request holds in memory beside its body: it is paid from the budget before the body is read, so that very many
/// small bodies cannot take more than the few large ones could.
#[must_use]
pub fn beside_the_body(head: &Head) -> u64 {
    let target = head.path.len() + head.query.as_deref().map_or(0, str::len);
    let header =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + BYTES_OF_A_HEADER;
    BYTES_OF_A_REQUEST + (target + head.headers.iter().map(header).sum::<usize>()) as u64
}

/// The most that a request can take of the budget, with a head of `head` bytes and `headers` lines.
#[must_use]
pub fn largest_request(body_limit: ByteSize, head: ByteSize, headers: usize) -> ByteSize {
    let headers = headers.saturating_mul(BYTES_OF_A_HEADER) as u64;
    let beside = BYTES_OF_A_REQUEST.saturating_add(head.0).saturating_add(headers);
    ByteSize(body_limit.0.saturating_add(beside))
}

/// Lets `client` in if one of `allowed` holds it, or if the list is empty.
///
/// # Errors
/// [`Denied::Client`] if it is on none of them.
pub fn check_client(client: IpAddr, allowed: &[IpNet]) -> Result<(), Denied> {
    let client = client.to_canonical(); // an IPv4 client of a dual-stack socket comes as `::ffff:…`
    if allowed.is_empty() || allowed.iter().any(|net| net.contains(&client)) { Ok(()) } else { Err(Denied::Client) }
}

/// Refuses a body that is encoded, for presets that do not sign the encoded bytes.
///
/// # Errors
/// [`Denied::Encoded`] for any `Content-Encoding` but `identity`.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), Denied> {
    let is_plain = |value: &http::HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(is_plain) { Ok(()) } else { Err(Denied::Encoded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_on_the_list_are_let_in() {
        let list = ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let check = |client: &str| check_client(client.parse().unwrap(), &list);
        for client in ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7", "2001:db8::1"] {
            assert_eq!(check(client), Ok(()), "{client}");
        }
        for client in ["192.0.3.0", "192.0.1.255", "::ffff:192.0.3.7", "2001:db9::1", "::1"] {
            assert_eq!(check(client), Err(Denied::Client), "{client}");
        }
        assert_eq!(check_client("192.0.3.0".parse().unwrap(), &[]), Ok(()), "an empty list is no list");
    }

    #[test]
    fn any_encoding_but_identity_is_refused() {
        let check = |values: &[&'static str]| {
            let value = |value: &&'static str| (CONTENT_ENCODING, http::HeaderValue::from_static(value));
            check_encoding(&values.iter().map(value).collect())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["identity"]), Ok(()));
        assert_eq!(check(&["Identity"]), Ok(()));
        for values in [&["gzip"][..], &["identity", "br"], &["identity, gzip"], &[""], &["x"]] {
            assert_eq!(check(values), Err(Denied::Encoded), "{values:?}");
        }
    }
}
