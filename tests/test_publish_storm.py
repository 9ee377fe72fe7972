"""Facts are appended and published while publishers, their reader and the broker are killed with -9, by chance.

`make torture` appends 200,000 facts; the suite, a few (tests/torture.py). `make test-peers` has Apache Kafka killed.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Self

import pytest

from application.event_store import Ledger
from domain.envelope import NO_PREVIOUS
from interface.kafka import PUBLISHER
from tests.bench.lab import open_ledger
from tests.bench.payments import Shop
from tests.brokers import Broker, started_broker
from tests.careful_reader import Line, lines
from tests.processes import eventually
from tests.publisher_side import CHECKOUT, PublisherSide, beside, grouped
from tests.torture import SIZE, tell

VICTIMS = ("publisher", "broker", "reader")
# What each of them appends: the writers during the storm, and one more after it, so that the last reader has to read.
SHARE = SIZE.published_facts // (SIZE.writers + 1)
STOP_S = 30
# Four processes and a broker start, and each again: on a busy machine that takes a while.
PATIENCE_S = max(60, SIZE.patience_s)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with started_broker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def side(broker: Broker, database_url: str) -> Iterator[PublisherSide]:
    with beside(database_url, broker.address) as side:
        yield side


class Cast:
    """Two publishers, of which one stands by, and a reader: whoever is killed is replaced at once."""

    def __init__(self, side: PublisherSide, file: Path, chance: Random) -> None:
        self._side = side
        self._file = file
        self._chance = chance
        self._alive = ExitStack()
        self._publishers = [self._publisher(), self._publisher()]
        self._reader = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._alive.close()
        self._reader.kill()
        self._reader.wait(STOP_S)

    def kill_publisher(self) -> None:
        gone = self._publishers.pop(self._chance.randrange(2))
        gone.kill()
        gone.wait(STOP_S)
        self._publishers.append(self._publisher())

    def kill_reader(self) -> None:
        """Once it has read something in this life."""
        eventually(lambda: self._file.stat().st_size > self._read_before, PATIENCE_S)
        self._reader.kill()
        self._reader.wait(STOP_S)
        self._reader = self._read()

    def read(self) -> list[Line]:
        return list(lines(self._file))

    def _publisher(self) -> subprocess.Popen[str]:
        return self._alive.enter_context(self._side.process())

    def _read(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.careful_reader", self._side.kafka, self._side.topic, str(self._file)]
        self._file.touch()
        self._read_before = self._file.stat().st_size
        return subprocess.Popen(command, cwd=CHECKOUT)


def test_whatever_is_killed_a_reader_sees_each_fact_once_and_in_order(
    side: PublisherSide, broker: Broker, tmp_path: Path
) -> None:
    chance, victims = Random(SIZE.published_facts), list(VICTIMS * SIZE.kills)
    chance.shuffle(victims)
    with (
        open_ledger(side.side.url, SIZE.writers) as ledger,
        ThreadPoolExecutor(SIZE.writers) as pool,
        Cast(side, tmp_path / "read", chance) as cast,
    ):
        writing = [pool.submit(append, ledger, seed) for seed in range(SIZE.writers)]
        for number, victim in enumerate(victims):
            until_published(side, SIZE.writers * SHARE * (number + 1) // (len(victims) + 2), writing)
            if victim == "publisher":
                cast.kill_publisher()
            elif victim == "reader":
                cast.kill_reader()
            else:
                broker.kill()
                broker.start()
        appended = sum(written.result(PATIENCE_S) for written in writing) + append(ledger, SIZE.writers)
        with suppress(AssertionError):  # what it has read instead says more
            eventually(lambda: len(cast.read()) >= appended, PATIENCE_S)
        read = cast.read()

    assert grouped((line.key, line.position) for line in read) == side.log()
    assert len({(line.partition, line.offset) for line in read}) == len(read) == appended
    tell(facts=appended, kills=len(victims))


def append(ledger: Ledger, seed: int) -> int:
    """Payments of this writer, as many facts as fall to it; how many it has appended."""
    shop, appended = Shop(seed), 0
    while appended < SHARE:
        facts = shop.payment()
        begun = ledger.append(facts[:1], NO_PREVIOUS)
        ledger.append(facts[1:], begun.tail)
        appended += len(facts)
    return appended


def until_published(side: PublisherSide, facts: int, writing: Sequence["Future[int]"]) -> None:
    """Wait until a publisher has sent so many. Raises what a writer came to."""

    def sent() -> bool:
        for written in writing:
            if written.done():
                written.result()
        return side.side.checkpoint(PUBLISHER) >= facts

    eventually(sent, PATIENCE_S)
