//! What can be wrong with a request, a preset or a secret. No message has a value of a request or a secret in it.

use super::Place;

/// Why a request is not genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The signature (or token) is not there, or its list has no signature of the kind that counts.
    #[error("the request carries no signature")]
    MissingSignature,
    /// What carries the signature came more than once.
    #[error("the signature came more than once")]
    RepeatedSignature,
    /// Nothing there is written as this provider writes a signature.
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
    /// A value that is part of the signed content is not there.
    #[error("a part of the signed content is missing")]
    MissingSignedPart,
    /// A value that is part of the signed content came more than once.
    #[error("a part of the signed content came more than once")]
    RepeatedSignedPart,
    /// A signed id could shift the borders between the parts of the signed content.
    #[error("a signed id has a dot or a control character in it, or is longer than 256 bytes")]
    BadId,
    /// What is signed may be what a handshake has answered to somebody else.
    #[error("what is signed is what a handshake signs for anybody")]
    PublicAnswer,
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
            Self::PublicAnswer => "public_answer",
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
    /// None of the optional secrets that an `any` needs one of is in the keyring.
    #[error("no secret is set; at least one of `{slots}` is needed")]
    NoSecret {
        /// The slots.
        slots: String,
    },
    /// A secret is not written as the preset says.
    #[error("secret `{slot}[{index}]` is {problem}")]
    BadSecret {
        /// The slot.
        slot: String,
        /// Its place in the slot, from 0.
        index: usize,
        /// What is wrong with it.
        problem: BadSecret,
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
    /// `timestamp.from` is neither a place nor a field.
    #[error("`timestamp.from` must be a place like `header:X`, or `field:k`")]
    TimestampPlace,
    /// The timestamp is not part of the content.
    #[error("`timestamp.from` is not part of `content`: an unsigned time proves nothing")]
    UnsignedTimestamp,
    /// The signature stands in what it signs.
    #[error("the signature stands at `{place}`, which `content` covers: it cannot sign itself")]
    SignsItself {
        /// The place.
        place: Place,
    },
    /// The body is the dedupe key, and a check does not sign it.
    #[error("`dedupe: body` needs every check to sign the `{{body}}`")]
    UnsignedBody,
    /// `{url}` is signed, and nobody said what it is.
    #[error("the provider signs the URL it sends to, and `public_url` is not set")]
    MissingPublicUrl,
    /// `{compute:…}` that names nothing.
    #[error("`compute:{name}` is no value that the handshake computes")]
    UnknownComputed {
        /// The name.
        name: String,
    },
    /// A handshake that nothing proves computes over no value, or over several that could run into each other.
    #[error("a handshake without a check computes over exactly one value of the request")]
    NotOneValue,
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

/// What is wrong with a secret: to be read after "the secret is".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// It has nothing in it, or white space alone, or nothing behind its prefix.
    #[error("empty")]
    Empty,
    /// It is not written as the preset says.
    #[error("not {0}, as this provider's secrets are; copy it again from the provider, whole")]
    Encoding(&'static str),
    /// A public key of another length.
    #[error("not an Ed25519 public key, which has 32 bytes; copy it again from the provider, whole")]
    KeyLength,
    /// A public key under which anybody could sign (RFC 8032, section 5.1.7; small order), or that is not canonical.
    #[error("a key that no signer has, such as one of zeros; copy it again from the provider")]
    WeakKey,
    /// A public key (`whpk_`) where a shared secret belongs.
    #[error("a public key (`whpk_…`), and a shared secret belongs here; anybody can know a public key")]
    PublicKey,
    /// A shared secret (`whsec_`) where a public key belongs.
    #[error("a shared secret (`whsec_…`), and the sender's public key belongs here; copy that one")]
    SharedSecret,
    /// A private key (`whsk_`), which is the sender's alone.
    #[error("a private key (`whsk_…`), which only the sender has; copy the public one, and replace this one")]
    PrivateKey,
    /// A name with a colon, which basic authentication cannot carry.
    #[error("a name with a colon in it, which basic authentication cannot carry (RFC 7617); choose another")]
    Colon,
}

/// Why a request cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A value that is signed is not there, or there more than once.
    #[error("`{0}` is part of the signed content; give it once")]
    Missing(Place),
    /// A field that is signed has no known value.
    #[error("the field `{0}` is part of the signed content, and only the provider knows its value")]
    Field(String),
    /// A value that is part of the signed content is one that no receiver would accept.
    #[error("a signed id has at most 256 bytes, and no dot or control character")]
    Value,
    /// A value cannot stand in a header.
    #[error("the value for `{0}` cannot stand in a header: it has a line end or another control character in it")]
    Header(Place),
    /// The body has no room for a value: it is no JSON, has nothing above it, or is no form.
    #[error("the body has no room for `{0}`; give one that has a value there already")]
    Body(Place),
    /// A value stands in the path, which is given.
    #[error("`{0}` is a part of the path; write it into the address")]
    Param(Place),
    /// The scheme has a private key, and it is not given.
    #[error("this provider signs with a private key that only it has")]
    NoSigningKey,
    /// A private key whose public half is not the one that verifies.
    #[error("the signing key is not the one to the source's public key; its own public half is `{public}`")]
    OtherKey {
        /// The public half of the given one, as a source would have it.
        public: String,
    },
}
