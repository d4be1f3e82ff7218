//! The chunked coding (RFC 9112, section 7.1) without what nobody needs: a size is 1 to 16 hexadecimal digits and its
//! CRLF. Extensions are refused.

use super::Fault;

/// Where in the chunks a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In a size of so many digits so far.
    Size { digits: u8, size: u64 },
    /// Before the LF after a size.
    SizeEnd { size: u64 },
    /// So many bytes of data are still to come.
    Data { left: u64 },
    /// Before the CR after data.
    DataCr,
    /// Before the LF after data.
    DataLf,
    /// After the last chunk: trailers come, or an empty line.
    Done,
}

/// The most digits of a size: what an unsigned 64-bit integer holds.
const DIGITS_MAX: u8 = 16;

impl Chunks {
    /// Before the first chunk.
    pub(super) const START: Self = Self::Size { digits: 0, size: 0 };

    /// Goes on by the bytes that `bytes` begin with; says how many it was. It stops at the end of the chunks.
    ///
    /// # Errors
    /// [`Fault::Chunk`] at the first byte that is none of a chunk's, and how many came before it.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Result<(), Fault>) {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            *self = match (*self, byte) {
                (Self::Done, _) => break,
                (Self::Data { left }, _) => {
                    let here = bytes.len().saturating_sub(taken);
                    let step = usize::try_from(left).unwrap_or(here).min(here);
                    taken += step;
                    match left - step as u64 {
                        0 => *self = Self::DataCr,
                        left => *self = Self::Data { left },
                    }
                    continue;
                }
                (Self::Size { digits: 1.., size }, b'\r') => Self::SizeEnd { size },
                (Self::Size { digits: digits @ 0..DIGITS_MAX, size }, digit) if digit.is_ascii_hexdigit() => {
                    let value = char::from(*digit).to_digit(16).unwrap_or_default();
                    Self::Size { digits: digits + 1, size: size << 4 | u64::from(value) }
                }
                (Self::SizeEnd { size: 0 }, b'\n') => Self::Done,
                (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
                (Self::DataCr, b'\r') => Self::DataLf,
                (Self::DataLf, b'\n') => Self::START,
                _ => return (taken, Err(Fault::Chunk)),
            };
            taken += 1;
        }
        (taken, Ok(()))
    }
}
