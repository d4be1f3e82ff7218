//! JSON pointers (RFC 6901) into a body, without building the body's value.
//!
//! One pass finds them all: what is not on a pointer's way is skipped. Whatever is deep, large or odd there
//! costs time in proportion to its length and no stack. Invalid JSON has nothing in it; of keys that come
//! twice the last counts, as in most parsers.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::CompileError;

/// At most so many pointers of a preset, as a [`Set`] has bits.
const MAX: usize = 32;

/// At most so many steps of a pointer.
pub(super) const MAX_STEPS: usize = 32;

/// The longest value that counts, in bytes.
pub(super) const MAX_VALUE_BYTES: usize = 1024;

/// The pointers of a recipe, compiled.
#[derive(Debug, Default)]
pub(super) struct Pointers(Vec<Pointer>);

#[derive(Debug, PartialEq, Eq)]
struct Pointer(Vec<Step>);

/// One step: a key of an object, or a place in an array.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    key: Box<str>,
    index: Option<usize>,
}

/// Some of the pointers, a bit each.
#[derive(Clone, Copy)]
struct Set(u32);

impl Pointers {
    /// The number of the pointer `text`, which is looked for from now on.
    pub(super) fn add(&mut self, text: &str) -> Result<usize, CompileError> {
        let pointer = Pointer::parse(text).ok_or_else(|| CompileError::BadPointer { pointer: text.to_owned() })?;
        if let Some(index) = self.0.iter().position(|known| *known == pointer) {
            return Ok(index);
        }
        if self.0.len() == MAX || pointer.0.len() > MAX_STEPS {
            return Err(CompileError::TooManyPointers);
        }
        self.0.push(pointer);
        Ok(self.0.len() - 1)
    }

    /// What each pointer leads to: a string unescaped, a number as written, or a boolean, of 1 to
    /// [`MAX_VALUE_BYTES`] bytes.
    pub(super) fn find(&self, body: &[u8]) -> Vec<Option<Box<str>>> {
        let mut found = vec![None; self.0.len()];
        if self.0.is_empty() {
            return found;
        }
        let Ok(text) = std::str::from_utf8(body) else { return found };
        let all = Set(u32::MAX >> (MAX - self.0.len()));
        let walk = Walk { pointers: &self.0, wanted: all, depth: 0, found: &mut found };
        if walk.whole(text).is_err() {
            found.fill(None);
        }
        found
    }
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        text.strip_prefix('/')?.split('/').map(Step::parse).collect::<Option<_>>().map(Self)
    }
}

impl Step {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let known = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let canonical = text == "0" || !text.starts_with(['0', '+']);
        let key = text.replace("~1", "/").replace("~0", "~").into();
        if known { Some(Self { key, index: text.parse().ok().filter(|_| canonical) }) } else { None }
    }

    pub(super) fn is_key(&self, key: &str) -> bool {
        *self.key == *key
    }

    pub(super) fn is_index(&self, index: usize) -> bool {
        self.index == Some(index)
    }
}

impl Set {
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those of this set for which `keep` holds.
    fn filter(self, pointers: &[Pointer], keep: impl Fn(&Pointer) -> bool) -> Self {
        let bit = |(index, pointer): (usize, &Pointer)| {
            let bit = 1u32 << index;
            if self.0 & bit != 0 && keep(pointer) { bit } else { 0 }
        };
        Self(pointers.iter().enumerate().map(bit).fold(0, |set, bit| set | bit))
    }

    /// Sets what was found for each of this set.
    fn put(self, found: &mut [Option<Box<str>>], value: Option<&str>) {
        for (index, slot) in found.iter_mut().enumerate() {
            if self.0 & (1u32 << index) != 0 {
                *slot = value.map(Box::from);
            }
        }
    }
}

/// One value of the body, reached by the first `depth` steps of the `wanted` pointers.
struct Walk<'w> {
    pointers: &'w [Pointer],
    wanted: Set,
    depth: usize,
    found: &'w mut [Option<Box<str>>],
}

