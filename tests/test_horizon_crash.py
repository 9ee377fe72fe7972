"""What a horizon has learned ends with a crash of the database."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg

from application.event_store import Ledger
from application.horizon import Horizon
from interface.sandbox.folder import free_port
from interface.sandbox.postgres import Postgres
from tests.given import CAPTURED
from tests.processes import eventually
from tests.test_event_store import INSERT, append, writer_in_flight

PATIENCE_S = 10.0


def test_positions_that_are_drawn_again_after_a_crash_are_waited_for_again() -> None:
    with database_of_its_own() as server, Ledger(server.url, create_table=True) as ledger:
        append(ledger)
        horizon = Horizon("public", "ledger_events")
        with psycopg.connect(server.url, autocommit=True) as conn, writer_in_flight(server.url) as lost:
            lost.execute(INSERT, (uuid4(),))
            lost.execute(INSERT, (uuid4(),))  # 2, 3 and 4
            lost.rollback()
            assert horizon.advance(conn) == 4
            os.kill(conn.info.backend_pid, signal.SIGKILL)
        eventually(lambda: answers(server.url), PATIENCE_S)
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute("SELECT setval('ledger_events_notification_id_seq', 1)")  # as if 2 to 4 were not written down
            with writer_in_flight(server.url) as writer:
                assert append(ledger, *CAPTURED) == [3, 4, 5, 6]
                assert horizon.advance(conn) < 2, "2 has an owner again, who may commit yet"
                writer.commit()
                assert horizon.advance(conn) == 6


@contextmanager
def database_of_its_own() -> Iterator[Postgres]:
    """A server that may be broken."""
    with tempfile.TemporaryDirectory(prefix="payledger-test-") as name:
        Path(name).chmod(0o755)
        server = Postgres(Path(name) / "data", free_port())
        server.start()
        yield server
        server.stop()


def answers(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False
