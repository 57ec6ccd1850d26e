-- What each lock has used, for bills. A record stays when its session is forgotten.
CREATE TABLE usage_records (
    lock       BLOB    PRIMARY KEY CHECK (length(lock) = 16),
    session    BLOB    NOT NULL CHECK (length(session) = 16),
    provider   TEXT    NOT NULL,
    pricing    TEXT,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    bytes_in   INTEGER NOT NULL DEFAULT 0,
    bytes_out  INTEGER NOT NULL DEFAULT 0,
    forfeited  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_records_by_start   ON usage_records (started_at, lock);
CREATE INDEX usage_records_by_session ON usage_records (session, started_at, lock);

-- The lock that a lease was asked for; null if by a program that kept no records: it is in the one named as the session.
ALTER TABLE leases ADD COLUMN lock BLOB CHECK (length(lock) = 16);
CREATE INDEX leases_by_lock   ON leases (lock);
CREATE INDEX leases_by_expiry ON leases (expires_at);

-- All that was ever booked, by programs that keep records.
ALTER TABLE ledgers ADD COLUMN total_in        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledgers ADD COLUMN total_out       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledgers ADD COLUMN total_forfeited INTEGER NOT NULL DEFAULT 0;
