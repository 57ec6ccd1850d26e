-- Times are milliseconds since the Unix epoch; ids are the 16 bytes of a UUID; hashes are SHA-256, never a secret.

CREATE TABLE sessions (
    id                BLOB    PRIMARY KEY CHECK (length(id) = 16),
    provider          TEXT    NOT NULL,
    provider_secret   BLOB    NOT NULL CHECK (length(provider_secret) = 32),
    upstream          TEXT    NOT NULL,
    sealed_credential BLOB    NOT NULL,
    credential_hash   BLOB    NOT NULL CHECK (length(credential_hash) = 32),
    hardware          TEXT,
    pricing           TEXT,
    revision          INTEGER NOT NULL,
    registered_at     INTEGER NOT NULL,
    provider_seen_at  INTEGER NOT NULL,
    cap_bytes         INTEGER NOT NULL,
    status            TEXT    NOT NULL CHECK (status IN ('READY', 'LOCKED', 'RECYCLING', 'REMOVED')),
    -- of a lock
    address           TEXT    CHECK ((address        IS NOT NULL) = (status = 'LOCKED')),
    cookie            BLOB    CHECK (cookie IS NULL OR (length(cookie) = 32 AND status = 'LOCKED')),
    taken_at          INTEGER CHECK ((taken_at       IS NOT NULL) = (status = 'LOCKED')),
    renter_seen_at    INTEGER CHECK ((renter_seen_at IS NOT NULL) = (status = 'LOCKED')),
    -- of a session that is being made clean, or gone
    since             INTEGER CHECK ((since          IS NOT NULL) = (status IN ('RECYCLING', 'REMOVED'))),
    clean             INTEGER CHECK ((clean          IS NOT NULL) = (status = 'REMOVED'))
) STRICT, WITHOUT ROWID;

-- What the sweeper asks for.
CREATE INDEX sessions_by_provider_seen ON sessions (provider_seen_at) WHERE status <> 'REMOVED';
CREATE INDEX sessions_by_renter_seen   ON sessions (renter_seen_at)   WHERE status = 'LOCKED';

-- What is to be forgotten.
CREATE INDEX sessions_by_removal       ON sessions (since)            WHERE status = 'REMOVED';

-- READY: the tokens that would take the lock, oldest first. LOCKED: the one that took it.
CREATE TABLE tokens (
    hash    BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    session BLOB    NOT NULL REFERENCES sessions (id),
    place   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_by_session ON tokens (session, place);

CREATE TABLE ledgers (
    session BLOB    PRIMARY KEY REFERENCES sessions (id),
    latest  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Closed usage; a bucket is five minutes.
CREATE TABLE usage (
    session   BLOB    NOT NULL REFERENCES ledgers (session),
    bucket    INTEGER NOT NULL,
    bytes_in  INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    forfeited INTEGER NOT NULL,
    PRIMARY KEY (session, bucket)
) STRICT, WITHOUT ROWID;

-- Leases that are not settled, in the order in which they were granted.
CREATE TABLE leases (
    place      INTEGER PRIMARY KEY,
    session    BLOB    NOT NULL REFERENCES ledgers (session),
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    node       BLOB    NOT NULL CHECK (length(node) = 16),
    granted    INTEGER NOT NULL,
    bytes_in   INTEGER NOT NULL,
    bytes_out  INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    UNIQUE (session, id)
) STRICT;

-- What was settled of the leases of nodes that have some open, since their lease 'since'.
CREATE TABLE settled (
    session   BLOB    NOT NULL REFERENCES ledgers (session),
    node      BLOB    NOT NULL CHECK (length(node) = 16),
    since     BLOB    NOT NULL CHECK (length(since) = 16),
    bytes_in  INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    PRIMARY KEY (session, node)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    place    INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    session  BLOB,
    provider TEXT,
    address  TEXT
) STRICT;
