//! A JSON pointer with a `*`: a value in every item of an array, so that no item goes unlooked at.
//!
//! Nothing of the body is built. Each step reads the text below it once more, so the cost is the body's length times
//! the steps there are, at most 32.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::CompileError;
use super::pointer::{MAX_STEPS, Step, scalar};

/// A pointer with a `*`, compiled.
#[derive(Debug)]
pub(super) struct Items(Vec<Segment>);

#[derive(Debug)]
enum Segment {
    Into(Step),
    Each,
}

impl Items {
    /// The pointer `text`; none if it has no `*`.
    pub(super) fn new(text: &str) -> Result<Option<Self>, CompileError> {
        let bad = || CompileError::BadPointer { pointer: text.to_owned() };
        let segments = text.split('/').skip(1);
        if !segments.clone().any(|segment| segment == "*") {
            return Ok(None);
        }
        let segment = |text| if text == "*" { Some(Segment::Each) } else { Step::parse(text).map(Segment::Into) };
        let segments = segments.map(segment).collect::<Option<Vec<_>>>().filter(|_| text.starts_with('/'));
        match segments {
            None => Err(bad()),
            Some(segments) if segments.len() > MAX_STEPS => Err(CompileError::TooManyPointers),
            Some(segments) => Ok(Some(Self(segments))),
        }
    }

    /// Shows `see` the value of every item, and none for each item (or the whole) that has no such value: a string,
    /// number or boolean. Of a key that comes twice, both are shown. Something is shown in any case.
    pub(super) fn each(&self, body: &[u8], see: &mut dyn FnMut(Option<&str>)) {
        match serde_json::from_slice::<&RawValue>(body) {
            Ok(whole) => walk(whole.get(), &self.0, see),
            Err(_) => see(None),
        }
    }
}

fn walk(text: &str, segments: &[Segment], see: &mut dyn FnMut(Option<&str>)) {
    let Some((segment, rest)) = segments.split_first() else { return see(scalar(text).as_deref()) };
    let mut seen = false;
    let level = Level {
        segment,
        each: |inside: &RawValue| {
            seen = true;
            walk(inside.get(), rest, see);
        },
    };
    // A scalar is an error here, and has nothing in it either.
    let _ = serde_json::Deserializer::from_str(text).deserialize_any(level);
    if !seen {
        see(None);
    }
}

/// One value of the body: `each` is called with what is in it at `segment`.
struct Level<'s, F> {
    segment: &'s Segment,
    each: F,
}

impl<'de, F: FnMut(&RawValue)> Visitor<'de> for Level<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Is(self.segment))? {
            if wanted {
                (self.each)(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let Some(item) = seq.next_element::<&RawValue>()? else { break };
            let wanted = match self.segment {
                Segment::Each => true,
                Segment::Into(step) => step.is_index(index),
            };
            if wanted {
                (self.each)(item);
            }
        }
        Ok(())
    }
}

/// Whether an object's key is the one of a segment. No key is `*`.
struct Is<'s>(&'s Segment);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(matches!(self.0, Segment::Into(step) if step.is_key(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pointer: &str, body: &str) -> Vec<Option<String>> {
        let mut all = Vec::new();
        Items::new(pointer).unwrap().unwrap().each(body.as_bytes(), &mut |value| all.push(value.map(String::from)));
        all
    }

    fn some(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| Some((*value).to_owned())).collect()
    }

    #[test]
    fn every_item_is_shown_and_one_without_the_value_as_none() {
        let each = |body: &str| seen("/v/*/s", body);
        assert_eq!(each(r#"{"v":[{"s":"a"},{"x":[1],"s":2}],"w":0}"#), some(&["a", "2"]));
        assert_eq!(each(r#"{"v":[{"s":"a"},{"S":"b"}]}"#), [Some("a".into()), None]);
        assert_eq!(each(r#"{"v":[{"s":"a"},7]}"#), [Some("a".into()), None]);
        assert_eq!(each(r#"{"v":[{"s":"a","s":"b"}]}"#), some(&["a", "b"]));
        assert_eq!(each(r#"{"v":[{"s":"a"}],"v":[]}"#), [Some("a".into()), None]);
        assert_eq!(seen("/*/*", "[[1,2],[3],[]]"), [some(&["1", "2", "3"]), vec![None]].concat());
        assert_eq!(seen("/0/*", "[[1],[2]]"), some(&["1"]));
        let nothing = ["", "{", "[]", "1", "{}", r#"{"v":[]}"#, r#"{"v":{"s":"a"}}"#, r#"{"v":{"*":{"s":"a"}}}"#];
        for body in nothing {
            assert_eq!(each(body), [None], "{body}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(seen("/v/*/s", &format!(r#"{{"v":[{{"s":{deep}}}, {deep}]}}"#)), [None, None]);
    }

    #[test]
    fn only_a_pointer_with_a_star_is_one() {
        assert!(Items::new("/a/b").unwrap().is_none());
        assert!(Items::new("/a*/b").unwrap().is_none());
        for bad in ["a/*", "/*/~2"] {
            assert_eq!(Items::new(bad).err(), Some(CompileError::BadPointer { pointer: bad.into() }), "{bad}");
        }
        assert_eq!(Items::new(&"/*".repeat(33)).err(), Some(CompileError::TooManyPointers));
    }
}
