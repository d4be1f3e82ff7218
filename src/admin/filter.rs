//! The parameters of a list, into a [`Filter`].

use std::str::FromStr;
use std::time::Duration;

use super::problem::Problem;
use crate::base::{Name, UnixMillis, parse_duration};
use crate::index::{Filter, LIMIT_MAX};

/// Which list the parameters are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Events,
    /// Has no `status`: it is dead.
    DeadLetters,
    /// Has no pages and no end.
    Tail,
}

impl List {
    fn parameters(self) -> &'static str {
        match self {
            Self::Events => "source, destination, status, type, since, until, q, limit and cursor",
            Self::DeadLetters => "source, destination, type, since, until, q, limit and cursor",
            Self::Tail => "source, destination, status, type, since and changes", // the last is `tail`'s own
        }
    }
}

/// A text to search for or a type, at most.
const TEXT_BYTES: usize = 512;

/// Reads `pairs`; a time may be given as how long before `now` it was.
pub(super) fn filter(list: List, pairs: &[(String, String)], now: UnixMillis) -> Result<Filter, Problem> {
    let mut filter = Filter::default();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if pairs.iter().take(place).any(|(earlier, _)| earlier == name) {
            return Err(Problem::Bad(format!("`{name}` is there twice; give it once")));
        }
        match (name.as_str(), list) {
            ("source", _) => filter.source = Some(named(name, value)?),
            ("destination", _) => filter.destination = Some(named(name, value)?),
            ("status", List::Events | List::Tail) => filter.status = Some(parsed(name, value)?),
            ("type", _) => filter.kind = Some(text(name, value)?),
            ("since", _) => filter.since = Some(time(name, value, now)?),
            ("until", List::Events | List::DeadLetters) => filter.until = Some(time(name, value, now)?),
            ("q", List::Events | List::DeadLetters) => filter.q = Some(text(name, value)?),
            ("limit", List::Events | List::DeadLetters) => filter.limit = limit(name, value)?,
            ("cursor", List::Events | List::DeadLetters) => filter.cursor = Some(parsed(name, value)?),
            _ => {
                let known = list.parameters();
                return Err(Problem::Bad(format!("`{name}` is not a parameter; the parameters are {known}")));
            }
        }
    }
    Ok(filter)
}

fn named(name: &str, value: &str) -> Result<Name, Problem> {
    Name::new(value).map_err(|error| bad(name, value, &error.to_string()))
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|error: T::Err| bad(name, value, &error.to_string()))
}

fn text(name: &str, value: &str) -> Result<String, Problem> {
    match value.len() {
        _ if value.contains(char::is_control) => {
            Err(Problem::Bad(format!("`{name}` has a control character in it; take it out")))
        }
        0 => Err(Problem::Bad(format!("`{name}` is empty; leave it out or give it a value"))),
        1..=TEXT_BYTES => Ok(value.to_owned()),
        _ => Err(Problem::Bad(format!("`{name}` is longer than {TEXT_BYTES} bytes; give less of it"))),
    }
}

fn limit(name: &str, value: &str) -> Result<usize, Problem> {
    let in_range = value.parse().ok().filter(|number| (1..=LIMIT_MAX).contains(number));
    in_range.ok_or_else(|| bad(name, value, &format!("write a number from 1 to {LIMIT_MAX}")))
}

fn time(name: &str, value: &str, now: UnixMillis) -> Result<UnixMillis, Problem> {
    if let Some(time) = moment(value) {
        return Ok(time);
    }
    let cure = "write a time like 2026-01-31T12:00:00Z, or how long ago like 1h (units: ms, s, m, h, d)";
    let ago: Duration = parse_duration(value).map_err(|_| bad(name, value, cure))?;
    Ok(now.minus(ago))
}

/// An RFC 3339 time. A [`jiff::Timestamp`] ends some hours before the year 9999 does, which people write for "ever".
fn moment(text: &str) -> Option<UnixMillis> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(UnixMillis(time.as_millisecond()));
    }
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    let since = local.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    let offset_ms = i64::from(pieces.to_numeric_offset()?.seconds()) * 1000;
    Some(UnixMillis(i64::try_from(since.as_millis()).ok()?.saturating_sub(offset_ms)))
}

pub(super) fn bad(name: &str, value: &str, cure: &str) -> Problem {
    let shown: String = value.chars().take(64).collect();
    Problem::Bad(format!("`{name}` is `{shown}`: {cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{EventStatus, Standing};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn read(list: List, name: &str, value: &str) -> Result<Filter, String> {
        filter(list, &[(name.to_owned(), value.to_owned())], NOW).map_err(|problem| problem.to_string())
    }

    #[test]
    fn parameters_become_a_filter() {
        let pairs = [
            ("source", "shop"),
            ("destination", "app"),
            ("status", "dead"),
            ("type", "order.paid"),
            ("since", "1h"),
            ("until", "2023-11-14T22:13:20.5+00:00"),
            ("q", "a b"),
            ("limit", "500"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let filter = filter(List::Events, &pairs, NOW).unwrap();
        assert_eq!(filter.source.unwrap().as_str(), "shop");
        assert_eq!(filter.destination.unwrap().as_str(), "app");
        assert_eq!(filter.status, Some(Standing::Event(EventStatus::Dead)));
        assert_eq!(read(List::Events, "status", "orphaned").unwrap().status, Some(Standing::Orphaned));
        assert_eq!((filter.kind.as_deref(), filter.q.as_deref()), (Some("order.paid"), Some("a b")));
        assert_eq!(filter.since, Some(UnixMillis(NOW.0 - 3_600_000)));
        assert_eq!(filter.until, Some(UnixMillis(1_700_000_000_500)));
        assert_eq!(filter.limit, 500);
    }

    #[test]
    fn the_last_second_of_all_years_is_a_time() {
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-00:00", "9999-12-31T21:59:59-02:00"] {
            let read = read(List::Events, "until", text).unwrap();
            assert_eq!(read.until, Some(UnixMillis(253_402_300_799_000)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_its_cure() {
        for (name, value, cure) in [
            ("soruce", "shop", "the parameters are source, "),
            ("source", "a b", "a name is 1 to 64"),
            ("destination", "", "a name is 1 to 64"),
            ("status", "lost", "they are dead, pending,"),
            ("type", "", "leave it out"),
            ("q", &"x".repeat(513), "longer than 512 bytes"),
            ("q", "a\0b", "control character"),
            ("q", "a\u{85}", "control character"),
            ("type", "a\nb", "control character"),
            ("since", "yesterday", "write a time like"),
            ("since", "10", "write a time like"),
            ("until", "2026-13-01T00:00:00Z", "write a time like"),
            ("until", "2026-01-01T00:00:00", "write a time like"),
            ("limit", "0", "from 1 to 500"),
            ("limit", "501", "from 1 to 500"),
            ("limit", "-1", "from 1 to 500"),
            ("cursor", "abc", "the page before"),
        ] {
            let message = read(List::Events, name, value).unwrap_err();
            assert!(message.contains(&format!("`{name}`")) && message.contains(cure), "{message}");
        }
        assert!(read(List::DeadLetters, "status", "dead").unwrap_err().contains("is not a parameter"));
        let twice = ["a", "b"].map(|value| ("source".to_owned(), value.to_owned()));
        assert!(filter(List::Events, &twice, NOW).unwrap_err().to_string().contains("twice"));
    }
}
