//! The signed time: read strictly, and not far from now.

use std::time::Duration;

use super::carrier::{Carrier, Fields, visible};
use super::pointer::Pointers;
use super::reading::{Reading, Site, Times};
use super::{CompileError, Piece, Rejection, TimeUnit, Timestamp, Tolerance};
use crate::base::UnixMillis;

/// A signed time, compiled.
#[derive(Debug)]
pub(super) struct SignedTime {
    pub(super) from: From,
    unit: TimeUnit,
    /// How far from now it may be; any distance if none.
    tolerance: Option<Duration>,
}

/// Where it stands.
#[derive(Debug)]
pub(super) enum From {
    At(Site),
    Field(usize),
}

impl SignedTime {
    pub(super) fn new(
        timestamp: &Timestamp,
        tolerance: Tolerance,
        carrier: &mut Carrier,
        pointers: &mut Pointers,
    ) -> Result<Self, CompileError> {
        let from = match &timestamp.from {
            Piece::At(place) => From::At(Site::new(place, pointers)?),
            Piece::Field(name) => From::Field(carrier.field(name)?),
            _ => return Err(CompileError::TimestampPlace),
        };
        let tolerance = match tolerance {
            Tolerance::Preset => Some(timestamp.tolerance),
            Tolerance::Within(distance) => Some(distance),
            Tolerance::Off => None,
        };
        Ok(Self { from, unit: timestamp.unit, tolerance })
    }

    /// Checks that the request's time is well-formed and near `now`.
    pub(super) fn check(&self, reading: &Reading<'_>, fields: &Fields<'_>, now: UnixMillis) -> Result<(), Rejection> {
        let text = match &self.from {
            From::Field(index) => fields.one(*index).ok(),
            From::At(site) => match reading.value(site) {
                Times::Once(value) => visible(value),
                Times::Never | Times::Often => None,
            },
        };
        let signed = text.and_then(|text| self.unit.read(text)).ok_or(Rejection::BadTimestamp)?;
        let Some(tolerance) = self.tolerance else { return Ok(()) };
        let now = self.unit.round(now);
        if now.since(signed) > tolerance {
            Err(Rejection::StaleTimestamp)
        } else if signed.since(now) > tolerance {
            Err(Rejection::FutureTimestamp)
        } else {
            Ok(())
        }
    }

    /// `now`, as the provider writes it.
    pub(super) fn write(&self, now: UnixMillis) -> String {
        match self.unit {
            TimeUnit::Seconds => now.seconds().max(0).to_string(),
            TimeUnit::Milliseconds => now.0.max(0).to_string(),
            TimeUnit::Rfc3339 => now.to_string(),
        }
    }
}

impl TimeUnit {
    fn read(self, text: &str) -> Option<UnixMillis> {
        match self {
            Self::Seconds => digits(text, 12).and_then(|seconds| seconds.checked_mul(1000)).map(UnixMillis),
            Self::Milliseconds => digits(text, 15).map(UnixMillis),
            Self::Rfc3339 => rfc_3339(text),
        }
    }

    /// What a clock that counts in this unit shows at `now`: a signature made at 10.9 s says 10, so that
    /// at 310.9 s it is 300 s old.
    fn round(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::Seconds => UnixMillis(now.seconds().saturating_mul(1000)),
            Self::Milliseconds | Self::Rfc3339 => now,
        }
    }
}

fn digits(text: &str, max: usize) -> Option<i64> {
    let plain = (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// `2021-02-25T15:02:10.000Z` or with an offset; none of the other forms that the parser knows.
fn rfc_3339(text: &str) -> Option<UnixMillis> {
    let allowed = |byte: u8| byte.is_ascii_digit() || b"-:T.Z+".contains(&byte);
    let plain = (20..=35).contains(&text.len()) && text.bytes().all(allowed) && text.as_bytes().get(10) == Some(&b'T');
    let time = if plain { text.parse::<jiff::Timestamp>().ok()? } else { return None };
    Some(UnixMillis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::super::{Place, Request};
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    const NAME: HeaderName = HeaderName::from_static("acme-time");
    const T0: i64 = 1_700_000_000;

    fn check(unit: TimeUnit, tolerance_s: u64, text: &str, now: UnixMillis) -> Result<(), Rejection> {
        let tolerance = Some(Duration::from_secs(tolerance_s));
        let mut pointers = Pointers::default();
        let site = Site::new(&Place::Header(NAME), &mut pointers).unwrap();
        let time = SignedTime { from: From::At(site), unit, tolerance };
        let headers: HeaderMap = [(NAME, HeaderValue::from_str(text).unwrap())].into_iter().collect();
        let method = Method::POST;
        let request = Request { method: &method, path: "/", query: None, params: &[], headers: &headers, body: b"" };
        time.check(&Reading::new(request, None, &pointers), &Fields::default(), now)
    }

    #[test]
    fn a_timestamp_at_the_edge_of_tolerance_still_counts() {
        let at = |seconds: i64| check(TimeUnit::Seconds, 300, &(T0 + seconds).to_string(), UnixMillis(T0 * 1000 + 999));
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(-300), Ok(()));
        assert_eq!(at(-301), Err(Rejection::StaleTimestamp));
        assert_eq!(at(300), Ok(()));
        assert_eq!(at(301), Err(Rejection::FutureTimestamp));
        let at =
            |millis: i64| check(TimeUnit::Milliseconds, 300, &(T0 * 1000 + millis).to_string(), UnixMillis(T0 * 1000));
        assert_eq!(at(-300_000), Ok(()));
        assert_eq!(at(-300_001), Err(Rejection::StaleTimestamp));
        assert_eq!(at(300_000), Ok(()));
        assert_eq!(at(300_001), Err(Rejection::FutureTimestamp));
    }

    #[test]
    fn only_plain_digits_are_a_number() {
        let now = UnixMillis(1_000);
        assert_eq!(check(TimeUnit::Seconds, 300, "1", now), Ok(()));
        assert_eq!(check(TimeUnit::Seconds, 300, "000000000001", now), Ok(()));
        let bad =
            ["", "0x1", "+1", "-1", "1e0", "1.0", "1 1", "NaN", "Infinity", "0000000000001", "9223372036854775808"];
        for text in bad {
            assert_eq!(check(TimeUnit::Seconds, 300, text, now), Err(Rejection::BadTimestamp), "{text}");
        }
        let millis = "1700000000000"; // where seconds are expected
        assert_eq!(check(TimeUnit::Seconds, u64::MAX, millis, now), Err(Rejection::BadTimestamp));
    }

    #[test]
    fn rfc_3339_is_read_and_its_cousins_are_not() {
        let now = UnixMillis(1_614_265_330_000);
        for text in ["2021-02-25T15:02:10Z", "2021-02-25T15:02:10.000Z", "2021-02-25T16:02:10+01:00"] {
            assert_eq!(check(TimeUnit::Rfc3339, 0, text, now), Ok(()), "{text}");
        }
        for text in ["2021-02-25 15:02:10Z", "2021-02-25T15:02:10", "20210225T150210Z", "2021-02-25T15:02:10Z[UTC]"] {
            assert_eq!(check(TimeUnit::Rfc3339, 0, text, now), Err(Rejection::BadTimestamp), "{text}");
        }
    }

    #[test]
    fn the_time_is_written_as_it_is_read() {
        for unit in [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::Rfc3339] {
            let time = SignedTime { from: From::Field(0), unit, tolerance: None };
            assert_eq!(unit.read(&time.write(UnixMillis(T0 * 1000))), Some(UnixMillis(T0 * 1000)));
        }
    }
}
