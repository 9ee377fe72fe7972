"""Where a consumer takes a partition up, and when it rather halts: against a consumer that answers as it is told."""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from kafka import TopicPartition

from application.event_store import Ledger
from application.log_transaction import log_transaction
from application.order_offsets import Move, advance, halted, restart
from interface.kafka.order_places import Places
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from tests.order_intake_side import NOON

FIRST, SECOND = UUID(int=1), UUID(int=2)


class Partition:
    """What of Kafka's client places a partition: there is one, of a topic with an id, from one offset to another."""

    def __init__(self, topic: str, topic_id: UUID | None, oldest: int, newest: int) -> None:
        self.place = TopicPartition(topic, 0)
        self.held, self.at = False, -1
        self.topic_id_now, self.oldest, self.newest = topic_id, oldest, newest
        self._cluster = self

    def topic_id(self, _: str) -> UUID | None:
        return self.topic_id_now

    def assignment(self) -> set[TopicPartition]:
        return {self.place}

    def pause(self, *_: TopicPartition) -> None:
        self.held = True

    def resume(self, *_: TopicPartition) -> None:
        self.held = False

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.oldest)

    def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.newest)

    def highwater(self, _: TopicPartition) -> int:
        return self.newest


@pytest.fixture(scope="module")
def log(postgres: Postgres) -> Iterator[Ledger]:
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE order_places")
    url = postgres.url.rpartition("/")[0] + "/order_places"
    migrate(url)
    with Ledger(url) as ledger:
        yield ledger


@pytest.fixture
def topic() -> str:
    return f"orders-{uuid4().hex[:8]}"


def settled(log: Ledger, partition: Partition) -> Places:
    """Of a consumer that the group has just given the partition."""
    places = Places(partition, partition.place.topic, "a test", log, lambda: NOON)
    places.on_partitions_assigned([partition.place])
    assert partition.held
    places.settle()
    return places


def read_up_to(log: Ledger, topic: str, offset: int, topic_id: UUID | None = FIRST) -> None:
    """By whoever had the partition before."""
    settled(log, Partition(topic, topic_id, 0, offset))
    with log_transaction(log) as transaction:
        advance(transaction.conn, [Move(topic, 0, 0, offset, 0)], Counter(), NOON)


def reasons(log: Ledger, topic: str) -> list[str]:
    with log_transaction(log) as transaction:
        return [one.reason for one in halted(transaction.conn) if one.topic == topic]


def test_a_partition_that_is_new_begins_at_its_oldest_message(log: Ledger, topic: str) -> None:
    partition = Partition(topic, FIRST, 7, 20)
    assert settled(log, partition).next == {0: 7}
    assert (partition.held, partition.at) == (False, 7)


def test_a_partition_goes_on_where_the_database_says(log: Ledger, topic: str) -> None:
    read_up_to(log, topic, 9)
    partition = Partition(topic, FIRST, 0, 20)
    assert settled(log, partition).next == {0: 9}
    assert (partition.held, partition.at) == (False, 9)


@pytest.mark.parametrize(
    ("partition_now", "reason"),
    [
        ((SECOND, 0, 20), f"the topic was made anew: it is {SECOND}, not {FIRST}"),
        ((FIRST, 12, 20), "messages 9 to 11 are gone and have not been read"),
        ((FIRST, 0, 5), "the topic ends at 5, but was read up to 9: it was made anew, or cut"),
    ],
)
def test_a_partition_halts_rather_than_skip_anything(
    log: Ledger, topic: str, partition_now: tuple[UUID, int, int], reason: str
) -> None:
    read_up_to(log, topic, 9)
    partition = Partition(topic, *partition_now)
    places = settled(log, partition)
    assert (places.next, partition.held) == ({}, True)
    assert reasons(log, topic) == [reason]


def test_a_halted_partition_begins_anew_when_somebody_says_so_and_that_is_kept(log: Ledger, topic: str) -> None:
    read_up_to(log, topic, 9)
    partition = Partition(topic, SECOND, 12, 20)
    places = settled(log, partition)
    with log_transaction(log) as transaction:
        assert restart(transaction.conn, topic, 0, "ada", "it was us", NOON)
    places._looked_s = float("-inf")
    places.look()
    places.settle()
    assert (places.next, partition.held, reasons(log, topic)) == ({0: 12}, False, [])
    with log_transaction(log) as transaction:
        query = "SELECT message_offset, discarded_by, why FROM discarded_orders WHERE topic = %s"
        assert transaction.conn.execute(query, (topic,)).fetchall() == [(9, "ada", "it was us")]
        assert not restart(transaction.conn, topic, 0, "ada", "again", NOON)


def test_a_partition_that_halted_for_a_moment_goes_on_by_itself(log: Ledger, topic: str) -> None:
    read_up_to(log, topic, 9)
    partition = Partition(topic, FIRST, 0, 5)  # a broker that is still coming up
    places = settled(log, partition)
    partition.newest = 9
    places._looked_s = float("-inf")
    places.look()
    places.settle()
    assert (places.next, partition.held, reasons(log, topic)) == ({0: 9}, False, [])


def test_what_was_read_of_another_topic_by_the_same_name_is_not_stored(log: Ledger, topic: str) -> None:
    partition = Partition(topic, FIRST, 0, 20)
    places = settled(log, partition)
    assert places.are_of_this_topic()
    partition.topic_id_now = SECOND
    assert not places.are_of_this_topic()
    assert (places.next, partition.held) == ({}, True)
    places.settle()
    assert reasons(log, topic) == [f"the topic was made anew: it is {SECOND}, not {FIRST}"]


def test_a_partition_that_was_begun_without_the_topics_id_learns_it(log: Ledger, topic: str) -> None:
    read_up_to(log, topic, 9, topic_id=None)
    settled(log, Partition(topic, FIRST, 0, 20))
    settled(log, Partition(topic, SECOND, 0, 20))
    assert reasons(log, topic) == [f"the topic was made anew: it is {SECOND}, not {FIRST}"]


def test_a_partition_that_is_given_to_another_is_let_go(log: Ledger, topic: str) -> None:
    partition = Partition(topic, FIRST, 0, 20)
    places = settled(log, partition)
    places.on_partitions_revoked([partition.place])
    assert places.next == {}
