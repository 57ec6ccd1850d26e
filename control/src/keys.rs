//! Keys of operators and providers: who presents one, and what is made and revoked.
//!
//! Invariants: a key's text leaves this process once, in the answer to whoever made it; it is looked up and compared as a
//! hash. A key that was made here has 256 random bits: it is looked up first, and nobody's guesses hold up who presents it.
//! The configured one is its operator's words, and is compared only while its network has guesses left.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use runit_core::key::{Key, KeyHolder, Operator, Role};
use runit_core::store::{Store, StoreError};
use runit_core::{KeyId, NetworkKey, ProviderId, Secret, SecretHash, Timestamp};

use crate::random::{self, NoRandomness};
use runit_core::limit::{Limit, SlidingLog};

/// Keys of no use that a network may present before none but made ones is looked at any more.
const GUESSES: Limit = Limit { requests: 20, window: Duration::from_secs(60) };

/// The keys that there are.
pub(crate) struct Keys {
    store: Arc<dyn Store>,
    /// The key in the settings, which is there before any other.
    configured: Option<SecretHash>,
    by_hash: RwLock<HashMap<SecretHash, Key>>,
    guesses: Mutex<SlidingLog<NetworkKey>>,
}

/// Why an operator is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No key, or one that opens nothing.
    NoKey {
        /// Whether one was presented.
        presented: bool,
    },
    /// The key may only look.
    Role(Operator),
    /// Too many keys that open nothing came from there.
    TooManyGuesses(Duration),
}

