//! What every implementation of `Store` must do, written once.
//!
//! A [`Fixture`] opens the same store again and again; each scenario opens it between its steps, so that nothing that
//! it relies on was only in memory. `store_contract!` makes one test of each scenario.

pub(crate) mod leases;
pub(crate) mod operators;
pub(crate) mod sessions;
pub(crate) mod trail;
pub(crate) mod usage;

use std::sync::Arc;
use std::time::Duration;

use runit_core::event::{EventKind, SecurityEvent};
use runit_core::key::{Key, KeyHolder};
use runit_core::ledger::{LeasePolicy, LeaseReport, LeaseRequest};
use runit_core::session::{Change, Claim, Offer};
use runit_core::store::{Registration, Store};
use runit_core::trail::TrailKey;
use runit_core::upstream::{UpstreamPolicy, UpstreamUrl};
use runit_core::{KeyId, LeaseId, LockId, LockMode, NodeId, RenterAddress, SecretHash, SessionId, Timestamp};
use uuid::Uuid;

pub(crate) const CAP: u64 = 1_000_000;
const HOUR: u64 = 3_600_000;

/// A store that outlives its handles.
pub(crate) trait Fixture {
    /// Opens it anew, as a restarted process would.
    fn open(&self) -> Arc<dyn Store> {
        self.open_with(trail_key())
    }

    /// The same with a key of the caller's for the trail.
    fn open_with(&self, key: TrailKey) -> Arc<dyn Store>;
}

/// What seals the trail in all these tests.
pub(crate) fn trail_key() -> TrailKey {
    TrailKey::new([7; 32])
}

macro_rules! store_contract {
    ($fixture:expr) => {
        store_contract! {
            $fixture;
            sessions {
                a_registered_session_is_read_back_whole,
                only_the_same_secret_registers_a_session_again,
                tokens_find_their_session_as_long_as_they_open_it,
                a_lock_is_as_before_after_a_restart,
                an_ipv6_lock_is_as_before_after_a_restart,
                of_many_concurrent_claims_exactly_one_takes_the_lock,
                a_refused_change_changes_nothing_and_an_unknown_session_is_unknown,
                a_removed_session_leaves_a_tombstone_with_its_owner_and_its_usage,
                presence_goes_forward_only_and_passes_over_the_absent,
                sessions_removed_long_ago_are_forgotten_with_all_that_belongs_to_them,
                the_sweeper_is_told_of_those_that_are_due_and_no_others,
            }
            leases {
                usage_and_leases_are_as_before_after_a_restart,
                a_repeated_or_older_report_changes_nothing,
                an_unsettled_lease_is_charged_in_full_and_comes_free_after_a_day,
                a_dead_nodes_leases_are_settled_by_what_it_left_behind,
                concurrent_leases_never_pass_the_cap,
                what_one_process_gives_back_another_can_lease,
                bytes_are_leased_for_the_lock_that_stands_and_for_no_other,
                a_lease_that_expired_and_is_asked_for_again_is_a_new_one,
            }
            trail {
                events_are_kept_in_order,
                events_are_found_by_what_is_asked_and_counted_by_kind_and_time,
                the_trail_is_a_chain_over_restarts_and_concurrent_writers,
                events_can_be_pruned_by_number_and_by_age_and_the_rest_still_verifies,
                a_trail_whose_seal_is_of_another_key_goes_on_and_says_so,
                a_receivers_place_in_the_trail_survives,
            }
            operators {
                keys_are_kept_as_hashes_and_stay_when_they_are_revoked,
                a_session_keeps_the_key_it_was_registered_with_and_how_its_lock_ended,
                operators_see_sessions_with_their_ledgers_and_providers_with_their_sessions,
                a_store_that_can_be_written_to_says_so,
            }
            usage {
                each_lock_has_a_record_that_outlives_its_session,
                records_add_up_to_the_ledger_whatever_happens,
                deleted_records_are_carried_on_and_no_sum_changes,
            }
        }
    };
    ($fixture:expr; $($room:ident { $($scenario:ident,)* })*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                store_contract::$room::$scenario(&$fixture).await;
            }
        )*)*
    };
}

pub(crate) fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_795_334_400_000 + ms)
}

pub(crate) fn id(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn registration(number: u128, credential: &str) -> Registration {
    let offer = Offer {
        upstream: UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).unwrap(),
        sealed_credential: format!("sealed {credential}").into_bytes(),
        credential_hash: SecretHash::of(credential),
        hardware: Some("{\"gpu\":\"A100\"}".into()),
        pricing: None,
    };
    let provider = "gpu-box".parse().unwrap();
    let provider_secret = SecretHash::of("secret");
    Registration { id: id(number), provider, provider_secret, provider_key: None, offer, cap_bytes: CAP }
}

fn address(last: u8) -> RenterAddress {
    RenterAddress::new([127, 0, 0, last].into())
}

pub(crate) fn claim(token: &str, from: u8, cookie: Option<&str>) -> Change {
    let claim = Claim {
        token: SecretHash::of(token),
        session: None,
        address: address(from),
        cookie: cookie.map(SecretHash::of),
    };
    Change::Claim(claim, LockMode::Exact)
}

pub(crate) fn issue(token: &str) -> Change {
    Change::IssueToken(SecretHash::of(token))
}

pub(crate) fn release(token: &str) -> Change {
    Change::Release { token: SecretHash::of(token), address: address(1), mode: LockMode::Exact }
}

fn lease(session: u128, lease: u128, want: u64) -> LeaseRequest {
    lease_of("token", session, lease, want)
}

pub(crate) fn lease_of(token: &str, session: u128, lease: u128, want: u64) -> LeaseRequest {
    let (lease, lock) = (LeaseId::from_uuid(Uuid::from_u128(lease)), LockId::of(SecretHash::of(token)));
    LeaseRequest { lease, lock, node: node(), session: id(session), want }
}

fn node() -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(9))
}

pub(crate) fn report(session: u128, lease: u128, sequence: u64, bytes: (u64, u64), closing: bool) -> LeaseReport {
    let lease = LeaseId::from_uuid(Uuid::from_u128(lease));
    LeaseReport { lease, session: id(session), sequence, bytes_in: bytes.0, bytes_out: bytes.1, closing }
}

pub(crate) fn policy() -> LeasePolicy {
    LeasePolicy { min_bytes: 1_000, max_bytes: 100_000, ttl: Duration::from_secs(60) }
}

pub(crate) fn key(number: u128, holder: KeyHolder) -> Key {
    Key {
        id: KeyId::from_uuid(Uuid::from_u128(number)),
        hash: SecretHash::of(&format!("key {number}")),
        holder,
        created_at: at(number as u64),
        revoked_at: None,
    }
}

pub(crate) async fn locked(store: &dyn Store, number: u128, token: &str) {
    store.register(registration(number, "one"), at(0)).await.unwrap();
    store.change(id(number), issue(token), at(1)).await.unwrap();
    store.change(id(number), claim(token, 1, Some("cookie")), at(2)).await.unwrap();
}

pub(crate) fn events(count: u64, from: u64) -> Vec<SecurityEvent> {
    (from..from + count).map(|ms| SecurityEvent::new(EventKind::SessionLocked, at(ms)).session(id(ms.into()))).collect()
}
