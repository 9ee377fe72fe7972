"""Brings a database to the current schema: the log's table from the event store's library, ours from the SQL files."""

from importlib.resources import files

import psycopg

from application.event_store import Ledger

# One migration at a time, whoever starts it.
LOCK = 0x6D696772
CONNECT_TIMEOUT_S = 5


def migrate(database_url: str) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; answer the names of those applied."""
    applied = []
    with psycopg.connect(database_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        Ledger(database_url, pool_size=1, create_table=True).close()
        conn.execute("CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY)")
        done = {name for (name,) in conn.execute("SELECT name FROM schema_migrations").fetchall()}
        for file in sorted(files("projections.migrations").iterdir(), key=lambda file: file.name):
            if file.name.endswith(".sql") and file.name not in done:
                with conn.transaction():
                    conn.execute(file.read_bytes())
                    conn.execute("INSERT INTO schema_migrations VALUES (%s)", (file.name,))
                applied.append(file.name)
    return applied
