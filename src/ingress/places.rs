//! The places of connections: how many there may be, how many of one client, and who has to go for another.
//!
//! A connection is silent while no complete request of it is under way: from its start to the last byte of its first
//! request, and from its last answer to that of the next one. Where all places are taken, the connection that has been
//! silent longest goes for the one that comes. So whoever holds very many connections open and says nothing, or half of
//! something, keeps nobody out, and whoever sends a whole request at once is never the one to go. Where all have
//! complete requests under way, the next one waits in the system's queue.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::limit::ClientKey;
use crate::telemetry::{CutOff, Metrics};

/// All places of the public side.
pub(super) struct Places {
    metrics: Metrics,
    table: Mutex<Table>,
    /// As many as the table has taken, for a look without the lock.
    taken: AtomicUsize,
    /// A place is free, or a connection has fallen silent.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    places_max: usize,
    per_client_max: usize,
    taken: usize,
    /// Connections that wait for a place, and those that were asked to go and have not gone yet.
    waiting: usize,
    going: usize,
    /// Those that count, and have at least one.
    by_client: HashMap<ClientKey, usize>,
    /// Those that are silent, in the order in which they fell silent.
    silent: BTreeMap<u64, Silent>,
    fell_silent: u64,
}

struct Silent {
    since: Instant,
    evicted: CancellationToken,
}

/// How long a connection has been silent before it goes for another: time for its first request to come, and for the
/// next one of a sender in full flow.
const SILENT_LEAST: Duration = Duration::from_millis(250);

/// Connections whose buffers, 16 KiB each, may stay for a while.
const FEW: usize = 1024;
const KEEPS_ROOM: Duration = Duration::from_millis(500);

/// A client has as many connections as one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Places {
    pub(super) fn new(places_max: usize, per_client_max: usize, metrics: Metrics) -> Arc<Self> {
        let places = Self { metrics, table: Mutex::default(), taken: AtomicUsize::new(0), changed: Notify::new() };
        places.resize(places_max, per_client_max);
        Arc::new(places)
    }

    /// Changes how many there are. Connections that have a place keep it.
    pub(super) fn resize(&self, places_max: usize, per_client_max: usize) {
        let mut table = self.table();
        (table.places_max, table.per_client_max) = (places_max.max(1), per_client_max.max(1));
        drop(table);
        self.changed.notify_one();
    }

    /// A place for a connection of `client`; of none if its connections do not count together. Waits while there is no
    /// place and no silent connection to take it from.
    ///
    /// # Errors
    /// [`TooMany`] if the client has its share already; at once.
    pub(super) async fn enter(self: &Arc<Self>, client: Option<ClientKey>) -> Result<Place, TooMany> {
        if let Some(place) = self.take(client)? {
            return Ok(place);
        }
        let _waits = Waits::new(self);
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable(); // what changes from here on is not missed
            if let Some(place) = self.take(client)? {
                return Ok(place);
            }
            match self.evict(ForWhom::WhoeverWaits) {
                None => changed.await,
                Some(later) => tokio::select! { // both are cancel-safe
                    () = changed => {}
                    () = sleep_until(later) => {}
                },
            }
        }
    }

    fn take(self: &Arc<Self>, client: Option<ClientKey>) -> Result<Option<Place>, TooMany> {
        let mut table = self.table();
        let of_client = client.map_or(0, |client| table.by_client.get(&client).copied().unwrap_or(0));
        if of_client >= table.per_client_max {
            return Err(TooMany);
        }
        if table.taken >= table.places_max {
            return Ok(None);
        }
        table.taken += 1;
        if let Some(client) = client {
            table.by_client.insert(client, of_client + 1);
        }
        if table.waiting > 0 && table.taken < table.places_max {
            self.changed.notify_one(); // for the next one that waits, if there are more places now
        }
        self.show(&table);
        let standing = Mutex::new(Standing::Heard);
        let client = Mutex::new(client);
        let seat = Seat { places: Arc::clone(self), evicted: CancellationToken::new(), client, standing };
        drop(table);
        seat.silent();
        Ok(Some(Place { seat: Arc::new(seat) }))
    }

    /// Asks the connection that has been silent longest to go, if there is one: a descriptor is wanted.
    pub(super) fn make_room(&self) {
        let _ = self.evict(ForWhom::Nobody);
    }

    /// Says when to try again, where nobody has been silent for long enough to go for another.
    fn evict(&self, whom: ForWhom) -> Option<Instant> {
        let mut table = self.table();
        if whom == ForWhom::WhoeverWaits {
            if table.going >= table.waiting {
                return None; // one goes for each already
            }
            let (_, longest) = table.silent.first_key_value()?;
            let may_go = longest.since + SILENT_LEAST;
            if may_go > Instant::now() {
                return Some(may_go);
            }
        }
        let (_, Silent { evicted, .. }) = table.silent.pop_first()?;
        table.going += 1;
        evicted.cancel(); // before anybody can find the place gone and not evicted
        drop(table);
        self.metrics.connections().cut_off(CutOff::Crowded);
        None
    }

    fn show(&self, table: &Table) {
        self.taken.store(table.taken, Ordering::Relaxed);
        self.metrics.connections().set_open(table.taken);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ForWhom {
    WhoeverWaits,
    Nobody,
}

/// Counts one that waits, until it is dropped.
struct Waits<'p>(&'p Places);

