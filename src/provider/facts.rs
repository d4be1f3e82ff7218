//! Where an event's id, type and dedupe key are, and what stands there.

use std::str;

use super::pointer::Pointers;
use super::request::{Request, Times};
use super::{CompileError, EventFacts, FirstOf, KeyRule, Place};

/// The longest value that counts as a fact, in bytes.
const MAX_VALUE_BYTES: usize = 256;

/// The places of a recipe, compiled.
#[derive(Debug)]
pub(super) struct Facts {
    pointers: Pointers,
    pub(super) id: Choice,
    pub(super) kind: Choice,
    pub(super) dedupe: Rule,
}

/// A [`KeyRule`], compiled.
#[derive(Debug)]
pub(super) enum Rule {
    Parts(Vec<Choice>),
    Signed,
    Off,
}

/// A [`FirstOf`], compiled; empty where nothing is said.
#[derive(Debug, Default)]
pub(super) struct Choice(Vec<Site>);

/// A [`Place`], compiled: with its number among the pointers if it is one.
#[derive(Debug)]
struct Site {
    place: Place,
    pointer: usize,
}

/// What the pointers lead to in one request.
pub(super) struct Found<'a> {
    request: Request<'a>,
    json: Vec<Option<Box<str>>>,
}

impl Facts {
    pub(super) fn new(facts: &EventFacts, dedupe: &KeyRule) -> Result<Self, CompileError> {
        let mut pointers = Pointers::default();
        let id = Choice::new(facts.id.as_ref(), &mut pointers)?;
        let kind = Choice::new(facts.kind.as_ref(), &mut pointers)?;
        let dedupe = match dedupe {
            KeyRule::Off => Rule::Off,
            KeyRule::Signed => Rule::Signed,
            KeyRule::Parts(parts) => {
                let part = |part: &FirstOf| Choice::new(Some(part), &mut pointers);
                Rule::Parts(parts.iter().map(part).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { pointers, id, kind, dedupe })
    }

    pub(super) fn find<'a>(&self, request: &Request<'a>) -> Found<'a> {
        Found { request: *request, json: self.pointers.find(request.body) }
    }
}

impl Choice {
    fn new(choice: Option<&FirstOf>, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let site = |place: &Place| {
            let pointer = match place {
                Place::Header(_) => 0,
                Place::Json(text) => pointers.add(text)?,
            };
            Ok(Site { place: place.clone(), pointer })
        };
        choice.map_or(&[][..], |choice| &choice.0).iter().map(site).collect::<Result<_, _>>().map(Self)
    }

    /// The first of the places that has something, and what it has: 1 to 256 bytes of UTF-8.
    pub(super) fn of<'s>(&'s self, found: &'s Found<'_>) -> Option<(&'s Place, &'s str)> {
        self.0.iter().find_map(|site| site.value(found).map(|value| (&site.place, value)))
    }
}

impl Site {
    fn value<'s>(&self, found: &'s Found<'_>) -> Option<&'s str> {
        let value = match &self.place {
            Place::Json(_) => found.json.get(self.pointer)?.as_deref()?,
            Place::Header(name) => match found.request.header(name) {
                Times::Once(value) => str::from_utf8(value.as_bytes()).ok()?,
                Times::Never | Times::Often => return None,
            },
        };
        if (1..=MAX_VALUE_BYTES).contains(&value.len()) { Some(value) } else { None }
    }
}
