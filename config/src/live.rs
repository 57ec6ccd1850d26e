//! The settings that a running node goes by, and which of them a reload may change.
//!
//! A reload replaces the whole snapshot at once or not at all. Keys that are not in [`RELOADABLE`] keep the value that
//! the process was started with; those that were to change are named, so that nobody believes that they did.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use toml::Table;

use crate::node::NodeSettings;

/// The settings as they are now. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct LiveSettings(Arc<ArcSwap<NodeSettings>>);

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// Keys (`section.key`) whose new values hold from now on.
    pub changed: BTreeSet<String>,
    /// Keys whose new values need a restart; the old ones stay.
    pub kept: BTreeSet<String>,
}

impl LiveSettings {
    /// What a process starts with.
    pub fn new(settings: NodeSettings) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(settings)))
    }

    /// The settings to go by. Whoever needs two keys that fit together takes them from one snapshot.
    pub fn load(&self) -> Arc<NodeSettings> {
        self.0.load_full()
    }

    /// Takes over what may change of `new`, which has passed every check.
    pub fn reload(&self, new: &NodeSettings) -> Reload {
        let old = self.load();
        let mut next = NodeSettings::clone(&old);
        take_reloadable(&mut next, new);
        let reload = Reload { changed: keys_that_differ(&old, &next), kept: keys_that_differ(&next, new) };
        self.0.store(Arc::new(next));
        reload
    }
}

impl From<&NodeSettings> for LiveSettings {
    fn from(settings: &NodeSettings) -> Self {
        Self::new(settings.clone())
    }
}

impl From<&Self> for LiveSettings {
    fn from(settings: &Self) -> Self {
        settings.clone()
    }
}

macro_rules! reloadable {
    ($($section:ident . $key:ident),* $(,)?) => {
        /// Keys that a reload may change. A key belongs here only if whoever uses it asks [`LiveSettings::load`] each time.
        pub const RELOADABLE: &[&str] = &[$(concat!(stringify!($section), ".", stringify!($key))),*];

        fn take_reloadable(next: &mut NodeSettings, new: &NodeSettings) {
            $(next.$section.$key.clone_from(&new.$section.$key);)*
        }
    };
}

reloadable! {
    gateway.handshake_timeout_ms,
    gateway.hsts_seconds,
    gateway.trusted_proxies,
    gateway.proxy_protocol,
    gateway.head_max_bytes,
    gateway.first_byte_timeout_ms,
    gateway.head_timeout_ms,
    gateway.keepalive_seconds,
    gateway.websocket_idle_seconds,
    gateway.drain_seconds,
    gateway.upstream_connect_timeout_ms,
    gateway.upstream_first_byte_timeout_ms,
    gateway.upstream_silence_timeout_ms,
    limits.connections,
    limits.connections_per_address,
    limits.connections_per_session,
    limits.websockets_per_session,
    limits.waiting_connections,
    limits.waiting_connections_per_address,
    limits.arrivals_per_address,
    limits.requests_per_address,
    limits.requests_per_session,
    limits.websocket_reads_per_session,
    limits.guesses_per_address,
    limits.slowest_bytes_per_second,
    limits.slow_seconds,
    upstream.hosts,
    upstream.plain_http_hosts,
    control.trusted_proxies,
    control.provider_silent_seconds,
    control.renter_absent_seconds,
    control.body_max_bytes,
    quota.cap_bytes,
    quota.lease_min_bytes,
    quota.lease_max_bytes,
    quota.lease_ttl_seconds,
    quota.renewal_wait_ms,
    lock.mode,
    audit.keep_events,
    audit.keep_days,
    audit.keep_usage_days,
    audit.anchor_file,
    log.filter,
}

fn keys_that_differ(one: &NodeSettings, other: &NodeSettings) -> BTreeSet<String> {
    let (ones, others) = (table(one), table(other));
    let mut keys = BTreeSet::new();
    for (section, values) in &ones {
        let (Some(values), Some(others)) = (values.as_table(), others.get(section).and_then(toml::Value::as_table))
        else {
            continue;
        };
        let names = values.keys().chain(others.keys());
        keys.extend(names.filter(|&key| values.get(key) != others.get(key)).map(|key| format!("{section}.{key}")));
    }
    // Secrets are not written into tables.
    let secrets = |settings: &NodeSettings| {
        [("gateway.operator_key", &settings.gateway.operator_key), ("store.url", &settings.store.url)]
            .map(|(key, secret)| (key, secret.as_ref().map(crate::Secret::hash)))
    };
    let differing = secrets(one).into_iter().zip(secrets(other)).filter(|(one, other)| one != other);
    keys.extend(differing.map(|((key, _), _)| key.to_owned()));
    keys
}

fn table(settings: &NodeSettings) -> Table {
    Table::try_from(settings).expect("settings are structs of TOML values; a test writes them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use runit_core::{LockMode, Secret};

    #[test]
    fn what_can_change_does_and_what_cannot_is_named() {
        let live = LiveSettings::new(NodeSettings::default());
        let shared = live.clone();
        let before = live.load();
        let mut new = NodeSettings::default();
        new.lock.mode = LockMode::Prefix;
        new.gateway.keepalive_seconds = 7;
        new.gateway.threads = 3;
        new.gateway.operator_key = Some(Secret::new("sixteen characters"));
        new.upstream.ca_file = Some("/roots.pem".into());

        let reload = live.reload(&new);

        let names = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(reload.changed, names(&["gateway.keepalive_seconds", "lock.mode"]));
        assert_eq!(reload.kept, names(&["gateway.operator_key", "gateway.threads", "upstream.ca_file"]));
        let now = shared.load();
        assert_eq!((now.lock.mode, now.gateway.keepalive_seconds), (LockMode::Prefix, 7));
        assert_eq!(now.gateway.threads, before.gateway.threads);
        assert!(now.upstream.ca_file.is_none() && now.gateway.operator_key.is_none());
        assert_eq!(before.lock.mode, LockMode::Exact, "a snapshot does not change");
    }

    #[test]
    fn the_same_settings_again_change_nothing() {
        let live = LiveSettings::new(NodeSettings::default());
        assert_eq!(live.reload(&NodeSettings::default()), Reload::default());
    }

    #[test]
    fn every_reloadable_key_is_one() {
        let document = include_str!("../../docs/CONFIGURATION.md");
        for key in RELOADABLE {
            assert!(document.contains(&format!("| `{key}` |")), "{key}");
        }
        let told = document.split("reloaded:\n\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
        let told: BTreeSet<_> = told.split('`').skip(1).step_by(2).collect();
        assert_eq!(told, RELOADABLE.iter().copied().collect());
    }
}
