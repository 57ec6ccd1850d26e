//! Operators who have signed in with a browser: the cookie's hash leads to the hash of the key.
//!
//! Kept in memory: a restart signs everybody out. A sign-in gives what its key gives at that moment, so it ends with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runit_core::{SecretHash, Timestamp};

/// How long a sign-in lasts: a working day.
pub(super) const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// More than operators have browsers. One more, and the oldest ends.
const MOST: usize = 256;

#[derive(Default)]
pub(super) struct SignIns {
    by_cookie: Mutex<HashMap<SecretHash, SignIn>>,
}

#[derive(Clone, Copy)]
struct SignIn {
    key: SecretHash,
    ends_at: Timestamp,
}

impl SignIns {
    /// From now on that cookie stands for that key.
    pub(super) fn begin(&self, cookie: SecretHash, key: SecretHash, now: Timestamp) {
        let mut known = self.known();
        known.retain(|_, one| one.ends_at > now);
        if known.len() >= MOST {
            let oldest = known.iter().min_by_key(|(_, one)| one.ends_at).map(|(cookie, _)| *cookie);
            oldest.map(|cookie| known.remove(&cookie));
        }
        known.insert(cookie, SignIn { key, ends_at: now.plus(LASTS) });
    }

    /// The key that the cookie stands for.
    pub(super) fn key(&self, cookie: SecretHash, now: Timestamp) -> Option<SecretHash> {
        self.known().get(&cookie).filter(|one| one.ends_at > now).map(|one| one.key)
    }

    pub(super) fn end(&self, cookie: SecretHash) {
        self.known().remove(&cookie);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SecretHash, SignIn>> {
        self.by_cookie.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(n: usize) -> SecretHash {
        SecretHash::of(&format!("cookie {n}"))
    }

    #[test]
    fn a_sign_in_lasts_twelve_hours_unless_it_is_ended() {
        let (sign_ins, key, now) = (SignIns::default(), SecretHash::of("key"), Timestamp::from_unix_ms(1_000));
        sign_ins.begin(cookie(1), key, now);
        sign_ins.begin(cookie(2), key, now);
        sign_ins.end(cookie(2));
        assert_eq!(sign_ins.key(cookie(1), now.plus(LASTS - Duration::from_millis(1))), Some(key));
        assert_eq!(sign_ins.key(cookie(1), now.plus(LASTS)), None);
        assert_eq!(sign_ins.key(cookie(2), now), None);
    }

    #[test]
    fn they_are_bounded_and_the_oldest_goes_first() {
        let (sign_ins, key) = (SignIns::default(), SecretHash::of("key"));
        let at = |n: usize| Timestamp::from_unix_ms(n as u64);
        (0..=MOST).for_each(|n| sign_ins.begin(cookie(n), key, at(n)));
        assert_eq!(sign_ins.key(cookie(0), at(MOST)), None);
        assert_eq!(sign_ins.key(cookie(1), at(MOST)), Some(key));
        assert_eq!(sign_ins.known().len(), MOST);
    }
}
