//! The parser and its guard: what is accepted, in whatever pieces it comes, and that the library agrees.

mod agreement;
mod generated;
mod pieces;
mod table;

use super::parser::{Fed, Parser};
use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 32 << 10, lines: 100 };

/// What became of a stream: the bytes let through, the fault, and where messages ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    good: usize,
    fault: Option<Fault>,
    ends: Vec<usize>,
}

/// Feeds `stream` byte by byte, so that the end of each message is seen.
fn read(stream: &[u8], limits: HeadLimits) -> Verdict {
    let mut parser = Parser::new(limits);
    let (mut good, mut ends) = (0, Vec::new());
    for end in 1..=stream.len() {
        let Fed { good: taken, fault } = parser.feed(&stream[good..end]);
        good += taken;
        if fault.is_some() {
            return Verdict { good, fault, ends };
        }
        if taken > 0 && parser.is_between() {
            ends.push(good);
        }
    }
    Verdict { good, fault: None, ends }
}
