//! What must hold, compiled: the leaves and how they combine, and what a check that held covers.

use sha2::{Digest, Sha256};

use super::basic::Basic;
use super::ed25519::SigningKey;
use super::handshake::PublicAnswer;
use super::pointer::Pointers;
use super::reading::Reading;
use super::signed::{Holds, Signed};
use super::token::Token;
use super::{Check, CompileError, Draft, Keyring, Place, Recipe, Rejection, SecretSlot, SignError, Tolerance};
use crate::base::UnixMillis;
use crate::event::Proof;

/// A [`Check`], compiled.
#[derive(Debug)]
pub(super) enum Test {
    Signed(Box<Signed>),
    Token(Token),
    Basic(Basic),
    Any(Vec<Test>),
    All(Vec<Test>),
    Nothing,
}

/// A check that held.
#[derive(Debug)]
pub(super) enum Held<'r, 's> {
    Signed(&'r Signed, Holds<'r, 's>),
    /// With the label of the secret that matched.
    Token(&'r str),
    /// With the label of the password that matched.
    Basic(&'r str),
    All(Vec<Held<'r, 's>>),
    Nothing,
}

/// What checks are compiled with.
#[derive(Clone, Copy)]
pub(super) struct Context<'c> {
    /// The secrets that the preset names.
    pub(super) slots: &'c [SecretSlot],
    /// Those that are there.
    pub(super) keyring: &'c Keyring,
    pub(super) tolerance: Tolerance,
    /// What anybody can have signed.
    pub(super) public: &'c [PublicAnswer],
}

impl Context<'_> {
    /// Whether `slot` is one that may be left out, and was.
    pub(super) fn lacks(&self, slot: &str) -> bool {
        let optional = self.slots.iter().any(|known| known.optional && known.name == slot);
        optional && self.keyring.0.iter().all(|(name, keys)| name != slot || keys.is_empty())
    }
}

impl Test {
    /// Compiles `check`. Of an `any`, those that need an optional secret which is not there are left out.
    pub(super) fn new(check: &Check, context: &Context<'_>, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let mut each = |checks: &[&Check]| -> Result<Vec<Self>, CompileError> {
            if checks.is_empty() {
                return Err(CompileError::EmptyCheck);
            }
            checks.iter().map(|check| Self::new_inside(check, context, pointers)).collect()
        };
        Ok(match check {
            Check::Signed(check) => Self::Signed(Box::new(Signed::new(check, context, pointers)?)),
            Check::Token(check) => Self::Token(Token::new(check, context.keyring, pointers)?),
            Check::Basic(check) => Self::Basic(Basic::new(check, context.keyring, pointers)?),
            Check::Any(checks) => {
                let lacks = |slot: &str| context.lacks(slot);
                if !checks.is_empty() && !check.can_hold(&lacks) {
                    let leaves = check.leaves();
                    let mut slots: Vec<&str> =
                        leaves.iter().flat_map(|leaf| leaf.slots()).filter(|slot| lacks(slot)).collect();
                    slots.dedup();
                    return Err(CompileError::NoSecret { slots: slots.join("`, `") });
                }
                Self::Any(each(&checks.iter().filter(|check| check.can_hold(&lacks)).collect::<Vec<_>>())?)
            }
            Check::All(checks) => Self::All(each(&checks.iter().collect::<Vec<_>>())?),
            Check::Nothing => Self::Nothing,
        })
    }

    /// As [`Test::new`], where a check that always holds has no place.
    pub(super) fn new_inside(
        check: &Check,
        context: &Context<'_>,
        pointers: &mut Pointers,
    ) -> Result<Self, CompileError> {
        match check {
            Check::Nothing => Err(CompileError::NothingInside),
            check => Self::new(check, context, pointers),
        }
    }

