"""Requests about records: produce, fetch, and the offsets at which a partition begins, ends, or has a date."""

import asyncio
from collections.abc import Iterable

from kafka.errors import UnsupportedCodecError
from kafka.protocol.consumer import FetchResponse, ListOffsetsResponse, OffsetForLeaderEpochResponse
from kafka.protocol.producer import ProduceResponse
from kafka.record.default_records import DefaultRecordBatch

from interface.sandbox import broker_batch
from interface.sandbox.broker_facts import BatchAppended, Place
from interface.sandbox.broker_log import Partition
from interface.sandbox.broker_protocol import Code, Message, RefusedError
from interface.sandbox.broker_state import Store
from interface.sandbox.broker_topics import batch_limit_bytes
from interface.sandbox.broker_transactions import Transactions

MAX_FETCH_WAIT_S = 60.0
LATEST, EARLIEST = -1, -2  # in place of a timestamp
_NO_ACKS, _ACKS = 0, (-1, 0, 1)


class Records:
    """Answers requests about records."""

    def __init__(self, store: Store, transactions: Transactions) -> None:
        self._store = store
        self._transactions = transactions

    async def produce(self, request: Message) -> Message | None:
        """None where the client wants no answer."""
        answer = ProduceResponse.TopicProduceResponse
        responses = [
            answer(
                name=topic.name,
                partition_responses=[
                    self._produce_one(request, (topic.name, partition.index), bytes(partition.records or b""))
                    for partition in topic.partition_data
                ],
            )
            for topic in request.topic_data
        ]
        return None if request.acks == _NO_ACKS else ProduceResponse(responses=responses, throttle_time_ms=0)

    async def fetch(self, request: Message) -> Message:
        """Answers as soon as there is enough to read, and after the client's patience in any case."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(request.max_wait_ms / 1000, MAX_FETCH_WAIT_S)
        while True:
            fetched = _Fetched(self._store, request)
            left_s = deadline - loop.time()
            if fetched.enough or left_s <= 0:
                return fetched.answer
            await _change(fetched.partitions, left_s)

    async def list_offsets(self, request: Message) -> Message:
        answer = ListOffsetsResponse.ListOffsetsTopicResponse
        committed_only = request.isolation_level == 1
        return ListOffsetsResponse(
            throttle_time_ms=0,
            topics=[
                answer(
                    name=topic.name,
                    partitions=[
                        self._offset_at(
                            (topic.name, wish.partition_index), wish.timestamp, committed_only=committed_only
                        )
                        for wish in topic.partitions
                    ],
                )
                for topic in request.topics
            ],
        )

    async def leader_epochs(self, request: Message) -> Message:
        """There is one leader and one epoch, which ends where the partition does."""
        answer = OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult
        return OffsetForLeaderEpochResponse(
            throttle_time_ms=0,
            topics=[
                answer(
                    topic=topic.topic,
                    partitions=[self._epoch_end((topic.topic, wish.partition)) for wish in topic.partitions],
                )
                for topic in request.topics
            ],
        )

    def _produce_one(self, request: Message, place: Place, raw: bytes) -> Message:
        code, offset = Code.NONE, -1
        try:
            offset = self._append(request, place, raw)
        except RefusedError as refusal:
            code = refusal.code
        return ProduceResponse.TopicProduceResponse.PartitionProduceResponse(
            index=place[1],
            error_code=code,
            base_offset=offset,
            log_append_time_ms=-1,
            log_start_offset=0,
            record_errors=[],
            error_message=None,
        )

    def _append(self, request: Message, place: Place, raw: bytes) -> int:
        if request.acks not in _ACKS:
            raise RefusedError(Code.INVALID_REQUIRED_ACKS)
        partition = self._store.partition(place)
        batch = broker_batch.check(raw, batch_limit_bytes(self._store.topics[place[0]]))
        if batch.transactional:
            self._transactions.check_enrolled(request.transactional_id, batch, place)
        known = partition.admit(batch)
        if known is not None:
            return known
        offset = partition.end
        self._store.record(BatchAppended(*place, batch.at(offset)))
        return offset

    def _offset_at(self, place: Place, timestamp: int, *, committed_only: bool) -> Message:
        code, found = Code.NONE, (-1, -1)
        try:
            partition = self._store.partition(place)
            end = partition.last_stable if committed_only else partition.end
            if timestamp == LATEST:
                found = end, -1
            elif timestamp == EARLIEST:
                found = 0, -1
            else:
                found = self._first_since(partition, timestamp)
        except RefusedError as refusal:
            code = refusal.code
        return ListOffsetsResponse.ListOffsetsTopicResponse.ListOffsetsPartitionResponse(
            partition_index=place[1], error_code=code, offset=found[0], timestamp=found[1], leader_epoch=0
        )

    def _first_since(self, partition: Partition, timestamp: int) -> tuple[int, int]:
        """Offset and time of the first record as young as this; of its batch, if that cannot be unpacked."""
        span = partition.since(timestamp)
        if span is None:
            return -1, -1
        raw = self._store.read(*span)
        try:
            records = [(record.offset, record.timestamp) for record in DefaultRecordBatch(raw)]
        except UnsupportedCodecError:
            batch = broker_batch.read(raw)
            return batch.base_offset, batch.max_timestamp_ms
        return next(record for record in records if record[1] >= timestamp)

    def _epoch_end(self, place: Place) -> Message:
        code, end = Code.NONE, -1
        try:
            end = self._store.partition(place).end
        except RefusedError as refusal:
            code = refusal.code
        return OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult.EpochEndOffset(
            error_code=code, partition=place[1], leader_epoch=0, end_offset=end
        )


class _Fetched:
    """What one look at the asked partitions gives."""

    def __init__(self, store: Store, request: Message) -> None:
        self._store = store
        self._committed_only = request.isolation_level == 1
        self._left_bytes = request.max_bytes
        self._refused = False
        self.partitions: list[Partition] = []
        topic_answer = FetchResponse.FetchableTopicResponse
        responses = [
            topic_answer(
                topic=topic.topic,
                partitions=[self._read((topic.topic, wish.partition), wish) for wish in topic.partitions],
            )
            for topic in request.topics
        ]
        self.answer = FetchResponse(throttle_time_ms=0, error_code=0, session_id=0, responses=responses)
        size = request.max_bytes - self._left_bytes
        self.enough = size >= request.min_bytes or self._refused or not self.partitions

    def _read(self, place: Place, wish: Message) -> Message:
        try:
            partition = self._store.partition(place)
        except RefusedError as refusal:
            return self._refusal(place[1], refusal.code)
        if not 0 <= wish.fetch_offset <= partition.end:
            return self._refusal(place[1], Code.OFFSET_OUT_OF_RANGE)
        self.partitions.append(partition)
        before = partition.last_stable if self._committed_only else partition.end
        limit = min(wish.partition_max_bytes, self._left_bytes)
        spans, reached = partition.spans(wish.fetch_offset, before, limit) if limit > 0 else ([], 0)
        aborted = partition.aborted_between(wish.fetch_offset, reached) if self._committed_only else []
        records = b"".join([self._store.read(*span) for span in spans])
        self._left_bytes -= len(records)
        answer = FetchResponse.FetchableTopicResponse.PartitionData
        return answer(
            partition_index=place[1],
            error_code=Code.NONE,
            high_watermark=partition.end,
            last_stable_offset=partition.last_stable,
            log_start_offset=0,
            aborted_transactions=[
                answer.AbortedTransaction(producer_id=gone.producer_id, first_offset=gone.first_offset)
                for gone in aborted
            ],
            preferred_read_replica=-1,
            records=records,
        )

    def _refusal(self, index: int, code: Code) -> Message:
        self._refused = True
        return FetchResponse.FetchableTopicResponse.PartitionData(
            partition_index=index,
            error_code=code,
            high_watermark=-1,
            last_stable_offset=-1,
            log_start_offset=-1,
            aborted_transactions=[],
            preferred_read_replica=-1,
            records=b"",
        )


async def _change(partitions: Iterable[Partition], timeout_s: float) -> None:
    """Wait until one of the partitions has something new, or the time is over."""
    changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for partition in partitions:
        partition.watch(changed)
    try:
        await asyncio.wait((changed,), timeout=timeout_s)
    finally:
        for partition in partitions:
            partition.unwatch(changed)
