"""Facts to Kafka, in order, resuming where it left off. The log is the outbox; nothing else is needed.

A batch is sent and acknowledged before its position is stored, so after a crash the last batch may be sent again:
consumers drop what they have by the event's id, or by stream and version.
"""

import logging
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from psycopg import Connection

from domain.envelope import Envelope
from interface.kafka.messages import message
from projections.engine import Away

log = logging.getLogger(__name__)

NAME = "publisher"
SEND_TIMEOUT_S = 30
REQUEST_TIMEOUT_MS = 10_000
BLOCK_MS = 10_000


class Publisher:
    """Sends batches through one producer, which is built when it is first needed: that waits for a broker."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._producer: KafkaProducer | None = None

    def publish(self, _: Connection[Any], envelopes: Sequence[Envelope]) -> None:
        """Send a batch and wait until all of it is acknowledged. Raises Away; the same batch may be sent again."""
        try:
            producer = self._connected()
            sent = [self._send(producer, envelope) for envelope in envelopes]
            producer.flush(timeout=SEND_TIMEOUT_S)
            for receipt in sent:
                receipt.get(timeout=0)
        except KafkaError as error:
            self.close()
            raise Away(type(error).__name__) from error

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=0)
            self._producer = None

    def _send(self, producer: KafkaProducer, envelope: Envelope) -> Any:
        record = message(envelope)
        at_ms = int(envelope.at.timestamp() * 1000)
        return producer.send(
            self._topic, key=record.key, value=record.value, headers=record.headers, timestamp_ms=at_ms
        )

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
