"""A log with publishers beside it, and what a consumer of committed records finds on Kafka."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from msgspec import json

from application.event_store import Ledger
from interface.bootstrap import stream_reader
from interface.cli import main
from interface.kafka import PUBLISHER
from interface.kafka.outgoing import Intents, Tell, telling_all
from interface.kafka.outlet import Outlet
from interface.kafka.publisher import Publisher
from interface.kafka.sending import Sending
from interface.kafka.standing import Standing, last_word, topic_of
from interface.migrations import migrate
from projections.engine import Log, connect
from tests.brokers import named_broker, read_all, started_broker, unique
from tests.processes import eventually
from tests.read_side import ReadSide

CHECKOUT = Path(__file__).parent.parent
PATIENCE_S = 60
RENAME = "UPDATE ledger_events SET topic = %s WHERE originator_id = %s AND originator_version = %s"
SECRETS = {
    "STRIPE_API_KEY": "sk_test_none",
    "JWT_SECRET_KEY": "0" * 64,
    "STRIPE_WEBHOOK_SECRET": "whsec_tests",
    "ENCRYPTION_KEY": "0" * 64,
}


class PublisherSide:
    """Topics of its own on a broker, for one log."""

    def __init__(self, side: ReadSide, kafka: str) -> None:
        self.side = side
        self.kafka = kafka
        self.topic = unique("payments")
        self.cinema = f"{self.topic}.cinema"
        self.ticketing = f"{self.topic}.ticketing"

    @property
    def outlet(self) -> Outlet:
        """Another at each asking, as another process has."""
        return Outlet(self.kafka, self.topic, (self.cinema, self.ticketing))

    def publisher(self, tell: Tell | None = None, max_batch: int = 1_000, read: Log | None = None) -> Publisher:
        outlet = self.outlet
        intents = Intents(self.side.url, "payledger test")
        found = tell or telling_all(self.topic, self.cinema, self.ticketing, intents)
        sending = Sending(outlet, read or self.side.read, found, max_batch)
        return Publisher(outlet, sending, self.side.url, "payledger test")

    def settings(self) -> dict[str, str]:
        """The environment of a `payledger` command."""
        topics = {"KAFKA_TOPIC": self.topic, "CINEMA_TOPIC": self.cinema, "TICKETING_TOPIC": self.ticketing}
        return SECRETS | topics | {"KAFKA_BOOTSTRAP_SERVERS": self.kafka, "DATABASE_URL": self.side.url}

    @contextmanager
    def process(self, *module: str) -> Iterator["subprocess.Popen[str]"]:
        """A publisher in a process of its own, ready; the block may end it."""
        command = [sys.executable, "-m", *(module or ("interface.cli", "publish"))]
        with subprocess.Popen(
            command, cwd=CHECKOUT, env=os.environ | self.settings(), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            try:
                yield process
            finally:
                process.kill()

    # What is there

    def standing(self, topic: str | None = None) -> Standing | None:
        return last_word(self.kafka, topic_of(topic or self.topic))

    def caught_up(self) -> bool:
        """Whether the publisher says that it has sent all there is."""
        return self.side.checkpoint(PUBLISHER) >= self.side.end

    def published(self, topic: str | None = None, least: int = 0) -> list[Any]:
        """Every committed record, each partition's in order; `least` are waited for."""
        return read_all(self.kafka, topic or self.topic, least, isolation_level="read_committed")

    def command(self, *words: str) -> Result:
        """A `payledger` command, in this process."""
        return CliRunner().invoke(main, words, env=self.settings())

    def retry(self, stream: UUID) -> bool:
        publisher = self.publisher()
        with connect(self.side.url, "payledger test") as conn:
            try:
                return publisher.retry(conn, stream, stream_reader(self.side.ledger))
            finally:
                publisher.close()

    def log(self) -> dict[str, list[int]]:
        """The positions of every stream's facts, in order, as the log has them."""
        rows = self.side.conn.execute(
            "SELECT originator_id, notification_id FROM ledger_events ORDER BY originator_id, originator_version"
        )
        return grouped((str(stream), position) for stream, position in rows)

    def assert_each_once_in_order(self, topic: str | None = None) -> None:
        """Whoever reads what is committed has found every fact of the log once, a stream's in the order of versions."""
        log = self.log()
        assert positions(self.published(topic, sum(map(len, log.values())))) == log


def positions(records: Sequence[Any]) -> dict[str, list[int]]:
    """By key, as they were read."""
    return grouped((record.key.decode(), json.decode(record.value)["position"]) for record in records)


def grouped(pairs: Any) -> dict[str, list[int]]:
    found = defaultdict[str, list[int]](list)
    for key, position in pairs:
        found[key].append(position)
    return dict(found)


@contextmanager
def publishing(*publishers: Publisher) -> Iterator[None]:
    """The publishers at work, each in a thread, until the block ends."""
    threads = [Thread(target=publisher.run) for publisher in publishers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for publisher in publishers:
            publisher.stop()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the publisher did not stop"


def fill(side: PublisherSide, payments: int) -> None:
    """Whole histories of so many payments at the end of the log."""
    for _ in range(payments):
        side.side.captured()


def all_sent(side: PublisherSide) -> None:
    """Wait until the publisher has sent all there is."""
    eventually(side.caught_up, PATIENCE_S)


@contextmanager
def beside(database_url: str, kafka: str) -> Iterator[PublisherSide]:
    """An empty log with the current schema, on a broker."""
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield PublisherSide(ReadSide(database_url, ledger, conn), kafka)


@contextmanager
def any_broker(data: Path) -> Iterator[str]:
    """The address of a broker that nobody kills."""
    if address := named_broker():
        yield address
        return
    with started_broker(data) as broker:
        yield broker.address


@pytest.fixture(scope="module", name="kafka")
def shared_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with any_broker(tmp_path_factory.mktemp("broker")) as address:
        yield address


@pytest.fixture(name="side")
def publisher_side(database_url: str, kafka: str) -> Iterator[PublisherSide]:
    with beside(database_url, kafka) as side:
        yield side