impl<'p> Waits<'p> {
    fn new(places: &'p Places) -> Self {
        places.table().waiting += 1;
        Self(places)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.table().waiting -= 1;
    }
}

/// A connection's place, free again when this is dropped.
pub(super) struct Place {
    seat: Arc<Seat>,
}

impl Place {
    /// For whoever knows when the connection is silent.
    pub(super) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// Cancelled when the connection has to go.
    pub(super) fn evicted(&self) -> CancellationToken {
        self.seat.evicted.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat.leave();
        let places = &self.seat.places;
        let mut table = places.table();
        table.taken -= 1;
        table.going -= usize::from(self.seat.evicted.is_cancelled());
        if let Some(client) = self.seat.client.lock().unwrap_or_else(PoisonError::into_inner).take()
            && let Some(count) = table.by_client.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                table.by_client.remove(&client);
            }
        }
        places.show(&table);
        drop(table);
        places.changed.notify_one();
    }
}

/// What a connection says of itself. May outlive the place, and then says nothing.
pub(super) struct Seat {
    places: Arc<Places>,
    evicted: CancellationToken,
    /// Among whose connections it counts. Taken after the table's lock.
    client: Mutex<Option<ClientKey>>,
    /// Taken before the table's lock.
    standing: Mutex<Standing>,
}

enum Standing {
    Heard,
    Silent(u64),
    Gone,
}

impl Seat {
    /// The connection, which counted among nobody's, turns out to be one of `client`'s.
    ///
    /// # Errors
    /// [`TooMany`] if the client has its share already.
    pub(super) fn is_of(&self, client: ClientKey) -> Result<(), TooMany> {
        let mut table = self.places.table();
        let (most, mut own) = (table.per_client_max, self.client.lock().unwrap_or_else(PoisonError::into_inner));
        let count = table.by_client.entry(client).or_default();
        if *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        *own = Some(client);
        Ok(())
    }

    /// How long a connection keeps the room for a request after the last one. Senders in full flow never give it up, as
    /// long as there are so few of them that their buffers do not count.
    pub(super) fn keeps_room(&self) -> Duration {
        if self.places.taken.load(Ordering::Relaxed) > FEW { Duration::ZERO } else { KEEPS_ROOM }
    }

    /// A complete request is under way.
    pub(super) fn heard(&self) {
        let mut standing = self.standing();
        if let Standing::Silent(number) = *standing {
            self.places.table().silent.remove(&number);
            *standing = Standing::Heard;
        }
    }

