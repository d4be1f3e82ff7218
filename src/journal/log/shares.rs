//! How much of the journal each source's waiting events take, and how much they may.
//!
//! An event is *unsettled* while one of its deliveries is pending or dead: such events are what letting go of history
//! cannot free. A source may keep more of them as long as all it has is no more than the room that all of them
//! together leave. So one source whose application is away gets half of the journal, two get a third each, and one that
//! has little always finds room. A source that is alone has it all.
//!
//! What an event takes is known by a byte, the size's class: classes are 6 % apart, and a size counts
//! as the largest of its class. What is added for an event is therefore exactly what is taken off for it later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::record::Home;
use super::state::State;
use crate::base::Name;
use crate::journal::SourceStats;

/// The class of the entries of an event after its first.
const SAME_EVENT: u8 = 0;
/// Everything up to this size is of the first class.
const LEAST_BYTES: u64 = 512;
/// The classes of an octave: 4096 × 2^(n ÷ 12).
const STEPS: [u64; 12] = [4096, 4340, 4598, 4871, 5161, 5468, 5793, 6137, 6502, 6889, 7298, 7732];

/// The class of an event whose record has so many bytes. Those of 1.1 GiB and more are of the last.
fn class(bytes: u64) -> u8 {
    let (mut low, mut high) = (1, u8::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if bytes_of(middle) < bytes { low = middle + 1 } else { high = middle }
    }
    low
}

/// The largest size of a class; none for entries that are of the event before.
fn bytes_of(class: u8) -> u64 {
    let Some(number) = class.checked_sub(1) else { return 0 };
    let step = STEPS.get(usize::from(number % 12)).copied().unwrap_or(0);
    (LEAST_BYTES * step / 4096) << (number / 12)
}

/// The classes of a segment's entries: an event's first has its size's, the others [`SAME_EVENT`].
#[derive(Clone, Debug, Default)]
pub struct Classes(Vec<u8>);

impl Classes {
    /// An event with so many entries, whose record has so many bytes.
    pub fn push_event(&mut self, entries: usize, bytes: u32) {
        let first = std::iter::once(class(u64::from(bytes)));
        self.0.extend(first.chain(std::iter::repeat(SAME_EVENT)).take(entries));
    }

    /// A byte an entry.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Those that [`Classes::as_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Gives back the room that was taken for more.
    pub fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// The entries of the event that has entry `entry`, and how many bytes it counts for.
    pub fn event(&self, entry: usize) -> (std::ops::Range<usize>, u64) {
        let before = self.0.get(..=entry).unwrap_or_default();
        let first = before.iter().rposition(|class| *class != SAME_EVENT).unwrap_or(entry);
        let after = self.0.get(entry + 1..).unwrap_or_default();
        let rest = after.iter().position(|class| *class != SAME_EVENT).unwrap_or(after.len());
        (first..entry + 1 + rest, self.0.get(first).copied().map_or(0, bytes_of))
    }
}

/// What the sources' unsettled events take. Written under the state's lock, read by anybody.
#[derive(Debug, Default)]
pub struct Shares {
    all: AtomicU64,
    /// What unsettled events may take, together.
    capacity: AtomicU64,
    /// What claims and the index take of that.
    others: AtomicU64,
    /// The sources that must share: those of the config, where there are several.
    sharing: ArcSwap<HashMap<Name, Arc<AtomicU64>>>,
}

impl Shares {
    /// Unsettled events may take so many bytes, all together.
    pub fn set_capacity(&self, bytes: u64) {
        self.capacity.store(bytes, Ordering::Relaxed);
    }

    /// Claims and the index take so many bytes.
    pub fn set_others(&self, bytes: u64) {
        self.others.store(bytes, Ordering::Relaxed);
    }

    /// What is left when unsettled events take `more` than they do: a source's share.
    fn left(&self, more: u64) -> u64 {
        let taken = [self.all.load(Ordering::Relaxed), self.others.load(Ordering::Relaxed), more];
        taken.iter().fold(self.capacity.load(Ordering::Relaxed), |left, taken| left.saturating_sub(*taken))
    }

    /// Whether `source` has more than its share.
    pub fn is_over(&self, source: &Name) -> bool {
        self.sharing.load().get(source).is_some_and(|bytes| bytes.load(Ordering::Relaxed) > self.left(0))
    }

