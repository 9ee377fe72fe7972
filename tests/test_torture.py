"""Writers of several facts, transactions held open, and backends killed at random: no reader of the log skips a fact.

`make torture` blows for minutes and prints what was counted; the suite, for seconds (tests/torture.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from random import Random
from threading import Event, Lock
from time import monotonic, sleep
from uuid import uuid4

import psycopg
import pytest

from application.event_store import Ledger, StoreUnavailable, StreamMoved
from domain.envelope import NO_PREVIOUS
from interface.bootstrap import log_reader
from interface.migrations import migrate
from projections import orders, payment_status
from tests.given import CAPTURED, started
from tests.processes import eventually
from tests.read_side import ReadSide, running
from tests.test_event_store import envelopes
from tests.torture import SIZE, tell

INSERT = "INSERT INTO ledger_events (originator_id, originator_version, topic, state) VALUES (%s, 1, %s, %s)"
# Whoever reads, writes or projects; not the session that looks on.
VICTIMS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'payledger%'"
BETWEEN_KILLS_S = 0.1
HELD_S = 0.02
LOST = (StoreUnavailable, psycopg.OperationalError)


@pytest.fixture
def side(database_url: str) -> Iterator[ReadSide]:
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield ReadSide(database_url, ledger, conn)


class Storm:
    """Blows until `over`; when the last writer has ended it is `calm`. Counts what it did."""

    def __init__(self, side: ReadSide) -> None:
        self.side = side
        self.over = Event()
        self.calm = Event()
        self.counts: Counter[str] = Counter()
        self._lock = Lock()

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def write(self, ledger: Ledger) -> None:
        """Four facts at once, then the same version again: a gap that stays."""
        while not self.over.is_set():
            payment = envelopes(uuid4(), *CAPTURED)
            try:
                stored = ledger.append(payment, NO_PREVIOUS)
                self._count("appends")
                with suppress(StreamMoved):
                    ledger.append(payment[1:], stored.tail)
            except LOST:
                self._count("appends_of_which_nobody_knows")

    def hold(self, number: int) -> None:
        """Draw a position, let others commit, then commit or roll back."""
        random = Random(number)
        while not self.over.is_set():
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self.side.url, application_name="payledger holder") as conn,
            ):
                row = self.side.ledger.mapper.to_stored_event(envelopes(uuid4(), started())[0])
                conn.execute(INSERT, (row.originator_id, row.topic, row.state))
                sleep(HELD_S)
                (conn.rollback if random.random() < 0.3 else conn.commit)()
                self._count("held_open")

    def kill(self) -> None:
        random = Random(7)
        with psycopg.connect(self.side.url, autocommit=True) as conn:
            while not self.over.wait(BETWEEN_KILLS_S):
                victims = [pid for (pid,) in conn.execute(VICTIMS)]
                if victims:
                    conn.execute("SELECT pg_terminate_backend(%s)", (random.choice(victims),))
                    self._count("backends_killed")

    def end(self) -> None:
        self.over.set()
        self.calm.set()

    def follow(self, read: Callable[[int], Sequence[int]]) -> list[int]:
        """All positions that a reader saw, in the order it saw them, to the end of the storm and the log."""
        seen = [0]
        while True:
            last_look = self.calm.is_set()
            try:
                found = read(seen[-1])
            except LOST:
                self._count("reads_that_broke")
                continue
            assert all(before < after for before, after in zip((seen[-1], *found), found, strict=False))
            seen += found
            if last_look and not found:
                return seen[1:]


def readers(ledger: Ledger) -> list[Callable[[int], Sequence[int]]]:
    """As the feed reads, and as projections and the publisher do."""
    read = log_reader(ledger)
    return [
        lambda after: [row.id for row in ledger.read(after, 500)],
        lambda after: [row.position or 0 for row in read(after, 700)],
    ]


def test_in_a_storm_in_which_backends_are_killed_nobody_skips_a_fact_and_read_models_are_whole(side: ReadSide) -> None:
    storm = Storm(side)
    engines = [side.engine(payment_status.MODEL), side.engine(orders.MODEL)]
    with ExitStack() as stack:
        stack.enter_context(running(*engines))
        ledger = stack.enter_context(Ledger(side.url, pool_size=4))
        writers = [stack.enter_context(Ledger(side.url, pool_size=1)) for _ in range(SIZE.writers)]
        pool = stack.enter_context(ThreadPoolExecutor(SIZE.writers + 6))
        stack.callback(storm.end)  # whatever happens, so that no thread is waited for in vain
        following = [pool.submit(storm.follow, read) for read in readers(ledger)]
        writing = [pool.submit(storm.write, writer) for writer in writers]
        raging = [*writing, *(pool.submit(storm.hold, number) for number in range(2)), pool.submit(storm.kill)]
        until = monotonic() + SIZE.storm_s
        while monotonic() < until:
            for engine in engines:
                engine.wake.set()
            sleep(HELD_S)
        storm.over.set()
        for part in raging:
            part.result(SIZE.patience_s)
        storm.calm.set()
        seen = [reader.result(SIZE.patience_s) for reader in following]
        eventually(lambda: side.checkpoint() == side.checkpoint(orders.NAME) == side.end, SIZE.patience_s)
    stands = [row[0] for row in side.conn.execute("SELECT notification_id FROM ledger_events ORDER BY 1")]
    tell(facts=len(stands), **storm.counts)
    assert seen == [stands, stands]
    assert side.parked() == []
    assert side.rows() == side.folded()
    assert min(storm.counts[what] for what in ("appends", "held_open", "backends_killed")) >= SIZE.storm_s
