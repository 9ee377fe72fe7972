-- A parked stream tells where in the code it failed and how often it was tried.
ALTER TABLE parked
    ADD COLUMN trace     text NOT NULL DEFAULT '',
    ADD COLUMN attempts  bigint NOT NULL DEFAULT 1,
    ADD COLUMN parked_at timestamptz NOT NULL DEFAULT now();

-- Why a projection stopped by itself; nothing while it works.
ALTER TABLE checkpoints ADD COLUMN stopped text;
