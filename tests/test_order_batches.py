"""What the consumer makes of what it has read: bounded batches, and smaller ones where something is in the way."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from types import SimpleNamespace

import psycopg
import pytest
from kafka import TopicPartition

from application.event_store import Ledger, StreamMoved
from application.order_intake import OrderIntake
from application.order_messages import Message
from application.order_offsets import Counts, Move
from interface.kafka.order_places import Places
from interface.kafka.orders_consumer import MAX_BATCH_BYTES, OrdersConsumer, Source, batches
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from tests.order_intake_side import NOON, OrderSide, created
from tests.test_order_places import Partition, settled


@pytest.fixture(scope="module")
def log(postgres: Postgres) -> Iterator[Ledger]:
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE order_batches")
    url = postgres.url.rpartition("/")[0] + "/order_batches"
    migrate(url)
    with Ledger(url) as ledger:
        yield ledger


class Reluctant(OrderIntake):
    """An intake that fails with some messages in the batch, as often as told."""

    def __init__(self, side: OrderSide, error: Exception, offsets: set[int], times: int) -> None:
        self._side, self._error, self._offsets, self._times = side.intake, error, offsets, times
        self.sizes: list[int] = []

    def take(self, messages: Sequence[Message], moves: Sequence[Move], now: datetime) -> Counts:
        self.sizes.append(len(messages))
        if self._times and self._offsets & {message.offset for message in messages}:
            self._times -= 1
            raise self._error
        return self._side.take(messages, moves, now)

    def refuse(self, message: Message, move: Move, reason: str, now: datetime) -> Counts:
        return self._side.refuse(message, move, reason, now)


def test_what_fails_for_no_known_reason_parks_alone(log: Ledger) -> None:
    side, places, messages = eight(log)
    reluctant = Reluctant(side, ValueError("secret"), {5}, times=100)
    consumer(log, side, reluctant)._store(messages, places)
    assert reluctant.sizes == [8, 4, 4, 2, 1, 1, 2]
    assert [(one.message_offset, one.reason) for one in side.parked()] == [(5, "it fails with ValueError")]
    assert [bool(side.order(f"{side.topic}-{number}")) for number in range(8)] == [True] * 5 + [False] + [True] * 2
    assert side.offset() == places.next[0] == 8


def test_a_batch_that_others_get_in_the_way_of_is_done_again_and_then_in_halves(log: Ledger) -> None:
    side, places, messages = eight(log)
    reluctant = Reluctant(side, StreamMoved(), {5}, times=4)
    consumer(log, side, reluctant)._store(messages, places)
    assert reluctant.sizes == [8, 8, 8, 4, 4, 4]
    assert (side.parked(), side.offset()) == ([], 8)


def test_an_order_that_others_get_in_the_way_of_for_ever_is_not_parked(log: Ledger) -> None:
    side, places, messages = eight(log)
    with pytest.raises(StreamMoved):
        consumer(log, side, Reluctant(side, StreamMoved(), {5}, times=100))._store(messages, places)
    assert (side.parked(), side.offset(), places.next) == ([], 5, {0: 5})


def test_a_batch_has_a_bounded_size_and_only_what_is_wanted() -> None:
    half = b"x" * (MAX_BATCH_BYTES // 2)
    polled = {
        TopicPartition("orders", number): [record(number, offset, half) for offset in range(3)] for number in (0, 1)
    }
    found = [[(one.partition, one.offset) for one in batch] for batch in batches(polled, {0: 0})]
    assert found == [[(0, 0), (0, 1)], [(0, 2)]]
    assert [len(batch) for batch in batches(polled, {0: 0, 1: 0})] == [2, 2, 2]


def eight(log: Ledger) -> tuple[OrderSide, Places, list[Message]]:
    """New orders, each with a message, of a partition that is taken up."""
    side = OrderSide(log)
    places = settled(log, Partition(side.topic, None, 0, 8))
    return side, places, side.placed(created(f"{side.topic}-{number}") for number in range(8))


def consumer(log: Ledger, side: OrderSide, intake: OrderIntake) -> OrdersConsumer:
    return OrdersConsumer(Source("nowhere:1", side.topic, "a test"), log, intake, lambda: NOON, "a test")


def record(partition: int, offset: int, value: bytes) -> SimpleNamespace:
    return SimpleNamespace(
        topic="orders", partition=partition, offset=offset, key=None, value=value, headers=[("a", None)]
    )
