//! How many of something may be open at once: in all, and for one network.
//!
//! Invariant: a place is given back exactly once, when it is dropped; networks without a place take no memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runit_core::NetworkKey;

/// Places that are taken.
pub(crate) struct Occupancy {
    total: usize,
    per_network: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_network: HashMap<NetworkKey, usize>,
}

/// One taken place.
pub(crate) struct Place {
    occupancy: Arc<Occupancy>,
    network: NetworkKey,
}

impl Occupancy {
    pub(crate) fn new(total: usize, per_network: usize) -> Arc<Self> {
        Arc::new(Self { total, per_network, taken: Mutex::default() })
    }

    /// A place, if there is one for this network.
    pub(crate) fn enter(self: &Arc<Self>, network: NetworkKey) -> Option<Place> {
        let mut taken = self.taken();
        let mine = taken.by_network.get(&network).copied().unwrap_or(0);
        if taken.total >= self.total || mine >= self.per_network {
            return None;
        }
        taken.total += 1;
        taken.by_network.insert(network, mine + 1);
        Some(Place { occupancy: Arc::clone(self), network })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.occupancy.taken();
        taken.total -= 1;
        match taken.by_network.get_mut(&self.network) {
            Some(mine) if *mine > 1 => *mine -= 1,
            _ => drop(taken.by_network.remove(&self.network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runit_core::RenterAddress;

    fn network(last: u8) -> NetworkKey {
        RenterAddress::new([10, 0, 0, last].into()).network()
    }

    #[test]
    fn places_are_bounded_by_network_and_in_all_and_come_back() {
        let occupancy = Occupancy::new(3, 2);
        let (first, second) = (occupancy.enter(network(1)), occupancy.enter(network(1)));
        assert!(first.is_some() && second.is_some());
        assert!(occupancy.enter(network(1)).is_none(), "two for one network");
        let third = occupancy.enter(network(2));
        assert!(third.is_some());
        assert!(occupancy.enter(network(3)).is_none(), "three in all");
        drop(first);
        assert!(occupancy.enter(network(3)).is_some());
        drop((second, third));
        assert!(occupancy.taken().by_network.is_empty());
        assert_eq!(occupancy.taken().total, 0);
    }
}
