//! Places: how many connections renters hold, by address and in all.
//!
//! A connection *waits* until a request on it is admitted, and is *admitted* from then on. The two have places of their
//! own, so that a flood of connections without a token takes none of those that renters use. When the waiting places are
//! all taken, the oldest waiting connection gives way: whoever has a token is admitted within milliseconds, so it is a
//! silent one that goes.
//!
//! Invariant: a place is given back exactly once, when its connection is dropped or has to give way. One lock holds all
//! counters; it is taken when a connection comes, is admitted and goes, for a request only behind a listed proxy, and never for
//! a byte.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use runit_config::Limits;
use runit_core::rate::RateCell;
use runit_core::{NetworkKey, RenterAddress};

use crate::connection::{Connection, Cut};
use crate::gateway::rate_of;
use crate::monotonic;

/// Arrivals that are paid for so soon make no difference.
const SOON: Duration = Duration::from_millis(50);
/// Networks that are remembered, at least, before those without a trace are looked for.
const FEW_NETWORKS: usize = 1_024;

/// All places of a node.
pub(crate) struct Places {
    table: Mutex<Table>,
    /// What renters' connections may take.
    files: u64,
}

#[derive(Default)]
struct Table {
    waiting: usize,
    admitted: usize,
    networks: HashMap<NetworkKey, Network>,
    /// Connections of each IPv6 site, waiting or admitted: it has more networks than anybody has places for.
    sites: HashMap<NetworkKey, usize>,
    /// Oldest first; some do not wait any more.
    queue: VecDeque<Weak<Seat>>,
    purge_at: usize,
}

#[derive(Default)]
struct Network {
    waiting: usize,
    admitted: usize,
    arrivals: RateCell,
    /// Shared by the network's connections. It outlives them until it makes no difference.
    requests: Arc<RateCell>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its network has all the connections that it may have.
    Network,
    /// Its network has all the waiting ones that it may have.
    WaitingNetwork,
    /// Its network's come too fast.
    Rate,
    /// Its IPv6 site has all that it may have.
    Site,
}

impl Full {
    /// Each of them.
    pub(crate) const ALL: [Self; 4] = [Self::Network, Self::WaitingNetwork, Self::Rate, Self::Site];

    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Network => "address",
            Self::WaitingNetwork => "address_waiting",
            Self::Rate => "address_rate",
            Self::Site => "site",
        }
    }
}

/// One connection's place.
pub(crate) struct Place {
    places: Arc<Places>,
    seat: Arc<Seat>,
    requests: Arc<RateCell>,
}

/// The part of a place that the queue knows.
struct Seat {
    network: NetworkKey,
    /// One of the three below. Written under the table's lock only; read without it as a hint.
    standing: AtomicU8,
    connection: OnceLock<Weak<Connection>>,
}

const WAITING: u8 = 0;
const ADMITTED: u8 = 1;
/// The place is another's by now.
const GONE: u8 = 2;

