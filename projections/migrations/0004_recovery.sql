-- Which operations have started and not ended?
CREATE TABLE open_operations (
    payment     uuid NOT NULL,
    operation   text NOT NULL,
    kind        text NOT NULL,
    amount      bigint,
    currency    text,
    waiting     boolean NOT NULL,
    actor       text NOT NULL,
    correlation text NOT NULL,
    started_at  timestamptz NOT NULL,
    position    bigint NOT NULL,
    PRIMARY KEY (payment, operation)
);
CREATE INDEX open_operations_oldest ON open_operations (started_at);

-- Who tries to end them, and how it went. No read model: nothing of it is in the log.
CREATE TABLE operation_tries (
    payment    uuid NOT NULL,
    operation  text NOT NULL,
    fence      bigint NOT NULL,
    attempts   bigint NOT NULL,
    held_until timestamptz NOT NULL,
    next_try   timestamptz NOT NULL,
    reason     text NOT NULL,
    PRIMARY KEY (payment, operation)
);

-- What the provider told us happened, each once however often it was delivered. Of an event only what is not personal.
CREATE TABLE inbox (
    event_id       text NOT NULL,
    type           text NOT NULL,
    object_id      text NOT NULL,
    payment_intent text,
    payment        uuid,
    operation      text,
    created_at     timestamptz NOT NULL,
    received_at    timestamptz NOT NULL,
    state          text NOT NULL,
    note           text NOT NULL DEFAULT '',
    fence          bigint NOT NULL DEFAULT 0,
    attempts       bigint NOT NULL DEFAULT 0,
    held_until     timestamptz NOT NULL,
    next_try       timestamptz NOT NULL,
    PRIMARY KEY (event_id, type)
);
CREATE INDEX inbox_waiting ON inbox (next_try) WHERE state = 'waiting';
CREATE INDEX inbox_shown ON inbox (state, received_at) WHERE state IN ('waiting', 'unmatched', 'stuck');
CREATE INDEX inbox_oldest ON inbox (received_at);

-- Up to when the provider's own list of events has been read.
CREATE TABLE sweeps (
    name  text PRIMARY KEY,
    until timestamptz NOT NULL
);
