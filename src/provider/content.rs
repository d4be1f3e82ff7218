//! What is signed: a template's pieces, fed one after the other without building them up.

use super::carrier::{Carrier, Fields};
use super::pointer::Pointers;
use super::reading::{Reading, Site, Times};
use super::{CompileError, Piece, Place, Rejection, Template};

/// The longest signed id.
const MAX_ID_BYTES: usize = 256;

/// A template, compiled.
#[derive(Debug)]
pub(super) struct Content(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(Box<[u8]>),
    Body,
    Method,
    Path,
    Query,
    Url,
    At(Site, Guard),
    Field(usize, Guard),
}

/// What a value must be, beside being there once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// Anything.
    Open,
    /// Joined to its neighbour by a dot: it must not have one itself, or `a.b` + `c` and `a` + `b.c` would
    /// be signed alike.
    NoDot,
}

impl Content {
    /// Compiles `template`; `timestamp` is the piece that is checked elsewhere, as a timestamp.
    pub(super) fn new(
        template: &Template,
        timestamp: Option<&Piece>,
        carrier: &mut Carrier,
        pointers: &mut Pointers,
    ) -> Result<Self, CompileError> {
        let pieces = &template.0;
        let mut parts = Vec::with_capacity(pieces.len());
        for (index, piece) in pieces.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|before| pieces.get(before));
            let joined = ends_with_dot(before) || starts_with_dot(pieces.get(index + 1));
            let guard = if joined && timestamp != Some(piece) { Guard::NoDot } else { Guard::Open };
            parts.push(match piece {
                Piece::Literal(text) => Part::Literal(text.as_bytes().into()),
                Piece::Body => Part::Body,
                Piece::Method => Part::Method,
                Piece::Path => Part::Path,
                Piece::Query => Part::Query,
                Piece::Url => Part::Url,
                Piece::At(place) => Part::At(Site::new(place, pointers)?, guard),
                Piece::Field(name) => Part::Field(carrier.field(name)?, guard),
            });
        }
        if parts.iter().all(|part| matches!(part, Part::Literal(_))) {
            return Err(CompileError::EmptyContent);
        }
        Ok(Self(parts))
    }

    /// Feeds the signed bytes of a request into `sink`, in order.
    ///
    /// # Errors
    /// A [`Rejection`] if a value or field is missing, repeated or not what its [`Guard`] wants; `sink` may
    /// have taken something by then.
    pub(super) fn feed<'s>(
        &'s self,
        reading: &'s Reading<'_>,
        fields: &Fields<'s>,
        mut sink: impl FnMut(&'s [u8]),
    ) -> Result<(), Rejection> {
        let request = &reading.request;
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => sink(bytes),
                Part::Body => sink(request.body),
                Part::Method => sink(request.method.as_str().as_bytes()),
                Part::Path => sink(request.path.as_bytes()),
                Part::Query => sink(request.query.unwrap_or_default().as_bytes()),
                Part::Url => {
                    sink(reading.public_url.unwrap_or_default().as_bytes());
                    sink(request.path.as_bytes());
                    if let Some(query) = request.query {
                        sink(b"?");
                        sink(query.as_bytes());
                    }
                }
                Part::At(site, guard) => sink(guard.pass(one(reading, site)?)?),
                Part::Field(index, guard) => sink(guard.pass(fields.one(*index)?.as_bytes())?),
            }
        }
        Ok(())
    }

    /// The fields of the signature header that are signed, by number.
    pub(super) fn fields(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|part| if let Part::Field(index, _) = part { Some(*index) } else { None })
    }

    /// The first place of those that are signed whose value is not there, once.
    pub(super) fn lacks(&self, reading: &Reading<'_>) -> Option<&Place> {
        self.0.iter().find_map(|part| match part {
            Part::At(site, _) if one(reading, site).is_err() => Some(site.place()),
            _ => None,
        })
    }

    /// Whether the body and nothing else is signed.
    pub(super) fn is_body(&self) -> bool {
        matches!(self.0.as_slice(), [Part::Body])
    }
}

impl Guard {
    fn pass(self, value: &[u8]) -> Result<&[u8], Rejection> {
        let shifts = |byte: &u8| *byte == b'.' || byte.is_ascii_control();
        let good = match self {
            Self::Open => true,
            Self::NoDot => !value.is_empty() && value.len() <= MAX_ID_BYTES && !value.iter().any(shifts),
        };
        if good { Ok(value) } else { Err(Rejection::BadId) }
    }
}

fn one<'s>(reading: &'s Reading<'_>, site: &Site) -> Result<&'s [u8], Rejection> {
    match reading.value(site) {
        Times::Once(value) => Ok(value),
        Times::Never => Err(Rejection::MissingSignedPart),
        Times::Often => Err(Rejection::RepeatedSignedPart),
    }
}

fn starts_with_dot(piece: Option<&Piece>) -> bool {
    matches!(piece, Some(Piece::Literal(text)) if text.starts_with('.'))
}

fn ends_with_dot(piece: Option<&Piece>) -> bool {
    matches!(piece, Some(Piece::Literal(text)) if text.ends_with('.'))
}