    /// The same, once what `appended` says of each source has been added.
    pub fn would_be_over(&self, source: &Name, appended: &BTreeMap<Name, u64>) -> bool {
        let own = appended.get(source).copied().unwrap_or(0);
        let over = |bytes: &Arc<AtomicU64>| bytes.load(Ordering::Relaxed) + own > self.left(appended.values().sum());
        self.sharing.load().get(source).is_some_and(over)
    }

    /// What a source may have now before its events are refused; none where none must share.
    pub fn share(&self) -> Option<u64> {
        (!self.sharing.load().is_empty()).then(|| self.left(0))
    }
}

/// By source, what its unsettled events take.
#[derive(Debug, Default)]
pub struct Sources {
    /// As those read it who do not have the state.
    pub shares: Arc<Shares>,
    by_name: BTreeMap<Name, Arc<AtomicU64>>,
}

impl Sources {
    /// What `source` takes.
    pub fn of(&mut self, source: &Name) -> Arc<AtomicU64> {
        Arc::clone(self.by_name.entry(source.clone()).or_default())
    }

    /// The sources of the config are these.
    pub fn set<'n>(&mut self, sources: impl ExactSizeIterator<Item = &'n Name>) {
        let several = sources.len() > 1;
        let sharing = sources.map(|source| (source.clone(), self.of(source))).filter(|_| several).collect();
        self.shares.sharing.store(Arc::new(sharing));
    }

    /// An event of the source whose bytes are `of` is unsettled from now on.
    pub fn add(&self, of: &AtomicU64, bytes: u64) {
        of.fetch_add(bytes, Ordering::Relaxed);
        self.shares.all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It no longer is, or is gone.
    pub fn take(&self, of: &AtomicU64, bytes: u64) {
        of.fetch_sub(bytes, Ordering::Relaxed);
        self.shares.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What there is of each.
    pub fn stats(&self) -> Vec<SourceStats> {
        let of = |(source, bytes): (&Name, &Arc<AtomicU64>)| SourceStats {
            source: source.clone(),
            unsettled_bytes: bytes.load(Ordering::Relaxed),
            over_share: self.shares.is_over(source),
        };
        self.by_name.iter().map(of).collect()
    }
}

impl State {
    /// The source of the delivery at `home`.
    #[cfg(test)]
    pub fn source(&self, home: Home) -> Option<&Name> {
        self.routes.get(self.entry(home)?.route()).map(|route| &route.source)
    }

    /// The event of the delivery at `home`: whether it is unsettled, how many bytes it counts for, and whose it is.
    fn unsettled(&self, home: Home) -> Option<(bool, u64, &AtomicU64)> {
        let segment = self.segments.get(&home.segment)?;
        let (entries, bytes) = segment.classes.event(home.entry as usize);
        let entries = segment.entries.get(entries)?;
        let source = self.routes.get(entries.first()?.route())?;
        Some((entries.iter().any(|entry| entry.standing().is_unsettled()), bytes, &source.unsettled))
    }

    /// Counts the event of the delivery at `home`, which stands another way than before.
    pub fn recount(&self, home: Home, before: Option<bool>) {
        match (before, self.unsettled(home)) {
            (Some(false), Some((true, bytes, of))) => self.sources.add(of, bytes),
            (Some(true), Some((false, bytes, of))) => self.sources.take(of, bytes),
            _ => {}
        }
    }

    /// Whether the event of the delivery at `home` is unsettled.
    pub fn is_unsettled(&self, home: Home) -> Option<bool> {
        self.unsettled(home).map(|(unsettled, ..)| unsettled)
    }

    /// Takes off everything that segment `number` counts for: it goes.
    pub fn forget_unsettled(&self, number: u32) {
        let Some(segment) = self.segments.get(&number) else { return };
        let mut next = 0;
        while next < segment.entries.len() {
            let home = Home { segment: number, entry: u32::try_from(next).unwrap_or(u32::MAX) };
            if let Some((true, bytes, of)) = self.unsettled(home) {
                self.sources.take(of, bytes);
            }
            next = segment.classes.event(next).0.end.max(next + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_counts_for_itself_or_up_to_six_percent_more() {
        for bytes in (1..30).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1u64 << bit) + 1, 3 << (bit - 1)]) {
            let counted = bytes_of(class(bytes));
            assert!(counted >= bytes, "{bytes} counts for {counted}");
            assert!(bytes < LEAST_BYTES || counted as f64 <= bytes as f64 * 1.06, "{bytes} counts for {counted}");
        }
        assert_eq!((class(0), class(u64::MAX)), (1, u8::MAX));
    }

    #[test]
    fn entries_tell_which_event_they_are_of() {
        let mut classes = Classes::default();
        for (entries, bytes) in [(1, 100), (3, 100_000), (2, 600)] {
            classes.push_event(entries, bytes);
        }
        let ranges: Vec<_> = (0..6).map(|entry| classes.event(entry).0).collect();
        assert_eq!(ranges, [0..1, 1..4, 1..4, 1..4, 4..6, 4..6]);
        assert!((100_000..106_000).contains(&classes.event(3).1));
    }

    fn name(number: usize) -> Name {
        Name::new(&format!("s{number}")).unwrap()
    }

    const CAPACITY: u64 = 1_000_000;
    const LARGEST: u64 = 10_000;

    proptest! {
        /// However sources come and go: who is refused has more than is left, whoever has nothing is not refused as long as
        /// there is anything at all, `n` that take what they get have an `n + 1`th each, and what is settled is free again.
        #[test]
        fn shares_are_fair(
            sources in 2usize..8,
            steps in proptest::collection::vec((0usize..8, 1..LARGEST, any::<bool>()), 1..400),
            hogs in 1usize..6,
        ) {
            let mut all = Sources::default();
            all.shares.set_capacity(CAPACITY);
            let names: Vec<Name> = (0..sources).map(name).collect();
            all.set(names.iter());
            let mut model: Vec<Vec<u64>> = vec![Vec::new(); sources];
            for (source, bytes, settles) in steps {
                let source = source % sources;
                let of = all.of(&names[source]);
                let used: u64 = model[source].iter().sum();
                let left = CAPACITY.saturating_sub(model.iter().flatten().sum());
                prop_assert_eq!(all.shares.is_over(&names[source]), used > left);
                if settles && !model[source].is_empty() {
                    all.take(&of, model[source].remove(0));
                } else if !all.shares.is_over(&names[source]) {
                    all.add(&of, bytes);
                    model[source].push(bytes);
                }
                for (name, sizes) in names.iter().zip(&model) {
                    prop_assert_eq!(all.of(name).load(Ordering::Relaxed), sizes.iter().sum::<u64>());
                }
            }
            for (source, sizes) in model.iter_mut().enumerate() {
                sizes.drain(..).for_each(|bytes| all.take(&all.by_name[&names[source]], bytes));
            }
            prop_assert_eq!(all.shares.left(0), CAPACITY);

            let hogs = hogs.min(sources - 1);
            for _ in 0..CAPACITY / LARGEST {
                for name in &names[..hogs] {
                    if !all.shares.is_over(name) {
                        let of = all.of(name);
                        all.add(&of, LARGEST);
                    }
                }
            }
            for name in &names[..hogs] {
                prop_assert!(all.shares.is_over(name));
                let part = CAPACITY / (hogs as u64 + 1);
                let has = all.of(name).load(Ordering::Relaxed);
                prop_assert!(has.abs_diff(part) <= (hogs as u64 + 1) * LARGEST, "{} of {}", has, part);
            }
            prop_assert!(!all.shares.is_over(&names[sources - 1]));
        }
    }

    #[test]
    fn one_that_is_alone_has_it_all_and_one_that_is_not_in_the_config_shares_nothing() {
        let mut all = Sources::default();
        all.shares.set_capacity(100);
        all.set([name(1)].iter());
        let of = all.of(&name(1));
        all.add(&of, 99);
        assert!(!all.shares.is_over(&name(1)));
        assert_eq!(all.shares.share(), None);
        all.set([name(1), name(2)].iter());
        assert_eq!((all.shares.is_over(&name(1)), all.shares.is_over(&name(2))), (true, false));
        assert_eq!(all.shares.share(), Some(1));
        assert!(!all.shares.is_over(&name(3)));
        let appended = BTreeMap::from([(name(2), 1)]);
        assert!(all.shares.would_be_over(&name(2), &appended));
    }
}
