"""Whoever follows the log sees every position once and in order, whatever the writers do meanwhile."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from application.event_store import Ledger, StreamMoved
from domain.envelope import NO_PREVIOUS
from tests.feed_readers import checked, committed, end_of_log, following, lines, positions
from tests.given import AUTHORIZED, CAPTURED, started
from tests.processes import eventually
from tests.system import System, running
from tests.test_event_store import append, envelopes
from tests.torture import SIZE, tell

PATIENCE_S = SIZE.patience_s
RAW = "INSERT INTO ledger_events (originator_id, originator_version, topic, state) VALUES (%s, %s, %s, %s)"

WRITERS = SIZE.writers
APPENDS_EACH = SIZE.appends_each
PAYMENTS_EACH = SIZE.payments_each
HELD_OPEN = SIZE.held_open
RECONNECT_AFTER = 97


class Storm:
    """Writers that commit, roll back, find their version taken, and hold positions while others commit."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.appended = 0
        self.over = threading.Event()

    def append(self, _: int) -> None:
        with Ledger(self.system.database_url, pool_size=1) as ledger:
            for _turn in range(APPENDS_EACH):
                append(ledger, *CAPTURED)
                self.appended += 1
                taken = envelopes(uuid4(), *AUTHORIZED)
                stored = ledger.append(taken, NO_PREVIOUS)
                with pytest.raises(StreamMoved):
                    ledger.append(taken[1:], stored.tail)

    def pay(self, _: int) -> None:
        for _turn in range(PAYMENTS_EACH):
            self.system.paid(capture="automatic")

    def hold(self, number: int) -> None:
        """Draw positions, let others commit many more, then commit or roll back."""
        with Ledger(self.system.database_url, pool_size=1) as ledger, psycopg.connect(self.system.database_url) as conn:
            for turn in range(HELD_OPEN):
                for envelope in envelopes(uuid4(), started()):
                    row = ledger.mapper.to_stored_event(envelope)
                    conn.execute(RAW, (row.originator_id, row.originator_version, row.topic, row.state))
                self._others_append(10)
                (conn.rollback if (number + turn) % 3 == 0 else conn.commit)()

    def _others_append(self, more: int) -> None:
        enough = self.appended + more
        eventually(lambda: self.appended >= enough or self.over.is_set(), PATIENCE_S)

    def rage(self) -> None:
        with ThreadPoolExecutor(WRITERS * 2 + 2) as pool:
            holding = [pool.submit(self.hold, number) for number in range(2)]
            writing = [pool.submit(write, number) for write in (self.append, self.pay) for number in range(WRITERS)]
            for writer in writing:
                writer.result(PATIENCE_S)
            self.over.set()
            for holder in holding:
                holder.result(PATIENCE_S)


class Seen(list[int]):
    """The positions a reader has seen; it refuses one that is not after the last."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.last = after

    def see(self, position: int) -> None:
        assert position > self.last, f"{position} came after {self.last}"
        self.append(position)
        self.last = position


def paging(system: System, after: int, done: Callable[[int], bool]) -> list[int]:
    seen = Seen(after)
    while not done(seen.last):
        for position in positions(lines(system.get("/v1/events", after=seen.last, limit=50, wait=1))):
            seen.see(position)
    return seen


def streaming(system: System, after: int, done: Callable[[int], bool]) -> list[int]:
    seen = Seen(after)
    with following(system, after) as stream:
        while not done(seen.last):
            seen.see(checked(next(stream)))
    return seen


def reconnecting(system: System, after: int, done: Callable[[int], bool]) -> list[int]:
    """As a browser does: the same address, and the last id it had."""
    seen = Seen(after)
    while not done(seen.last):
        headers = {"Last-Event-ID": str(seen.last)} if seen else {}
        with following(system, after, **headers) as stream:
            for _ in range(RECONNECT_AFTER):
                seen.see(checked(next(stream)))
                if done(seen.last):
                    break
    return seen


def test_in_a_storm_of_writers_every_reader_sees_every_position_once_and_in_order(system: System) -> None:
    before = end_of_log(system)
    storm = Storm(system)
    last = Future[int]()

    def done(seen: int) -> bool:
        return last.done() and seen >= last.result()

    with ThreadPoolExecutor(5) as pool:
        readers = [
            pool.submit(read, system, before, done) for read in (paging, paging, streaming, streaming, reconnecting)
        ]
        storm.rage()
        system.paid()  # so that a stream that waits for its last event gets one after the end is known
        expected = committed(system, before)
        last.set_result(expected[-1])
        system.paid()
        for reader in readers:
            seen = reader.result(PATIENCE_S)
            assert seen[: len(expected)] == expected
    gaps = expected[-1] - before - len(expected)
    tell(facts=len(expected), gaps=gaps, readers=5)
    assert gaps > WRITERS * APPENDS_EACH, "rolled back transactions left gaps that stay"
    assert len(expected) > WRITERS * APPENDS_EACH * 6


def test_a_stream_ends_when_the_service_stops_and_its_reader_misses_nothing_when_it_is_back() -> None:
    with running() as system:
        system.paid(capture="automatic")
        seen: list[int] = []
        with following(system, 0) as stream:
            seen += [checked(next(stream)) for _ in range(3)]
            api = system.pids["api"]
            os.kill(api, signal.SIGTERM)
            assert list(stream) == [], "it ends as an answer does, not as a broken connection"
        with Ledger(system.database_url, pool_size=1) as ledger:
            append(ledger, *CAPTURED)
        eventually(lambda: system.pids["api"] != api and system.ready(), PATIENCE_S)
        with following(system, 0, **{"Last-Event-ID": str(seen[-1])}) as stream:
            seen += [checked(next(stream)) for _ in range(4)]
        assert seen == committed(system, 0)


def test_a_stream_whose_reader_has_left_is_let_go(system: System) -> None:
    with following(system, 0):
        eventually(lambda: "payledger_feed_streams 1.0" in system.get("/metrics").text)
    eventually(lambda: "payledger_feed_streams 0.0" in system.get("/metrics").text)
