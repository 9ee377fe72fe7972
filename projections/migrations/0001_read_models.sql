-- How far each projection has read, stored with its rows in one transaction.
CREATE TABLE checkpoints (
    projection text PRIMARY KEY,
    position   bigint NOT NULL
);

-- Streams set aside after a failure: their facts from `position` on wait, in order, and nobody else does.
CREATE TABLE parked (
    projection text NOT NULL,
    stream     uuid NOT NULL,
    position   bigint NOT NULL,
    reason     text NOT NULL,
    PRIMARY KEY (projection, stream)
);

CREATE TABLE payment_status (
    id         uuid PRIMARY KEY,
    version    bigint NOT NULL,
    position   bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    status     text NOT NULL,
    customer   text,
    order_id   text,
    state      bytea NOT NULL
);
CREATE INDEX payment_status_newest ON payment_status (created_at DESC, id DESC);
CREATE INDEX payment_status_by_status ON payment_status (status, created_at DESC, id DESC);
CREATE INDEX payment_status_by_customer ON payment_status (customer, created_at DESC, id DESC) WHERE customer IS NOT NULL;
CREATE INDEX payment_status_by_order ON payment_status (order_id, created_at DESC, id DESC) WHERE order_id IS NOT NULL;

CREATE TABLE order_payments (
    id         uuid PRIMARY KEY,
    version    bigint NOT NULL,
    position   bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    order_id   text NOT NULL,
    state      bytea NOT NULL
);
CREATE INDEX order_payments_by_order ON order_payments (order_id, created_at, id);

CREATE TABLE orders (
    id         text PRIMARY KEY,
    created_at timestamptz NOT NULL
);
CREATE INDEX orders_newest ON orders (created_at DESC, id DESC);
