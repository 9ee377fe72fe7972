"""The way out to Kafka: records and how far they reach, in one transaction, through one producer at a time.

Whoever takes over fences every older producer of the same name: what those had open is aborted, and whatever they try
from then on is refused. After any doubt (a commit whose answer was lost, a broker that went away) the producer is
thrown away; whoever goes on takes over again and asks Kafka how far it is. Nothing else is believed.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from threading import Thread
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.partitioner import murmur2

from interface.kafka import standing as standings
from interface.kafka import topics
from interface.kafka.brokers import reach
from interface.kafka.messages import Message
from interface.kafka.standing import Standing, last_word
from interface.kafka.topics import Topic

log = logging.getLogger(__name__)

T = TypeVar("T")
# A topic, and what goes there.
Record = tuple[str, Message]

# What is answered late is no answer: the client may wait for ever for what it has lost itself. Giving up is safe, and
# whoever takes over knows more. A producer gives up on a record before its transaction ends by itself.
CONNECT_TIMEOUT_MS = 5_000
REQUEST_TIMEOUT_MS = 6_000
DELIVERY_TIMEOUT_MS = 12_000
FLUSH_TIMEOUT_S = 15
COMMIT_TIMEOUT_S = 15
TRANSACTION_TIMEOUT_MS = 60_000
# A broker that went away is looked for at least so often.
RECONNECT_MS = 1_000
# A broker that still ends the last transaction is asked again so soon.
RETRY_MS = 20
# Records wait for the flush that ends a transaction: a client that is woken for each takes twice as long.
LINGER_MS = 5_000
# What a partition gets of one transaction is one batch as a rule; brokers take a mebibyte.
BATCH_BYTES = 900 * 1024
MAX_REQUEST_BYTES = 1024 * 1024
# Keys whose partition is remembered: more than one transaction has.
KEYS = 20_000


class Outlet:
    """Not for two threads at once. A producer is built by `take_over`: that waits for a broker."""

    def __init__(self, bootstrap_servers: str, facts_topic: str, events: Sequence[str] = ()) -> None:
        """`facts_topic` names the outlet, too: one producer at a time writes there and to the topics of `events`."""
        self._bootstrap_servers = bootstrap_servers
        self._name = f"payledger.publisher.{facts_topic}"
        self._standing_topic = standings.topic_of(facts_topic)
        self._wanted = (
            topics.standing(self._standing_topic),
            topics.facts(facts_topic),
            *map(topics.events, events),
        )
        self._facts_topic = facts_topic
        self._producer: Any = None
        self._ready = False

    @property
    def topics(self) -> tuple[Topic, ...]:
        """All that are written to."""
        return self._wanted

    def take_over(self) -> Standing | None:
        """Fence whoever wrote here, wait until that has ended, and answer how far it came. Raises KafkaError."""
        self.close()
        producer = self._built()
        try:
            if not self._ready:
                topics.ensure(self._bootstrap_servers, self._wanted)
                self._ready = True
            producer.init_transactions()
            found = last_word(self._bootstrap_servers, self._standing_topic)
        except BaseException:
            _throw_away(producer)
            raise
        self._producer = producer
        return found

    def has_facts(self) -> bool:
        """Whether anybody ever wrote to the topic of facts. Raises KafkaError."""
        return standings.has_records(self._bootstrap_servers, self._facts_topic)

    def send(self, records: Sequence[Record], standing: Standing) -> None:
        """All records and the standing they lead to, or nothing.

        Raises KafkaError or TimeoutError: then it is not known which, and `take_over` comes next.
        """
        try:
            self._send([*records, (self._standing_topic, standings.word(standing))])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Be done with the producer, whatever it is about; a transaction that is open ends with the next take-over."""
        if self._producer is not None:
            _throw_away(self._producer)
            self._producer = None

    def _send(self, records: Sequence[Record]) -> None:
        producer = self._producer
        assert producer is not None, "nothing is sent before a take-over"  # noqa: S101
        producer.begin_transaction()
        partitions = {name: len(producer.partitions_for(name)) for name in {name for name, _ in records}}
        receipts = [
            producer.send(
                name,
                record.value,
                record.key,
                record.headers,
                _hash(record.key) % partitions[name],
                record.timestamp_ms,
            )
            for name, record in records
        ]
        producer.flush(FLUSH_TIMEOUT_S)
        # Only what was acknowledged to the last record is committed: the client may have started anew in between.
        for receipt in receipts:
            if not receipt.succeeded():
                raise receipt.exception or KafkaError("a record was not acknowledged")
        _within(COMMIT_TIMEOUT_S, producer.commit_transaction)

    def _built(self) -> Any:
        reach(self._bootstrap_servers)
        return KafkaProducer(
            bootstrap_servers=self._bootstrap_servers,
            transactional_id=self._name,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            acks="all",
            enable_idempotence=True,
            max_in_flight_requests_per_connection=5,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            max_block_ms=REQUEST_TIMEOUT_MS,
            retry_backoff_ms=RETRY_MS,
            reconnect_backoff_max_ms=RECONNECT_MS,
            batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            metrics_enabled=False,
            linger_ms=LINGER_MS,
        )


@lru_cache(KEYS)
def _hash(key: bytes) -> int:
    """As every Kafka client hashes keys; written in Python it takes as long as all the rest of a record."""
    hashed: int = murmur2(key)
    return hashed & 0x7FFF_FFFF


def _throw_away(producer: Any) -> None:
    # Closing waits for what is on its way, which a producer that is fenced or cut off may take long to give up.
    Thread(target=producer.close, name="an old producer", daemon=True).start()


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The call's answer. Raises what it raises, and TimeoutError: the client itself would wait for ever."""
    answer = Future[T]()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  it is raised where it is waited for
            answer.set_exception(error)

    Thread(target=run, name="a commit", daemon=True).start()
    return answer.result(seconds)
