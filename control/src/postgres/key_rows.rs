//! Keys of operators and providers as rows: their hashes, never the keys.

use deadpool_postgres::Client;
use runit_core::key::{Key, KeyHolder};
use runit_core::{KeyId, SecretHash, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{DbError, time, unsigned};

/// In the place of a session's name: the keys have changed.
pub(super) const KEYS: &str = "keys";

pub(super) async fn insert(db: &Client, store: Uuid, new: &Key) -> Result<(), DbError> {
    let (name, role, provider) = match &new.holder {
        KeyHolder::Operator { name, role } => (Some(name.as_str()), Some(role.as_str()), None),
        KeyHolder::Provider(provider) => (None, None, Some(provider.as_str())),
    };
    let sql = "WITH inserted AS (
             INSERT INTO keys (id, hash, name, role, provider, created_at, revoked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id
         )
         SELECT pg_notify('runit_sessions', $8) FROM inserted";
    let statement = db.prepare_cached(sql).await?;
    let (hash, revoked_at) = (new.hash.as_bytes().as_slice(), new.revoked_at.map(time));
    let created_at = time(new.created_at);
    let id = new.id.as_uuid();
    let changed = changed(store);
    db.query(&statement, &[&id, &hash, &name, &role, &provider, &created_at, &revoked_at, &changed]).await?;
    Ok(())
}

/// A key that was revoked before keeps its time ([`Key::revoke`]).
pub(super) async fn revoke(db: &Client, store: Uuid, id: KeyId, now: Timestamp) -> Result<Option<Key>, DbError> {
    let sql = "WITH revoked AS (UPDATE keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1 RETURNING *)
         SELECT revoked.*, pg_notify('runit_sessions', $3) FROM revoked";
    let statement = db.prepare_cached(sql).await?;
    db.query(&statement, &[&id.as_uuid(), &time(now), &changed(store)]).await?.first().map(read).transpose()
}

pub(super) async fn all(db: &Client) -> Result<Vec<Key>, DbError> {
    let statement = db.prepare_cached("SELECT * FROM keys ORDER BY created_at, id").await?;
    db.query(&statement, &[]).await?.iter().map(read).collect()
}

/// What other nodes are told.
fn changed(store: Uuid) -> String {
    format!("{store}:{KEYS}")
}

fn read(row: &Row) -> Result<Key, DbError> {
    let damaged = || DbError::Damaged("a key");
    let text = |column| row.try_get::<_, Option<&str>>(column);
    let holder = match (text("name")?, text("role")?, text("provider")?) {
        (Some(name), Some(role), None) => {
            let (name, role) = (name.parse().map_err(|_| damaged())?, role.parse().map_err(|_| damaged())?);
            KeyHolder::Operator { name, role }
        }
        (None, None, Some(provider)) => KeyHolder::Provider(provider.parse().map_err(|_| damaged())?),
        _ => return Err(damaged()),
    };
    let at = |ms: i64| unsigned(ms).map(Timestamp::from_unix_ms);
    Ok(Key {
        id: KeyId::from_uuid(row.try_get("id")?),
        hash: SecretHash::from_bytes(row.try_get::<_, &[u8]>("hash")?.try_into().map_err(|_| damaged())?),
        holder,
        created_at: at(row.try_get("created_at")?)?,
        revoked_at: row.try_get::<_, Option<i64>>("revoked_at")?.map(at).transpose()?,
    })
}
