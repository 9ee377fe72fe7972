"""Kafka at both ends: facts out and orders in, each beside plain kafka-python on the same broker.

The broker is Apache Kafka where `make test-peers` has fetched it, and else the stand-in, which is slower and is told.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

from application.event_store import Ledger
from interface import publishing, settings, workers
from interface.bootstrap import FOLDING, clock, collect_seldom, log_reader
from interface.consuming import POOL_SIZE, order_intake
from interface.kafka import PUBLISHER
from interface.kafka.orders_consumer import OrdersConsumer, Source
from interface.kafka.outgoing import Intents, telling_all
from interface.kafka.outlet import BATCH_BYTES, LINGER_MS, MAX_REQUEST_BYTES
from interface.settings import Settings
from projections.engine import checkpoint
from tests.bench.bars import Bar, Limit, Series, interleaved
from tests.bench.lab import TABLE, Lab, connect, one, settings_for
from tests.bench.payments import fill
from tests.brokers import StandIn, consuming, new_topic, producing, unique
from tests.order_intake_side import created
from tests.peers import real_kafka

# --- Sizes -------------------------------------------------------------------------------------------------------

FACTS, QUICK_FACTS = 200_000, 20_000
ORDERS, QUICK_ORDERS = 30_000, 5_000
ROUNDS, QUICK_ROUNDS = 3, 1
READ_AT_ONCE = 5_000
POLLED = 500  # as kafka-python has it
LOOK_S = 0.005
PATIENCE_S = 300

# --- Measure -----------------------------------------------------------------------------------------------------


def publish(lab: Lab) -> Iterator[Bar]:
    with lab.database() as url, _broker() as (kafka, kind):
        facts = fill(lab, url, lab.size(FACTS, QUICK_FACTS), read_model=False)
        rates = interleaved(
            {
                "ours": lambda: facts / lab.elsewhere(published, url, kafka).result(),
                "plain": lambda: facts / lab.elsewhere(sent, url, kafka).result(),
            },
            lab.size(ROUNDS, QUICK_ROUNDS),
        )
    yield from _bars("publish, catching up", "facts/s", 20_000, rates, kind)


def consume(lab: Lab) -> Iterator[Bar]:
    orders = lab.size(ORDERS, QUICK_ORDERS)
    with _broker() as (kafka, kind):
        topic = new_topic(kafka, partitions=4)
        with producing(kafka, linger_ms=20) as producer:
            for number in range(orders):
                told = created(f"order-{number}")
                producer.send(topic, told.value, told.key, list(told.headers))
        rates = interleaved(
            {
                "ours": partial(_consumed, lab, kafka, topic, orders),
                "plain": lambda: orders / lab.elsewhere(read, kafka, topic, orders).result(),
            },
            lab.size(ROUNDS, QUICK_ROUNDS),
        )
    yield from _bars("consume orders", "orders/s", 3_000, rates, kind)


def _bars(what: str, unit: str, bar: int, rates: dict[str, Series], kind: str) -> Iterator[Bar]:
    told = ", ".join(f"{name} {series.median:,.0f}" for name, series in rates.items())
    yield Bar(what=what, series=rates["ours"], unit=unit, limit=Limit("≥", bar, unit), told=f"{unit} on {kind}: {told}")
    share = Series(tuple(100 * value for value in rates["ours"].over(rates["plain"]).values))
    yield Bar(what=f"{what}: ours / plain kafka-python", series=share, unit="%")


@contextmanager
def _broker() -> Iterator[tuple[str, str]]:
    """Its address, and what it is."""
    real = real_kafka.JARS.exists() and not real_kafka.missing_tools()
    with tempfile.TemporaryDirectory(prefix="payledger-bench-", ignore_cleanup_errors=True) as folder:
        broker = real_kafka.RealKafka(Path(folder) / "kafka") if real else StandIn(Path(folder))
        try:
            yield broker.address, "Apache Kafka" if real else "the stand-in"
        finally:
            broker.kill()


# --- Facts out ---------------------------------------------------------------------------------------------------


def published(url: str, kafka: str) -> float:
    """Bring the whole log to new topics, as the product does; the seconds it took, but for those until the first batch.

    Until then it connects, makes topics and fences its predecessors, once in its life.
    """
    collect_seldom(FOLDING)
    given = _settings(url, kafka)
    with connect(url) as conn, Ledger(url, pool_size=workers.READERS) as ledger:
        conn.execute("TRUNCATE checkpoints")
        last = one(conn, f"SELECT max(notification_id) FROM {TABLE}")
        publisher = publishing.publisher(given, log_reader(ledger))
        thread, start = Thread(target=publisher.run), time.perf_counter()
        thread.start()
        first = sent_to = 0
        while sent_to < last and time.perf_counter() - start < PATIENCE_S:
            sent_to = checkpoint(conn, PUBLISHER)
            if not first and sent_to:
                first, start = sent_to, time.perf_counter()
            time.sleep(LOOK_S)
        took = time.perf_counter() - start
        publisher.stop()
        thread.join()
        assert checkpoint(conn, PUBLISHER) == last, "the publisher did not reach the end of the log"
        facts = one(conn, f"SELECT count(*) FROM {TABLE}")
        return took * facts / (facts - one(conn, f"SELECT count(*) FROM {TABLE} WHERE notification_id <= {first}"))


def sent(url: str, kafka: str) -> float:
    """Send the same records, made before, without transactions and without a log; the seconds it took."""
    collect_seldom(FOLDING)
    given = _settings(url, kafka)
    names = (given.kafka_topic, given.cinema_topic, given.ticketing_topic)
    tell, records, position = telling_all(*names, Intents(url, "bench")), list[Any](), 0
    with Ledger(url) as ledger:
        facts = log_reader(ledger)
        while found := facts(position, READ_AT_ONCE):
            records += tell(found)  # type: ignore[arg-type]  # every row of this log can be read
            position = found[-1].position or 0
    tuned = {"linger_ms": LINGER_MS, "batch_size": BATCH_BYTES, "max_request_size": MAX_REQUEST_BYTES}
    with producing(kafka, **tuned) as producer:
        start = time.perf_counter()
        for name, record in records:
            producer.send(name, record.value, record.key, record.headers, timestamp_ms=record.timestamp_ms)
        producer.flush(PATIENCE_S)
        return time.perf_counter() - start


# --- Orders in ---------------------------------------------------------------------------------------------------


def _consumed(lab: Lab, kafka: str, topic: str, orders: int) -> float:
    with lab.database() as url:
        return orders / lab.elsewhere(consumed, url, kafka, topic, orders).result()


def consumed(url: str, kafka: str, topic: str, orders: int) -> float:
    """Take all orders into an empty log, as the product does; the seconds, but for those until the first batch."""
    collect_seldom(FOLDING)
    given = _settings(url, kafka)
    query = "SELECT coalesce(sum(next_offset), 0) FROM consumer_offsets"
    with connect(url) as conn, Ledger(url, pool_size=POOL_SIZE) as ledger:
        source = Source(kafka, topic, unique("group"))
        consumer = OrdersConsumer(source, ledger, order_intake(given, ledger), clock, "bench")
        thread, start = Thread(target=consumer.run), time.perf_counter()
        thread.start()
        first = taken = 0
        while taken < orders and time.perf_counter() - start < PATIENCE_S:
            taken = one(conn, query)
            if not first and taken:
                first, start = taken, time.perf_counter()
            time.sleep(LOOK_S)
        took = time.perf_counter() - start
        consumer.stop()
        thread.join()
        assert one(conn, f"SELECT count(*) FROM {TABLE}") == orders, "not every order was taken in"
    # Joining the group is waiting, not work: the clock runs from the first batch on, for what came after it.
    return took * orders / (orders - first)


def read(kafka: str, topic: str, orders: int) -> float:
    """Read the same messages and do nothing with them; the seconds, measured as above."""
    with consuming(kafka, group_id=unique("group")) as consumer:
        consumer.subscribe([topic])
        first = found = 0
        while found < orders:
            found += sum(map(len, consumer.poll(timeout_ms=500, max_records=POLLED).values()))
            if not first and found:
                first, start = found, time.perf_counter()
        return (time.perf_counter() - start) * orders / (orders - first)


def _settings(url: str, kafka: str) -> Settings:
    """Of a deployment with topics of its own."""
    mark = uuid4().hex[:8]
    topics = {name: f"{name.lower()}-{mark}" for name in ("KAFKA_TOPIC", "CINEMA_TOPIC", "TICKETING_TOPIC")}
    return settings.read(os.environ | settings_for(url) | {"KAFKA_BOOTSTRAP_SERVERS": kafka} | topics)
