"""Producer ids and transactions: begin by enrolling partitions or offsets, end by commit, abort, fencing, or
by running out of time. Ending is one fact, so it happens in all partitions and groups, or in none.
"""

import asyncio
import logging
import time

from kafka.protocol.producer import (
    AddOffsetsToTxnResponse,
    AddPartitionsToTxnResponse,
    EndTxnResponse,
    InitProducerIdResponse,
    TxnOffsetCommitResponse,
)

from interface.sandbox import broker_batch
from interface.sandbox.broker_batch import NO_PRODUCER_ID, Batch
from interface.sandbox.broker_facts import (
    OffsetsEnrolled,
    PartitionsEnrolled,
    Place,
    ProducerRegistered,
    TransactionEnded,
)
from interface.sandbox.broker_membership import Groups
from interface.sandbox.broker_protocol import Code, Message, RefusedError
from interface.sandbox.broker_state import Store, Transaction

MAX_TRANSACTION_TIMEOUT_MS = 900_000
MAX_EPOCH = 32_766

_log = logging.getLogger(__name__)


class Transactions:
    """The transaction coordinator. `start` once the loop runs: an open transaction has what is left of its time."""

    def __init__(self, store: Store, groups: Groups) -> None:
        self._store = store
        self._groups = groups
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self) -> None:
        for transactional_id, transaction in self._store.transactions.items():
            if transaction.open:
                self._begin_timer(transactional_id, transaction)

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def check_enrolled(self, transactional_id: str | None, batch: Batch, place: Place) -> None:
        """May this batch be part of the open transaction? Raises RefusedError."""
        if transactional_id is None:
            raise RefusedError(Code.INVALID_TXN_STATE)
        if place not in self._holder(transactional_id, batch.producer_id, batch.epoch).places:
            raise RefusedError(Code.INVALID_TXN_STATE)

    async def init_producer_id(self, request: Message) -> Message:
        code, fact = Code.NONE, ProducerRegistered(-1, -1, None, 0)
        try:
            fact = self._decide_producer(request)
            if fact.transactional_id in self._store.transactions:
                self._fence(fact.transactional_id)
            self._store.record(fact)
        except RefusedError as refusal:
            code = refusal.code
        return InitProducerIdResponse(
            throttle_time_ms=0, error_code=code, producer_id=fact.producer_id, producer_epoch=fact.epoch
        )

    async def add_partitions(self, request: Message) -> Message:
        """All of the partitions are enrolled, or none."""
        transactional_id = request.v3_and_below_transactional_id
        wished: list[Place] = [
            (topic.name, index) for topic in request.v3_and_below_topics for index in topic.partitions
        ]
        code = Code.NONE
        try:
            transaction = self._holder(
                transactional_id, request.v3_and_below_producer_id, request.v3_and_below_producer_epoch
            )
            for place in wished:
                self._store.partition(place)
            if new := [place for place in wished if place not in transaction.places]:
                self._store.record(PartitionsEnrolled(transactional_id, new, _now_ms()))
                self._begin_timer(transactional_id, transaction)
        except RefusedError as refusal:
            code = refusal.code
        topic_result = AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult
        result = topic_result.AddPartitionsToTxnPartitionResult
        return AddPartitionsToTxnResponse(
            throttle_time_ms=0,
            results_by_topic_v3_and_below=[
                topic_result(
                    name=topic.name,
                    results_by_partition=[
                        result(partition_index=index, partition_error_code=code) for index in topic.partitions
                    ],
                )
                for topic in request.v3_and_below_topics
            ],
        )

    async def add_offsets(self, request: Message) -> Message:
        """Nothing to remember yet: the offsets themselves follow."""
        code = Code.NONE
        try:
            self._holder(request.transactional_id, request.producer_id, request.producer_epoch)
        except RefusedError as refusal:
            code = refusal.code
        return AddOffsetsToTxnResponse(throttle_time_ms=0, error_code=code)

    async def commit_offsets(self, request: Message) -> Message:
        code = Code.NONE
        try:
            holder = self._holder(request.transactional_id, request.producer_id, request.producer_epoch)
            self._groups.check_member(request.group_id, request.member_id, request.generation_id)
            offsets = [
                (topic.name, wish.partition_index, wish.committed_offset, wish.committed_metadata or "")
                for topic in request.topics
                for wish in topic.partitions
            ]
            for topic, partition, _, _ in offsets:
                self._store.partition((topic, partition))
            self._store.record(OffsetsEnrolled(request.transactional_id, request.group_id, offsets, _now_ms()))
            self._begin_timer(request.transactional_id, holder)
        except RefusedError as refusal:
            code = refusal.code
        answer = TxnOffsetCommitResponse.TxnOffsetCommitResponseTopic
        result = answer.TxnOffsetCommitResponsePartition
        return TxnOffsetCommitResponse(
            throttle_time_ms=0,
            topics=[
                answer(
                    name=topic.name,
                    partitions=[
                        result(partition_index=wish.partition_index, error_code=code) for wish in topic.partitions
                    ],
                )
                for topic in request.topics
            ],
        )

    async def end(self, request: Message) -> Message:
        """A client that repeats the request because the answer was lost hears the same again."""
        code = Code.NONE
        try:
            transaction = self._holder(request.transactional_id, request.producer_id, request.producer_epoch)
            if transaction.open:
                self._end(request.transactional_id, transaction.epoch, committed=bool(request.committed))
            elif transaction.committed != request.committed:
                code = Code.INVALID_TXN_STATE
        except RefusedError as refusal:
            code = refusal.code
        return EndTxnResponse(throttle_time_ms=0, error_code=code)

    def _holder(self, transactional_id: str, producer_id: int, epoch: int) -> Transaction:
        """Only the newest producer of a transactional id may act for it. Raises RefusedError."""
        transaction = self._store.transactions.get(transactional_id)
        if transaction is None or transaction.producer_id != producer_id:
            raise RefusedError(Code.INVALID_PRODUCER_ID_MAPPING)
        if transaction.epoch != epoch:
            raise RefusedError(Code.INVALID_PRODUCER_EPOCH)
        return transaction

    def _decide_producer(self, request: Message) -> ProducerRegistered:
        transactional_id, timeout_ms = request.transactional_id, request.transaction_timeout_ms
        if transactional_id is None:
            return ProducerRegistered(self._store.next_producer_id, 0, None, 0)
        if not transactional_id:
            raise RefusedError(Code.INVALID_REQUEST)
        if not 0 < timeout_ms <= MAX_TRANSACTION_TIMEOUT_MS:
            raise RefusedError(Code.INVALID_TRANSACTION_TIMEOUT)
        known = self._store.transactions.get(transactional_id)
        claimed = (request.producer_id, request.producer_epoch)
        if claimed[0] != NO_PRODUCER_ID and (known is None or claimed != (known.producer_id, known.epoch)):
            raise RefusedError(Code.PRODUCER_FENCED)
        if known is None or known.epoch >= MAX_EPOCH:
            return ProducerRegistered(self._store.next_producer_id, 0, transactional_id, timeout_ms)
        return ProducerRegistered(known.producer_id, known.epoch + 1, transactional_id, timeout_ms)

    def _end(self, transactional_id: str, epoch: int, *, committed: bool) -> None:
        transaction = self._store.transactions[transactional_id]
        if not transaction.open:
            return
        places = list(transaction.places)
        at_ms = _now_ms()
        markers = [
            broker_batch.marker(
                self._store.partition(place).end, transaction.producer_id, epoch, at_ms, committed=committed
            )
            for place in places
        ]
        self._store.record(TransactionEnded(transactional_id, epoch, committed, places, b"".join(markers)))
        timer = self._timers.pop(transactional_id, None)
        if timer is not None:
            timer.cancel()

    def _begin_timer(self, transactional_id: str, transaction: Transaction) -> None:
        if transactional_id not in self._timers:
            loop = asyncio.get_running_loop()
            left_ms = max(0, transaction.began_ms + transaction.timeout_ms - _now_ms())
            self._timers[transactional_id] = loop.call_later(left_ms / 1000, self._time_out, transactional_id)

    def _time_out(self, transactional_id: str) -> None:
        """Its producer is gone or stuck: abort, and fence it, so that nobody waits for it."""
        _log.warning("transaction %s ran out of time and is aborted", transactional_id)
        del self._timers[transactional_id]
        self._fence(transactional_id)

    def _fence(self, transactional_id: str) -> None:
        """Abort what the producer left open; it can do nothing under this epoch any more."""
        known = self._store.transactions[transactional_id]
        self._end(transactional_id, min(known.epoch + 1, MAX_EPOCH), committed=False)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