impl Places {
    /// No connections yet, which may take `files` files.
    pub(crate) fn new(files: u64) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), files })
    }

    /// A waiting place for a connection from `address`.
    ///
    /// # Errors
    /// When its network has too many. When all waiting places are taken, the oldest connection that waits is cut.
    pub(crate) fn enter(self: &Arc<Self>, address: RenterAddress, limits: &Limits) -> Result<Arc<Connection>, Full> {
        let (key, now) = (address.network(), monotonic::coarse());
        let most = self.most_waiting(limits);
        let mut table = self.table();
        table.purge(now);
        let of_site = key.site().and_then(|site| table.sites.get(&site)).copied().unwrap_or(0);
        if of_site >= (limits.connections / 4).max(limits.connections_per_address) {
            return Err(Full::Site);
        }
        let network = table.networks.entry(key).or_default();
        if network.waiting >= limits.waiting_connections_per_address {
            return Err(Full::WaitingNetwork);
        }
        if network.waiting + network.admitted >= limits.connections_per_address {
            return Err(Full::Network);
        }
        if limits.connections_per_address < usize::MAX
            && network.arrivals.admit(rate_of(limits.arrivals_per_address), now).is_err()
        {
            return Err(Full::Rate);
        }
        let requests = Arc::clone(&network.requests);
        network.waiting += 1;
        table.waiting += 1;
        if let Some(site) = key.site() {
            *table.sites.entry(site).or_default() += 1;
        }
        let seat = Arc::new(Seat { network: key, standing: AtomicU8::new(WAITING), connection: OnceLock::new() });
        table.line_up(&seat, most);
        let gives_way = (table.waiting > most).then(|| table.oldest()).flatten();
        drop(table);
        if let Some(oldest) = gives_way.and_then(|seat| seat.connection.get()?.upgrade()) {
            oldest.cut(Cut::GaveWay);
        }
        let place = Place { places: Arc::clone(self), seat: Arc::clone(&seat), requests };
        let connection = Arc::new(Connection::new(address, place));
        // Fresh, so nobody has set it.
        let _ = seat.connection.set(Arc::downgrade(&connection));
        Ok(connection)
    }

    /// Connections that may be admitted: each has a file of its own and one to its provider.
    fn most_admitted(&self, limits: &Limits) -> usize {
        let files = self.files.saturating_sub(self.most_waiting(limits) as u64);
        limits.connections.min(usize::try_from(files / 2).unwrap_or(usize::MAX))
    }

    fn most_waiting(&self, limits: &Limits) -> usize {
        limits.waiting_connections.min(usize::try_from(self.files / 4).unwrap_or(usize::MAX)).max(1)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is a few additions that do not panic, so the table is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn line_up(&mut self, seat: &Arc<Seat>, most: usize) {
        if self.queue.len() >= 2 * most + FEW_NETWORKS {
            self.queue.retain(|seat| seat.upgrade().is_some_and(|seat| seat.is(WAITING)));
        }
        self.queue.push_back(Arc::downgrade(seat));
    }

    /// Takes the place of the connection that has waited longest.
    fn oldest(&mut self) -> Option<Arc<Seat>> {
        while let Some(oldest) = self.queue.pop_front() {
            if let Some(oldest) = oldest.upgrade()
                && self.stand_up(&oldest, GONE)
            {
                return Some(oldest);
            }
        }
        None
    }

    /// Gives a waiting place back; `false` if it is none.
    fn stand_up(&mut self, seat: &Seat, next: u8) -> bool {
        if !seat.is(WAITING) {
            return false;
        }
        seat.standing.store(next, Ordering::Relaxed);
        if next == GONE {
            self.leave_site(seat);
        }
        self.waiting -= 1;
        if let Some(network) = self.networks.get_mut(&seat.network) {
            network.waiting -= 1;
        }
        true
    }

    fn leave_site(&mut self, seat: &Seat) {
        let Some(site) = seat.network.site() else { return };
        match self.sites.get_mut(&site) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.sites.remove(&site)),
        }
    }

    /// Forgets networks that left no trace, when there are many.
    fn purge(&mut self, now: Duration) {
        if self.networks.len() < self.purge_at.max(FEW_NETWORKS) {
            return;
        }
        let left_a_trace = |network: &Network| !network.requests.is_idle(now) || !network.arrivals.is_idle(now + SOON);
        self.networks.retain(|_, network| network.waiting + network.admitted > 0 || left_a_trace(network));
        self.purge_at = self.networks.len() * 2;
    }
}

impl Seat {
    fn is(&self, standing: u8) -> bool {
        self.standing.load(Ordering::Relaxed) == standing
    }
}

impl Place {
    /// Makes the connection an admitted one; `false` if there is no place for it, or if it had to give way.
    pub(crate) fn admit(&self, limits: &Limits) -> bool {
        if self.seat.is(ADMITTED) {
            return true;
        }
        let most = self.places.most_admitted(limits);
        let mut table = self.places.table();
        if table.admitted >= most || !table.stand_up(&self.seat, ADMITTED) {
            return false;
        }
        table.admitted += 1;
        if let Some(network) = table.networks.get_mut(&self.seat.network) {
            network.admitted += 1;
        }
        true
    }

    /// What a network's requests have used of their rate: the connection's own, or behind a proxy another for each request.
    pub(crate) fn requests(&self, network: NetworkKey) -> Arc<RateCell> {
        if network == self.seat.network {
            return Arc::clone(&self.requests);
        }
        let mut table = self.places.table();
        table.purge(monotonic::coarse());
        Arc::clone(&table.networks.entry(network).or_default().requests)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        if !table.stand_up(&self.seat, GONE) && self.seat.is(ADMITTED) {
            self.seat.standing.store(GONE, Ordering::Relaxed);
            table.leave_site(&self.seat);
            table.admitted -= 1;
            if let Some(network) = table.networks.get_mut(&self.seat.network) {
                network.admitted -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 2,
            connections_per_address: 3,
            waiting_connections: 3,
            waiting_connections_per_address: 2,
            ..Limits::default()
        }
    }

    fn address(last: u8) -> RenterAddress {
        RenterAddress::new([10, 0, 0, last].into())
    }

    fn enter(places: &Arc<Places>, last: u8) -> Result<Arc<Connection>, Full> {
        places.enter(address(last), &limits())
    }

    fn counted(places: &Places) -> (usize, usize, usize) {
        let table = places.table();
        let by_network = table.networks.values().map(|network| network.waiting + network.admitted).sum();
        (table.waiting, table.admitted, by_network)
    }

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let places = Places::new(10_000);
        let mut open: Vec<_> = (0..2).map(|_| enter(&places, 1).expect("a place")).collect();
        assert_eq!(enter(&places, 1).err(), Some(Full::WaitingNetwork));
        assert!(open.iter().all(|connection| connection.place().admit(&limits())));
        open.push(enter(&places, 1).expect("the others wait no more"));
        assert_eq!(enter(&places, 1).err(), Some(Full::Network));
        assert!(enter(&places, 2).is_ok(), "another address");
        open.remove(0);
        open.push(enter(&places, 1).expect("given back"));
        drop(open);
        assert_eq!(counted(&places), (0, 0, 0));
    }

