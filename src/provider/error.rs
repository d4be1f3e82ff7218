//! What can be wrong with a request, a preset or a secret. No message has a value of a request or a secret in it.

use http::HeaderName;

/// Why a request is not genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The signature's (or token's) header is not there, or its list has no signature of the kind that counts.
    #[error("the request carries no signature")]
    MissingSignature,
    /// The signature's header came more than once.
    #[error("the signature header came more than once")]
    RepeatedSignature,
    /// Nothing in the header is written as this provider writes a signature.
    #[error("the signature is not written as this provider writes it")]
    MalformedSignature,
    /// The list has more signatures than are tried.
    #[error("the request carries more than 10 signatures")]
    TooManySignatures,
    /// No signature fits any secret; or the token is another one.
    #[error("no signature matches")]
    NoMatch,
    /// Every secret is past its `not_after`.
    #[error("every secret of the source has expired")]
    NoGoodSecret,
    /// There is no timestamp, or more than one, or it is not written as it has to be.
    #[error("the timestamp is missing or malformed")]
    BadTimestamp,
    /// The timestamp is too old.
    #[error("the timestamp is too old")]
    StaleTimestamp,
    /// The timestamp is too far ahead.
    #[error("the timestamp is too far ahead")]
    FutureTimestamp,
    /// A header or list field that is part of the signed content is not there.
    #[error("a part of the signed content is missing")]
    MissingSignedPart,
    /// A header or list field that is part of the signed content came more than once.
    #[error("a part of the signed content came more than once")]
    RepeatedSignedPart,
    /// A signed id could shift the borders between the parts of the signed content.
    #[error("a signed id has a dot or a control character in it, or is longer than 256 bytes")]
    BadId,
}

impl Rejection {
    /// A short word for logs and metrics, one of a fixed set.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::MissingSignature => "missing_signature",
            Self::RepeatedSignature => "repeated_signature",
            Self::MalformedSignature => "malformed_signature",
            Self::TooManySignatures => "too_many_signatures",
            Self::NoMatch => "no_match",
            Self::NoGoodSecret => "no_good_secret",
            Self::BadTimestamp => "bad_timestamp",
            Self::StaleTimestamp => "stale_timestamp",
            Self::FutureTimestamp => "future_timestamp",
            Self::MissingSignedPart => "missing_signed_part",
            Self::RepeatedSignedPart => "repeated_signed_part",
            Self::BadId => "bad_id",
        }
    }
}

/// Why a preset and its secrets do not make a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A check's secret is not in the keyring.
    #[error("secret `{slot}` is not set")]
    MissingSecret {
        /// The slot.
        slot: String,
    },
    /// A secret has nothing in it, or white space alone.
    #[error("secret `{slot}[{index}]` is empty")]
    EmptySecret {
        /// The slot.
        slot: String,
        /// Its place in the slot, from 0.
        index: usize,
    },
    /// A secret is not written as the preset says.
    #[error("secret `{slot}[{index}]` is not {encoding}; copy it again, without spaces or line ends")]
    BadSecret {
        /// The slot.
        slot: String,
        /// Its place in the slot, from 0.
        index: usize,
        /// What it should be.
        encoding: &'static str,
    },
    /// More secrets in a slot than are tried.
    #[error("secret `{slot}` has {count} values; at most 5 are tried")]
    TooManySecrets {
        /// The slot.
        slot: String,
        /// How many there are.
        count: usize,
    },
    /// `any: []` or `all: []`.
    #[error("`any` and `all` need at least one check")]
    EmptyCheck,
    /// "No verification" inside `any` or `all`, or as a handshake's own check.
    #[error("`any`, `all` and a handshake's `check` cannot contain a check that always holds")]
    NothingInside,
    /// `content` is empty.
    #[error("`content` is empty: nothing would be signed")]
    EmptyContent,
    /// `{field:…}` where the signature header is not a list.
    #[error("`field:{field}` needs `signature.list`: the header is not a list of fields")]
    FieldWithoutList {
        /// The field.
        field: String,
    },
    /// `{field:…}` that names the signature itself.
    #[error("`field:{field}` is the signature itself")]
    FieldIsSignature {
        /// The field.
        field: String,
    },
    /// More fields than are kept.
    #[error("more than 4 different fields are used")]
    TooManyFields,
    /// The same character between items and within one.
    #[error("`list.items` and `list.pair` are the same character")]
    SameSeparators,
    /// `timestamp.from` is neither a header nor a field.
    #[error("`timestamp.from` must be `header:X` or `field:k`")]
    TimestampPlace,
    /// The timestamp is not part of the content.
    #[error("`timestamp.from` is not part of `content`: an unsigned time proves nothing")]
    UnsignedTimestamp,
    /// `{compute:…}` that names nothing.
    #[error("`compute:{name}` is no value that the handshake computes")]
    UnknownComputed {
        /// The name.
        name: String,
    },
    /// A JSON pointer that is none.
    #[error("`json:{pointer}` is not a JSON pointer (RFC 6901): it starts with `/`, and `~` stands before 0 or 1")]
    BadPointer {
        /// The pointer.
        pointer: String,
    },
    /// More JSON pointers than can be looked for.
    #[error("more than 32 JSON pointers are used, or one has more than 32 steps")]
    TooManyPointers,
}

/// Why a request cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A header that is signed is not there, or there more than once.
    #[error("the header `{0}` is part of the signed content; give it once")]
    Header(HeaderName),
    /// A field that is signed has no known value.
    #[error("the field `{0}` is part of the signed content, and only the provider knows its value")]
    Field(String),
    /// A header that is part of the signed content has a value that no receiver would accept.
    #[error("a signed id has at most 256 bytes, and no dot or control character")]
    Value,
    /// The secret cannot stand in a header.
    #[error("the secret cannot stand in a header: it has a line end or another control character in it")]
    Secret,
}
