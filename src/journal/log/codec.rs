//! Little-endian numbers and length-prefixed bytes: what records are made of.

use bytes::Bytes;

/// A payload that ends early or says something impossible, although its checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Builds a payload.
#[derive(Debug, Default)]
pub struct Encoder(pub Vec<u8>);

impl Encoder {
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Bytes whose number the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A u32 length, then the bytes. No payload reaches 4 GiB: segments do not.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).raw(bytes)
    }

    /// A flag byte, then the bytes if there are any.
    pub fn maybe(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            None => self.u8(0),
            Some(bytes) => self.u8(1).bytes(bytes),
        }
    }
}

/// Takes a payload apart.
#[derive(Debug)]
pub struct Decoder(pub Bytes);

impl Decoder {
    pub fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.0.len() { Err(Malformed) } else { Ok(self.0.split_to(count)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.as_ref().try_into().map_err(|_| Malformed)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn id(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let count = self.u32()?;
        self.take(usize::try_from(count).map_err(|_| Malformed)?)
    }

    pub fn text(&mut self) -> Result<Box<str>, Malformed> {
        std::str::from_utf8(&self.bytes()?).map(Box::from).map_err(|_| Malformed)
    }

    pub fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed),
        }
    }
}