    /// None is any more.
    pub(super) fn silent(&self) {
        let mut standing = self.standing();
        if let Standing::Heard = *standing {
            let mut table = self.places.table();
            table.fell_silent += 1;
            let number = table.fell_silent;
            table.silent.insert(number, Silent { since: Instant::now(), evicted: self.evicted.clone() });
            *standing = Standing::Silent(number);
            drop(table);
            self.places.changed.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn is_silent(&self) -> bool {
        matches!(*self.standing(), Standing::Silent(_))
    }

    fn leave(&self) {
        self.heard();
        *self.standing() = Standing::Gone;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seat")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::time::advance;

    use super::*;

    fn places(places_max: usize, per_client_max: usize) -> Arc<Places> {
        Places::new(places_max, per_client_max, Metrics::new("test"))
    }

    /// A seat of a table of its own.
    pub(in crate::ingress) fn lone_seat() -> Arc<Seat> {
        places(1, 1).take(None).unwrap().unwrap().seat()
    }

    /// The place in a table of its own.
    pub(in crate::ingress) fn lone_place() -> Place {
        places(1, 1).take(None).unwrap().unwrap()
    }

    fn client(ip: &str) -> Option<ClientKey> {
        Some(ClientKey::of(ip.parse().unwrap()))
    }

    #[test]
    fn a_client_has_its_share_and_no_more_until_one_of_its_own_ends() {
        let places = places(100, 2);
        let take = |ip: &str| places.take(client(ip)).map(|place| place.expect("there is room"));
        let (first, _second) = (take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap());
        assert_eq!(take("192.0.2.1").err(), Some(TooMany));
        let _other = take("192.0.2.2").unwrap();
        drop(first);
        let _third = take("192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.1").err(), Some(TooMany));
        let _six = [take("2001:db8::1").unwrap(), take("2001:db8::ffff:1").unwrap()];
        assert_eq!(take("2001:db8:0:0:9::").err(), Some(TooMany), "a /64 is one client");
        let _next = take("2001:db8:0:1::1").unwrap();
        let _exempt: Vec<_> = (0..5).map(|_| places.take(None).unwrap().unwrap()).collect();
    }

    #[test]
    fn whoever_a_proxy_introduces_counts_from_then_on() {
        let places = places(100, 1);
        let introduced = || {
            let place = places.take(None).unwrap().expect("there is room");
            place.seat().is_of(client("192.0.2.1").unwrap()).map(|()| place)
        };
        let first = introduced().unwrap();
        assert_eq!(introduced().err(), Some(TooMany));
        assert_eq!(places.take(client("192.0.2.1")).err(), Some(TooMany));
        drop(first);
        drop(introduced().unwrap());
        let table = places.table();
        assert_eq!((table.taken, table.by_client.len()), (0, 0));
    }

    #[tokio::test]
    async fn more_places_are_there_at_once_for_all_who_wait() {
        let places = places(1, 10);
        let first = places.enter(None).await.unwrap();
        first.seat.heard(); // under way, so nobody takes its place
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(places.enter(None))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        places.resize(3, 10);
        let (mut in_now, mut outside) = (Vec::new(), 0);
        for _round in 0..3 {
            for mut one in std::mem::take(&mut waiting) {
                match futures_util::poll!(&mut one) {
                    std::task::Poll::Ready(place) => in_now.push(place.unwrap()),
                    std::task::Poll::Pending => waiting.push(one),
                }
            }
            outside = waiting.len();
        }
        assert_eq!((in_now.len(), outside), (2, 1));
        in_now.iter().for_each(|place| place.seat.heard());
        places.resize(1, 10);
        assert_eq!(places.table().taken, 3, "whoever has a place keeps it");
    }

    #[test]
    fn nothing_is_remembered_of_clients_that_have_gone() {
        let places = places(100, 2);
        for number in 0..1000u32 {
            let ip = std::net::Ipv4Addr::from(number).into();
            drop(places.take(Some(ClientKey::of(ip))).unwrap().unwrap());
        }
        let table = places.table();
        assert_eq!((table.taken, table.by_client.len(), table.silent.len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_been_silent_longest_goes() {
        let places = places(3, 10);
        let mut taken: Vec<Place> = Vec::new();
        for _ in 0..3 {
            taken.push(places.enter(None).await.unwrap());
        }
        taken[0].seat.heard(); // under way
        taken[1].seat.heard();
        taken[1].seat.silent(); // idle since after the third came
        let gone = |taken: &[Place]| taken.iter().map(|place| place.evicted().is_cancelled()).collect::<Vec<_>>();
        let mut next = pin!(places.enter(None));
        assert!(futures_util::poll!(&mut next).is_pending());
        assert_eq!(gone(&taken), [false; 3], "each has a moment for its request to come");
        advance(SILENT_LEAST).await;
        assert!(futures_util::poll!(&mut next).is_pending());
        assert_eq!(gone(&taken), [false, false, true]);
        drop(taken.pop());
        let _next = next.as_mut().await.unwrap();
        assert_eq!(gone(&taken), [false, false], "for one that comes one goes");
        places.make_room();
        assert_eq!(gone(&taken), [false, true]);
        places.make_room();
        assert_eq!(gone(&taken), [false, true], "one under way never goes");
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_is_silent_the_next_waits_for_the_first_that_falls_silent() {
        let places = places(1, 10);
        let place = places.enter(None).await.unwrap();
        place.seat.heard();
        let mut next = pin!(places.enter(None));
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(!place.evicted().is_cancelled());
        place.seat.silent();
        assert!(futures_util::poll!(&mut next).is_pending());
        advance(SILENT_LEAST).await;
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(place.evicted().is_cancelled());
        let seat = place.seat();
        drop(place);
        let _next = next.await.unwrap();
        seat.heard();
        seat.silent();
        assert_eq!(places.table().silent.len(), 1, "what has gone is silent for good");
    }
}
