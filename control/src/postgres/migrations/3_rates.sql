-- Limits that hold for all nodes together: when requests were admitted, in Unix milliseconds, oldest first.
CREATE TABLE rates (
    name     text     NOT NULL,
    whom     text     NOT NULL,
    times    bigint[] NOT NULL,
    -- When a refusal was last told of; a window later the next one is.
    reported bigint   NOT NULL DEFAULT 0,
    -- When the newest admission is out of its window.
    over_at  bigint   NOT NULL,
    PRIMARY KEY (name, whom)
);

CREATE INDEX rates_by_end ON rates (over_at);
