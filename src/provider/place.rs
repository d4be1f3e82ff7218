//! Where a value of a request stands, and what is signed: the words `header:X`, `json:/a`, `{body}` of a preset.

use std::fmt;

use http::HeaderName;

/// Where one value of a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `header:X`: the header's only value.
    Header(HeaderName),
    /// `json:/a/b`: a string, number or boolean at a JSON pointer (RFC 6901) into the body.
    Json(String),
    /// `query:x`: the only parameter of this name in the URL's query, decoded (URL Standard, section 5.1).
    Query(String),
    /// `form:x`: the only field of this name in a body that is read as a form, whatever its `Content-Type`, decoded likewise.
    Form(String),
    /// `param:x`: what the `{x}` of the source's path matched, as received.
    Param(String),
}

/// As the YAML says it. Dedupe keys are made of this text, so it must not change.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Form(name) => write!(f, "form:{name}"),
            Self::Param(name) => write!(f, "param:{name}"),
        }
    }
}

/// The first place of these that has something, e.g. `header:A | json:/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstOf(pub Vec<Place>);

/// As the YAML says it.
impl fmt::Display for FirstOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.0.iter().enumerate() {
            let bar = if index == 0 { "" } else { " | " };
            write!(f, "{bar}{place}")?;
        }
        Ok(())
    }
}

/// A concatenation, e.g. `v0:{header:Acme-Time}:{body}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text as it stands.
    Literal(String),
    /// `{body}`: the exact body.
    Body,
    /// `{method}`.
    Method,
    /// `{path}`: as received.
    Path,
    /// `{query}`: as received, without the `?`.
    Query,
    /// `{url}`: the source's public URL, and path and query as received.
    Url,
    /// `{header:X}`, `{json:/a}`, `{query:x}`, `{form:x}`, `{param:x}`: the value there, which must be there once.
    At(Place),
    /// `{field:t}`: the value of a key in the signature's list; it must be there, once.
    Field(String),
}

impl Template {
    /// Whether nobody but the signer can have chosen the value at `place`.
    #[must_use]
    pub fn covers(&self, place: &Place) -> bool {
        self.0.iter().any(|piece| piece.covers(place))
    }
}

impl Piece {
    /// Whether the value at `place` is a part of this piece.
    #[must_use]
    pub fn covers(&self, place: &Place) -> bool {
        match (self, place) {
            (Self::At(at), place) => at == place,
            (Self::Body, Place::Json(_) | Place::Form(_)) => true,
            (Self::Query | Self::Url, Place::Query(_)) => true,
            (Self::Path | Self::Url, Place::Param(_)) => true,
            _ => false,
        }
    }
}
