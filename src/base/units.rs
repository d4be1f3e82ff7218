//! Durations, sizes and rates: one small parser each (docs/configuration.md, "Units").

use std::fmt;
use std::time::Duration;

/// Why a text is not a duration, a size or a rate. The message says how to write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number alone.
    #[error("`{text}` has no unit; write `{text}{example}` {hint}")]
    NoUnit {
        /// What was written.
        text: String,
        /// The unit to try first.
        example: &'static str,
        /// What the example would mean, and what else there is.
        hint: &'static str,
    },
    /// A unit that is not one of the list.
    #[error("`{text}` has an unknown unit; the units are {units}")]
    UnknownUnit {
        /// What was written.
        text: String,
        /// The units there are.
        units: &'static str,
    },
    /// No whole number in front.
    #[error("`{text}` is not {what}; write a whole number and a unit, like `{example}`")]
    NotANumber {
        /// What was written.
        text: String,
        /// What was wanted.
        what: &'static str,
        /// A good value.
        example: &'static str,
    },
    /// Larger than can be counted.
    #[error("`{text}` is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses an integer with `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// [`UnitError`] for anything else, a bare number included.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let kind = Kind {
        what: "a duration",
        units: "ms, s, m, h and d",
        first: "s",
        hint: "for seconds (units: ms, s, m, h, d)",
        example: "30s",
    };
    kind.parse(text, DURATION_UNITS).map(Duration::from_millis)
}

/// Prints `duration` as [`parse_duration`] reads it, in the largest unit that divides it.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    largest_unit(millis, DURATION_UNITS)
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl ByteSize {
    /// Parses an integer with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
    ///
    /// # Errors
    /// [`UnitError`] for anything else, a bare number included.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let kind = Kind {
            what: "a size",
            units: "B, KiB, MiB, GiB and TiB",
            first: "MiB",
            hint: "for mebibytes (units: B, KiB, MiB, GiB, TiB)",
            example: "1MiB",
        };
        kind.parse(text, SIZE_UNITS).map(Self)
    }

    /// The number, as a `usize`; the largest one where it does not fit.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&largest_unit(self.0, SIZE_UNITS))
    }
}

/// So many in a time: `50/s`, `100/m` or `1000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least one.
    pub count: u32,
    /// In how long: a second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    /// Parses `N/s`, `N/m` or `N/h`, `N` from 1 up.
    ///
    /// # Errors
    /// [`UnitError`] for anything else, a bare number and `0/s` included.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let kind = Kind {
            what: "a rate",
            units: "/s, /m and /h",
            first: "/s",
            hint: "for so many a second (units: /s, /m, /h)",
            example: "100/s",
        };
        let (number, unit) = kind.split(text)?;
        let per = match unit {
            "/s" => Duration::from_secs(1),
            "/m" => Duration::from_secs(60),
            "/h" => Duration::from_secs(3600),
            _ => return Err(kind.unknown_unit(text)),
        };
        match u32::try_from(number) {
            Ok(0) => Err(kind.not_a_number(text)),
            Ok(count) => Ok(Self { count, per }),
            Err(_) => Err(UnitError::TooLarge { text: text.to_owned() }),
        }
    }

    /// The time between two when they come evenly.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.per / self.count.max(1)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

struct Kind {
    what: &'static str,
    units: &'static str,
    first: &'static str,
    hint: &'static str,
    example: &'static str,
}

impl Kind {
    fn parse(&self, text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
        let (number, unit) = self.split(text)?;
        let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
            return Err(self.unknown_unit(text));
        };
        number.checked_mul(*scale).ok_or_else(|| UnitError::TooLarge { text: text.to_owned() })
    }

    fn split<'t>(&self, text: &'t str) -> Result<(u64, &'t str), UnitError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if digits == 0 {
            return Err(self.not_a_number(text));
        }
        if unit.is_empty() {
            return Err(UnitError::NoUnit { text: text.to_owned(), example: self.first, hint: self.hint });
        }
        let number = number.parse().map_err(|_| UnitError::TooLarge { text: text.to_owned() })?;
        Ok((number, unit))
    }

    fn unknown_unit(&self, text: &str) -> UnitError {
        UnitError::UnknownUnit { text: text.to_owned(), units: self.units }
    }

    fn not_a_number(&self, text: &str) -> UnitError {
        UnitError::NotANumber { text: text.to_owned(), what: self.what, example: self.example }
    }
}

fn largest_unit(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |scale: u64| value != 0 && value.is_multiple_of(scale);
    let (name, scale) = units.iter().rev().copied().find(|(_, scale)| fits(*scale)).unwrap_or(("s", 1));
    let name = if value == 0 { units.get(1).map_or(name, |unit| unit.0) } else { name };
    format!("{}{name}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written_back() {
        for text in ["150ms", "30s", "5m", "2h", "7d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["512B", "32KiB", "1MiB", "10GiB", "2TiB"] {
            assert_eq!(ByteSize::parse(text).unwrap().to_string(), text);
        }
        for text in ["50/s", "100/m", "3/h"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bare_number_says_which_unit_to_write() {
        let message = parse_duration("10").unwrap_err().to_string();
        assert!(message.starts_with("`10` has no unit; write `10s` for seconds"), "{message}");
        assert!(ByteSize::parse("10").unwrap_err().to_string().contains("10MiB"));
        assert!(Rate::parse("10").unwrap_err().to_string().contains("10/s"));
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for text in ["", "s", "-1s", "1.5s", "1 s", "1w", "10MB", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["10MB", "1k", "KiB", "1.5MiB", "99999999TiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
        for text in ["0/s", "1/d", "/s", "1/", "5000000000/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
