"""The process `payledger publish`. Several may run; one works at a time."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from application.event_store import Ledger
from application.privacy import Keys, Vault
from interface.bootstrap import log_reader, worker_name
from interface.kafka.outgoing import Intents, telling_all
from interface.kafka.outlet import Outlet
from interface.kafka.publisher import Publisher
from interface.kafka.sending import Sending
from interface.settings import Settings
from interface.workers import READERS, follow
from projections.engine import Log


def publish(settings: Settings) -> None:
    """Publish facts to Kafka until told to stop."""
    follow(settings, lambda read: [publisher(settings, read)], READERS)


@contextmanager
def publishing(settings: Settings) -> Iterator[Publisher]:
    """The publisher for a moment, beside the one that works."""
    with Ledger(settings.database_url, pool_size=READERS) as ledger:
        momentary = publisher(settings, log_reader(ledger))
        try:
            yield momentary
        finally:
            momentary.close()


def publisher(settings: Settings, read: Log) -> Publisher:
    """The publisher, as this deployment wants it."""
    keys = Keys(settings.encryption_keys, secrets.token_bytes)
    # It seals nothing, and each person's key is asked for once.
    vault = Vault(keys, lambda: psycopg.connect(settings.database_url)) if settings.cinema_events_reason else None
    events = (settings.cinema_topic, settings.ticketing_topic)
    outlet = Outlet(settings.kafka_bootstrap_servers, settings.kafka_topic, events)
    intents = Intents(settings.database_url, worker_name(), vault)
    tell = telling_all(settings.kafka_topic, *events, intents)
    return Publisher(outlet, Sending(outlet, read, tell), settings.database_url, worker_name())
