-- How does a customer stand, which names name it, and what is it subscribed to?
CREATE TABLE customers (
    id                uuid PRIMARY KEY,
    version           bigint NOT NULL,
    position          bigint NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    provider_customer text,
    user_id           text,
    state             bytea NOT NULL
);
CREATE INDEX customers_newest ON customers (created_at DESC, id DESC);
CREATE INDEX customers_by_provider ON customers (provider_customer, created_at DESC, id DESC)
    WHERE provider_customer IS NOT NULL;

-- The stream of a name, and whose it is. The name itself is nowhere.
CREATE TABLE customer_names (
    id       uuid PRIMARY KEY,
    version  bigint NOT NULL,
    customer uuid NOT NULL
);

CREATE TABLE subscriptions (
    id                    uuid PRIMARY KEY,
    version               bigint NOT NULL,
    position              bigint NOT NULL,
    created_at            timestamptz NOT NULL,
    updated_at            timestamptz NOT NULL,
    customer              uuid NOT NULL,
    provider_subscription text,
    status                text NOT NULL,
    state                 bytea NOT NULL
);
CREATE INDEX subscriptions_by_customer ON subscriptions (customer, created_at DESC, id DESC);
CREATE INDEX subscriptions_by_provider ON subscriptions (provider_subscription, created_at DESC, id DESC)
    WHERE provider_subscription IS NOT NULL;

-- What an open operation is one of; `payment` is its stream, whichever it is. All that there are so far are payments'.
-- A rebuild compares rows by their id. What it has built so far, or replaced, has the same columns as what serves.
ALTER TABLE open_operations
    ADD COLUMN aggregate text NOT NULL DEFAULT 'payment',
    ADD COLUMN id        text GENERATED ALWAYS AS (payment::text || ' ' || operation) STORED;
ALTER TABLE IF EXISTS open_operations__next
    ADD COLUMN aggregate text NOT NULL DEFAULT 'payment',
    ADD COLUMN id        text GENERATED ALWAYS AS (payment::text || ' ' || operation) STORED;
