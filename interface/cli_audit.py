"""`payledger audit`: for those who do not take our word for it."""

import sys
from collections.abc import Iterator

import click
import psycopg
from eventsourcing.persistence import StoredEvent
from psycopg.rows import tuple_row

from application.audit import Broken, verify

ROWS_AT_ONCE = 10_000
CONNECT_TIMEOUT_S = 5
# Breaks that are listed; after that they are only counted.
MAX_LISTED = 100
_ROWS = """
SELECT originator_id, originator_version, topic, state FROM ledger_events ORDER BY originator_id, originator_version
"""


@click.group()
def audit() -> None:
    """Verify the log."""


@audit.command("verify")
@click.option("--database-url", envvar="DATABASE_URL", required=True, help="The ledger's database.")
def verify_command(database_url: str) -> None:
    """Walk the hash chain of every stream; exit 1 if a fact was changed, removed or put in."""
    broken = 0
    with psycopg.connect(database_url, connect_timeout=CONNECT_TIMEOUT_S) as conn:
        for found in verify(_rows(conn)):
            if isinstance(found, Broken):
                broken += 1
                if broken <= MAX_LISTED:
                    click.echo(f"broken: stream {found.stream} version {found.version}: {found.reason}", err=True)
            else:
                click.echo(f"{found.facts} facts in {found.streams} streams verified, {broken} broken")
    sys.exit(1 if broken else 0)


def _rows(conn: psycopg.Connection) -> Iterator[StoredEvent]:
    """All rows as of one moment, a bounded number at a time."""
    with conn.cursor("audit", row_factory=tuple_row) as cursor:
        cursor.itersize = ROWS_AT_ONCE
        for stream, version, name, state in cursor.execute(_ROWS):
            yield StoredEvent(originator_id=stream, originator_version=version, topic=name, state=bytes(state))
