"""One partition: where its batches lie in the journal, what its producers sent last, and which transactions
are open or were aborted in it. The records themselves stay in the file.
"""

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from interface.sandbox.broker_batch import NO_PRODUCER_ID, Batch, follows
from interface.sandbox.broker_protocol import Code, RefusedError

REMEMBERED_BATCHES = 5  # a client has at most five requests in flight, and may repeat each of them
MAX_PRODUCERS = 10_000


class Span(NamedTuple):
    """Bytes of the journal."""

    position: int
    size: int


class Aborted(NamedTuple):
    """An aborted transaction: its first record and its marker."""

    producer_id: int
    first_offset: int
    last_offset: int


class _Sent(NamedTuple):
    first_sequence: int
    last_sequence: int
    offset: int


@dataclass(slots=True)
class _Producer:
    epoch: int
    sent: deque[_Sent] = field(default_factory=lambda: deque(maxlen=REMEMBERED_BATCHES))


class Partition:
    """The index of one partition. `append` and `end_transaction` fold what is stored; they never refuse."""

    def __init__(self) -> None:
        self.end = 0
        self._firsts = array("q")
        self._positions = array("q")
        self._sizes = array("q")
        self._timestamps = array("q")
        self._producers: dict[int, _Producer] = {}
        self._open: dict[int, int] = {}
        self._aborted: list[Aborted] = []
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def last_stable(self) -> int:
        """A read_committed consumer sees what lies before it: no transaction is open there."""
        return min(self._open.values(), default=self.end)

    def admit(self, batch: Batch) -> int | None:
        """May this batch be appended? None if so, its first offset if it was before. Raises RefusedError."""
        if batch.producer_id == NO_PRODUCER_ID:
            return None
        known = self._producers.get(batch.producer_id)
        if known is None or known.epoch < batch.epoch:
            if batch.base_sequence != 0:
                code = Code.UNKNOWN_PRODUCER_ID if known is None else Code.OUT_OF_ORDER_SEQUENCE_NUMBER
                raise RefusedError(code)
            return None
        if batch.epoch < known.epoch:
            raise RefusedError(Code.INVALID_PRODUCER_EPOCH)
        for sent in known.sent:
            if (sent.first_sequence, sent.last_sequence) == (batch.base_sequence, batch.last_sequence):
                return sent.offset
        last = known.sent[-1].last_sequence if known.sent else -1
        if not follows(batch.base_sequence, last):
            raise RefusedError(Code.OUT_OF_ORDER_SEQUENCE_NUMBER)
        return None

    def append(self, batch: Batch, position: int) -> None:
        if batch.producer_id != NO_PRODUCER_ID:
            sent = _Sent(batch.base_sequence, batch.last_sequence, batch.base_offset)
            self._producer(batch.producer_id, batch.epoch).sent.append(sent)
            if batch.transactional:
                self._open.setdefault(batch.producer_id, batch.base_offset)
        self._index(batch, position)

    def end_transaction(self, marker: Batch, position: int, *, committed: bool) -> None:
        first = self._open.pop(marker.producer_id, None)
        if first is not None and not committed:
            self._aborted.append(Aborted(marker.producer_id, first, marker.base_offset))
        self._producer(marker.producer_id, marker.epoch)
        self._index(marker, position)

    def start_anew(self) -> None:
        """Know of each producer what a broker knows after a restart: its last batch alone.

        Kafka's snapshots of producers hold no more, so a client that repeats an earlier one is refused.
        """
        for producer in self._producers.values():
            while len(producer.sent) > 1:
                producer.sent.popleft()

    def spans(self, offset: int, before: int, max_bytes: int) -> tuple[list[Span], int]:
        """Stored batches from `offset` on, and the offset after the last of them.

        The first batch may begin before `offset` (a client skips what it did not ask for) and is given even
        if it is larger than `max_bytes`: else a consumer would never get past it.
        """
        found: list[Span] = []
        reached, total = offset, 0
        begin = max(bisect_right(self._firsts, offset) - 1, 0) if offset < self.end else len(self._firsts)
        for at in range(begin, bisect_left(self._firsts, before)):
            total += self._sizes[at]
            if found and total > max_bytes:
                break
            found.append(Span(self._positions[at], self._sizes[at]))
            reached = self._firsts[at + 1] if at + 1 < len(self._firsts) else self.end
        return found, reached

    def aborted_between(self, offset: int, reached: int) -> list[Aborted]:
        """Aborted transactions with records in the range; a consumer drops those records."""
        begin = bisect_left(self._aborted, offset, key=lambda aborted: aborted.last_offset)
        return [aborted for aborted in self._aborted[begin:] if aborted.first_offset < reached]

    def since(self, timestamp_ms: int) -> Span | None:
        """The first batch that holds a record as young as this, or younger."""
        for at, latest in enumerate(self._timestamps):
            if latest >= timestamp_ms:
                return Span(self._positions[at], self._sizes[at])
        return None

    def watch(self, waiting: asyncio.Future[None]) -> None:
        self._waiting.add(waiting)

    def unwatch(self, waiting: asyncio.Future[None]) -> None:
        self._waiting.discard(waiting)

    def wake(self) -> None:
        """Somebody who waits for this partition has something to read."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _producer(self, producer_id: int, epoch: int) -> _Producer:
        known = self._producers.get(producer_id)
        if known is None or known.epoch < epoch:
            known = self._producers[producer_id] = _Producer(epoch)
            if len(self._producers) > MAX_PRODUCERS + len(self._open):
                oldest = next(old for old in self._producers if old not in self._open)
                del self._producers[oldest]
        return known

    def _index(self, batch: Batch, position: int) -> None:
        self._firsts.append(batch.base_offset)
        self._positions.append(position)
        self._sizes.append(len(batch.raw))
        self._timestamps.append(batch.max_timestamp_ms)
        self.end = batch.next_offset
        self.wake()