    #[test]
    fn the_oldest_that_waits_gives_way_and_an_admitted_one_never() {
        let places = Places::new(10_000);
        let admitted = enter(&places, 1).expect("a place");
        assert!(admitted.place().admit(&limits()));
        let waiting: Vec<_> = (2..5).map(|last| enter(&places, last).expect("a place")).collect();
        let newcomer = enter(&places, 5).expect("a place");
        let cut = |connection: &Connection| connection.cut_reason();
        assert_eq!(cut(&waiting[0]), Some(Cut::GaveWay));
        assert!([&admitted, &waiting[1], &waiting[2], &newcomer].iter().all(|one| cut(one).is_none()));
        assert!(!waiting[0].place().admit(&limits()), "too late");
        assert_eq!(counted(&places), (3, 1, 4));
        drop((admitted, waiting, newcomer));
        assert_eq!(counted(&places), (0, 0, 0));
    }

    #[test]
    fn admitted_connections_are_bounded_in_all_and_by_the_files_that_may_be_open() {
        let places = Places::new(10_000);
        let open: Vec<_> = (1..4).map(|last| enter(&places, last).expect("a place")).collect();
        let let_in = open.iter().filter(|connection| connection.place().admit(&limits())).count();
        assert_eq!((let_in, counted(&places)), (2, (1, 2, 3)));
        let few = Places::new(512);
        assert_eq!((few.most_waiting(&Limits::default()), few.most_admitted(&Limits::default())), (128, 192));
        assert!(few.most_waiting(&Limits::default()) + 2 * few.most_admitted(&Limits::default()) <= 512);
    }

    #[test]
    fn an_ipv6_site_has_no_more_than_a_quarter_however_many_networks_it_has() {
        let places = Places::new(10_000);
        let limits = Limits { connections: 40, waiting_connections: 100, ..limits() };
        let from = |network: u16, site: u16| {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, site, network, 0, 0, 0, 1);
            places.enter(RenterAddress::new(address.into()), &limits)
        };
        let mut open: Vec<_> = (0..10).map(|network| from(network, 1).expect("a place")).collect();
        assert_eq!(from(10, 1).err(), Some(Full::Site));
        assert!(from(10, 2).is_ok(), "another site");
        assert!(open[0].place().admit(&limits));
        open.truncate(9);
        open.push(from(11, 1).expect("given back"));
        assert_eq!(from(12, 1).err(), Some(Full::Site));
        drop(open);
        assert!(places.table().sites.is_empty());
    }

    #[test]
    fn connections_that_come_too_fast_are_turned_away_and_others_are_not() {
        let places = Places::new(10_000);
        let rate = runit_config::Rate { per_second: 1, burst: 5 };
        let limits = Limits { arrivals_per_address: rate, waiting_connections: 100, ..limits() };
        let from = |last| places.enter(address(last), &limits).map(drop).err();
        assert!((0..5).all(|_| from(1).is_none()));
        assert_eq!((from(1), from(2)), (Some(Full::Rate), None));
    }

    #[test]
    fn networks_that_left_no_trace_take_no_memory() {
        let places = Places::new(1 << 20);
        let rate = runit_config::Rate { per_second: 1_000_000, burst: 1 };
        let limits = Limits { waiting_connections: 1 << 20, arrivals_per_address: rate, ..limits() };
        for n in 0..50_000_u32 {
            let from = RenterAddress::new(std::net::Ipv4Addr::from_bits(n).into());
            drop(places.enter(from, &limits).expect("a place"));
        }
        let table = places.table();
        assert!(table.networks.len() <= FEW_NETWORKS, "{}", table.networks.len());
    }

    #[test]
    fn a_network_that_used_up_its_rate_finds_it_used_up_on_a_new_connection() {
        let places = Places::new(10_000);
        let rate = runit_core::rate::Rate { per_second: 1, burst: 1 };
        let now = monotonic::coarse();
        let first = enter(&places, 1).expect("a place");
        assert!(first.place().requests(address(1).network()).admit(rate, now).is_ok());
        drop(first);
        assert!(enter(&places, 1).expect("a place").place().requests(address(1).network()).admit(rate, now).is_err());
    }
}
