//! What operators are shown, as JSON. No token, secret or credential is in any of it.

use runit_core::event::SecurityEvent;
use runit_core::key::{Key, KeyHolder};
use runit_core::ledger::{Ledger, Standing};
use runit_core::query::PlacedEvent;
use runit_core::session::{Lock, Session, SessionState};
use runit_core::{Secret, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::control::Control;
use crate::reports::Resources;

/// A session as an operator sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionShown {
    #[schema(format = Uuid)]
    session_id: String,
    #[schema(example = "READY")]
    status: &'static str,
    provider_id: String,
    /// The provider's key that it was registered with, by id.
    provider_key_id: Option<String>,
    public_url: String,
    /// Any JSON.
    #[schema(value_type = Value)]
    hardware: Option<Box<RawValue>>,
    /// Any JSON.
    #[schema(value_type = Value)]
    pricing: Option<Box<RawValue>>,
    #[schema(format = DateTime)]
    registered_at: String,
    /// Since it was first registered.
    age_seconds: u64,
    /// When its agent was last heard of.
    #[schema(format = DateTime)]
    provider_seen_at: String,
    /// Since when it is RECYCLING or REMOVED.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// Tokens that would take it.
    unused_tokens: usize,
    lock: Option<LockShown>,
    usage: UsageShown,
    /// Whether its agent says that it can be reached.
    reachable: bool,
    /// What its agent told last, any JSON; not verified.
    #[schema(value_type = Value)]
    report: Option<Box<RawValue>>,
    /// What its container uses of what it may, by the report.
    resources: Option<Resources>,
}

/// Who holds a session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LockShown {
    address: String,
    #[schema(format = DateTime)]
    taken_at: String,
    seconds: u64,
    #[schema(format = DateTime)]
    renter_seen_at: String,
    /// Whether a browser holds it; else a program.
    browser: bool,
}

/// Bytes of the last 24 hours against the cap.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageShown {
    used_in: u64,
    used_out: u64,
    forfeited: u64,
    reserved: u64,
    cap: u64,
    remaining: u64,
    #[schema(format = DateTime)]
    next_free_at: Option<String>,
}

/// An entry of the audit trail.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventShown {
    /// Its place in the trail; later ones are greater.
    place: u64,
    #[schema(format = DateTime)]
    at: String,
    #[schema(example = "SESSION_LOCKED")]
    kind: &'static str,
    #[schema(format = Uuid)]
    session_id: Option<String>,
    provider_id: Option<String>,
    address: Option<String>,
    /// Which operator did it: `configured`, or a key's id.
    operator: Option<String>,
    /// The key that it is about.
    key_id: Option<String>,
}

/// A key, without its text.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyShown {
    #[schema(format = Uuid)]
    key_id: String,
    /// `operator` or `provider`.
    #[schema(example = "operator")]
    holder: &'static str,
    /// An operator's name.
    name: Option<String>,
    /// `read` or `operate`.
    role: Option<&'static str>,
    /// The name that a provider may register.
    provider_id: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyMade {
    #[serde(flatten)]
    shown: KeyShown,
    /// The key itself, shown this once.
    key: String,
}

impl SessionShown {
    pub(super) fn new(session: &Session, ledger: &Ledger, control: &Control, now: Timestamp) -> Self {
        let reports = &control.reports;
        let json = |text: &Option<String>| text.clone().and_then(|text| RawValue::from_string(text).ok());
        let (since, unused_tokens) = match &session.state {
            SessionState::Ready { tokens } => (None, tokens.len()),
            SessionState::Locked(_) => (None, 0),
            SessionState::Recycling { since, .. } | SessionState::Removed { since, .. } => (Some(since.to_string()), 0),
        };
        Self {
            session_id: session.id.to_string(),
            status: session.status().as_str(),
            provider_id: session.provider.to_string(),
            provider_key_id: session.provider_key.map(|key| key.to_string()),
            public_url: session.offer.upstream.to_string(),
            hardware: json(&session.offer.hardware),
            pricing: json(&session.offer.pricing),
            registered_at: session.registered_at.to_string(),
            age_seconds: now.since(session.registered_at).as_secs(),
            provider_seen_at: control.provider_seen_at(session).to_string(),
            since,
            unused_tokens,
            lock: session.lock().map(|lock| LockShown::new(lock, now)),
            usage: UsageShown::new(&ledger.standing(session.cap_bytes)),
            reachable: reports.is_reachable(session.id),
            report: reports.report(session.id),
            resources: reports.resources(session.id),
        }
    }
}

impl LockShown {
    fn new(lock: &Lock, now: Timestamp) -> Self {
        Self {
            address: lock.address.to_string(),
            taken_at: lock.taken_at.to_string(),
            seconds: now.since(lock.taken_at).as_secs(),
            renter_seen_at: lock.renter_seen_at.to_string(),
            browser: lock.cookie.is_some(),
        }
    }
}

impl UsageShown {
    pub(super) fn new(standing: &Standing) -> Self {
        Self {
            used_in: standing.used.bytes_in,
            used_out: standing.used.bytes_out,
            forfeited: standing.used.forfeited,
            reserved: standing.reserved,
            cap: standing.cap,
            remaining: standing.remaining,
            next_free_at: standing.next_free_at.map(|at| at.to_string()),
        }
    }
}

impl EventShown {
    pub(super) fn new(placed: &PlacedEvent) -> Self {
        let SecurityEvent { at, kind, session, provider, address, operator, key } = &placed.event;
        Self {
            place: placed.place,
            at: at.to_string(),
            kind: kind.as_str(),
            session_id: session.map(|id| id.to_string()),
            provider_id: provider.as_ref().map(ToString::to_string),
            address: address.map(|address| address.to_string()),
            operator: operator.map(|operator| operator.to_string()),
            key_id: key.map(|key| key.to_string()),
        }
    }
}

impl KeyShown {
    pub(super) fn new(key: &Key) -> Self {
        let (holder, name, role, provider_id) = match &key.holder {
            KeyHolder::Operator { name, role } => {
                ("operator", Some(name.as_str().to_owned()), Some(role.as_str()), None)
            }
            KeyHolder::Provider(provider) => ("provider", None, None, Some(provider.to_string())),
        };
        Self {
            key_id: key.id.to_string(),
            holder,
            name,
            role,
            provider_id,
            created_at: key.created_at.to_string(),
            revoked_at: key.revoked_at.map(|at| at.to_string()),
        }
    }
}

impl KeyMade {
    pub(super) fn new(key: &Key, secret: &Secret) -> Self {
        Self { shown: KeyShown::new(key), key: secret.expose().to_owned() }
    }
}
