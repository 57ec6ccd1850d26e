//! Places: how many connections a listener has, by network and in all, and which one gives way when all are taken.
//!
//! A connection *waits* until it has asked for something: until its first request's head is there. It keeps its place while it
//! is answered, and *rests* from then to its next request. When all places are taken, the one that has rested longest gives
//! way, whose client makes another one; or, where more than a quarter of all wait, the one that has waited longest: whoever
//! means to ask does so within moments, so it is a silent one that goes. Where a network has all that it may have, one of
//! its own that rests does.
//!
//! Invariant: a place is given back exactly once, when it is dropped or has to give way; networks and sites without a
//! place take no memory. One lock holds all of it; it is taken when a connection comes, asks, rests and goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runit_core::NetworkKey;
use tokio::sync::Notify;

/// How many connections there may be. An IPv6 site may have a quarter of all: it has more networks than there are places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub connections: usize,
    /// Of one network.
    pub per_network: usize,
    /// Of one network, that have not asked for anything.
    pub waiting_per_network: usize,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Its network has all that it may have, each of them in use.
    Network,
    /// Its network has all that it may have waiting.
    WaitingNetwork,
    /// Its IPv6 site has all that it may have.
    Site,
    /// All places are taken by connections that are in use.
    All,
}

impl Full {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::Network, Self::WaitingNetwork, Self::Site, Self::All];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Network => "address",
            Self::WaitingNetwork => "address_waiting",
            Self::Site => "site",
            Self::All => "all",
        }
    }
}

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    taken: usize,
    /// The last one that was given out.
    turn: u64,
    waiting: BTreeMap<u64, Idle>,
    resting: BTreeMap<u64, Idle>,
    resting_by_network: BTreeSet<(NetworkKey, u64)>,
    by_network: HashMap<NetworkKey, usize>,
    waiting_by_network: HashMap<NetworkKey, usize>,
    by_site: HashMap<NetworkKey, usize>,
}

/// One that may have to give way.
#[derive(Debug)]
struct Idle {
    network: NetworkKey,
    gives_way: Arc<Notify>,
}

/// One connection's place.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    network: NetworkKey,
    gives_way: Arc<Notify>,
    /// Since when it waits or rests, or [`IN_USE`]. Relaxed: read and written under the table's lock.
    turn: AtomicU64,
    /// Relaxed: whoever reads it is the task that has asked.
    has_asked: AtomicBool,
}

/// No turn: it does not wait, and does not rest.
const IN_USE: u64 = 0;

impl Places {
    /// All of them free.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, table: Mutex::default() })
    }

    /// A place for a connection that waits; when all are taken, that of one that waits or rests.
    ///
    /// # Errors
    /// When its network or site has too many, or when all places are in use.
    pub fn enter(self: &Arc<Self>, network: NetworkKey) -> Result<Place, Full> {
        let Bounds { connections, per_network, waiting_per_network } = self.bounds;
        let mut table = self.table();
        if count(&table.waiting_by_network, network) >= waiting_per_network {
            return Err(Full::WaitingNetwork);
        }
        if count(&table.by_network, network) >= per_network && !table.dismiss_of(network) {
            return Err(Full::Network);
        }
        if network.site().is_some_and(|site| count(&table.by_site, site) >= (connections / 4).max(1)) {
            return Err(Full::Site);
        }
        self.take(&mut table, network)
    }

    /// The same for a proxy, which has the connections of many networks: it is bounded in all only.
    ///
    /// # Errors
    /// When all places are in use.
    pub fn enter_for_many(self: &Arc<Self>, proxy: NetworkKey) -> Result<Place, Full> {
        self.take(&mut self.table(), proxy)
    }

    fn take(self: &Arc<Self>, table: &mut Table, network: NetworkKey) -> Result<Place, Full> {
        if table.taken >= self.bounds.connections && !table.dismiss() {
            return Err(Full::All);
        }
        let gives_way = Arc::new(Notify::new());
        table.taken += 1;
        *table.by_network.entry(network).or_default() += 1;
        *table.waiting_by_network.entry(network).or_default() += 1;
        if let Some(site) = network.site() {
            *table.by_site.entry(site).or_default() += 1;
        }
        let turn = table.next_turn();
        table.waiting.insert(turn, Idle { network, gives_way: Arc::clone(&gives_way) });
        let (turn, has_asked) = (turn.into(), false.into());
        Ok(Place { places: Arc::clone(self), network, gives_way, turn, has_asked })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is a few additions that do not panic, so the table is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Takes the place of one that waits or rests; `false` if there is none.
    fn dismiss(&mut self) -> bool {
        let (waits, rests) = (self.waiting.keys().next(), self.resting.keys().next());
        let many_wait = self.waiting.len() > self.taken / 4;
        let turn = if many_wait { waits.or(rests) } else { rests.or(waits) };
        self.dismiss_turn(turn.copied())
    }

    /// The same within a network, where one rests.
    fn dismiss_of(&mut self, network: NetworkKey) -> bool {
        let turn = self.resting_by_network.range((network, 0)..).next().filter(|(of, _)| *of == network);
        self.dismiss_turn(turn.map(|(_, turn)| *turn))
    }

    fn dismiss_turn(&mut self, turn: Option<u64>) -> bool {
        let Some(idle) = turn.and_then(|turn| self.end_turn(turn)) else { return false };
        self.leave(idle.network);
        idle.gives_way.notify_one();
        true
    }

    /// That one waits or rests no more; none if it had to give way.
    fn end_turn(&mut self, turn: u64) -> Option<Idle> {
        if let Some(idle) = self.waiting.remove(&turn) {
            one_less(&mut self.waiting_by_network, idle.network);
            return Some(idle);
        }
        let idle = self.resting.remove(&turn)?;
        self.resting_by_network.remove(&(idle.network, turn));
        Some(idle)
    }

    fn leave(&mut self, network: NetworkKey) {
        self.taken -= 1;
        one_less(&mut self.by_network, network);
        if let Some(site) = network.site() {
            one_less(&mut self.by_site, site);
        }
    }
}

