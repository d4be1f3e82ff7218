//! What must hold, compiled: the leaves and how they combine, and what a check that held covers.

use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::hmac::{Holds, Signed};
use super::request::Request;
use super::token::Token;
use super::{Check, CompileError, Keyring, Place, Rejection, SignError, Tolerance};
use crate::base::UnixMillis;
use crate::event::Proof;

/// A [`Check`], compiled.
#[derive(Debug)]
pub(super) enum Test {
    Hmac(Box<Signed>),
    Token(Token),
    Any(Vec<Test>),
    All(Vec<Test>),
    Nothing,
}

/// A check that held.
#[derive(Debug)]
pub(super) enum Held<'r, 'q> {
    Hmac(&'r Signed, Holds<'r, 'q>),
    /// With the label of the secret that matched.
    Token(&'r str),
    All(Vec<Held<'r, 'q>>),
    Nothing,
}

impl Test {
    pub(super) fn new(check: &Check, keyring: &Keyring, tolerance: Tolerance) -> Result<Self, CompileError> {
        let each = |checks: &[Check]| -> Result<Vec<Self>, CompileError> {
            if checks.is_empty() {
                return Err(CompileError::EmptyCheck);
            }
            checks.iter().map(|check| Self::new_inside(check, keyring, tolerance)).collect()
        };
        Ok(match check {
            Check::Hmac(check) => Self::Hmac(Box::new(Signed::new(check, keyring, tolerance)?)),
            Check::Token(check) => Self::Token(Token::new(check, keyring)?),
            Check::Any(checks) => Self::Any(each(checks)?),
            Check::All(checks) => Self::All(each(checks)?),
            Check::Nothing => Self::Nothing,
        })
    }

    /// As [`Test::new`], where a check that always holds has no place.
    pub(super) fn new_inside(check: &Check, keyring: &Keyring, tolerance: Tolerance) -> Result<Self, CompileError> {
        match check {
            Check::Nothing => Err(CompileError::NothingInside),
            check => Self::new(check, keyring, tolerance),
        }
    }

    /// # Errors
    /// The [`Rejection`]; where one of several had to hold, the first that found something to check.
    pub(super) fn check<'r, 'q>(&'r self, request: &Request<'q>, now: UnixMillis) -> Result<Held<'r, 'q>, Rejection> {
        match self {
            Self::Hmac(signed) => signed.check(request, now).map(|holds| Held::Hmac(signed, holds)),
            Self::Token(token) => token.check(request, now).map(|key| Held::Token(&key.label)),
            Self::Any(tests) => {
                let mut verdict = Rejection::MissingSignature;
                for test in tests {
                    match test.check(request, now) {
                        Ok(held) => return Ok(held),
                        Err(rejection) if verdict == Rejection::MissingSignature => verdict = rejection,
                        Err(_) => {}
                    }
                }
                Err(verdict)
            }
            Self::All(tests) => {
                tests.iter().map(|test| test.check(request, now)).collect::<Result<_, _>>().map(Held::All)
            }
            Self::Nothing => Ok(Held::Nothing),
        }
    }

    /// The headers that make `request` genuine: those of the first of several that could hold.
    pub(super) fn sign(
        &self,
        request: &Request<'_>,
        now: UnixMillis,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
        match self {
            Self::Hmac(signed) => signed.sign(request, now),
            Self::Token(token) => token.sign().map(|header| vec![header]),
            Self::Any(tests) => tests.first().map_or_else(|| Ok(Vec::new()), |test| test.sign(request, now)),
            Self::All(tests) => {
                let mut headers = Vec::new();
                for test in tests {
                    headers.extend(test.sign(request, now)?);
                }
                Ok(headers)
            }
            Self::Nothing => Ok(Vec::new()),
        }
    }
}

impl Held<'_, '_> {
    /// Whether nobody but the provider could have chosen what is at `place`.
    ///
    /// Without a signature, what a token came with counts for the body and not for other headers: a proxy
    /// on the way adds headers, and ids in them are made anew more often than not.
    pub(super) fn covers(&self, place: &Place) -> bool {
        match (self, place) {
            (Self::Hmac(signed, _), Place::Header(name)) => signed.content().has_header(name),
            (Self::Hmac(signed, _), Place::Json(_)) => signed.content().has_body(),
            (Self::Token(_) | Self::Nothing, place) => matches!(place, Place::Json(_)),
            (Self::All(held), place) => held.iter().any(|held| held.covers(place)),
        }
    }

    /// The SHA-256 of the signed bytes; `body` is that of the body, which counts as signed where nothing is.
    pub(super) fn digest(&self, request: &Request<'_>, body: [u8; 32]) -> Result<[u8; 32], Rejection> {
        match self {
            Self::Hmac(signed, _) if signed.content().is_body() => Ok(body),
            Self::Hmac(signed, holds) => signed.digest(request, holds),
            Self::Token(_) | Self::Nothing => Ok(body),
            Self::All(held) => {
                let mut hash = Sha256::new();
                for held in held {
                    hash.update(held.digest(request, body)?);
                }
                Ok(hash.finalize().into())
            }
        }
    }

    /// What is told of it.
    pub(super) fn proof(&self) -> Proof {
        let proof = |scheme: &str, slot: &str| Proof { scheme: scheme.into(), slot: slot.into() };
        match self {
            Self::Hmac(_, holds) => proof("hmac", &holds.key.label),
            Self::Token(label) => proof("token", label),
            Self::Nothing => proof("none", ""),
            Self::All(held) => {
                let proofs: Vec<Proof> = held.iter().map(Self::proof).collect();
                let join = |part: fn(&Proof) -> &str| proofs.iter().map(part).collect::<Vec<_>>().join("+");
                proof(&join(|proof| &proof.scheme), &join(|proof| &proof.slot))
            }
        }
    }
}
