//! How requests are proved genuine, as types: the `verify` of a preset (docs/presets.md).

use std::time::Duration;

use super::{Piece, Place, Template};

/// What must hold.
#[derive(Clone, Debug)]
pub enum Check {
    /// A signature over parts of the request.
    Signed(SignedCheck),
    /// A secret sent as it is.
    Token(TokenCheck),
    /// A name and a password, sent as HTTP's basic authentication.
    Basic(BasicCheck),
    /// One of these.
    Any(Vec<Check>),
    /// Each of these.
    All(Vec<Check>),
    /// Nothing: the source says `verify: none`.
    Nothing,
}

impl Check {
    /// The secrets that it needs by itself, without those of the checks inside it.
    pub fn slots(&self) -> impl Iterator<Item = &str> {
        let (one, two) = match self {
            Self::Signed(check) => (Some(&check.secret), None),
            Self::Token(check) => (Some(&check.secret), None),
            Self::Basic(check) => (Some(&check.password), check.username.as_ref()),
            Self::Any(_) | Self::All(_) | Self::Nothing => (None, None),
        };
        one.into_iter().chain(two).map(String::as_str)
    }

    /// The checks inside it, at whatever depth, that hold by themselves: no `any` or `all`.
    #[must_use]
    pub fn leaves(&self) -> Vec<&Check> {
        match self {
            Self::Any(checks) | Self::All(checks) => checks.iter().flat_map(Self::leaves).collect(),
            leaf => vec![leaf],
        }
    }

    /// Whether it could hold without the secrets that `lacks` says are not there: one of several may be enough.
    pub fn can_hold(&self, lacks: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Any(checks) => checks.iter().any(|check| check.can_hold(lacks)),
            Self::All(checks) => checks.iter().all(|check| check.can_hold(lacks)),
            leaf => !leaf.slots().any(lacks),
        }
    }

    /// Whether nobody but the provider can have chosen the body of a request that passes. Who has a token or a password
    /// can, and nobody else.
    #[must_use]
    pub fn proves_body(&self) -> bool {
        match self {
            Self::Signed(check) => check.content.0.contains(&Piece::Body),
            Self::Any(checks) => checks.iter().all(Self::proves_body),
            Self::All(checks) => checks.iter().any(Self::proves_body),
            Self::Token(_) | Self::Basic(_) | Self::Nothing => true,
        }
    }

    /// Whether it signs the URL that the provider sends to.
    #[must_use]
    pub fn needs_url(&self) -> bool {
        self.leaves().iter().any(|leaf| matches!(leaf, Self::Signed(check) if check.content.0.contains(&Piece::Url)))
    }
}

/// A signature over the signed content.
#[derive(Clone, Debug)]
pub struct SignedCheck {
    /// The signature scheme.
    pub scheme: Scheme,
    /// Which secret is the key; where the scheme has two, the public one.
    pub secret: String,
    /// How the configured secret becomes the key.
    pub key: KeyDecoding,
    /// Where the signature is and how it is written.
    pub signature: Carrier,
    /// What is signed.
    pub content: Template,
    /// The signed time, if there is one.
    pub timestamp: Option<Timestamp>,
}

/// A signature scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HMAC (RFC 2104) with a hash.
    Hmac(Hash),
    /// Ed25519 (RFC 8032), the pure variant. The key is public, 32 bytes.
    Ed25519,
}

/// A secret compared with a value of the request, in constant time.
#[derive(Clone, Debug)]
pub struct TokenCheck {
    /// Which secret it must equal.
    pub secret: String,
    /// Where it stands. A segment `*` of a JSON pointer is each item of that array: there is at least one, and
    /// each must equal it.
    pub from: Place,
    /// What stands before it, e.g. `Bearer `.
    pub prefix: Option<String>,
}

/// A name and a password in the header `Authorization` (RFC 7617), compared in constant time.
#[derive(Clone, Debug)]
pub struct BasicCheck {
    /// Which secret the name must equal; any name if none.
    pub username: Option<String>,
    /// Which secret the password must equal.
    pub password: String,
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1 (FIPS 180-4); as a HMAC still sound, used by older providers.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How a secret's text becomes key bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDecoding {
    /// A prefix that is taken off first, where it is there, e.g. `whsec_`.
    pub strip: Option<String>,
    /// How the rest is written.
    pub encoding: KeyEncoding,
}

/// How key bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// The text's bytes are the key.
    Utf8,
    /// Base64, standard or URL alphabet, with or without padding.
    Base64,
    /// Hex, upper or lower case.
    Hex,
}

/// Where a signature stands in a request.
#[derive(Clone, Debug)]
pub struct Carrier {
    /// The place.
    pub from: Place,
    /// What stands before the signature, e.g. `sha256=`; matched exactly.
    pub prefix: Option<String>,
    /// The value's shape, where it is more than one signature.
    pub list: Option<ListShape>,
    /// How the signature's bytes are written.
    pub encoding: SignatureEncoding,
}

/// A value that is a list of key-value pairs: `t=1,v1=ab,v1=cd` or `v1,ab v1,cd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListShape {
    /// Between two items, e.g. `,`; spaces around an item are ignored.
    pub items: char,
    /// Between key and value, e.g. `=`.
    pub pair: char,
    /// The key whose values are signatures, e.g. `v1`; other keys are fields or ignored.
    pub key: String,
}

/// How a signature's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Hex, upper or lower case.
    Hex,
    /// Base64 with the standard alphabet and padding.
    Base64,
    /// Base64 with the URL alphabet, without padding.
    Base64Url,
}

/// A time that a provider signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Where it is: a [`Piece::At`] or a [`Piece::Field`]; signed.
    pub from: Piece,
    /// How it is written.
    pub unit: TimeUnit,
    /// How far from now it may be, either way, the edge included.
    pub tolerance: Duration,
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Unix seconds, 1 to 12 decimal digits.
    Seconds,
    /// Unix milliseconds, 1 to 15 decimal digits.
    Milliseconds,
    /// RFC 3339.
    Rfc3339,
}
