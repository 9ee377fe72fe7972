"""Facts to Kafka, in order, resuming where it left off. The log is the outbox; nothing else is needed.

A batch is sent and acknowledged before its position is stored, so after a crash the last batch may be sent again:
consumers drop what they have by the event's id, or by stream and version.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from kafka import KafkaProducer
from kafka.errors import KafkaError
from psycopg import Connection
from psycopg.rows import tuple_row

from application.stored_form import FactMapper, Vault
from domain.envelope import Envelope
from domain.facts import NAMES
from interface.kafka.cinema_events import INTENTS, cinema_messages
from interface.kafka.messages import Message, message
from projections.engine import Away

log = logging.getLogger(__name__)

NAME = "publisher"
SEND_TIMEOUT_S = 30
REQUEST_TIMEOUT_MS = 10_000
BLOCK_MS = 10_000
_INTENTS = """
SELECT originator_id, originator_version, topic, state FROM ledger_events
WHERE originator_id = ANY(%s) AND topic = ANY(%s)
"""


class Publisher:
    """Sends batches through one producer, which is built when it is first needed: that waits for a broker."""

    def __init__(self, bootstrap_servers: str, topic: str, cinema_topic: str, vault: Vault | None = None) -> None:
        """`topic` gets every fact, `cinema_topic` the cinema's events. With `vault` these tell what somebody wrote."""
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._cinema_topic = cinema_topic
        self._mapper = FactMapper(vault)
        self._producer: KafkaProducer | None = None

    def publish(self, conn: Connection[Any], envelopes: Sequence[Envelope]) -> None:
        """Send a batch and wait until all of it is acknowledged. Raises Away; the same batch may be sent again."""
        records = [(self._topic, message(envelope)) for envelope in envelopes]
        records += [(self._cinema_topic, told) for told in cinema_messages(envelopes, partial(self._intents, conn))]
        try:
            producer = self._connected()
            sent = [_send(producer, topic, record) for topic, record in records]
            producer.flush(timeout=SEND_TIMEOUT_S)
            for receipt in sent:
                receipt.get(timeout=0)
        except KafkaError as error:
            self.close()
            raise Away(type(error).__name__) from error

    def _intents(self, conn: Connection[Any], streams: Sequence[UUID]) -> Iterable[Envelope]:
        with conn.cursor(row_factory=tuple_row) as cursor:
            rows = cursor.execute(_INTENTS, [streams, [NAMES[fact] for fact in INTENTS]], prepare=True).fetchall()
        read = (
            self._mapper.envelope(stream, version, name, bytes(state), None) for stream, version, name, state in rows
        )
        return map(self._mapper.opened, read)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=0)
            self._producer = None

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self._bootstrap_servers,
                acks="all",
                enable_idempotence=True,
                max_in_flight_requests_per_connection=5,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                max_block_ms=BLOCK_MS,
                linger_ms=0,
            )
        return self._producer


def _send(producer: KafkaProducer, topic: str, record: Message) -> Any:
    return producer.send(
        topic, key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
    )
