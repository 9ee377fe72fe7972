"""Where a consumer of the orders stands in each of its partitions, as the database says.

A partition that comes to us is held until that is known. One that cannot be gone on with halts and says so: what comes
next is not there any more, or the topic is another one by the same name. Nothing is skipped without a person's word.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from kafka import ConsumerRebalanceListener, TopicPartition

from application.event_store import Ledger
from application.log_transaction import log_transaction
from application.order_messages import Message
from application.order_offsets import Move, Standing, begin, know, report, stand

log = logging.getLogger(__name__)

# How often a halted partition is looked at again, and how far behind the others are is told.
LOOK_S = 5.0
NO_ID = UUID(int=0)


class Places(ConsumerRebalanceListener):  # type: ignore[misc]  # the library ships no types
    """Of one member of the group. The group's calls come while the consumer is polled, so nothing here is locked."""

    def __init__(self, consumer: Any, topic: str, worker: str, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        """`worker`: who and where we are, for those who look at the database."""
        self._consumer = consumer
        self._topic = topic
        self._worker = worker
        self._ledger = ledger
        self._clock = clock
        self._topic_id: UUID | None = None
        self._unplaced: set[int] = set()
        self._halted: dict[int, str] = {}
        self._looked_s = time.monotonic()
        # Of the partitions that are read: the next offset.
        self.next: dict[int, int] = {}

    # --- Told by the group ---------------------------------------------------------------------------------------

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # It runs among the heartbeats, so it must not ask anybody. A place that is not fetched from is as good as any.
        for partition in assigned:
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)
        self._unplaced = {partition.partition for partition in assigned}
        self._halted = {}
        self.next = {}

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        for partition in revoked:
            self._unplaced.discard(partition.partition)
            self._halted.pop(partition.partition, None)
            self.next.pop(partition.partition, None)

    # --- Placed --------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Take up the partitions that are held. Raises StoreUnavailable and KafkaError."""
        if not self._unplaced:
            return
        partitions = self._named(sorted(self._unplaced))
        oldest = {place.partition: offset for place, offset in self._consumer.beginning_offsets(partitions).items()}
        newest = {place.partition: offset for place, offset in self._consumer.end_offsets(partitions).items()}
        self._topic_id = self._current_id()
        with log_transaction(self._ledger) as transaction:
            standing = begin(transaction.conn, self._topic, self._topic_id, oldest, self._clock())
            wrong = {n: self._wrong(stands, oldest[n], newest[n]) for n, stands in standing.items()}
            halted = {number: reason for number, reason in wrong.items() if reason}
            stand(transaction.conn, self._topic, self._worker, wrong)
            if self._topic_id:
                know(transaction.conn, self._topic, self._topic_id, [n for n in standing if n not in halted])
        self._tell(halted, standing)
        self._go_on([place for place in partitions if place.partition not in halted], standing)
        self._unplaced = set()

    def _go_on(self, partitions: Sequence[TopicPartition], standing: dict[int, Standing]) -> None:
        for place in partitions:
            self.next[place.partition] = standing[place.partition].next_offset
            self._consumer.seek(place, self.next[place.partition])
            self._consumer.resume(place)
        if partitions:
            numbers = ", ".join(str(place.partition) for place in partitions)
            log.info("the consumer of %s takes up partitions %s", self._topic, numbers)

    def forget(self) -> None:
        """Hold everything until it is known again where it stands."""
        assigned = self._consumer.assignment()
        self._consumer.pause(*assigned)
        self._unplaced = {partition.partition for partition in assigned}
        self.next = {}

    def halt(self, reason: str) -> None:
        """Say that nothing is gone on with, and hold everything. Raises StoreUnavailable."""
        numbers = list(self.next)
        self.forget()
        with log_transaction(self._ledger) as transaction:
            stand(transaction.conn, self._topic, self._worker, dict.fromkeys(numbers, reason))

    def are_of_this_topic(self) -> bool:
        """Whether what was read is of the topic that the offsets are of; if not, everything is held."""
        if self._current_id() == self._topic_id:
            return True
        self.forget()
        return False

    def look(self) -> None:
        """Now and then: whether what is halted can be gone on with, and how far behind the rest is."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        self._unplaced |= self._halted.keys() - self.next.keys()
        if self.next:
            lags = {number: self._lag(number, after) for number, after in self.next.items()}
            with log_transaction(self._ledger) as transaction:
                report(transaction.conn, self._topic, lags, self._clock())

    # --- Moved ---------------------------------------------------------------------------------------------------

    def moves(self, messages: Sequence[Message]) -> list[Move]:
        """From where each partition stands to behind the last of these messages, which come in their order."""
        after = {message.partition: message.offset + 1 for message in messages}
        return [
            Move(self._topic, number, self.next[number], after[number], self._lag(number, after[number]))
            for number in sorted(after)
        ]

    def moved(self, moves: Sequence[Move]) -> None:
        """They have been stored."""
        for move in moves:
            self.next[move.partition] = move.after

    # --- Helpers -------------------------------------------------------------------------------------------------

    def _wrong(self, stands: Standing, oldest: int, newest: int) -> str | None:
        """Why a partition cannot be gone on with, if it cannot."""
        after = stands.next_offset
        if stands.topic_id and self._topic_id and stands.topic_id != self._topic_id:
            return f"the topic was made anew: it is {self._topic_id}, not {stands.topic_id}"
        if after < oldest:
            return f"messages {after} to {oldest - 1} are gone and have not been read"
        if after > newest:
            return f"the topic ends at {newest}, but was read up to {after}: it was made anew, or cut"
        return None

    def _tell(self, halted: dict[int, str], standing: dict[int, Standing]) -> None:
        for number, reason in halted.items():
            if self._halted.get(number) != reason:
                log.critical("partition %d of %s HALTS: %s", number, self._topic, reason)
        self._halted = {number: why for number, why in self._halted.items() if number not in standing} | halted

    def _lag(self, number: int, after: int) -> int:
        return max(0, (self._consumer.highwater(TopicPartition(self._topic, number)) or 0) - after)

    def _current_id(self) -> UUID | None:
        # There is no public way to it.
        found = self._consumer._cluster.topic_id(self._topic)  # noqa: SLF001
        return found if isinstance(found, UUID) and found != NO_ID else None

    def _named(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in numbers]
