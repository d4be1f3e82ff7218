//! Ed25519 (RFC 8032): a key that anybody may know and only the sender can sign for.
//!
//! The library refuses a signature whose `S` is not below the group's order, so that no signature has a second form
//! (section 5.1.7). What it does not look at is the key, which comes from the config: one of small order would let
//! anybody sign, and the likeliest of them, 32 zeros, is a placeholder that was not filled in.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use super::keys::decode_base64;
use super::{BadSecret, KeyDecoding, KeyEncoding};

/// The length of a signature, in bytes.
pub(super) const SIGNATURE_LEN: usize = 64;

const KEY_LEN: usize = 32;

/// 2^255 - 19, the field's size, little endian: a coordinate from there on has another, canonical form.
const P: [u8; KEY_LEN] = {
    let mut p = [0xff; KEY_LEN];
    p[0] = 0xed;
    p[KEY_LEN - 1] = 0x7f;
    p
};

/// The y coordinates of the points of order 4 (0), 1 (1), 2 (-1) and 8 (the other two), little endian: all points whose
/// order divides the cofactor.
const SMALL_ORDER: [&str; 5] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
];

/// A public key, parsed once.
#[derive(Debug)]
pub(super) struct VerifyingKey(ParsedPublicKey);

impl VerifyingKey {
    pub(super) fn new(bytes: &[u8]) -> Result<Self, BadSecret> {
        let key: [u8; KEY_LEN] = bytes.try_into().map_err(|_| BadSecret::KeyLength)?;
        let mut y = key;
        if let Some(last) = y.last_mut() {
            *last &= 0x7f; // the sign of x
        }
        let canonical = y.iter().rev().lt(P.iter().rev());
        if !canonical || SMALL_ORDER.contains(&HEXLOWER.encode(&y).as_str()) {
            return Err(BadSecret::WeakKey);
        }
        ParsedPublicKey::new(&ED25519, key).map(Self).map_err(|_| BadSecret::WeakKey)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// A private key, for `forebay send`: a gateway that only receives has none.
pub struct SigningKey(Ed25519KeyPair);

/// A text that is no private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key: 32 bytes, or 64 with the public key behind them, in hex or base64")]
pub struct SigningKeyError;

impl SigningKey {
    /// Reads a seed of 32 bytes, or a seed and its public key, 64 bytes, in hex or base64; `whsk_` may stand before it.
    ///
    /// # Errors
    /// [`SigningKeyError`] if it is neither, or the public key is not the seed's.
    pub fn parse(text: &str) -> Result<Self, SigningKeyError> {
        let text = text.trim();
        let text = text.strip_prefix("whsk_").unwrap_or(text).as_bytes();
        let bytes = HEXLOWER_PERMISSIVE.decode(text).ok().or_else(|| decode_base64(text)).map(Zeroizing::new);
        let bytes = bytes.ok_or(SigningKeyError)?;
        let pair = match bytes.split_at_checked(KEY_LEN) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err(SigningKeyError),
        };
        pair.map(Self).map_err(|_| SigningKeyError)
    }

    pub(super) fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The public half as `decoding` reads it.
    #[must_use]
    pub fn public_text(&self, decoding: &KeyDecoding) -> String {
        let text = match decoding.encoding {
            KeyEncoding::Base64 => BASE64.encode(self.public_key()),
            KeyEncoding::Hex | KeyEncoding::Utf8 => HEXLOWER.encode(self.public_key()),
        };
        format!("{}{text}", decoding.strip.as_deref().unwrap_or_default())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
