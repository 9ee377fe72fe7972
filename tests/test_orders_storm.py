"""Orders that are told twice, late and in the wrong order, while consumers and the broker are killed with -9.

What comes of each order is computed apart from the code under test. `make torture` sends 50,000 messages; the suite, a
few (tests/torture.py).
"""

import threading
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from random import Random

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError

from application.event_store import Ledger
from interface.migrations import migrate
from tests.brokers import Broker, consuming, started_broker, unique
from tests.order_consumers import Consumers, consumers
from tests.order_intake_side import Outcome, Sent, cancelled, created, garbage, outcome, read_order
from tests.torture import SIZE, tell

# Messages sent at once, so that a kill meets some of them on their way.
CHUNK = 200
SEND_TRIES = 100
# How far a message may be from where it was told in order.
INVERSION = 40
# Of one message in so many nothing can be read.
UNREADABLE = 500
VICTIMS = ("consumer", "broker", "consumer")

# As which change the order was created, if it was, and the cancellations.
Story = tuple[int | None, list[int]]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with started_broker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def side(broker: Broker, database_url: str, tmp_path: Path) -> Iterator[Consumers]:
    migrate(database_url)
    with consumers(database_url, broker.address, tmp_path) as side:
        yield side


def test_whatever_is_killed_each_order_is_what_was_told_of_it(side: Consumers, broker: Broker) -> None:
    chance = Random(SIZE.order_messages)
    stories, sent = told(chance)
    expected = {order: outcome(*story) for order, story in stories.items()}
    sending = threading.Thread(target=send, args=(side, sent))
    sending.start()
    kill_at_random(side, broker, chance, len(sent))
    sending.join(SIZE.patience_s)
    assert not sending.is_alive()
    side.await_taken_in(end(side), SIZE.patience_s)

    assert found(side, stories) == expected
    # Nothing was applied that is not in the end; a fact too many would be a version too many of some order.
    facts = sum(one[0] - (stories[order][0] or 0) + 1 for order, one in expected.items() if isinstance(one, tuple))
    assert side.facts(stories) == facts
    parked = side.rows("SELECT partition, message_offset FROM parked_orders")
    assert len(set(parked)) == len(parked) >= len(sent) // UNREADABLE
    tell(messages_sent=len(sent), orders=len(stories), kills=len(VICTIMS) * SIZE.kills, parked=len(parked), facts=facts)


def told(chance: Random) -> tuple[dict[str, Story], list[Sent]]:
    """Orders, and all that is said of them: each message once, twice or thrice, and seldom where it belongs."""
    stories: dict[str, Story] = {}
    sent: list[Sent] = []
    while len(sent) < SIZE.order_messages:
        order = f"order-{len(stories)}"
        first = None if chance.random() < 0.05 else chance.choice((0, 0, 0, 3))
        cancellations = [(first or 0) + 1] if chance.random() < 0.5 else []
        cancellations += chance.choices(range(6), k=chance.choice((0, 0, 1, 2)))
        stories[order] = first, cancellations
        messages = [created(order, first)] if first is not None else []
        messages += [cancelled(order, version) for version in cancellations]
        sent += [message for message in messages for _ in range(chance.choice((1, 1, 2, 3)))]
    sent += [garbage(f"bad-{number}") for number in range(1 + len(sent) // UNREADABLE)]
    places = {number: number + chance.uniform(0, INVERSION) for number in range(len(sent))}
    return stories, [sent[number] for number in sorted(places, key=places.__getitem__)]


def send(side: Consumers, sent: Sequence[Sent]) -> None:
    """All of it, some of it twice: what was not acknowledged is sent again."""
    for first in range(0, len(sent), CHUNK):
        for _ in range(SEND_TRIES):
            try:
                side.send(sent[first : first + CHUNK])
            except (KafkaError, AssertionError):
                continue
            break
        else:
            raise AssertionError("it could not be sent")


def kill_at_random(side: Consumers, broker: Broker, chance: Random, messages: int) -> None:
    """Two consumers, of one group or not, and the broker; each is back at once, and the next is killed further on."""
    side.start()
    side.start()
    kills = len(VICTIMS) * SIZE.kills
    for number, victim in enumerate(islice(cycle(VICTIMS), kills)):
        side.await_taken_in(messages * (number + 1) // (kills + 2), SIZE.patience_s)
        if victim == "broker":
            broker.kill()
            broker.start()
        else:
            side.kill(side.running.pop(chance.randrange(len(side.running))))
            side.start(ORDERS_GROUP=chance.choice((side.group, unique("group"))))


def end(side: Consumers) -> int:
    """How many messages are on the topic."""
    with consuming(side.kafka) as consumer:
        places = [TopicPartition(side.topic, number) for number in consumer.partitions_for_topic(side.topic)]
        return sum(consumer.end_offsets(places).values())


def found(side: Consumers, orders: Sequence[str] | dict[str, Story]) -> dict[str, Outcome | int]:
    waiting = dict(side.rows("SELECT order_id, count(*) FROM waiting_cancellations GROUP BY order_id"))
    with Ledger(side.database_url) as ledger:
        read = {name: read_order(ledger, name) for name in orders}
    return {
        name: (order.version, order.status == "cancelled", waiting.get(name, 0)) if order else waiting.get(name, 0)
        for name, order in read.items()
    }
