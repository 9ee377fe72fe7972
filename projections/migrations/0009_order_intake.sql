-- How far each partition of the orders has been taken in. The row moves in the transaction that stores what was read;
-- without `next_offset` it begins at the oldest message there is. What Kafka itself keeps of a group is never asked.
CREATE TABLE consumer_offsets (
    topic       text NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint,
    topic_id    uuid,
    lag         bigint NOT NULL DEFAULT 0,
    applied     bigint NOT NULL DEFAULT 0,
    unchanged   bigint NOT NULL DEFAULT 0,
    passed_over bigint NOT NULL DEFAULT 0,
    halted      text,
    worker      text,
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- Cancellations that came before what they follow.
CREATE TABLE waiting_cancellations (
    stream      uuid NOT NULL,
    version     bigint NOT NULL,
    order_id    text NOT NULL,
    correlation text NOT NULL,
    causation   text NOT NULL,
    since       timestamptz NOT NULL,
    PRIMARY KEY (stream, version)
);
CREATE INDEX waiting_cancellations_oldest ON waiting_cancellations (since);

-- Messages that could not be read or applied, and those of the same order that came after them. What they say is sealed.
CREATE TABLE parked_orders (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane           uuid NOT NULL,
    topic          text NOT NULL,
    partition      integer NOT NULL,
    message_offset bigint NOT NULL,
    order_id       text,
    reason         text NOT NULL,
    attempts       integer NOT NULL DEFAULT 1,
    since          timestamptz NOT NULL,
    sealed         bytea NOT NULL
);
CREATE INDEX parked_orders_in_order ON parked_orders (lane, id);

-- What somebody decided not to take in, who, when and why. What it said is gone.
CREATE TABLE discarded_orders (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic          text NOT NULL,
    partition      integer NOT NULL,
    message_offset bigint NOT NULL,
    order_id       text,
    reason         text NOT NULL,
    since          timestamptz NOT NULL,
    discarded_at   timestamptz NOT NULL,
    discarded_by   text NOT NULL,
    why            text NOT NULL
);
