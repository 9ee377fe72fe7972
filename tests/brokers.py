"""The Kafka that tests speak to: the stand-in, or a real one where the environment names it.

KAFKA_BOOTSTRAP_SERVERS_UNDER_TEST is a broker's address; unset: the stand-in. A broker that a test kills is started
for it, of the kind under test: the real kind from the jars that `make test-peers` has fetched.
"""

import itertools
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from interface.sandbox.broker_state import JOURNAL
from tests.peers import real_kafka
from tests.peers.real_kafka import RealKafka

UNDER_TEST = "KAFKA_BOOTSTRAP_SERVERS_UNDER_TEST"
PATIENCE_S = 20.0
PARTITIONS = 4


class Broker(Protocol):
    """A broker in a process of its own, which `kill` ends with -9; on one port over all its lives."""

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...


def named_broker() -> str | None:
    """The address of a real broker that runs already."""
    return os.environ.get(UNDER_TEST)


@contextmanager
def started_broker(data: Path) -> Iterator[Broker]:
    """A broker of one's own, to kill. Skips the test where the real one cannot be started."""
    if named_broker() and not real_kafka.JARS.exists():
        pytest.skip("a broker that is elsewhere is not ours to kill, and no jars are here to start another")
    broker: Broker = RealKafka(data) if named_broker() else StandIn(data)
    try:
        yield broker
    finally:
        broker.kill()


class StandIn:
    """The stand-in as a process of its own, on one directory, and on one port over all its lives."""

    def __init__(self, data: Path, alive_fd: int | None = None) -> None:
        self.journal = data / JOURNAL
        self.port = 0
        self._alive_fd = alive_fd
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "interface.sandbox.broker"]
        command += ["--port", str(self.port), "--data", str(self.journal.parent)]
        command += [] if self._alive_fd is None else ["--alive-fd", str(self._alive_fd)]
        inherited = () if self._alive_fd is None else (self._alive_fd,)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=inherited, text=True)
        assert self.process.stdout is not None
        word, port = self.process.stdout.readline().split()
        assert word == "ready"
        self.port = int(port)

    def kill(self) -> None:
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


# ── Clients ──────────────────────────────────────────────────────────────────────────────────────────────


class closing:  # noqa: N801 - reads like contextlib's, and closes twice without harm
    """Closes a client without waiting for what a broken one still wants to send."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, failure: object, *_: object) -> None:
        if isinstance(self._client, KafkaProducer):
            self._client.close(timeout=0 if failure else PATIENCE_S)
        else:
            self._client.close()


def producing(kafka: str, **config: Any) -> closing:
    settings = {"acks": "all", "enable_idempotence": True, "retry_backoff_ms": 20, "linger_ms": 0}
    settings |= {"reconnect_backoff_ms": 20, "reconnect_backoff_max_ms": 100}
    return closing(KafkaProducer(bootstrap_servers=kafka, **(settings | config)))


def transacting(kafka: str, **config: Any) -> closing:
    client = producing(kafka, **({"transactional_id": unique("tx")} | config))
    client._client.init_transactions()
    return client


def consuming(kafka: str, **config: Any) -> closing:
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 50}
    return closing(KafkaConsumer(bootstrap_servers=kafka, **(settings | config)))


def administering(kafka: str) -> closing:
    return closing(KafkaAdminClient(bootstrap_servers=kafka))


def read_all(kafka: str, topic: str, least: int = 0, **config: Any) -> list[Any]:
    """Every message there is at the moment, each partition's in its order.

    A broker answers a commit when it is decided, and shows what was committed a moment later: `least` is how many
    messages are waited for. What is more is read, too.
    """
    with consuming(kafka, **config) as consumer:
        places = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(places)
        consumer.seek_to_beginning()
        read: list[Any] = []

        def at_the_end() -> bool:
            return all(consumer.position(place) >= ends[place] for place in places)

        deadline = time.monotonic() + PATIENCE_S
        ends = consumer.end_offsets(places)
        while True:  # at least one look, at what should not be there
            read += itertools.chain.from_iterable(consumer.poll(timeout_ms=100).values())
            if len(read) < least:
                ends = consumer.end_offsets(places)
            elif at_the_end():
                return read
            assert time.monotonic() < deadline, f"{len(read)} messages, ends {ends}"


def unique(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:12]}"


def new_topic(kafka: str, partitions: int = PARTITIONS, configs: dict[str, str] | None = None) -> str:
    name = unique("topic")
    with administering(kafka) as admin:
        admin.create_topics({name: {"num_partitions": partitions, "configs": configs or {}}})
    return name
