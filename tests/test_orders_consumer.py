"""`payledger consume`: orders from Kafka into the log, each once, whoever dies, freezes or comes back.

On the stand-in, or on the broker that KAFKA_BOOTSTRAP_SERVERS_UNDER_TEST names (tests/brokers.py).
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from kafka.errors import TopicAlreadyExistsError

from application.event_store import Ledger
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from tests.brokers import StandIn, administering, named_broker, producing, unique
from tests.order_consumers import PATIENCE_S, Consumers, consumers
from tests.order_intake_side import Sent, cancelled, created, garbage, read_order
from tests.processes import eventually
from tests.system import System

_numbers = count()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path_factory.mktemp("broker"))
    yield stand_in
    stand_in.kill()


@pytest.fixture(scope="module")
def kafka(request: pytest.FixtureRequest) -> str:
    return named_broker() or str(request.getfixturevalue("stand_in").address)


@pytest.fixture(scope="module")
def store(postgres: Postgres) -> str:
    """The address of a database that all tests here share; each has a topic and orders of its own."""
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE orders_consumer")
    url = postgres.url.rpartition("/")[0] + "/orders_consumer"
    migrate(url)
    return url


@pytest.fixture
def side(store: str, kafka: str, tmp_path: Path) -> Iterator[Consumers]:
    with consumers(store, kafka, tmp_path) as started:
        yield started


def names(number: int) -> list[str]:
    return [f"order-{next(_numbers)}" for _ in range(number)]


def stories(orders: list[str]) -> list[Sent]:
    """Each is created, told again, and every other one cancelled."""
    sent = [created(order) for order in orders] + [created(order) for order in orders]
    return sent + [cancelled(order) for order in orders[::2]]


def expected(orders: list[str]) -> dict[str, str]:
    return {order: "cancelled" if number % 2 == 0 else "created" for number, order in enumerate(orders)}


def test_orders_are_taken_in_once_from_every_partition(side: Consumers) -> None:
    orders = names(40)
    side.start()
    sent = side.send(stories(orders))
    side.await_taken_in(sent)
    assert side.statuses(orders) == expected(orders)
    assert side.rows("SELECT count(*) FROM consumer_offsets WHERE topic = %s AND next_offset > 0", side.topic) == [(4,)]


def test_a_new_process_goes_on_where_the_one_before_it_ended(side: Consumers) -> None:
    orders = names(4)
    first = side.start()
    sent = side.send([created(order) for order in orders])
    side.await_taken_in(sent)
    first.terminate()
    assert first.wait(PATIENCE_S) == 0
    sent += side.send([cancelled(order) for order in orders])
    side.start()
    side.await_taken_in(sent)
    assert set(side.statuses(orders).values()) == {"cancelled"}
    # Had it begun anew there would be duplicates.
    assert side.counts() == (sent, 0, 0)


def test_the_sandbox_takes_orders_in_and_tells_how_that_goes(system: System) -> None:
    order = f"sandbox-{uuid4().hex}"
    with producing(system.kafka) as producer:
        for one in (cancelled(order), garbage(f"bad-{order}"), created(order)):
            producer.send("orders", one.value, one.key, list(one.headers))
    with Ledger(system.database_url) as ledger:
        eventually(lambda: (found := read_order(ledger, order)) is not None and found.version == 1, PATIENCE_S)
    eventually(lambda: "payledger_orders_parked_orders 0.0" not in (told := metrics(system)) and bool(told), PATIENCE_S)
    told = metrics(system)
    assert 'payledger_orders_messages{outcome="applied",partition="0",topic="orders"}' in told
    assert 'payledger_orders_halted{partition="0",topic="orders"} 0.0' in told
    assert "payledger_orders_waiting 0.0" in told


def metrics(system: System) -> str:
    return system.get("/metrics").text


# --- Whoever dies ------------------------------------------------------------------------------------------------


def test_what_was_not_committed_is_taken_in_by_the_next(side: Consumers, store: str) -> None:
    orders = names(8)
    sent = side.send(stories(orders))
    with psycopg.connect(store) as held:
        held.execute("LOCK TABLE ledger_events IN SHARE MODE")
        first = side.start()
        eventually(lambda: side.rows(WAIT_TO_STORE) == [(1,)], PATIENCE_S)
        side.kill(first)
    assert side.taken_in() == 0
    side.start(ORDERS_GROUP=unique("group"))  # what Kafka knows of a group is of no account
    side.await_taken_in(sent)
    assert side.statuses(orders) == expected(orders)
    assert side.facts(orders) == 12


def test_killed_between_batches_nothing_is_read_twice_or_skipped(side: Consumers) -> None:
    orders = names(3_000)
    sent = side.send(created(order) for order in orders)
    for _ in range(2):
        more = side.taken_in() + 1
        killed = side.start(ORDERS_GROUP=unique("group"))
        side.await_taken_in(more)
        side.kill(killed)
    side.start(ORDERS_GROUP=unique("group"))
    side.await_taken_in(sent)
    assert side.counts() == (sent, 0, 0)
    assert side.facts(orders) == sent


def test_a_database_that_hangs_up_in_the_midst_of_a_batch_loses_and_repeats_nothing(
    side: Consumers, store: str
) -> None:
    orders = names(8)
    sent = side.send(created(order) for order in orders)
    with psycopg.connect(store) as held:
        held.execute("LOCK TABLE ledger_events IN SHARE MODE")
        side.start()
        eventually(lambda: side.rows(WAIT_TO_STORE) == [(1,)], PATIENCE_S)
        side.rows(HANG_UP)
    side.await_taken_in(sent)
    assert side.counts() == (sent, 0, 0)
    assert side.facts(orders) == sent
    assert "waits: StoreUnavailable" in side.said()


def test_without_a_broker_it_waits_and_ends_when_it_is_told_to(side: Consumers) -> None:
    process = side.start(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    eventually(lambda: side.said().count("waits: Kafka") >= 2, PATIENCE_S)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_of_two_who_think_that_a_partition_is_theirs_each_message_is_stored_by_one(side: Consumers) -> None:
    orders = names(400)
    for group in ("one", "other"):  # to Kafka they have nothing to do with each other
        side.start(ORDERS_GROUP=unique(group))
    eventually(lambda: side.said().count("takes up partitions 0, 1, 2, 3") == 2, PATIENCE_S)
    sent = sum(side.send(map(created, orders[first : first + 40])) for first in range(0, 400, 40))
    side.await_taken_in(sent)
    eventually(lambda: "Deposed" in side.said(), PATIENCE_S)
    assert side.counts() == (sent, 0, 0)
    assert side.facts(orders) == sent


def test_two_share_the_partitions_and_one_takes_over_what_the_other_leaves(side: Consumers) -> None:
    first, orders = side.start(), names(40)
    side.start()
    eventually(lambda: side.rows(WORKED, side.topic) == [(2,)], PATIENCE_S)
    sent = side.send(created(order) for order in orders)
    side.await_taken_in(sent)
    side.kill(first)
    sent += side.send(cancelled(order) for order in orders)
    side.await_taken_in(sent)
    assert set(side.statuses(orders).values()) == {"cancelled"}
    assert side.counts() == (sent, 0, 0)


# --- What cannot be taken in -------------------------------------------------------------------------------------


def test_what_cannot_be_read_waits_aside_until_somebody_decides(side: Consumers) -> None:
    bad, worse, fine = names(3)
    side.start()
    sent = side.send([created(bad, price="20.120"), garbage(worse), created(fine), cancelled(bad), created(worse)])
    side.await_taken_in(sent)
    assert side.statuses([bad, worse, fine]) == {bad: None, worse: None, fine: "created"}

    status, shown = side.command("parked")
    assert status == 1
    assert "ticket.price: has more than the 2 digits" in shown
    assert "4 messages of 2 orders are parked, 0 partitions halt" in shown
    ids = dict(side.rows(FIRST_PARKED, side.topic))

    status, said = side.command("parked", "retry", str(ids[bad]))
    assert (status, said.splitlines()[-1]) == (1, "0 messages were taken in, 2 stay parked")
    # Under a currency that has such a price, the next version takes it.
    retried = side.command("parked", "retry", str(ids[bad]), DEFAULT_CURRENCY="kwd")
    assert retried == (0, "2 messages were taken in, 0 stay parked\n")
    assert side.statuses([bad]) == {bad: "cancelled"}

    status, said = side.command("parked", "discard", str(ids[None]), "--reason", "a test of theirs", "--by", "ada")
    assert (status, said) == (0, "discarded; 1 behind it were taken in, 0 stay parked\n")
    assert side.statuses([worse]) == {worse: "created"}
    assert side.command("parked") == (0, "0 messages of 0 orders are parked, 0 partitions halt\n")
    assert side.command("parked", "retry", str(ids[bad]))[0] == 1


def test_a_topic_that_was_made_anew_halts_until_somebody_says_go_on(side: Consumers) -> None:
    before, after = names(30), names(30)
    first = side.start()
    side.await_taken_in(side.send(created(order) for order in before))
    first.terminate()
    first.wait(PATIENCE_S)
    with administering(side.kafka) as admin:
        admin.delete_topics([side.topic])
    eventually(lambda: make_anew(side), PATIENCE_S)
    side.send([created(after[0])], partition=0)

    side.start()
    eventually(lambda: len(side.halted()) == 4, PATIENCE_S)
    assert side.statuses(after[:1]) == {after[0]: None}
    status, shown = side.command("parked")
    assert status == 1
    assert "made anew" in shown
    assert "HALTS" in side.said()

    said = side.command("parked", "restart", side.topic, "--reason", "so it is")
    assert said == (0, "within seconds these begin anew: 0, 1, 2, 3\n")
    eventually(lambda: side.statuses(after[:1]) == {after[0]: "created"} and not side.halted(), PATIENCE_S)
    assert side.command("parked", "restart", side.topic, "0", "--reason", "again")[0] == 1


WAIT_TO_STORE = "SELECT count(*) FROM pg_locks WHERE relation = 'ledger_events'::regclass AND NOT granted"
HANG_UP = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'ledger_events'::regclass AND NOT granted"
WORKED = "SELECT count(DISTINCT worker) FROM consumer_offsets WHERE topic = %s"
FIRST_PARKED = "SELECT order_id, min(id) FROM parked_orders WHERE topic = %s GROUP BY order_id"


def make_anew(side: Consumers) -> bool:
    """Whether the topic could be created again: its deletion takes a moment."""
    try:
        with administering(side.kafka) as admin:
            admin.create_topics({side.topic: {"num_partitions": 4}})
    except TopicAlreadyExistsError:
        return False
    return True
