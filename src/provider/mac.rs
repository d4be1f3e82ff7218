//! HMAC (RFC 2104) with the key already in it.

use std::fmt;

use ::hmac::{Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};

use super::Hash;

/// The longest MAC or signature there is, in bytes.
const MAX_LEN: usize = 64;

impl Hash {
    /// How many bytes a MAC with this hash has.
    pub(super) fn mac_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A MAC or another signature, or what a request says is one.
pub(super) struct Mac {
    bytes: [u8; MAX_LEN], // zeros after `len`
    len: usize,
}

impl Mac {
    /// `bytes` as a signature; none if they are more than any scheme gives.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let mut mac = Self { bytes: [0; MAX_LEN], len: bytes.len() };
        mac.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(mac)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Whether both are the same, length included, in constant time.
    pub(super) fn matches(&self, other: &Self) -> Choice {
        self.bytes.ct_eq(&other.bytes) & self.len.ct_eq(&other.len)
    }
}

/// A hash that has taken in its key. A clone of it takes in a message. Wiped on drop.
#[derive(Clone)]
pub(super) enum KeyedHash {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl KeyedHash {
    pub(super) fn new(hash: Hash, key: &[u8]) -> Self {
        const ANY_LENGTH: &str = "HMAC takes a key of any length";
        match hash {
            Hash::Sha1 => Self::Sha1(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Hash::Sha256 => Self::Sha256(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Hash::Sha384 => Self::Sha384(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Hash::Sha512 => Self::Sha512(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
            Self::Sha384(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Mac {
        let mac = match self {
            Self::Sha1(state) => Mac::new(&state.finalize().into_bytes()),
            Self::Sha256(state) => Mac::new(&state.finalize().into_bytes()),
            Self::Sha384(state) => Mac::new(&state.finalize().into_bytes()),
            Self::Sha512(state) => Mac::new(&state.finalize().into_bytes()),
        };
        mac.expect("no hash here gives more than 64 bytes")
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2, and RFC 2202 for SHA-1: key `Jefe`, data `what do ya want for nothing?`.
    #[test]
    fn the_rfc_vectors_come_out() {
        let cases = [
            (Hash::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Hash::Sha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Hash::Sha384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Hash::Sha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (hash, expected) in cases {
            let mut state = KeyedHash::new(hash, b"Jefe");
            state.update(b"what do ya want ");
            state.update(b"for nothing?");
            let mac = state.finish();
            assert_eq!(mac.as_bytes().len(), hash.mac_len());
            assert_eq!(data_encoding::HEXLOWER.encode(mac.as_bytes()), expected);
        }
    }

    #[test]
    fn a_mac_that_is_a_prefix_of_another_does_not_match() {
        let whole = Mac::new(&[0; 32]).unwrap();
        let prefix = Mac::new(&[0; 31]).unwrap();
        let empty = Mac::new(&[]).unwrap();
        assert!(bool::from(whole.matches(&Mac::new(&[0; 32]).unwrap())));
        assert!(!bool::from(whole.matches(&prefix)));
        assert!(!bool::from(whole.matches(&empty)));
        assert!(Mac::new(&[0; 65]).is_none());
    }
}
