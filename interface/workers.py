"""The processes that follow the log: `payledger project` and `payledger publish`."""

import secrets
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread

import psycopg

from application.event_store import Ledger
from application.privacy import Keys, Vault
from interface.bootstrap import FOLDING, PROJECTIONS, collect_seldom, log_reader, recall, shared, worker_name
from interface.kafka.publisher import NAME, Publisher
from interface.settings import Settings
from interface.signals import LOG_GREW, listen
from projections.engine import Engine, Projection, connect

STOP_TIMEOUT_S = 10
# A batch of the publisher's is in flight at once.
MAX_PUBLISHED = 1_000
# Nobody waits for what is published, and a batch costs Kafka's client more than the database.
PUBLISHER_PACE_S = 0.05


def project(settings: Settings) -> None:
    """Keep all read models up to date until told to stop."""
    _follow(settings, PROJECTIONS)


def publish(settings: Settings) -> None:
    """Publish facts to Kafka until told to stop."""
    with publishing(settings) as projection:
        _follow(settings, [projection])


@contextmanager
def publishing(settings: Settings) -> Iterator[Projection]:
    """The publisher, as the projection it is."""
    keys = Keys(settings.encryption_keys, secrets.token_bytes)
    # It seals nothing, and each person's key is asked for once.
    vault = Vault(keys, lambda: psycopg.connect(settings.database_url)) if settings.cinema_events_reason else None
    publisher = Publisher(settings.kafka_bootstrap_servers, settings.kafka_topic, settings.cinema_topic, vault)
    try:
        yield Projection(NAME, publisher.publish, MAX_PUBLISHED, PUBLISHER_PACE_S)
    finally:
        publisher.close()


def _follow(settings: Settings, projections: Sequence[Projection]) -> None:
    collect_seldom(FOLDING)
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ledger = Ledger(settings.database_url, pool_size=2 * len(projections))
    with suppress(psycopg.OperationalError), connect(settings.database_url, worker_name()) as conn:
        recall(ledger, conn)  # a help at the start, not a need: the engines wait for the database
    read = shared(log_reader(ledger)) if len(projections) > 1 else log_reader(ledger)
    engines = [Engine(projection, read, settings.database_url, worker_name()) for projection in projections]
    threads = [
        Thread(target=engine.run, name=projection.name, daemon=True)
        for engine, projection in zip(engines, projections, strict=True)
    ]

    def wake(_: str) -> None:
        for engine in engines:
            engine.wake.set()

    threads.append(Thread(target=listen, args=(settings.database_url, LOG_GREW, wake, stopping), daemon=True))
    for thread in threads:
        thread.start()
    print("ready", flush=True)  # noqa: T201  the supervisor waits for this line
    stopping.wait()
    for engine in engines:
        engine.stop()
    for thread in threads:
        thread.join(timeout=STOP_TIMEOUT_S)
    ledger.close()
