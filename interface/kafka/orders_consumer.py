"""Orders from Kafka into the log, exactly once: how far each partition was read is stored with what was read.

Kafka's group shares the partitions out among consumers and notices who is gone. It keeps no offsets for us: those are
in the database, and a consumer that another has taken over from stores nothing (application/order_offsets.py). Whatever
fails, the same way leads on: look where we stand, and read from there.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Event
from traceback import extract_tb
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import AuthorizationError, KafkaError, OffsetOutOfRangeError
from msgspec import Struct

from application.event_store import Ledger, StoreUnavailable, StreamMoved
from application.order_intake import OrderIntake
from application.order_messages import Message
from application.order_offsets import Deposed, Move
from application.order_parking import TooManyParked
from interface.kafka import topics
from interface.kafka.order_places import Places

log = logging.getLogger(__name__)

MAX_BATCH = 1_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_PARTITION_BYTES = 1024 * 1024
# Another writer to an order of the batch was faster: the batch is done again so often, then its halves.
MAX_CONFLICTS = 3
# How soon the partitions of a consumer that is gone are another's; the least that brokers allow by default.
SESSION_MS = 6_000
HEARTBEAT_MS = 2_000
MAX_POLL_MS = 120_000
POLL_MS = 100
REQUEST_TIMEOUT_MS = 10_000
CLOSE_MS = 3_000
# How soon a topic that is new, or another by the same name, is noticed.
METADATA_MS = 5_000
RECONNECT_MS = 1_000
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
ALARM_S = 30.0
# What is no fault of the messages.
PASSING = (StoreUnavailable, Deposed, TooManyParked)


class Source(Struct, frozen=True):
    """Where orders come from. Consumers of one `group` share the topic's partitions."""

    bootstrap_servers: str
    topic: str
    group: str


class OrdersConsumer:
    """Runs in one thread until `stop`."""

    def __init__(
        self, source: Source, ledger: Ledger, intake: OrderIntake, clock: Callable[[], datetime], worker: str
    ) -> None:
        """`clock` dates the facts; `worker` is who and where we are, for those who look."""
        self._source = source
        self._topic = source.topic
        self._ledger = ledger
        self._intake = intake
        self._clock = clock
        self._worker = worker
        self._stopping = Event()
        self._wait_s = FIRST_WAIT_S

    def stop(self) -> None:
        """Between two batches."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped, through lost brokers and databases and errors of our own."""
        while not self._stopping.is_set():
            try:
                with self._connected() as consumer:
                    self._work(consumer)
            except KafkaError as error:
                self._wait(error)
            except Exception as error:  # noqa: BLE001  a thread that ends here would be missed by nobody
                log.critical("the consumer of %s FAILED: %s at %s", self._topic, type(error).__name__, _where(error))
                self._stopping.wait(ALARM_S)

    def _work(self, consumer: Any) -> None:
        places = Places(consumer, self._topic, self._worker, self._ledger, self._clock)
        consumer.subscribe([self._topic], listener=places)
        while not self._stopping.is_set():
            try:
                self._step(consumer, places)
                self._wait_s = FIRST_WAIT_S
            except (Deposed, StreamMoved, OffsetOutOfRangeError) as error:
                log.warning("the consumer of %s looks where it stands: %s", self._topic, type(error).__name__)
                places.forget()
            except StoreUnavailable as error:
                places.forget()
                self._wait(error)
            except TooManyParked as error:
                log.critical("the consumer of %s STOPPED: %s", self._topic, error)
                with suppress(StoreUnavailable):
                    places.halt(str(error))
                self._stopping.wait(ALARM_S)

    def _step(self, consumer: Any, places: Places) -> None:
        places.settle()
        polled = consumer.poll(POLL_MS, MAX_BATCH)
        if polled and places.are_of_this_topic():
            for messages in batches(polled, places.next):
                self._store(messages, places)
        places.look()

    def _store(self, messages: Sequence[Message], places: Places) -> None:
        """All of them, or else its halves, down to the one that is in the way. Raises what is PASSING."""
        moves = places.moves(messages)
        if self._stored(messages, moves):
            places.moved(moves)
        elif len(messages) == 1:
            raise StreamMoved
        else:
            middle = len(messages) // 2
            self._store(messages[:middle], places)
            self._store(messages[middle:], places)

    def _stored(self, messages: Sequence[Message], moves: Sequence[Move]) -> bool:
        for _ in range(MAX_CONFLICTS):
            try:
                self._intake.take(messages, moves, self._clock())
            except StreamMoved:
                continue
            except PASSING:
                raise
            except Exception as error:  # noqa: BLE001  whatever it is, it must not hold up the other orders
                what = type(error).__name__
                log.error("%d messages of %s: %s at %s", len(messages), self._topic, what, _where(error))  # noqa: TRY400
                if len(messages) > 1:
                    return False
                self._intake.refuse(messages[0], moves[0], f"it fails with {what}", self._clock())
            return True
        return False

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Raises KafkaError when no broker answers."""
        try:
            topics.ensure(self._source.bootstrap_servers, [topics.events(self._topic)])
        except AuthorizationError:
            log.warning("topic %s is for others to create", self._topic)
        consumer = KafkaConsumer(
            bootstrap_servers=self._source.bootstrap_servers,
            group_id=self._source.group,
            enable_auto_commit=False,
            # Where to begin is nobody's to guess.
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_interval_ms=MAX_POLL_MS,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            fetch_max_bytes=MAX_BATCH_BYTES,
            max_partition_fetch_bytes=MAX_PARTITION_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            bootstrap_timeout_ms=REQUEST_TIMEOUT_MS,
            reconnect_backoff_max_ms=RECONNECT_MS,
            metadata_max_age_ms=METADATA_MS,
            metrics_enabled=False,
        )
        try:
            yield consumer
        finally:
            consumer.close(timeout_ms=CLOSE_MS)

    def _wait(self, error: Exception) -> None:
        log.warning("the consumer of %s waits: %s", self._topic, type(error).__name__)
        self._stopping.wait(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)


def batches(polled: Mapping[Any, Sequence[Any]], wanted: Mapping[int, int]) -> Iterator[list[Message]]:
    """What was read of the partitions that are wanted, each partition's in its order, in batches of a bounded size."""
    batch: list[Message] = []
    size = 0
    for partition, records in polled.items():
        for record in records if partition.partition in wanted else ():
            batch.append(_message(record))
            size += len(record.value or b"")
            if size >= MAX_BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _message(record: Any) -> Message:
    headers = tuple((name, value or b"") for name, value in record.headers)
    return Message(record.topic, record.partition, record.offset, record.key, record.value, headers)


def _where(error: Exception) -> str:
    """The place in the code, without what the error says."""
    frames = extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
