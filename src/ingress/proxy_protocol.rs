//! The PROXY protocol: a header in front of everything else, in which a proxy says whom it speaks for
//! (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2).
//!
//! Version 1 is a line of at most 107 bytes, its end included:
//!
//! ```text
//! PROXY TCP4 203.0.113.7 192.0.2.1 35646 443\r\n      also TCP6; one space between words
//! PROXY UNKNOWN …\r\n                                 whatever stands there: the socket's own peer
//! ```
//!
//! Version 2 is binary, numbers in network order:
//!
//! ```text
//!  0..12  0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A
//!     12  high half: 2, the version; low half: the command, 0 LOCAL (the proxy itself) or 1 PROXY
//!     13  high half: 0 unspecified, 1 IPv4, 2 IPv6, 3 Unix; low half: 0 unspecified, 1 stream
//! 14..16  length of what follows
//! 16..    the addresses (source, destination, source port, destination port: 12 bytes for IPv4, 36 for
//!         IPv6; two paths of 108 bytes for Unix), then any number of (type 1, length 2, value)
//! ```
//!
//! Everything else is refused, datagrams included: a header that could be read in two ways would let a sender say who
//! it is.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::stream::Stream;

/// The longest line of version 1, its end included.
const LINE_MAX: usize = 107;
/// What follows the first 16 bytes of version 2, at most: addresses, and extras such as a TLS certificate's name.
const REST_MAX: usize = 4 << 10;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
const WORD: &[u8] = b"PROXY ";

const CHECKSUM: u8 = 0x03;
const TLS: u8 = 0x20;
/// A flag byte and the verdict on the client's certificate, before further extras.
const TLS_FIXED: usize = 5;

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY line is malformed or too long")]
    Line,
    #[error("the PROXY header's version, command or family is none that exists")]
    Kind,
    #[error("the PROXY header's length does not fit what is in it")]
    Length,
    #[error("the PROXY header's checksum is not its own")]
    Checksum,
    #[error("it ended before its PROXY header did")]
    Ended,
    #[error("the PROXY header did not come in time")]
    TooSlow,
    #[error("it comes from no trusted proxy")]
    Stranger,
}

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// Its own length; what follows is the connection's.
    length: usize,
    /// Whom the proxy speaks for; none if for itself, or for somebody who has no IP address.
    source: Option<SocketAddr>,
}

/// Takes the header off `stream`, and not a byte more. Gives the source; none if it is the socket's own peer.
///
/// # Errors
/// [`HeaderError`]; the connection is of no use then.
pub(super) async fn read(stream: &mut Stream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(if bytes.is_empty() { HeaderError::Missing } else { HeaderError::Ended }),
            Ok(_) => {}
        }
        if let Some(Header { length, source }) = parse(&bytes)? {
            stream.put_back(bytes.get(length..).unwrap_or_default());
            return Ok(source);
        }
    }
}

/// Reads the header at the start of `bytes`; none if it may yet become one.
fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let begins_with = |whole: &[u8]| {
        let both = bytes.len().min(whole.len());
        bytes.get(..both) == whole.get(..both)
    };
    if begins_with(SIGNATURE) {
        binary(bytes)
    } else if begins_with(WORD) {
        line(bytes)
    } else {
        Err(HeaderError::Missing)
    }
}

fn line(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let within = bytes.get(..LINE_MAX).unwrap_or(bytes);
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        let may_end = within.iter().all(|byte| *byte != b'\n') && bytes.len() < LINE_MAX;
        return if may_end { Ok(None) } else { Err(HeaderError::Line) };
    };
    let text = within.get(WORD.len()..end).and_then(|text| std::str::from_utf8(text).ok());
    let text = text.filter(|text| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
    let text = text.ok_or(HeaderError::Line)?;
    let source = if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        None
    } else {
        Some(addresses(text).ok_or(HeaderError::Line)?)
    };
    Ok(Some(Header { length: end + 2, source }))
}

/// The source of `TCP4 source destination port port`.
fn addresses(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (port, _) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            Some((source.parse::<Ipv4Addr>().ok()?, port).into())
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            Some((source.parse::<Ipv6Addr>().ok()?, port).into())
        }
        _ => None,
    }
}

/// A port in digits, without zeros before it.
fn port(text: &str) -> Option<u16> {
    let is_one = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_one)
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some((fixed, after)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::Kind),
    };
    if rest > REST_MAX {
        return Err(HeaderError::Length);
    }
    let Some(rest) = after.get(..rest) else { return Ok(None) };
    let length = FIXED + rest.len();
    if local || family == 0x00 {
        return Ok(Some(Header { length, source: None })); // the rest is to be ignored
    }
    let (source, extras) = match family {
        0x11 => ipv4(rest).ok_or(HeaderError::Length)?,
        0x21 => ipv6(rest).ok_or(HeaderError::Length)?,
        0x31 => (None, rest.get(2 * 108..).ok_or(HeaderError::Length)?),
        _ => return Err(HeaderError::Kind),
    };
    let checksums = check_extras(extras)?;
    if let Some(stated) = checksums {
        let at = length - extras.len() + stated;
        check_sum(bytes.get(..length).unwrap_or_default(), at)?;
    }
    Ok(Some(Header { length, source }))
}

fn ipv4(rest: &[u8]) -> Option<(Option<SocketAddr>, &[u8])> {
    let (block, extras) = rest.split_first_chunk::<12>()?;
    let (ip, after) = block.split_first_chunk::<4>()?;
    let [_, _, _, _, high, low, ..] = *after else { return None };
    Some((Some((Ipv4Addr::from(*ip), u16::from_be_bytes([high, low])).into()), extras))
}

fn ipv6(rest: &[u8]) -> Option<(Option<SocketAddr>, &[u8])> {
    let (block, extras) = rest.split_first_chunk::<36>()?;
    let (ip, after) = block.split_first_chunk::<16>()?;
    let [high, low, ..] = *after.get(16..)? else { return None };
    Some((Some((Ipv6Addr::from(*ip), u16::from_be_bytes([high, low])).into()), extras))
}

/// Whether the extras fill their room exactly. Gives where the checksum is, if there is one.
fn check_extras(extras: &[u8]) -> Result<Option<usize>, HeaderError> {
    let mut checksum = None;
    let mut rest = extras;
    while !rest.is_empty() {
        let (kind, value, after) = extra(rest)?;
        match kind {
            CHECKSUM if value.len() != 4 || checksum.is_some() => return Err(HeaderError::Length),
            CHECKSUM => checksum = Some(extras.len() - after.len() - 4),
            TLS => {
                let mut within = value.get(TLS_FIXED..).ok_or(HeaderError::Length)?;
                while !within.is_empty() {
                    (_, _, within) = extra(within)?;
                }
            }
            _ => {}
        }
        rest = after;
    }
    Ok(checksum)
}

/// Type, value, and what follows.
fn extra(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), HeaderError> {
    let Some(([kind, high, low], after)) = bytes.split_first_chunk::<3>() else { return Err(HeaderError::Length) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, after) = after.split_at_checked(length).ok_or(HeaderError::Length)?;
    Ok((*kind, value, after))
}

/// CRC-32C of the whole header with zeros in the place of the checksum.
fn check_sum(header: &[u8], at: usize) -> Result<(), HeaderError> {
    let (before, from) = header.split_at_checked(at).ok_or(HeaderError::Length)?;
    let (stated, after) = from.split_first_chunk::<4>().ok_or(HeaderError::Length)?;
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after);
    if sum == u32::from_be_bytes(*stated) { Ok(()) } else { Err(HeaderError::Checksum) }
}

#[cfg(test)]
mod tests;