impl Walk<'_> {
    /// Walks a text that is one value and nothing else.
    fn whole(self, text: &str) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_str(text);
        self.deserialize(&mut json)?;
        json.end()
    }

    /// The wanted pointers whose next step is one that `fits`.
    fn next(&self, fits: impl Fn(&Step) -> bool) -> Set {
        self.wanted.filter(self.pointers, |pointer| pointer.0.get(self.depth).is_some_and(&fits))
    }

    fn step(&mut self, wanted: Set) -> Walk<'_> {
        wanted.put(self.found, None); // an earlier value of the same key no longer counts
        Walk { pointers: self.pointers, wanted, depth: self.depth + 1, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let here = self.wanted.filter(self.pointers, |pointer| pointer.0.len() == self.depth);
        if here.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
        here.put(self.found, scalar(raw.get()).as_deref());
        let further = self.wanted.without(here);
        if further.is_empty() {
            return Ok(());
        }
        Walk { wanted: further, ..self }.whole(raw.get()).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Key(&self))? {
            if wanted.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(self.step(wanted))?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let wanted = self.next(|step| step.is_index(index));
            let more = if wanted.is_empty() {
                seq.next_element::<IgnoredAny>()?.is_some()
            } else {
                seq.next_element_seed(self.step(wanted))?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// An object's key, read as the pointers that go on there.
struct Key<'k, 'w>(&'k Walk<'w>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Set;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Set, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = Set;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Set, E> {
        Ok(self.0.next(|step| step.is_key(key)))
    }
}

/// The text of a string, number or boolean.
pub(super) fn scalar(raw: &str) -> Option<Box<str>> {
    // An escape makes at most 6 bytes of one.
    let value: Box<str> = match raw.as_bytes().first()? {
        b'"' if raw.len() <= 2 + 6 * MAX_VALUE_BYTES => serde_json::from_str(raw).ok()?,
        b'-' | b'0'..=b'9' | b't' | b'f' if raw.len() <= MAX_VALUE_BYTES => raw.into(),
        _ => return None,
    };
    if (1..=MAX_VALUE_BYTES).contains(&value.len()) { Some(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pointer: &str, body: &str) -> Option<String> {
        let mut pointers = Pointers::default();
        pointers.add("/elsewhere").unwrap();
        let index = pointers.add(pointer).unwrap();
        pointers.find(body.as_bytes()).remove(index).map(String::from)
    }

    #[test]
    fn a_pointer_finds_what_rfc_6901_says() {
        let body = r#"{"id":"a\u00e9\n","n":18446744073709551617,"f":1.50,"t":true,"z":null,"o":{"":{"x/y":"s","~1":"t"}},"a":[0,[1,2]]}"#;
        let cases = [
            ("/id", Some("aé\n")),
            ("/n", Some("18446744073709551617")), // as written: no rounding makes two ids one
            ("/f", Some("1.50")),
            ("/t", Some("true")),
            ("/z", None),
            ("/o", None),
            ("/a", None),
            ("/o//x~1y", Some("s")),
            ("/o//~01", Some("t")),
            ("/a/0", Some("0")),
            ("/a/1/1", Some("2")),
            ("/a/01", None),
            ("/a/-", None),
            ("/a/9", None),
            ("/id/x", None),
            ("/ID", None),
        ];
        for (pointer, expected) in cases {
            assert_eq!(find(pointer, body).as_deref(), expected, "{pointer}");
        }
        assert_eq!(find("", "\"s\"").as_deref(), Some("s"));
    }

    #[test]
    fn of_a_repeated_key_the_last_counts() {
        assert_eq!(find("/a", r#"{"a":1,"a":2}"#).as_deref(), Some("2"));
        assert_eq!(find("/a", r#"{"a":1,"a":{}}"#), None);
        assert_eq!(find("/a/b", r#"{"a":{"b":1},"a":{"c":2}}"#), None);
        assert_eq!(find("/a", r#"{"a":1,"\u0061":2}"#).as_deref(), Some("2"));
    }

    #[test]
    fn what_is_not_json_has_nothing_in_it() {
        for body in ["", "{", r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":1,}"#, "a=1", "\u{feff}{\"a\":1}", r#"{"a":01}"#] {
            assert_eq!(find("/a", body), None, "{body}");
        }
        let mut pointers = Pointers::default();
        pointers.add("/a").unwrap();
        assert_eq!(pointers.find(b"{\"a\":1,\"b\":\"\xff\"}"), [None]);
    }

    #[test]
    fn a_value_is_of_1_to_1024_bytes() {
        let body = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len));
        assert_eq!(find("/a", &body(0)), None);
        assert_eq!(find("/a", &body(1024)).map(|value| value.len()), Some(1024));
        assert_eq!(find("/a", &body(1025)), None);
        let escaped = format!("{{\"a\":\"{}\"}}", "\\u0061".repeat(1024));
        assert_eq!(find("/a", &escaped).map(|value| value.len()), Some(1024));
    }

    #[test]
    fn depth_on_and_off_the_way_costs_no_stack() {
        let nest = |inside: &str| format!("{}{inside}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(find("/a", &format!("{{\"deep\":{},\"a\":1}}", nest(""))).as_deref(), Some("1"));
        assert_eq!(find("/a", &format!("{{\"a\":{}}}", nest(""))), None);
        assert_eq!(find("/0/0/0/0", &nest("")), None);
    }

    #[test]
    fn one_pass_finds_a_value_and_what_is_inside_it() {
        let mut pointers = Pointers::default();
        for pointer in ["/a", "/a/b", "/a/b/c", "/d"] {
            pointers.add(pointer).unwrap();
        }
        let found = pointers.find(br#"{"a":{"b":{"c":1}},"d":2}"#);
        assert_eq!(found, [None, None, Some("1".into()), Some("2".into())]);
        assert_eq!(pointers.add("/a/b"), Ok(1));
    }

    #[test]
    fn what_is_no_pointer_does_not_compile() {
        for text in ["a", "/~", "/~2", "/a~"] {
            let error = CompileError::BadPointer { pointer: text.into() };
            assert_eq!(Pointers::default().add(text), Err(error), "{text}");
        }
        let deep = "/a".repeat(33);
        assert_eq!(Pointers::default().add(&deep), Err(CompileError::TooManyPointers));
    }
}
