-- Orders that were announced, beside those that payments merely name. Before this there were none, so what stands in the
-- tables is as it would be built anew: nothing of it was announced, and nothing is due.
CREATE TABLE announced_orders (
    id         uuid PRIMARY KEY,
    version    bigint NOT NULL,
    position   bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    order_id   text NOT NULL,
    state      bytea NOT NULL
);
CREATE UNIQUE INDEX announced_orders_by_order ON announced_orders (order_id);

-- Of an announced order, whose it is and how it stands.
ALTER TABLE orders ADD COLUMN user_id text, ADD COLUMN status text;
CREATE INDEX orders_by_user ON orders (user_id, created_at DESC, id DESC) WHERE user_id IS NOT NULL;
CREATE INDEX orders_by_status ON orders (status, created_at DESC, id DESC) WHERE status IS NOT NULL;

-- What is to be done about a payment of an announced order. Whatever was tried last comes last.
ALTER TABLE order_payments ADD COLUMN due text;
CREATE INDEX order_payments_due ON order_payments (due, position) WHERE due IS NOT NULL;

-- A rebuild that was not finished begins anew: its tables lack these columns.
DROP TABLE IF EXISTS order_payments__next, orders__next;
DELETE FROM checkpoints WHERE projection = 'orders__next';
DELETE FROM parked WHERE projection = 'orders__next';
