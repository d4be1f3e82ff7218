//! A request while it is looked at: a value at a place, wherever that is.
//!
//! Query, form and JSON are taken apart once, and only if somebody asks: a check that needs none of them costs an
//! attacker's request nothing more.

use std::borrow::Cow;
use std::cell::OnceCell;

use http::header::GetAll;

use super::pointer::{MAX_VALUE_BYTES, Pointers};
use super::{CompileError, Place, Request};

/// A query or a form of more pairs has nothing in it: each look-up goes through all of them.
const MAX_PAIRS: usize = 1_000;

/// A [`Place`], compiled: with its number among the pointers if it is one.
#[derive(Clone, Debug)]
pub(super) struct Site {
    place: Place,
    pointer: usize,
}

impl Site {
    pub(super) fn new(place: &Place, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let pointer = match place {
            Place::Json(text) => pointers.add(text)?,
            _ => 0,
        };
        Ok(Self { place: place.clone(), pointer })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

/// How often a value is there. A second one is never silently ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times<'a> {
    Never,
    Once(&'a [u8]),
    Often,
}

/// A request, and what was read of it so far.
pub(super) struct Reading<'q> {
    pub(super) request: Request<'q>,
    /// What stands before path and query in the URL that the provider sends to.
    pub(super) public_url: Option<&'q str>,
    pointers: &'q Pointers,
    json: OnceCell<Vec<Option<Box<str>>>>,
    query: OnceCell<Pairs<'q>>,
    form: OnceCell<Pairs<'q>>,
}

type Pairs<'q> = Vec<(Cow<'q, str>, Cow<'q, str>)>;

impl<'q> Reading<'q> {
    pub(super) fn new(request: Request<'q>, public_url: Option<&'q str>, pointers: &'q Pointers) -> Self {
        let (json, query, form) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { request, public_url, pointers, json, query, form }
    }

    /// The value at `site`: of a header whatever it is, elsewhere 1 to [`MAX_VALUE_BYTES`] bytes of UTF-8.
    pub(super) fn value(&self, site: &Site) -> Times<'_> {
        match &site.place {
            Place::Header(name) => {
                let values = GetAll::into_iter(self.request.headers.get_all(name));
                only(values.map(http::HeaderValue::as_bytes))
            }
            Place::Json(_) => {
                let found = self.json.get_or_init(|| self.pointers.find(self.request.body));
                sized(only(found.get(site.pointer).and_then(Option::as_deref).map(str::as_bytes).into_iter()))
            }
            Place::Query(name) => {
                let query = || pairs(self.request.query.unwrap_or_default().as_bytes());
                sized(named(self.query.get_or_init(query), name))
            }
            Place::Form(name) => {
                let form = || if is_json(self.request.body) { Vec::new() } else { pairs(self.request.body) };
                sized(named(self.form.get_or_init(form), name))
            }
            Place::Param(name) => {
                let params = self.request.params.iter().filter(|(known, _)| **known == **name);
                sized(only(params.map(|(_, value)| value.as_bytes())))
            }
        }
    }
}

/// Whether a body is JSON, and so no form: what people write in its strings is not a field. It goes by the body alone, since no
/// signature covers a `Content-Type`: whoever sends a genuine body again could undo a key by naming another one. No form begins
/// like this, as a form's names have neither bracket as it stands (URL Standard, section 5.2).
fn is_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first().is_some_and(|first| matches!(first, b'{' | b'['))
}

fn pairs(text: &[u8]) -> Pairs<'_> {
    let pairs: Pairs<'_> = form_urlencoded::parse(text).take(MAX_PAIRS + 1).collect();
    if pairs.len() > MAX_PAIRS { Vec::new() } else { pairs }
}

fn named<'a>(pairs: &'a Pairs<'_>, name: &str) -> Times<'a> {
    only(pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_bytes()))
}

fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Times<'a> {
    match (values.next(), values.next()) {
        (None, _) => Times::Never,
        (Some(value), None) => Times::Once(value),
        (Some(_), Some(_)) => Times::Often,
    }
}

fn sized(times: Times<'_>) -> Times<'_> {
    match times {
        Times::Once(value) if !(1..=MAX_VALUE_BYTES).contains(&value.len()) => Times::Never,
        times => times,
    }
}
