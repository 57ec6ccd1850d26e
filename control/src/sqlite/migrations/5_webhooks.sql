-- The last event that a webhook's receiver has taken, by the target's name in the settings.
CREATE TABLE webhook_cursors (
    target TEXT    PRIMARY KEY,
    place  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
