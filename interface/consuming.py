"""The process `payledger consume`: orders from Kafka. Any number may run: they share the topic's partitions."""

import logging
import secrets
import signal

from application.event_store import Ledger
from application.order_intake import OrderIntake
from application.privacy import Keys
from interface.bootstrap import FOLDING, clock, collect_seldom, worker_name
from interface.kafka.order_reading import reader
from interface.kafka.orders_consumer import OrdersConsumer, Source
from interface.settings import Settings
from interface.signals import Bell

# One batch is written at a time.
POOL_SIZE = 2


def consume(settings: Settings) -> None:
    """Take orders in until told to stop."""
    collect_seldom(FOLDING)
    # While a broker is away its client says so several times a second; the consumer does when it matters.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    bell = Bell(settings.database_url)
    ledger = Ledger(settings.database_url, pool_size=POOL_SIZE, appended=bell.ring)
    source = Source(settings.kafka_bootstrap_servers, settings.orders_topic, settings.orders_group)
    consumer = OrdersConsumer(source, ledger, order_intake(settings, ledger), clock, worker_name())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: consumer.stop())
    bell.start()
    print("ready", flush=True)  # noqa: T201  the supervisor waits for this line
    consumer.run()
    bell.stop()
    ledger.close()


def order_intake(settings: Settings, ledger: Ledger) -> OrderIntake:
    """As this deployment reads and seals what comes."""
    keys = Keys(settings.encryption_keys, secrets.token_bytes)
    return OrderIntake(ledger, keys, reader(settings.default_currency))