    /// # Errors
    /// The [`Rejection`]; where one of several had to hold, the first that found something to check.
    pub(super) fn check<'r: 's, 's>(
        &'r self,
        reading: &'s Reading<'_>,
        now: UnixMillis,
    ) -> Result<Held<'r, 's>, Rejection> {
        match self {
            Self::Signed(signed) => signed.check(reading, now).map(|holds| Held::Signed(signed, holds)),
            Self::Token(token) => token.check(reading, now).map(|key| Held::Token(&key.label)),
            Self::Basic(basic) => basic.check(reading, now).map(|key| Held::Basic(&key.label)),
            Self::Any(tests) => {
                let mut verdict = Rejection::MissingSignature;
                for test in tests {
                    match test.check(reading, now) {
                        Ok(held) => return Ok(held),
                        Err(rejection) if verdict == Rejection::MissingSignature => verdict = rejection,
                        Err(_) => {}
                    }
                }
                Err(verdict)
            }
            Self::All(tests) => {
                tests.iter().map(|test| test.check(reading, now)).collect::<Result<_, _>>().map(Held::All)
            }
            Self::Nothing => Ok(Held::Nothing),
        }
    }

    /// Makes `draft` genuine: by the first of several that could hold, or the first that `private` signs for.
    ///
    /// What is sent as it is comes first, since a signature may cover it.
    pub(super) fn sign(
        &self,
        recipe: &Recipe,
        draft: &mut Draft,
        now: UnixMillis,
        private: Option<&SigningKey>,
    ) -> Result<(), SignError> {
        let mut leaves = self.to_sign(private.is_some());
        leaves.sort_by_key(|leaf| matches!(leaf, Self::Signed(_)));
        for leaf in leaves {
            match leaf {
                Self::Signed(signed) => signed.sign(recipe, draft, now, private)?,
                Self::Token(token) => token.sign(draft)?,
                Self::Basic(basic) => basic.sign(draft)?,
                Self::Any(_) | Self::All(_) | Self::Nothing => {}
            }
        }
        Ok(())
    }

    /// The checks that a signed request must pass.
    fn to_sign(&self, private: bool) -> Vec<&Self> {
        match self {
            Self::Any(tests) => {
                let fits = tests.iter().find(|test| private && test.has_private_key());
                fits.or(tests.first()).map(|test| test.to_sign(private)).unwrap_or_default()
            }
            Self::All(tests) => tests.iter().flat_map(|test| test.to_sign(private)).collect(),
            leaf => vec![leaf],
        }
    }

    fn has_private_key(&self) -> bool {
        match self {
            Self::Signed(signed) => signed.has_private_key(),
            Self::Any(tests) | Self::All(tests) => tests.iter().any(Self::has_private_key),
            Self::Token(_) | Self::Basic(_) | Self::Nothing => false,
        }
    }
}

impl<'s> Held<'s, 's> {
    /// Whether nobody but the provider could have chosen what is at `place`.
    ///
    /// Without a signature, what a token came with counts for the body and not for the rest: a proxy on the way adds
    /// headers, and ids in them are made anew more often than not.
    pub(super) fn covers(&self, place: &Place) -> bool {
        match self {
            Self::Signed(signed, _) => signed.covers(place),
            Self::Token(_) | Self::Basic(_) | Self::Nothing => matches!(place, Place::Json(_) | Place::Form(_)),
            Self::All(held) => held.iter().any(|held| held.covers(place)),
        }
    }

    /// The SHA-256 of the signed bytes; `body` is that of the body, which counts as signed where nothing is.
    pub(super) fn digest(&self, reading: &'s Reading<'_>, body: [u8; 32]) -> Result<[u8; 32], Rejection> {
        match self {
            Self::Signed(signed, _) if signed.is_body() => Ok(body),
            Self::Signed(signed, holds) => signed.digest(reading, holds),
            Self::Token(_) | Self::Basic(_) | Self::Nothing => Ok(body),
            Self::All(held) => {
                let mut hash = Sha256::new();
                for held in held {
                    hash.update(held.digest(reading, body)?);
                }
                Ok(hash.finalize().into())
            }
        }
    }

    /// What is told of it.
    pub(super) fn proof(&self) -> Proof {
        let proof = |scheme: &str, slot: &str| Proof { scheme: scheme.into(), slot: slot.into() };
        match self {
            Self::Signed(signed, holds) => proof(signed.scheme(), holds.label),
            Self::Token(label) => proof("token", label),
            Self::Basic(label) => proof("basic", label),
            Self::Nothing => proof("none", ""),
            Self::All(held) => {
                let proofs: Vec<Proof> = held.iter().map(Self::proof).collect();
                let join = |part: fn(&Proof) -> &str| proofs.iter().map(part).collect::<Vec<_>>().join("+");
                proof(&join(|proof| &proof.scheme), &join(|proof| &proof.slot))
            }
        }
    }
}
