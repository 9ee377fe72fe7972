"""Writers that come together are written together, and none of them pays for another's mistake."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from psycopg.conninfo import make_conninfo

from application.event_store import Ledger, Loaded, StreamMoved
from application.group_commit import MAX_GROUPS, MAX_TOGETHER, GroupCommit
from domain.envelope import NO_PREVIOUS
from interface.sandbox.postgres import Postgres
from tests.given import AUTHORIZED, CAPTURED
from tests.test_event_store import ALL, envelopes, read_all
from tests.unreliable_network import UnreliableNetwork

PATIENCE_S = 30.0
LOOK_S = 0.001


class Refused(Exception):  # noqa: N818  it says what happened
    pass


class NobodyKnows(Exception):  # noqa: N818  it says what is so
    pass


def until(true: Callable[[], bool]) -> None:
    """Wait for what only another thread can make true."""
    for _ in range(int(PATIENCE_S / LOOK_S)):
        if true():
            return
        threading.Event().wait(LOOK_S)
    raise AssertionError("it never became true")


class Store:
    """Writes numbers. The first groups wait at the door until it is opened, so that others can come meanwhile."""

    def __init__(self, *bad: int, error: type[Exception] = Refused) -> None:
        self.groups = list[list[int]]()
        self.door = threading.Event()
        self.inside = threading.Semaphore(0)
        self._bad = bad
        self._error = error
        self.together = GroupCommit(self.write, unknown=NobodyKnows)

    def write(self, numbers: Sequence[int]) -> Sequence[str]:
        self.groups.append(list(numbers))
        self.inside.release()
        assert self.door.wait(PATIENCE_S)
        if set(self._bad) & set(numbers):
            raise self._error
        return [f"wrote {number}" for number in numbers]

    def filled(self, pool: ThreadPoolExecutor, numbers: Sequence[int]) -> list[Future[str]]:
        """Every place is taken by one writer each, and these wait behind them."""
        first = [pool.submit(self.together.do, -place) for place in range(1, MAX_GROUPS + 1)]
        for _ in first:
            assert self.inside.acquire(timeout=PATIENCE_S)
        waiting = []
        for number in numbers:  # one after the other, so that their order is known
            waiting.append(pool.submit(self.together.do, number))
            until(lambda: len(self.together._waiting) == len(waiting))
        return [*first, *waiting]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MAX_TOGETHER + MAX_GROUPS + 8) as pool:
        yield pool


def test_who_comes_alone_is_written_alone() -> None:
    store = Store()
    store.door.set()
    assert [store.together.do(number) for number in (1, 2, 3)] == ["wrote 1", "wrote 2", "wrote 3"]
    assert store.groups == [[1], [2], [3]]


def test_those_who_wait_are_written_together_and_each_gets_its_own_answer(pool: ThreadPoolExecutor) -> None:
    store = Store()
    answers = store.filled(pool, range(10))
    store.door.set()
    assert [answer.result(PATIENCE_S) for answer in answers[MAX_GROUPS:]] == [f"wrote {n}" for n in range(10)]
    assert sorted(n for group in store.groups for n in group if n >= 0) == list(range(10)), "each once"
    assert len(store.groups) <= 2 * MAX_GROUPS


def test_a_group_has_an_end(pool: ThreadPoolExecutor) -> None:
    store = Store()
    answers = store.filled(pool, range(MAX_TOGETHER + 5))
    store.door.set()
    for answer in answers:
        answer.result(PATIENCE_S)
    assert max(map(len, store.groups)) == MAX_TOGETHER


def test_a_refusal_is_only_for_whom_it_is_meant(pool: ThreadPoolExecutor) -> None:
    store = Store(3)
    answers = store.filled(pool, range(8))[MAX_GROUPS:]
    store.door.set()
    with pytest.raises(Refused):
        answers[3].result(PATIENCE_S)
    others = [answer.result(PATIENCE_S) for number, answer in enumerate(answers) if number != 3]
    assert others == [f"wrote {number}" for number in range(8) if number != 3]


def test_when_nobody_knows_what_was_written_nobody_writes_again(pool: ThreadPoolExecutor) -> None:
    store = Store(*range(100), error=NobodyKnows)
    answers = store.filled(pool, range(8))[MAX_GROUPS:]
    store.door.set()
    for answer in answers:
        with pytest.raises(NobodyKnows):
            answer.result(PATIENCE_S)
    assert sorted(n for group in store.groups for n in group if n >= 0) == list(range(8)), "each was sent once"


@pytest.mark.parametrize("error", [Refused, NobodyKnows])
def test_a_failure_leaves_no_place_taken(pool: ThreadPoolExecutor, error: type[Exception]) -> None:
    store = Store(1, error=error)
    store.door.set()
    for _ in range(MAX_GROUPS + 1):
        with pytest.raises(error):
            store.together.do(1)
    assert pool.submit(store.together.do, 2).result(PATIENCE_S) == "wrote 2"


# --- In the log --------------------------------------------------------------------------------------------------


def at_once(pool: ThreadPoolExecutor, ledger: Ledger, streams: Sequence[UUID]) -> list[Future[Loaded]]:
    """All of these begin at the same moment."""
    start = threading.Barrier(len(streams))

    def append(stream: UUID) -> Loaded:
        start.wait(PATIENCE_S)
        return ledger.append(envelopes(stream, *AUTHORIZED), NO_PREVIOUS)

    return [pool.submit(append, stream) for stream in streams]


def groups_of(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, come: int) -> list[int]:
    """How many rows each insert had, as they happen. The first ones wait until so many appends have come."""
    sizes, insert = list[int](), ledger.recorder._insert_once
    have_come = threading.Event()  # whoever sees it goes on, and takes of those that wait

    def counted(rows: Sequence[StoredEvent]) -> list[int]:
        sizes.append(len(rows))
        if len(sizes) <= MAX_GROUPS:
            until(lambda: have_come.is_set() or len(ledger._together._waiting) == come - MAX_GROUPS)
            have_come.set()
        return insert(rows)

    monkeypatch.setattr(ledger.recorder, "_insert_once", counted)
    return sizes


def test_streams_appended_together_are_each_as_if_alone(
    pool: ThreadPoolExecutor, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = groups_of(ledger, monkeypatch, MAX_TOGETHER)
    streams = [uuid4() for _ in range(MAX_TOGETHER)]
    stored = [append.result(PATIENCE_S) for append in at_once(pool, ledger, streams)]
    assert max(sizes) > len(AUTHORIZED), "they were together"
    assert [ledger.load(stream) for stream in streams] == stored
    assert sorted(e.position for s in stored for e in s.envelopes if e.position) == read_all(ledger)
    for loaded in stored:
        first, second = (envelope.position or 0 for envelope in loaded.envelopes)
        assert 0 < first < second


def test_of_a_group_in_which_one_version_is_taken_all_others_are_stored(
    pool: ThreadPoolExecutor, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [uuid4() for _ in range(MAX_TOGETHER)]
    taken = streams[::7]
    for stream in taken:
        ledger.append(envelopes(stream, *CAPTURED, actor="somebody else"), NO_PREVIOUS)
    sizes = groups_of(ledger, monkeypatch, MAX_TOGETHER)
    refused = [
        stream
        for stream, append in zip(streams, at_once(pool, ledger, streams), strict=True)
        if isinstance(append.exception(PATIENCE_S), StreamMoved)
    ]
    assert refused == taken
    assert max(sizes) > len(AUTHORIZED), "they were together"
    assert {row.originator_id for row in ledger.read(0, ALL)} == set(streams)
    assert len(read_all(ledger)) == len(taken) * len(CAPTURED) + (len(streams) - len(taken)) * len(AUTHORIZED)


def test_a_group_whose_reply_was_lost_ends_with_its_positions(
    pool: ThreadPoolExecutor, ledger: Ledger, database_url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with UnreliableNetwork(postgres.port) as network, Ledger(make_conninfo(database_url, port=network.port)) as remote:
        sizes = groups_of(remote, monkeypatch, MAX_TOGETHER)
        streams = [uuid4() for _ in range(MAX_TOGETHER)]
        network.lose("reply", b"AuthorizationStarted", times=2)
        stored = [append.result(PATIENCE_S) for append in at_once(pool, remote, streams)]
        assert network.lost == 2, "the replies were to be lost"
        assert max(sizes) > len(AUTHORIZED), "they were together"
    assert [ledger.load(stream) for stream in streams] == stored
    assert len(read_all(ledger)) == len(streams) * len(AUTHORIZED), "each was stored once"
