PRAGMA foreign_keys = OFF;
BEGIN TRANSACTION;
CREATE TABLE events (
    place    INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    session  BLOB,
    provider TEXT,
    address  TEXT
, operator TEXT, key BLOB CHECK (key IS NULL OR length(key) = 16), hash BLOB CHECK (length(hash) = 32)) STRICT;
INSERT INTO "events" VALUES(1,1795334400002,'SESSION_LOCKED',X'00000000000000000000000000000002','gpu-box','127.0.0.1',NULL,NULL,NULL);
INSERT INTO "events" VALUES(2,1795334400003,'RATE_LIMITED',NULL,NULL,'127.0.0.9',NULL,NULL,NULL);
CREATE TABLE keys (
    id         BLOB    PRIMARY KEY CHECK (length(id) = 16),
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- An operator's key has a name and a role, a provider's the name that it may register.
    name       TEXT    CHECK ((name     IS NOT NULL) = (provider IS NULL)),
    role       TEXT    CHECK ((role     IS NOT NULL) = (provider IS NULL)),
    provider   TEXT,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "keys" VALUES(X'00000000000000000000000000000009',X'1111111111111111111111111111111111111111111111111111111111111111','night shift','read',NULL,1795334400001,NULL);
CREATE TABLE leases (
    place      INTEGER PRIMARY KEY,
    session    BLOB    NOT NULL REFERENCES ledgers (session),
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    node       BLOB    NOT NULL CHECK (length(node) = 16),
    granted    INTEGER NOT NULL,
    bytes_in   INTEGER NOT NULL,
    bytes_out  INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, lock BLOB CHECK (length(lock) = 16),
    UNIQUE (session, id)
) STRICT;
INSERT INTO "leases" VALUES(1,X'00000000000000000000000000000002',X'00000000000000000000000000000003',X'00000000000000000000000000000009',70000,0,0,0,1795334810000,NULL);
CREATE TABLE ledgers (
    session BLOB    PRIMARY KEY REFERENCES sessions (id),
    latest  INTEGER NOT NULL
, total_in        INTEGER NOT NULL DEFAULT 0, total_out       INTEGER NOT NULL DEFAULT 0, total_forfeited INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
INSERT INTO "ledgers" VALUES(X'00000000000000000000000000000002',1795334750000,11,22,50000);
CREATE TABLE probe (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at  INTEGER NOT NULL
) STRICT;
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
, provider_key BLOB CHECK (provider_key IS NULL OR length(provider_key) = 16), ending TEXT CHECK (ending IN ('RELEASED', 'CUT'))) STRICT, WITHOUT ROWID;
INSERT INTO "sessions" VALUES(X'00000000000000000000000000000001','gpu-box',X'2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B','https://a-b.trycloudflare.com',X'7365616C6564206F6E65',X'7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED','{"gpu":"A100"}',NULL,3,1795334400000,1795334400000,1000000,'READY',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "sessions" VALUES(X'00000000000000000000000000000002','gpu-box',X'2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B','https://a-b.trycloudflare.com',X'7365616C6564206F6E65',X'7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED','{"gpu":"A100"}',NULL,3,1795334400000,1795334400000,1000000,'LOCKED','127.0.0.1',X'D7E83E28A04B537E64424546B14CAF9B67BAD2F28DABCE68116E0D372319FA00',1795334400002,1795334400002,NULL,NULL,NULL,NULL);
INSERT INTO "sessions" VALUES(X'00000000000000000000000000000003','gpu-box',X'2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B','https://a-b.trycloudflare.com',X'7365616C6564206F6E65',X'7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED','{"gpu":"A100"}',NULL,4,1795334400000,1795334400000,1000000,'RECYCLING',NULL,NULL,NULL,NULL,1795334400003,NULL,NULL,NULL);
INSERT INTO "sessions" VALUES(X'00000000000000000000000000000004','gpu-box',X'2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B','https://a-b.trycloudflare.com',X'7365616C6564206F6E65',X'7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED','{"gpu":"A100"}',NULL,4,1795334400000,1795334400000,1000000,'REMOVED',NULL,NULL,NULL,NULL,1795334400003,0,NULL,NULL);
CREATE TABLE settled (
    session   BLOB    NOT NULL REFERENCES ledgers (session),
    node      BLOB    NOT NULL CHECK (length(node) = 16),
    since     BLOB    NOT NULL CHECK (length(since) = 16),
    bytes_in  INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    PRIMARY KEY (session, node)
) STRICT, WITHOUT ROWID;
INSERT INTO "settled" VALUES(X'00000000000000000000000000000002',X'00000000000000000000000000000009',X'00000000000000000000000000000003',0,0);
CREATE TABLE tokens (
    hash    BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    session BLOB    NOT NULL REFERENCES sessions (id),
    place   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tokens" VALUES(X'A7937B64B8CAA58F03721BB6BACF5C78CB235FEBE0E70B1B84CD99541461A08E',X'00000000000000000000000000000001',0);
INSERT INTO "tokens" VALUES(X'16367AACB67A4A017C8DA8AB95682CCB390863780F7114DDA0A0E0C55644C7C4',X'00000000000000000000000000000001',1);
INSERT INTO "tokens" VALUES(X'0C030586945FE504B604ECC2E875C38EDE400CD5CD73DA9730302162E6B02C6F',X'00000000000000000000000000000002',0);
CREATE TABLE trail_marks (
    name  TEXT    PRIMARY KEY CHECK (name IN ('base', 'head')),
    place INTEGER NOT NULL,
    hash  BLOB    NOT NULL CHECK (length(hash) = 32),
    seal  BLOB    NOT NULL CHECK (length(seal) = 32)
) STRICT, WITHOUT ROWID;
INSERT INTO "trail_marks" VALUES('base',2,X'0000000000000000000000000000000000000000000000000000000000000000',X'0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE usage (
    session   BLOB    NOT NULL REFERENCES ledgers (session),
    bucket    INTEGER NOT NULL,
    bytes_in  INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    forfeited INTEGER NOT NULL,
    PRIMARY KEY (session, bucket)
) STRICT, WITHOUT ROWID;
INSERT INTO "usage" VALUES(X'00000000000000000000000000000002',5984448,100,200,0);
INSERT INTO "usage" VALUES(X'00000000000000000000000000000002',5984449,11,22,50000);
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
INSERT INTO "usage_carried" VALUES(X'00000000000000000000000000000008','gone',1795334000000,2,30,1795334000000,1795334100000,1,2,3);
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
INSERT INTO "usage_records" VALUES(X'00000000000000000000000000000021',X'00000000000000000000000000000002','gpu-box','{"perHour":2}',1795334400000,1795334500000,11,22,50000);
CREATE TABLE webhook_cursors (
    target TEXT    PRIMARY KEY,
    place  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "webhook_cursors" VALUES('ops',1);
CREATE INDEX sessions_by_provider_seen ON sessions (provider_seen_at) WHERE status <> 'REMOVED';
CREATE INDEX sessions_by_renter_seen   ON sessions (renter_seen_at)   WHERE status = 'LOCKED';
CREATE INDEX sessions_by_removal       ON sessions (since)            WHERE status = 'REMOVED';
CREATE INDEX tokens_by_session ON tokens (session, place);
CREATE INDEX events_by_session  ON events (session, place)  WHERE session  IS NOT NULL;
CREATE INDEX events_by_provider ON events (provider, place) WHERE provider IS NOT NULL;
CREATE INDEX events_by_time     ON events (at);
CREATE INDEX usage_records_by_start   ON usage_records (started_at, lock);
CREATE INDEX usage_records_by_session ON usage_records (session, started_at, lock);
CREATE INDEX leases_by_lock   ON leases (lock);
CREATE INDEX leases_by_expiry ON leases (expires_at);
CREATE INDEX usage_records_by_end ON usage_records (ended_at) WHERE ended_at IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',2);
COMMIT;
PRAGMA user_version = 6;
