-- The chain of the audit trail. Events of before have no hash: the chain begins after them.
ALTER TABLE events ADD COLUMN hash BLOB CHECK (length(hash) = 32);

-- Where the chain begins and ends, each sealed. Without a row it has no event yet.
CREATE TABLE trail_marks (
    name  TEXT    PRIMARY KEY CHECK (name IN ('base', 'head')),
    place INTEGER NOT NULL,
    hash  BLOB    NOT NULL CHECK (length(hash) = 32),
    seal  BLOB    NOT NULL CHECK (length(seal) = 32)
) STRICT, WITHOUT ROWID;

INSERT INTO trail_marks SELECT 'base', coalesce(max(place), 0), zeroblob(32), zeroblob(32) FROM events;
