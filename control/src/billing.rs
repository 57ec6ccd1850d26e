//! Usage records as text: for bills (CSV, JSON lines), and for the renter who was there.
//!
//! The idempotency key of a record is its lock's name. A record that is not final may still grow: bill final ones, once
//! for each key. Sums of deleted records are told apart from them: they carry no price.

use runit_core::store::{Store, StoreError};
use runit_core::usage::{CarriedUsage, UsageFilter, UsageRecord};
use runit_core::{LockId, SessionId, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Records that are read at one time.
const PAGE: u32 = 1_000;

/// The first line of a CSV file.
pub const CSV_HEAD: &str = "idempotency_key,session_id,provider_id,started_at,ended_at,seconds,bytes_in,bytes_out,\
                            bytes_forfeited,final,pricing";

/// The first line of a CSV file of sums.
pub const CARRIED_CSV_HEAD: &str = "session_id,provider_id,registered_at,records,started_at,ended_at,seconds,bytes_in,\
                                    bytes_out,bytes_forfeited";

/// All records that pass the filter, by their start; `each` is called for one after the other.
///
/// # Errors
/// When the store or `each` fails.
pub async fn export<E: From<StoreError>>(
    store: &dyn Store,
    filter: UsageFilter,
    mut each: impl FnMut(&UsageRecord) -> Result<(), E>,
) -> Result<(), E> {
    let mut after = None;
    loop {
        let records = store.usage_records(filter.clone(), after, PAGE).await?;
        let Some(last) = records.last() else { return Ok(()) };
        after = Some((last.started_at, last.lock));
        records.iter().try_for_each(&mut each)?;
    }
}

/// All sums of deleted records, by session; `each` is called for one after the other.
///
/// # Errors
/// When the store or `each` fails.
pub async fn export_carried<E: From<StoreError>>(
    store: &dyn Store,
    mut each: impl FnMut(&CarriedUsage) -> Result<(), E>,
) -> Result<(), E> {
    let mut after = None;
    loop {
        let carried = store.carried_usage(after, PAGE).await?;
        carried.iter().try_for_each(&mut each)?;
        after = carried.last().cloned();
        if after.is_none() {
            return Ok(());
        }
    }
}

/// What a lock has used.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Statement {
    #[schema(value_type = String, format = Uuid)]
    idempotency_key: LockId,
    #[schema(value_type = String, format = Uuid)]
    session_id: SessionId,
    provider_id: String,
    #[schema(format = DateTime)]
    started_at: String,
    /// None while it stands.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    seconds: u64,
    bytes_in: u64,
    bytes_out: u64,
    bytes_forfeited: u64,
    /// No more will come.
    #[serde(rename = "final")]
    is_final: bool,
    /// What the provider offered when the lock was taken.
    #[schema(value_type = Value)]
    pricing: Option<Value>,
}

/// A record as JSON; seconds of a lock that stands are counted to `now`.
pub fn to_json(record: &UsageRecord, now: Timestamp) -> Value {
    serde_json::to_value(statement(record, now)).expect("texts and numbers")
}

/// A record as it is shown; seconds of a lock that stands are counted to `now`.
pub(crate) fn statement(record: &UsageRecord, now: Timestamp) -> Statement {
    Statement {
        idempotency_key: record.lock,
        session_id: record.session,
        provider_id: record.provider.to_string(),
        started_at: record.started_at.to_string(),
        ended_at: record.ended_at.map(|at| at.to_string()),
        seconds: record.seconds(now),
        bytes_in: record.used.bytes_in,
        bytes_out: record.used.bytes_out,
        bytes_forfeited: record.used.forfeited,
        is_final: record.is_final,
        pricing: record.pricing.as_deref().and_then(|text| serde_json::from_str(text).ok()),
    }
}

/// A record as a line of CSV (RFC 4180) under [`CSV_HEAD`].
pub fn to_csv(record: &UsageRecord, now: Timestamp) -> String {
    let ended_at = record.ended_at.map(|at| at.to_string()).unwrap_or_default();
    // Somebody else chose two texts. As JSON the pricing begins with nothing that a spreadsheet takes for a formula; a provider's
    // id may begin with `-` or `@`, but its letters make no call and reach no other file.
    let pricing = record.pricing.as_deref().unwrap_or_default().replace('"', "\"\"");
    format!(
        "{},{},{},{},{ended_at},{},{},{},{},{},\"{pricing}\"",
        record.lock,
        record.session,
        record.provider,
        record.started_at,
        record.seconds(now),
        record.used.bytes_in,
        record.used.bytes_out,
        record.used.forfeited,
        record.is_final,
    )
}

/// A sum as JSON.
pub fn carried_to_json(carried: &CarriedUsage) -> Value {
    json!({
        "sessionId": carried.session,
        "providerId": carried.provider,
        "registeredAt": registered_at(carried),
        "records": carried.records,
        "startedAt": carried.started_at.to_string(),
        "endedAt": carried.ended_at.to_string(),
        "seconds": carried.seconds,
        "bytesIn": carried.used.bytes_in,
        "bytesOut": carried.used.bytes_out,
        "bytesForfeited": carried.used.forfeited,
    })
}

/// A sum as a line of CSV under [`CARRIED_CSV_HEAD`].
pub fn carried_to_csv(carried: &CarriedUsage) -> String {
    format!(
        "{},{},{},{},{},{},{},{},{},{}",
        carried.session,
        carried.provider,
        registered_at(carried).unwrap_or_default(),
        carried.records,
        carried.started_at,
        carried.ended_at,
        carried.seconds,
        carried.used.bytes_in,
        carried.used.bytes_out,
        carried.used.forfeited,
    )
}

/// None where nobody knows any more.
fn registered_at(carried: &CarriedUsage) -> Option<String> {
    (carried.registered_at > Timestamp::default()).then(|| carried.registered_at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use runit_core::ledger::Usage;
    use uuid::Uuid;

    #[test]
    fn a_record_is_one_line_of_csv_and_one_object() {
        let record = UsageRecord {
            lock: LockId::from_uuid(Uuid::from_u128(1)),
            session: SessionId::from_uuid(Uuid::from_u128(2)),
            provider: "gpu-box".parse().expect("valid"),
            pricing: Some("{\"eurPerHour\":2,\"note\":\"a, b\"}".into()),
            started_at: Timestamp::from_unix_ms(1_795_334_400_000),
            ended_at: Some(Timestamp::from_unix_ms(1_795_334_401_001)),
            used: Usage { bytes_in: 3, bytes_out: 4, forfeited: 5 },
            is_final: true,
        };
        let now = Timestamp::from_unix_ms(1_795_334_500_000);
        assert_eq!(
            to_csv(&record, now),
            "00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002,gpu-box,2026-11-22T08:00:00.000Z,\
             2026-11-22T08:00:01.001Z,2,3,4,5,true,\"{\"\"eurPerHour\"\":2,\"\"note\"\":\"\"a, b\"\"}\""
        );
        assert_eq!(CSV_HEAD.split(',').count(), 11);
        let object = to_json(&record, now);
        assert_eq!((&object["seconds"], &object["pricing"]["note"]), (&json!(2), &json!("a, b")));
    }
}
