-- Times are milliseconds since the Unix epoch; hashes are SHA-256, never a secret.
--
-- A session and a ledger are each one value. Whoever replaces it counts its version up, and replaces it only if the
-- version is still the one that was read: so a change is one statement, and nobody waits for a lock that a stopped node
-- holds.

CREATE TABLE sessions (
    id                uuid    PRIMARY KEY,
    version           bigint  NOT NULL,
    status            text    NOT NULL CHECK (status IN ('READY', 'LOCKED', 'RECYCLING', 'REMOVED')),
    -- READY: those that would take the lock, oldest first. LOCKED: the one that took it.
    tokens            bytea[] NOT NULL CHECK (status IN ('READY', 'LOCKED') OR tokens = '{}'),
    cap_bytes         bigint  NOT NULL,
    removed_at        bigint  CHECK ((removed_at IS NOT NULL) = (status = 'REMOVED')),
    sealed_credential bytea   NOT NULL,
    document          jsonb   NOT NULL
);

CREATE INDEX sessions_by_token ON sessions USING gin (tokens);
CREATE INDEX sessions_by_removal ON sessions (removed_at) WHERE removed_at IS NOT NULL;

-- Who was seen when: narrow, and without an index on what changes all the time, so that updates stay in their page.
CREATE TABLE presence (
    session          uuid   PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    -- none of a session that is removed
    provider_seen_at bigint,
    -- none of a session that is not locked
    renter_seen_at   bigint
) WITH (fillfactor = 60);

CREATE TABLE ledgers (
    session uuid   PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    version bigint NOT NULL,
    latest  bigint NOT NULL,
    open    jsonb  NOT NULL,
    settled jsonb  NOT NULL,
    -- all that was ever booked: bytes in, bytes out, forfeited
    total   jsonb  NOT NULL,
    -- when the first open lease ends; none without one
    expires bigint,
    -- apart from what changes with each report, and not written again while it stays the same
    closed  jsonb  NOT NULL
) WITH (fillfactor = 60);

-- What each lock has used, for bills. A record stays when its session is forgotten.
CREATE TABLE usage_records (
    lock       uuid   PRIMARY KEY,
    session    uuid   NOT NULL,
    provider   text   NOT NULL,
    pricing    text,
    started_at bigint NOT NULL,
    ended_at   bigint,
    bytes_in   bigint NOT NULL DEFAULT 0,
    bytes_out  bigint NOT NULL DEFAULT 0,
    forfeited  bigint NOT NULL DEFAULT 0
);

CREATE INDEX usage_records_by_start   ON usage_records (started_at, lock);
CREATE INDEX usage_records_by_session ON usage_records (session, started_at, lock);

-- The audit trail as a chain: each event with the hash over it and all before it.
CREATE TABLE events (
    place    bigint PRIMARY KEY,
    hash     bytea  CHECK (length(hash) = 32),
    at       bigint NOT NULL,
    kind     text   NOT NULL,
    session  uuid,
    provider text,
    address  text,
    operator text,
    key      uuid
);

-- Where the chain begins and ends, each sealed. Whoever appends moves the head that he has read, and no other.
CREATE TABLE trail_marks (
    name  text   PRIMARY KEY CHECK (name IN ('base', 'head')),
    place bigint NOT NULL,
    hash  bytea  NOT NULL CHECK (length(hash) = 32),
    seal  bytea  NOT NULL CHECK (length(seal) = 32)
);

INSERT INTO trail_marks
SELECT name, 0, decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex') FROM unnest(ARRAY['base', 'head']) AS name;

CREATE INDEX events_by_session  ON events (session, place)  WHERE session  IS NOT NULL;
CREATE INDEX events_by_provider ON events (provider, place) WHERE provider IS NOT NULL;
CREATE INDEX events_by_time     ON events (at);

-- Keys of operators and providers; a revoked one stays, so that the trail stays readable.
CREATE TABLE keys (
    id         uuid   PRIMARY KEY,
    hash       bytea  NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- An operator's key has a name and a role, a provider's the name that it may register.
    name       text   CHECK ((name IS NOT NULL) = (provider IS NULL)),
    role       text   CHECK ((role IS NOT NULL) = (provider IS NULL)),
    provider   text,
    created_at bigint NOT NULL,
    revoked_at bigint
);

-- One row that is written to see whether that can be done.
CREATE TABLE probe (
    one boolean PRIMARY KEY CHECK (one),
    at  bigint  NOT NULL
);

-- What one node does for all, until when.
CREATE TABLE turns (
    what  text        PRIMARY KEY,
    node  uuid        NOT NULL,
    until timestamptz NOT NULL
);

-- The last event that a webhook's receiver has taken, by the target's name in the settings.
CREATE TABLE webhook_cursors (
    target text   PRIMARY KEY,
    place  bigint NOT NULL
);
