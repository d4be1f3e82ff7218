//! What is signed: a template's pieces, fed one after the other without building them up.

use http::HeaderName;

use super::carrier::{Carrier, Fields};
use super::request::{Request, Times};
use super::{CompileError, Piece, Rejection, Template};

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
    Header(HeaderName, Guard),
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
                Piece::Header(name) => Part::Header(name.clone(), guard),
                Piece::Field(name) => Part::Field(carrier.field(name)?, guard),
            });
        }
        if parts.iter().all(|part| matches!(part, Part::Literal(_))) {
            return Err(CompileError::EmptyContent);
        }
        Ok(Self(parts))
    }

    /// Feeds the signed bytes of `request` into `sink`, in order.
    ///
    /// # Errors
    /// A [`Rejection`] if a header or field is missing, repeated or not what its [`Guard`] wants; `sink` may
    /// have taken something by then.
    pub(super) fn feed<'a>(
        &'a self,
        request: &Request<'a>,
        fields: &Fields<'a>,
        mut sink: impl FnMut(&'a [u8]),
    ) -> Result<(), Rejection> {
        for part in &self.0 {
            sink(match part {
                Part::Literal(bytes) => bytes,
                Part::Body => request.body,
                Part::Method => request.method.as_str().as_bytes(),
                Part::Path => request.path.as_bytes(),
                Part::Query => request.query.unwrap_or_default().as_bytes(),
                Part::Header(name, guard) => guard.pass(one(request, name)?)?,
                Part::Field(index, guard) => guard.pass(fields.one(*index)?.as_bytes())?,
            });
        }
        Ok(())
    }

    pub(super) fn has_body(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Body))
    }

    pub(super) fn has_header(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Header(signed, _) if signed == name))
    }

    /// The fields of the signature header that are signed, by number.
    pub(super) fn fields(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|part| if let Part::Field(index, _) = part { Some(*index) } else { None })
    }

    /// The headers that are signed.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().filter_map(|part| if let Part::Header(name, _) = part { Some(name) } else { None })
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

fn one<'a>(request: &Request<'a>, name: &HeaderName) -> Result<&'a [u8], Rejection> {
    match request.header(name) {
        Times::Once(value) => Ok(value.as_bytes()),
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
