//! Keys of operators and providers as rows: their hashes, never the keys.

use runit_core::KeyId;
use runit_core::key::{Key, KeyHolder};
use rusqlite::{Connection, Row, params};

use super::rows::{Columns, key, time};
use super::worker::DbError;

pub(super) fn insert(db: &Connection, new: &Key) -> Result<(), DbError> {
    let (name, role, provider) = match &new.holder {
        KeyHolder::Operator { name, role } => (Some(name.as_str()), Some(role.as_str()), None),
        KeyHolder::Provider(provider) => (None, None, Some(provider.as_str())),
    };
    db.prepare_cached(
        "INSERT INTO keys (id, hash, name, role, provider, created_at, revoked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        key(new.id),
        new.hash.as_bytes(),
        name,
        role,
        provider,
        time(new.created_at),
        new.revoked_at.map(time)
    ])?;
    Ok(())
}

pub(super) fn by_id(db: &Connection, id: KeyId) -> Result<Option<Key>, DbError> {
    let mut statement = db.prepare_cached("SELECT * FROM keys WHERE id = ?")?;
    let mut rows = statement.query([key(id)])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn all(db: &Connection) -> Result<Vec<Key>, DbError> {
    let mut statement = db.prepare_cached("SELECT * FROM keys ORDER BY created_at, id")?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row)?);
    }
    Ok(keys)
}

pub(super) fn update_revocation(db: &Connection, revoked: &Key) -> Result<(), DbError> {
    db.prepare_cached("UPDATE keys SET revoked_at = ?2 WHERE id = ?1")?
        .execute(params![key(revoked.id), revoked.revoked_at.map(time)])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Key, DbError> {
    let damaged = || DbError::Damaged("a key");
    let text = |column| row.get::<_, Option<String>>(column);
    let holder = match (text("name")?, text("role")?, text("provider")?) {
        (Some(name), Some(role), None) => {
            let (name, role) = (name.parse().map_err(|_| damaged())?, role.parse().map_err(|_| damaged())?);
            KeyHolder::Operator { name, role }
        }
        (None, None, Some(provider)) => KeyHolder::Provider(provider.parse().map_err(|_| damaged())?),
        _ => return Err(damaged()),
    };
    Ok(Key {
        id: row.optional_key("id")?.ok_or_else(damaged)?,
        hash: row.hash("hash")?,
        holder,
        created_at: row.time("created_at")?,
        revoked_at: row.optional_time("revoked_at")?,
    })
}
