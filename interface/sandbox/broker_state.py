"""What a broker knows, as the fold of its journal, and the one way to change it: store a fact, then fold it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, assert_never

from interface.sandbox import broker_batch
from interface.sandbox.broker_facts import (
    BatchAppended,
    Fact,
    OffsetsCommitted,
    OffsetsEnrolled,
    PartitionsEnrolled,
    Place,
    PlacedOffset,
    ProducerRegistered,
    TopicCreated,
    TopicDeleted,
    TransactionEnded,
)
from interface.sandbox.broker_journal import Journal
from interface.sandbox.broker_log import Partition
from interface.sandbox.broker_protocol import Code, RefusedError

JOURNAL = "broker.journal"


class Committed(NamedTuple):
    """A group's place in a partition, with the client's note about it."""

    offset: int
    note: str


@dataclass(slots=True)
class Topic:
    name: str
    configs: dict[str, str]
    partitions: list[Partition]


@dataclass(slots=True)
class Transaction:
    """A transactional id: who holds it, and what its open transaction has touched."""

    producer_id: int
    epoch: int
    timeout_ms: int
    places: dict[Place, None] = field(default_factory=dict)  # a set that keeps its order
    offsets: dict[str, list[PlacedOffset]] = field(default_factory=dict)
    began_ms: int = 0  # when the open one did, since 1970
    committed: bool | None = None  # how the last one ended, while none is open

    @property
    def open(self) -> bool:
        return bool(self.places or self.offsets)


class Store:
    """State and journal together. Open it with `Store(directory)`; a fact is durable before it counts."""

    def __init__(self, directory: Path) -> None:
        self.topics: dict[str, Topic] = {}
        self.transactions: dict[str, Transaction] = {}
        self.offsets: dict[str, dict[Place, Committed]] = {}
        self.next_producer_id = 1
        directory.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(directory / JOURNAL)
        self.read = self._journal.read
        self.close = self._journal.close
        try:
            for fact, end in self._journal.replay():
                self._fold(fact, end)
        except BaseException:
            self.close()
            raise
        for topic in self.topics.values():
            for partition in topic.partitions:
                partition.start_anew()

    def record(self, fact: Fact) -> None:
        """Store a fact, then fold it. Raises OSError, and then nothing has happened."""
        self._fold(fact, self._journal.append(fact))

    def partition(self, place: Place) -> Partition:
        """Raises RefusedError where there is none."""
        name, index = place
        topic = self.topics.get(name)
        if topic is None or not 0 <= index < len(topic.partitions):
            raise RefusedError(Code.UNKNOWN_TOPIC_OR_PARTITION)
        return topic.partitions[index]

    def _fold(self, fact: Fact, end: int) -> None:
        """`end` is the position after the fact's frame, where the bytes it carries end, too."""
        match fact:
            case TopicCreated(name, partitions, configs):
                self.topics[name] = Topic(name, configs, [Partition() for _ in range(partitions)])
            case TopicDeleted(name):
                self._delete(name)
            case BatchAppended(topic, partition, raw):
                batch = broker_batch.read(raw)
                self.topics[topic].partitions[partition].append(batch, end - len(raw))
            case ProducerRegistered():
                self._register(fact)
            case PartitionsEnrolled(transactional_id, places, at_ms):
                self._begun(transactional_id, at_ms).places.update(dict.fromkeys(places))
            case OffsetsEnrolled(transactional_id, group, offsets, at_ms):
                self._begun(transactional_id, at_ms).offsets.setdefault(group, []).extend(offsets)
            case TransactionEnded():
                self._end(fact, end)
            case OffsetsCommitted(group, offsets):
                self._commit(group, offsets)
            case _:
                assert_never(fact)

    def _register(self, fact: ProducerRegistered) -> None:
        self.next_producer_id = max(self.next_producer_id, fact.producer_id + 1)
        if fact.transactional_id is not None:
            self.transactions[fact.transactional_id] = Transaction(fact.producer_id, fact.epoch, fact.timeout_ms)

    def _begun(self, transactional_id: str, at_ms: int) -> Transaction:
        transaction = self.transactions[transactional_id]
        if not transaction.open:
            transaction.began_ms = at_ms
        return transaction

    def _end(self, fact: TransactionEnded, end: int) -> None:
        transaction = self.transactions[fact.transactional_id]
        size = broker_batch.MARKER_BYTES
        for at, (topic, partition) in enumerate(fact.places):
            marker = broker_batch.read(fact.markers[at * size : (at + 1) * size])
            position = end - len(fact.markers) + at * size
            self.topics[topic].partitions[partition].end_transaction(marker, position, committed=fact.committed)
        if fact.committed:
            for group, offsets in transaction.offsets.items():
                self._commit(group, offsets)
        transaction.places, transaction.offsets = {}, {}
        transaction.epoch, transaction.committed = fact.epoch, fact.committed

    def _commit(self, group: str, offsets: list[PlacedOffset]) -> None:
        kept = self.offsets.setdefault(group, {})
        for topic, partition, offset, note in offsets:
            if topic in self.topics:
                kept[topic, partition] = Committed(offset, note)

    def _delete(self, name: str) -> None:
        for partition in self.topics.pop(name).partitions:
            partition.wake()
        for kept in self.offsets.values():
            for place in [place for place in kept if place[0] == name]:
                del kept[place]
        for transaction in self.transactions.values():
            for place in [place for place in transaction.places if place[0] == name]:
                del transaction.places[place]