/// A key cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl Keys {
    /// Those that the store holds, and the configured one.
    pub(crate) async fn load(store: Arc<dyn Store>, configured: Option<SecretHash>) -> Result<Self, StoreError> {
        let guesses = Mutex::new(SlidingLog::new(GUESSES));
        let keys = Self { store, configured, by_hash: RwLock::default(), guesses };
        keys.reload().await?;
        Ok(keys)
    }

    /// Takes what another process has made or revoked.
    pub(crate) async fn reload(&self) -> Result<(), StoreError> {
        let keys = self.store.keys().await?;
        self.replace(keys.into_iter().map(|key| (key.hash, key)).collect());
        Ok(())
    }

    /// The operator who presents `key` and wants to do what takes `role`.
    pub(crate) fn operator(
        &self,
        key: Option<&Secret>,
        role: Role,
        network: NetworkKey,
        now: Timestamp,
    ) -> Result<Operator, Denied> {
        let Some(key) = key else { return Err(Denied::NoKey { presented: false }) };
        let hash = key.hash();
        let (operator, granted) = match self.made(hash) {
            Some(made) => made,
            None => self.guess(hash, network, now)?,
        };
        if granted >= role { Ok(operator) } else { Err(Denied::Role(operator)) }
    }

    fn guess(&self, hash: SecretHash, network: NetworkKey, now: Timestamp) -> Result<(Operator, Role), Denied> {
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = guesses.admit(&network, now);
        if !verdict.admitted {
            return Err(Denied::TooManyGuesses(verdict.next_free));
        }
        let right = self.configured(hash).ok_or(Denied::NoKey { presented: true })?;
        guesses.forgive(&network, verdict.at);
        Ok(right)
    }

    /// The operator whose key has that hash, and what the key may do; none if it opens nothing any more.
    pub(crate) fn holder(&self, hash: SecretHash) -> Option<(Operator, Role)> {
        self.configured(hash).or_else(|| self.made(hash))
    }

    fn configured(&self, hash: SecretHash) -> Option<(Operator, Role)> {
        (self.configured == Some(hash)).then_some((Operator::Configured, Role::Operate))
    }

    fn made(&self, hash: SecretHash) -> Option<(Operator, Role)> {
        let key = self.find(hash)?;
        match key.holder {
            KeyHolder::Operator { role, .. } => Some((Operator::Key(key.id), role)),
            KeyHolder::Provider(_) => None,
        }
    }

    /// Whether that operator's key still opens anything.
    pub(crate) fn admits(&self, operator: Operator) -> bool {
        match operator {
            Operator::Configured => self.configured.is_some(),
            Operator::Key(id) => self.stands(id),
        }
    }

    /// Whether also those who only look must present a key.
    pub(crate) const fn are_demanded(&self) -> bool {
        self.configured.is_some()
    }

    /// The key that lets its bearer register sessions as `provider`.
    pub(crate) fn provider(&self, key: &Secret, provider: &ProviderId) -> Option<KeyId> {
        let known = self.find(key.hash())?;
        (known.holder == KeyHolder::Provider(provider.clone())).then_some(known.id)
    }

    /// Whether that key is there and not revoked.
    pub(crate) fn stands(&self, id: KeyId) -> bool {
        let known = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        known.values().any(|key| key.id == id && key.revoked_at.is_none())
    }

    /// Those of `keys` that stand by now. Whoever has them from sessions asks after he has read these: a key is kept before
    /// it is used.
    pub(crate) async fn standing(&self, keys: Vec<KeyId>) -> Result<HashSet<KeyId>, StoreError> {
        if keys.iter().any(|&key| !self.stands(key)) {
            self.reload().await?;
        }
        Ok(keys.into_iter().filter(|&key| self.stands(key)).collect())
    }

    /// The keys that were revoked.
    pub(crate) fn revoked(&self) -> HashSet<KeyId> {
        let known = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|key| key.revoked_at.is_some()).map(|key| key.id).collect()
    }

    /// All keys, the oldest first.
    pub(crate) fn all(&self) -> Vec<Key> {
        let mut all: Vec<Key> = self.by_hash.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|key| (key.created_at, key.id));
        all
    }

    /// Makes a key, and answers it with its text.
    pub(crate) async fn make(&self, holder: KeyHolder, now: Timestamp) -> Result<(Key, Secret), MakeError> {
        let prefix = match holder {
            KeyHolder::Operator { .. } => "runit-operator-",
            KeyHolder::Provider(_) => "runit-provider-",
        };
        let secret = random::key(prefix)?;
        let key = Key { id: random::key_id()?, hash: secret.hash(), holder, created_at: now, revoked_at: None };
        self.store.add_key(key.clone()).await?;
        self.put(key.clone());
        Ok((key, secret))
    }

    /// Revokes a key; none if there is no such key.
    pub(crate) async fn revoke(&self, id: KeyId, now: Timestamp) -> Result<Option<Key>, StoreError> {
        let revoked = self.store.revoke_key(id, now).await?;
        revoked.iter().cloned().for_each(|key| self.put(key));
        Ok(revoked)
    }

    fn find(&self, hash: SecretHash) -> Option<Key> {
        let known = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&hash).filter(|key| key.admits(hash)).cloned()
    }

    fn put(&self, key: Key) {
        self.by_hash.write().unwrap_or_else(PoisonError::into_inner).insert(key.hash, key);
    }

    fn replace(&self, keys: HashMap<SecretHash, Key>) {
        *self.by_hash.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SqliteStore;
    use runit_core::RenterAddress;
    use runit_core::trail::TrailKey;

    #[tokio::test]
    async fn a_right_key_is_no_guess_also_after_the_clock_has_stepped_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("runit.db"), TrailKey::new([7; 32])).unwrap();
        let key = Secret::new("configured");
        let keys = Keys::load(Arc::new(store), Some(key.hash())).await.unwrap();
        let network = RenterAddress::new([127, 0, 0, 1].into()).network();
        for step in (0..2 * u64::from(GUESSES.requests)).rev() {
            let now = Timestamp::from_unix_ms(1_795_334_400_000 + step * 60_000);
            assert_eq!(keys.operator(Some(&key), Role::Read, network, now), Ok(Operator::Configured), "{step}");
        }
    }
}
