//! How the values of `runit-core` stand in columns, and back.
//!
//! SQLite's integers are signed: unsigned values beyond 2^63 are kept as 2^63 - 1, which no time or byte count reaches.

use std::net::IpAddr;

use runit_core::{KeyId, LeaseId, LockId, NodeId, RenterAddress, SecretHash, SessionId, Timestamp};
use rusqlite::Row;
use uuid::Uuid;

use super::worker::DbError;

pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn time(value: Timestamp) -> i64 {
    integer(value.unix_ms())
}

pub(super) fn id(value: SessionId) -> [u8; 16] {
    value.as_uuid().into_bytes()
}

pub(super) fn key(value: KeyId) -> [u8; 16] {
    value.as_uuid().into_bytes()
}

/// Reads columns by name.
pub(super) trait Columns {
    fn unsigned(&self, column: &str) -> Result<u64, DbError>;
    fn time(&self, column: &str) -> Result<Timestamp, DbError>;
    fn optional_hash(&self, column: &str) -> Result<Option<SecretHash>, DbError>;
    fn hash(&self, column: &str) -> Result<SecretHash, DbError>;
    fn session(&self, column: &str) -> Result<SessionId, DbError>;
    fn lease(&self, column: &str) -> Result<LeaseId, DbError>;
    fn node(&self, column: &str) -> Result<NodeId, DbError>;
    fn optional_key(&self, column: &str) -> Result<Option<KeyId>, DbError>;
    fn optional_time(&self, column: &str) -> Result<Option<Timestamp>, DbError>;
    fn optional_address(&self, column: &str) -> Result<Option<RenterAddress>, DbError>;
    fn optional_lock(&self, column: &str) -> Result<Option<LockId>, DbError>;
}

impl Columns for Row<'_> {
    fn unsigned(&self, column: &str) -> Result<u64, DbError> {
        u64::try_from(self.get::<_, i64>(column)?).map_err(|_| DbError::Damaged("a negative number"))
    }

    fn time(&self, column: &str) -> Result<Timestamp, DbError> {
        self.unsigned(column).map(Timestamp::from_unix_ms)
    }

    fn optional_hash(&self, column: &str) -> Result<Option<SecretHash>, DbError> {
        Ok(self.get::<_, Option<[u8; 32]>>(column)?.map(SecretHash::from_bytes))
    }

    fn hash(&self, column: &str) -> Result<SecretHash, DbError> {
        Ok(SecretHash::from_bytes(self.get(column)?))
    }

    fn session(&self, column: &str) -> Result<SessionId, DbError> {
        uuid(self, column).map(SessionId::from_uuid)
    }

    fn lease(&self, column: &str) -> Result<LeaseId, DbError> {
        uuid(self, column).map(LeaseId::from_uuid)
    }

    fn node(&self, column: &str) -> Result<NodeId, DbError> {
        uuid(self, column).map(NodeId::from_uuid)
    }

    fn optional_key(&self, column: &str) -> Result<Option<KeyId>, DbError> {
        Ok(self.get::<_, Option<[u8; 16]>>(column)?.map(|bytes| KeyId::from_uuid(Uuid::from_bytes(bytes))))
    }

    fn optional_time(&self, column: &str) -> Result<Option<Timestamp>, DbError> {
        self.get::<_, Option<i64>>(column)?.map(|_| self.time(column)).transpose()
    }

    fn optional_lock(&self, column: &str) -> Result<Option<LockId>, DbError> {
        Ok(self.get::<_, Option<[u8; 16]>>(column)?.map(|bytes| LockId::from_uuid(Uuid::from_bytes(bytes))))
    }

    fn optional_address(&self, column: &str) -> Result<Option<RenterAddress>, DbError> {
        let Some(text) = self.get::<_, Option<String>>(column)? else { return Ok(None) };
        let address: IpAddr = text.parse().map_err(|_| DbError::Damaged("an address"))?;
        Ok(Some(RenterAddress::new(address)))
    }
}

fn uuid(row: &Row<'_>, column: &str) -> Result<Uuid, DbError> {
    Ok(Uuid::from_bytes(row.get(column)?))
}