impl Place {
    /// The connection asks for something, and keeps its place until it [rests](Self::rest); `false` if it has had to give
    /// way.
    pub fn ask(&self) -> bool {
        let mut table = self.places.table();
        let turn = self.turn.load(Ordering::Relaxed);
        if turn != IN_USE && table.end_turn(turn).is_none() {
            return false;
        }
        self.turn.store(IN_USE, Ordering::Relaxed);
        self.has_asked.store(true, Ordering::Relaxed);
        true
    }

    /// The connection is answered, and may have to give way until it asks again.
    pub fn rest(&self) {
        let mut table = self.places.table();
        if self.turn.load(Ordering::Relaxed) == IN_USE {
            let (turn, network) = (table.next_turn(), self.network);
            table.resting.insert(turn, Idle { network, gives_way: Arc::clone(&self.gives_way) });
            table.resting_by_network.insert((network, turn));
            self.turn.store(turn, Ordering::Relaxed);
        }
    }

    /// Whether it has asked for anything yet.
    pub fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// Resolves when another connection has taken the place, and this one is to be closed.
    pub async fn gave_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        let turn = *self.turn.get_mut();
        if turn == IN_USE || table.end_turn(turn).is_some() {
            table.leave(self.network);
        }
    }
}

fn count<K: Hash + Eq>(counts: &HashMap<K, usize>, key: K) -> usize {
    counts.get(&key).copied().unwrap_or(0)
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    match counts.get_mut(&key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(counts.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use runit_core::RenterAddress;

    use super::*;

    fn places(connections: usize, per_network: usize, waiting_per_network: usize) -> Arc<Places> {
        Places::new(Bounds { connections, per_network, waiting_per_network })
    }

    fn network(address: impl Into<IpAddr>) -> NetworkKey {
        RenterAddress::new(address.into()).network()
    }

    fn v4(last: u8) -> NetworkKey {
        network(Ipv4Addr::new(10, 0, 0, last))
    }

    fn refusal(entered: Result<Place, Full>) -> Option<Full> {
        entered.err()
    }

    /// Whether its connection is to be closed.
    fn has_given_way(place: &Place) -> bool {
        use std::task::{Context, Waker};
        let gave_way = std::pin::pin!(place.gave_way());
        gave_way.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn assert_all_given_back(places: &Places) {
        let table = places.table();
        assert_eq!(table.taken, 0);
        assert!(table.waiting.is_empty() && table.waiting_by_network.is_empty());
        assert!(table.resting.is_empty() && table.resting_by_network.is_empty());
        assert!(table.by_network.is_empty() && table.by_site.is_empty());
    }

    #[test]
    fn a_network_has_so_many_places_fewer_of_them_waiting_and_gets_them_back() {
        let places = places(10, 3, 2);
        let mut open: Vec<_> = (0..2).map(|_| places.enter(v4(1)).expect("a place")).collect();
        assert_eq!(refusal(places.enter(v4(1))), Some(Full::WaitingNetwork));
        assert!(open.iter().all(Place::ask));
        open.push(places.enter(v4(1)).expect("the others wait no more"));
        assert_eq!(refusal(places.enter(v4(1))), Some(Full::Network));
        assert!(places.enter(v4(2)).is_ok(), "another network");
        let proxy: Vec<_> = (0..5).map(|_| places.enter_for_many(v4(3)).expect("a place")).collect();
        open.remove(0);
        open.push(places.enter(v4(1)).expect("given back"));
        drop((open, proxy));
        assert_all_given_back(&places);
    }

    #[test]
    fn the_oldest_that_waits_gives_way_and_one_that_is_in_use_never() {
        let places = places(3, 3, 3);
        let asked = places.enter(v4(1)).expect("a place");
        assert!(asked.ask() && asked.ask());
        let [older, newer, newest] = [2, 3, 4].map(|last| places.enter(v4(last)).expect("a place"));
        assert_eq!([&older, &asked, &newer, &newest].map(has_given_way), [true, false, false, false]);
        assert!(!older.ask(), "too late");
        assert!(newer.ask() && newest.ask());
        assert_eq!(refusal(places.enter(v4(5))), Some(Full::All));
        assert_eq!(refusal(places.enter_for_many(v4(5))), Some(Full::All));
        drop(older);
        assert_eq!(refusal(places.enter(v4(5))), Some(Full::All), "its place went to another");
        drop((asked, newer, newest));
        assert_all_given_back(&places);
    }

    #[test]
    fn where_none_waits_the_one_that_has_rested_longest_gives_way() {
        let places = places(3, 3, 3);
        let open = [1, 2, 3].map(|last| places.enter(v4(last)).expect("a place"));
        assert!(open.iter().all(Place::ask));
        [2, 0, 1].into_iter().for_each(|at| open[at].rest());
        assert!(open[2].ask(), "it is in use again");
        open[2].rest();
        let fresh = places.enter(v4(4)).expect("that of the first");
        let given_way = |places: &[Place; 3]| places.each_ref().map(has_given_way);
        assert_eq!(given_way(&open), [true, false, false]);
        assert!(!open[0].ask(), "too late");
        open[0].rest();
        drop(places.enter(v4(5)).expect("that of one who has not asked"));
        assert!(has_given_way(&fresh) && given_way(&open) == [false; 3]);
        drop((open, fresh));
        assert_all_given_back(&places);
    }

    #[test]
    fn a_network_that_has_all_its_places_gives_way_to_itself() {
        let places = places(10, 2, 2);
        let [busy, rests, other] = [1, 1, 2].map(|last| places.enter(v4(last)).expect("a place"));
        for place in [&busy, &rests, &other] {
            assert!(place.ask());
        }
        other.rest();
        assert_eq!(refusal(places.enter(v4(1))), Some(Full::Network), "that of another network is not taken");
        rests.rest();
        let fresh = places.enter(v4(1)).expect("a place");
        assert_eq!([&busy, &rests, &other].map(has_given_way), [false, true, false]);
        drop((busy, rests, other, fresh));
        assert_all_given_back(&places);
    }

    #[test]
    fn an_ipv6_site_has_no_more_than_a_quarter_however_many_networks_it_has() {
        let places = places(40, 8, 8);
        let from = |at: u16, site: u16| places.enter(network(Ipv6Addr::new(0x2001, 0xdb8, site, at, 0, 0, 0, 1)));
        let mut open: Vec<_> = (0..10).map(|at| from(at, 1).expect("a place")).collect();
        assert_eq!(refusal(from(10, 1)), Some(Full::Site));
        assert!(from(10, 2).is_ok(), "another site");
        assert!(open[0].ask());
        assert_eq!(refusal(from(10, 1)), Some(Full::Site), "asking gives nothing back");
        open.remove(0);
        open.push(from(11, 1).expect("given back"));
        drop(open);
        assert_all_given_back(&places);
    }

    #[test]
    fn places_taken_asked_for_and_given_back_by_many_threads_are_counted_right() {
        let places = places(16, 4, 3);
        std::thread::scope(|threads| {
            for thread in 0..8_u8 {
                let places = &places;
                threads.spawn(move || {
                    for round in 0..2_000_u32 {
                        let Ok(place) = places.enter(v4(thread % 6)) else { continue };
                        if round % 3 == 0 {
                            let stays = place.ask();
                            assert!(!(stays && has_given_way(&place)));
                            place.rest();
                        }
                        assert!(places.table().taken <= 16);
                    }
                });
            }
        });
        assert_all_given_back(&places);
    }
}
