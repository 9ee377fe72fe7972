"""`payledger consume` in processes of their own, on a broker and a database of the test's."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from click.testing import CliRunner

from application.event_store import Ledger
from application.orders import order_stream
from interface import cli
from tests.brokers import new_topic, producing, unique
from tests.order_intake_side import KEY, Sent, read_order
from tests.processes import eventually

CHECKOUT = Path(__file__).parent.parent
PATIENCE_S = 60.0
STOP_S = 30


class Consumers:
    """Processes that take in one topic. `group`: those of one share it, as far as Kafka is concerned."""

    def __init__(self, database_url: str, kafka: str, folder: Path, *, partitions: int = 4) -> None:
        self.database_url = database_url
        self.kafka = kafka
        self.group = unique("group")
        self.topic = new_topic(kafka, partitions)
        self.output = folder / f"{self.topic}.output"
        self.running: list[subprocess.Popen[str]] = []
        self._settings = {
            "DATABASE_URL": database_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "ORDERS_TOPIC": self.topic,
            "ORDERS_GROUP": self.group,
            "STRIPE_API_KEY": "sk_test_none",
            "STRIPE_WEBHOOK_SECRET": "whsec_none",
            "JWT_SECRET_KEY": secrets.token_hex(32),
            "ENCRYPTION_KEY": KEY.hex(),
        }

    # Life

    def start(self, **environment: str) -> subprocess.Popen[str]:
        with self.output.open("a") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "interface.cli", "consume"],
                cwd=CHECKOUT,
                env=os.environ | self._settings | environment,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", self.said()
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait(STOP_S)

    def command(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """A command on the same deployment: its exit status and what it printed."""
        result = CliRunner().invoke(cli.main, arguments, env=self._settings | environment)
        return result.exit_code, result.stdout

    def said(self) -> str:
        return self.output.read_text()

    # Messages

    def send(self, sent: Iterable[Sent], partition: int | None = None) -> int:
        """Send them in their order, and answer how many when all of them are acknowledged."""
        with producing(self.kafka) as producer:
            receipts = [
                producer.send(self.topic, one.value, one.key, list(one.headers), partition=partition) for one in sent
            ]
        assert all(receipt.succeeded() for receipt in receipts)
        return len(receipts)

    # What came of them

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as conn:
            return conn.execute(query.encode(), values or None).fetchall()

    def taken_in(self) -> int:
        """How many messages have been read, of all partitions."""
        query = "SELECT coalesce(sum(next_offset), 0) FROM consumer_offsets WHERE topic = %s"
        return int(self.rows(query, self.topic)[0][0])

    def await_taken_in(self, messages: int, patience_s: float = PATIENCE_S) -> None:
        try:
            eventually(lambda: self.taken_in() >= messages, patience_s)
        except AssertionError as late:
            raise AssertionError(f"{self.taken_in()} of {messages} were taken in:\n{self.said()}") from late

    def counts(self) -> tuple[int, int, int]:
        """How many messages changed something, changed nothing, and were not ours."""
        query = "SELECT sum(applied), sum(unchanged), sum(passed_over) FROM consumer_offsets WHERE topic = %s"
        (applied, unchanged, passed_over) = map(int, self.rows(query, self.topic)[0])
        return applied, unchanged, passed_over

    def halted(self) -> list[int]:
        """The partitions that are."""
        query = "SELECT partition FROM consumer_offsets WHERE topic = %s AND halted IS NOT NULL"
        return [partition for (partition,) in self.rows(query, self.topic)]

    def facts(self, orders: Iterable[str]) -> int:
        """How many there are of these orders."""
        query = "SELECT count(*) FROM ledger_events WHERE originator_id = ANY(%s)"
        return int(self.rows(query, [order_stream(order) for order in orders])[0][0])

    def statuses(self, orders: Iterable[str]) -> dict[str, str | None]:
        with Ledger(self.database_url) as ledger:
            found = {order: read_order(ledger, order) for order in orders}
        return {name: order.status if order else None for name, order in found.items()}


@contextmanager
def consumers(database_url: str, kafka: str, folder: Path, *, partitions: int = 4) -> Iterator[Consumers]:
    started = Consumers(database_url, kafka, folder, partitions=partitions)
    try:
        yield started
    finally:
        for process in started.running:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(STOP_S)
            if process.stdout:
                process.stdout.close()
