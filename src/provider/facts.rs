//! Where an event's id, type and dedupe key are, and what stands there.

use std::str;

use super::pointer::Pointers;
use super::reading::{Reading, Site, Times};
use super::{CompileError, EventFacts, FirstOf, KeyRule, Place};

/// The longest value that is a fact, in bytes.
const MAX_FACT_BYTES: usize = 256;

/// The places of a recipe, compiled.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) id: Choice,
    pub(super) kind: Choice,
    pub(super) dedupe: Rule,
}

/// A [`KeyRule`], compiled.
#[derive(Debug)]
pub(super) enum Rule {
    Parts(Vec<Choice>),
    Signed,
    Body,
    Off,
}

/// A [`FirstOf`], compiled; empty where nothing is said.
#[derive(Debug, Default)]
pub(super) struct Choice(Vec<Site>);

impl Facts {
    pub(super) fn new(facts: &EventFacts, dedupe: &KeyRule, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let id = Choice::new(facts.id.as_ref(), pointers)?;
        let kind = Choice::new(facts.kind.as_ref(), pointers)?;
        let dedupe = match dedupe {
            KeyRule::Off => Rule::Off,
            KeyRule::Signed => Rule::Signed,
            KeyRule::Body => Rule::Body,
            KeyRule::Parts(parts) => {
                let part = |part: &FirstOf| Choice::new(Some(part), pointers);
                Rule::Parts(parts.iter().map(part).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { id, kind, dedupe })
    }
}

impl Choice {
    fn new(choice: Option<&FirstOf>, pointers: &mut Pointers) -> Result<Self, CompileError> {
        let places = choice.map_or(&[][..], |choice| &choice.0);
        places.iter().map(|place| Site::new(place, pointers)).collect::<Result<_, _>>().map(Self)
    }

    /// The first of the places that has something, and what it has: 1 to 256 bytes of UTF-8.
    pub(super) fn of<'s>(&'s self, reading: &'s Reading<'_>) -> Option<(&'s Place, &'s str)> {
        self.0.iter().find_map(|site| fact(reading.value(site)).map(|value| (site.place(), value)))
    }
}

fn fact(times: Times<'_>) -> Option<&str> {
    match times {
        Times::Once(value) if (1..=MAX_FACT_BYTES).contains(&value.len()) => str::from_utf8(value).ok(),
        _ => None,
    }
}
