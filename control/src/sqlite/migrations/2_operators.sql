-- Keys of operators and providers; a revoked one stays, so that the trail stays readable.
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

-- The key that a session was last registered with.
ALTER TABLE sessions ADD COLUMN provider_key BLOB CHECK (provider_key IS NULL OR length(provider_key) = 16);
-- How the last lock ended, of a session that is being made clean; null as RELEASED.
ALTER TABLE sessions ADD COLUMN ending TEXT CHECK (ending IN ('RELEASED', 'CUT'));

ALTER TABLE events ADD COLUMN operator TEXT;
ALTER TABLE events ADD COLUMN key BLOB CHECK (key IS NULL OR length(key) = 16);

-- What operators look for.
CREATE INDEX events_by_session  ON events (session, place)  WHERE session  IS NOT NULL;
CREATE INDEX events_by_provider ON events (provider, place) WHERE provider IS NOT NULL;
CREATE INDEX events_by_time     ON events (at);

-- One row that is written to see whether that can be done.
CREATE TABLE probe (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at  INTEGER NOT NULL
) STRICT;
