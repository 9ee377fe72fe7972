"""Facts of many streams and rows of somebody else's in one transaction: all or none, and readers hear of it after."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from application.event_store import Ledger, Loaded, StoreUnavailable, StreamMoved
from application.log_transaction import LogTransaction, log_transaction
from application.stored_form import UnreadableFact
from domain.envelope import NO_PREVIOUS
from tests.given import AUTHORIZED, CAPTURED
from tests.test_event_store import append, envelopes, read_all


class Interrupted(Exception):  # noqa: N818  it is thrown at a moment that the test has chosen
    pass


@pytest.fixture
def rung() -> list[int]:
    """What the log holds each time that its readers are woken."""
    return []


@pytest.fixture
def ledger(database_url: str, rung: list[int]) -> Iterator[Ledger]:
    """With one connection, which all that happens is done on."""
    with Ledger(database_url, create_table=True, pool_size=1) as ledger:
        with log_transaction(ledger) as log:
            log.conn.execute("CREATE TABLE beside (what text)")
        ledger.appended = lambda: rung.append(len(read_all(ledger)))
        yield ledger


def beside(log: LogTransaction) -> list[str]:
    return [what for (what,) in log.conn.execute("SELECT what FROM beside ORDER BY what", prepare=True)]


def test_facts_and_rows_are_stored_together_and_then_readers_are_woken(ledger: Ledger, rung: list[int]) -> None:
    one, two = uuid4(), uuid4()
    with log_transaction(ledger) as log:
        log.conn.execute("INSERT INTO beside VALUES ('x')")
        log.append([(envelopes(one, *CAPTURED), NO_PREVIOUS), (envelopes(two, *AUTHORIZED), NO_PREVIOUS)])
        assert rung == []
    assert rung == [len(CAPTURED) + len(AUTHORIZED)]
    with log_transaction(ledger) as log:
        assert beside(log) == ["x"]
        found = log.load([one, two, uuid4()])
    assert found == {one: ledger.load(one), two: ledger.load(two)}


def test_the_next_facts_are_chained_to_those_before_them(ledger: Ledger) -> None:
    stream = uuid4()
    with log_transaction(ledger) as log:
        log.append([(envelopes(stream, *AUTHORIZED), NO_PREVIOUS)])
    with log_transaction(ledger) as log:
        loaded = log.load([stream])[stream]
        assert isinstance(loaded, Loaded)
        log.append([(envelopes(stream, *CAPTURED[-1:], after=len(AUTHORIZED)), loaded.tail)])
    assert ledger.load(stream).envelopes[-1].previous == loaded.tail


def test_what_is_interrupted_leaves_nothing_and_wakes_nobody(ledger: Ledger, rung: list[int]) -> None:
    def work(log: LogTransaction) -> None:
        log.conn.execute("INSERT INTO beside VALUES ('x')")
        log.append([(envelopes(uuid4(), *AUTHORIZED), NO_PREVIOUS)])
        raise Interrupted

    with pytest.raises(Interrupted), log_transaction(ledger) as log:
        work(log)
    assert (rung, read_all(ledger)) == ([], [])
    with log_transaction(ledger) as log:
        assert beside(log) == []


def test_an_append_goes_on_after_a_transaction_that_was_rolled_back(ledger: Ledger) -> None:
    """Then the driver has the session forget every statement that was prepared."""

    def look(log: LogTransaction) -> None:
        beside(log)
        raise Interrupted

    append(ledger)
    with pytest.raises(Interrupted), log_transaction(ledger) as log:
        look(log)
    append(ledger)
    assert len(read_all(ledger)) == 2


def test_a_version_that_is_taken_fails_the_whole(ledger: Ledger) -> None:
    taken, other = uuid4(), uuid4()
    ledger.append(envelopes(taken, *AUTHORIZED), NO_PREVIOUS)

    def store(log: LogTransaction) -> None:
        log.conn.execute("INSERT INTO beside VALUES ('x')")
        log.append([(envelopes(stream, *AUTHORIZED), NO_PREVIOUS) for stream in (taken, other)])

    with pytest.raises(StreamMoved), log_transaction(ledger) as log:
        store(log)
    assert ledger.load(other).envelopes == ()
    with log_transaction(ledger) as log:
        assert beside(log) == []


def test_a_connection_that_is_cut_is_told_as_such_and_the_next_works(ledger: Ledger) -> None:
    with pytest.raises(StoreUnavailable), log_transaction(ledger) as log:
        log.conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    append(ledger)


def test_a_stream_that_this_version_cannot_read_keeps_no_other_from_being_read(ledger: Ledger) -> None:
    known, strange = uuid4(), uuid4()
    with log_transaction(ledger) as log:
        log.append([(envelopes(known, *AUTHORIZED), NO_PREVIOUS)])
        log.conn.execute("INSERT INTO ledger_events VALUES (%s, 1, 'Tomorrow', '{}')", (strange,))
    with log_transaction(ledger) as log:
        found = log.load([known, strange])
    assert isinstance(found[known], Loaded)
    assert isinstance(found[strange], UnreadableFact)
