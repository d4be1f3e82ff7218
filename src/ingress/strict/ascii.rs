//! Bytes of a head: what each may stand for, and where a line ends.

use super::Fault;

/// In a name or a method (RFC 9110, section 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// In a target's path. Also `"`, `{`, `|` and `}`, which should be encoded and often are not; never `\` and `#`.
pub(super) const PATH: u8 = 2;
/// In a target's query, in the same way.
pub(super) const QUERY: u8 = 4;
/// In the name or address of a host.
pub(super) const HOST: u8 = 8;

/// What each byte may stand in.
static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "the compiler runs it")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric() || is_one_of(byte, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if byte.is_ascii_graphic() && !is_one_of(byte, b"#<>?\\`") {
            class |= PATH;
        }
        if byte.is_ascii_graphic() && !is_one_of(byte, b"\"#<>\\") {
            class |= QUERY;
        }
        if byte.is_ascii_alphanumeric() || is_one_of(byte, b"-._~") {
            class |= HOST;
        }
        table[at] = class;
        at += 1;
    }
    table
}

#[expect(clippy::indexing_slicing, reason = "the compiler runs it")]
const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether `byte` is of `class`.
pub(super) fn is(class: u8, byte: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// How many bytes at the start of `bytes` are of `class`.
pub(super) fn span(class: u8, bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is(class, *byte)).unwrap_or(bytes.len())
}

/// Where the first line of some bytes ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After so many bytes, at a CRLF.
    At(usize),
    /// Not yet; so many bytes are good.
    Later { scanned: usize },
}

/// Finds the end of the line that `bytes` begin with, of which `scanned` bytes are known to be good.
///
/// # Errors
/// Whatever comes first: `too_long` once there are more than `longest` bytes, [`Fault::Line`] at a byte that no line
/// may hold. So it does not matter in which pieces a line comes.
pub(super) fn line_end(bytes: &[u8], scanned: usize, longest: usize, too_long: Fault) -> Result<End, Fault> {
    let window = bytes.get(..=longest).unwrap_or(bytes);
    let mut at = scanned;
    loop {
        at += graphic(window.get(at..).unwrap_or_default());
        match (window.get(at), bytes.get(at + 1)) {
            (None, _) if window.len() > longest => return Err(too_long),
            (None, _) | (Some(b'\r'), None) => return Ok(End::Later { scanned: at }),
            (Some(b'\r'), Some(b'\n')) => return Ok(End::At(at)),
            (Some(b'\t'), _) => at += 1,
            (Some(_), _) => return Err(Fault::Line),
        }
    }
}

/// How many bytes at the start of `bytes` are printable ASCII or a space.
fn graphic(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // Eight at a time. A subtraction may borrow from the byte above, so only the lowest byte found counts.
    let mut left = bytes;
    while let Some((eight, rest)) = left.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7f);
        let delete = delete.wrapping_sub(ONES) & !delete;
        let found = (below_space | delete | word) & HIGHS;
        if found != 0 {
            return bytes.len() - left.len() + (found.trailing_zeros() / 8) as usize;
        }
        left = rest;
    }
    bytes.len() - left.len() + left.iter().take_while(|byte| matches!(byte, b' '..=b'~')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_is_not_printable_is_found_at_every_place() {
        for length in 0..20 {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut line = vec![b'a'; length];
                    line[place] = byte;
                    line.iter_mut().skip(place + 1).step_by(2).for_each(|after| *after = 0xff - byte);
                    let expected = line.iter().position(|byte| !(b' '..=b'~').contains(byte)).unwrap_or(length);
                    assert_eq!(graphic(&line), expected, "{line:?}");
                }
            }
        }
    }

    #[test]
    fn a_line_ends_at_its_crlf_and_nowhere_else() {
        let end = |bytes: &[u8]| line_end(bytes, 0, 8, Fault::HeadTooLarge);
        assert_eq!(end(b"\r\n"), Ok(End::At(0)));
        assert_eq!(end(b"a\tb c\r\nmore"), Ok(End::At(5)));
        assert_eq!(end(b"12345678\r\n"), Ok(End::At(8)));
        assert_eq!(end(b"12345678"), Ok(End::Later { scanned: 8 }));
        assert_eq!(end(b"12345678\r"), Ok(End::Later { scanned: 8 }));
        assert_eq!(end(b"123456789"), Err(Fault::HeadTooLarge));
        for bad in [&b"a\n"[..], b"a\r", b"\n", b"a\0", b"\x7f", b"\x80", b"\xff\r\n", b"a\x0bb"] {
            let (line, next) = (bad, [bad, b"x"].concat());
            let partial = bad == b"a\r";
            assert_eq!(end(line), if partial { Ok(End::Later { scanned: 1 }) } else { Err(Fault::Line) }, "{bad:?}");
            assert!(bad.ends_with(b"\r\n") || end(&next) == Err(Fault::Line), "{bad:?}");
        }
    }
}
