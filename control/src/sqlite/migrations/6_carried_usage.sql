-- What deleted usage records add up to. registered_at is 0 where the session was forgotten before.
CREATE TABLE usage_carried (
    session       BLOB    NOT NULL CHECK (length(session) = 16),
    provider      TEXT    NOT NULL,
    registered_at INTEGER NOT NULL,
    records       INTEGER NOT NULL,
    seconds       INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    ended_at      INTEGER NOT NULL,
    bytes_in      INTEGER NOT NULL,
    bytes_out     INTEGER NOT NULL,
    forfeited     INTEGER NOT NULL,
    PRIMARY KEY (session, provider, registered_at)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_records_by_end ON usage_records (ended_at) WHERE ended_at IS NOT NULL;
