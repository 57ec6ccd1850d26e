-- What deleted usage records add up to. registered_at is 0 where the session was forgotten before.
CREATE TABLE usage_carried (
    session       uuid   NOT NULL,
    provider      text   NOT NULL,
    registered_at bigint NOT NULL,
    records       bigint NOT NULL,
    seconds       bigint NOT NULL,
    started_at    bigint NOT NULL,
    ended_at      bigint NOT NULL,
    bytes_in      bigint NOT NULL,
    bytes_out     bigint NOT NULL,
    forfeited     bigint NOT NULL,
    PRIMARY KEY (session, provider, registered_at)
);

CREATE INDEX usage_records_by_end ON usage_records (ended_at) WHERE ended_at IS NOT NULL;
