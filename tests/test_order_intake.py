"""Announcements of orders into the log: in any order, repeated, unreadable, at the same time; without a broker."""

import secrets
import threading
from collections.abc import Iterator
from random import Random

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application import order_parking
from application.event_store import Ledger, StreamMoved
from application.log_transaction import LogTransaction
from application.order_intake import NotParked, OrderIntake, Retried
from application.order_messages import Message
from application.order_offsets import Deposed, Move
from application.order_parking import BEHIND, SealUnknown, TooManyParked
from application.orders import order_stream
from application.privacy import Keys
from domain.envelope import NO_PREVIOUS, Envelope
from domain.facts import Fact
from domain.money import Money
from domain.order import Order
from domain.order_facts import OrderPaid
from interface.kafka.order_reading import reader
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from tests.given import AUTHORIZED
from tests.order_intake_side import KEY, NOON, OrderSide, Sent, cancelled, created, garbage, outcome
from tests.processes import eventually

PATIENCE_S = 10
_names = iter(f"order-{number}" for number in range(1_000_000))


@pytest.fixture(scope="module")
def log(postgres: Postgres) -> Iterator[Ledger]:
    """One for the file: each test has orders of its own."""
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE order_intake")
    url = postgres.url.rpartition("/")[0] + "/order_intake"
    migrate(url)
    with Ledger(url) as ledger:
        yield ledger


@pytest.fixture
def side(log: Ledger) -> OrderSide:
    side = OrderSide(log)
    side.run("TRUNCATE parked_orders, discarded_orders, waiting_cancellations, consumer_offsets")
    return side


@pytest.fixture
def order() -> str:
    return next(_names)


# --- In their order, and not -------------------------------------------------------------------------------------


def test_an_order_is_created_and_cancelled(side: OrderSide, order: str) -> None:
    assert side.became(created(order, price="19.99")) == {"applied": 1}
    assert side.order(order) == Order(order, 0, "user_42", Money(19_99, "usd"), "created")
    assert side.became(cancelled(order)) == {"applied": 1}
    assert side.order(order) == Order(order, 1, "user_42", Money(19_99, "usd"), "cancelled")


def test_duplicates_and_older_changes_change_nothing(side: OrderSide, order: str) -> None:
    side.take(created(order), cancelled(order))
    again = (created(order), created(order, price="99"), cancelled(order), cancelled(order, 0))
    assert side.became(*again) == {"unchanged": 4}
    assert side.facts(order) == ["OrderPlaced", "OrderCancelled"]
    assert side.offset() == 6


def test_a_cancellation_that_overtakes_its_creation_waits_for_it(side: OrderSide, order: str) -> None:
    assert side.became(cancelled(order), cancelled(order)) == {"waiting": 1, "unchanged": 1}
    assert (side.waiting(), side.order(order), side.offset()) == (1, None, 2)
    assert side.became(created(order)) == {"applied": 1}
    assert side.facts(order) == ["OrderPlaced", "OrderCancelled"]
    assert side.waiting() == 0


def test_one_that_overtakes_in_the_same_batch_never_waits(side: OrderSide, order: str) -> None:
    assert side.became(cancelled(order), created(order)) == {"waiting": 1, "applied": 1}
    assert side.facts(order) == ["OrderPlaced", "OrderCancelled"]
    assert side.waiting() == 0


def test_a_cancellation_waits_for_the_change_before_it_not_for_any(side: OrderSide, order: str) -> None:
    side.take(cancelled(order, 2), created(order))
    assert (side.facts(order), side.waiting()) == (["OrderPlaced"], 1)
    side.take(cancelled(order, 1))
    assert (side.facts(order), side.waiting()) == (["OrderPlaced", "OrderCancelled", "OrderCancelled"], 0)


def test_what_waited_for_a_change_that_was_skipped_is_forgotten(side: OrderSide, order: str) -> None:
    side.take(cancelled(order, 1))
    side.take(created(order, 5))
    assert (side.facts(order), side.waiting()) == (["OrderPlaced"], 0)


def test_a_fact_tells_which_message_it_came_from(side: OrderSide, order: str) -> None:
    named = created(order)
    side.take(cancelled(order), named._replace(headers=(*named.headers, ("message-id", b"m-1"))))
    placed, gone = side.ledger.load(order_stream(order)).envelopes
    assert (placed.actor, placed.operation, placed.at) == ("orders", None, NOON)
    assert (placed.correlation, placed.causation) == ("m-1", f"{side.topic}/0/1")
    assert (gone.correlation, gone.causation) == (f"{side.topic}/0/0", f"{side.topic}/0/0")
    assert gone.previous != placed.previous == NO_PREVIOUS


def test_what_is_not_for_us_is_passed_over(side: OrderSide, order: str) -> None:
    other = Sent(order.encode(), b"anything", (("event-type", b"order:shipped"),))
    assert side.became(other, created(order)) == {"passed over": 1, "applied": 1}
    query = "SELECT row(applied, unchanged, passed_over, next_offset)::text FROM consumer_offsets WHERE topic = %s"
    assert side.one(query, side.topic) == "(1,0,1,2)"


ORDERS = st.lists(
    st.tuples(st.none() | st.integers(0, 3), st.lists(st.integers(0, 7), max_size=6)), min_size=1, max_size=6
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders=ORDERS, seed=st.integers(0, 2**32))
def test_any_order_repetition_and_batching_leads_to_the_same(
    log: Ledger, orders: list[tuple[int | None, list[int]]], seed: int
) -> None:
    side, chance = OrderSide(log), Random(seed)
    names = [next(_names) for _ in orders]
    sent = []
    for name, (first, cancellations) in zip(names, orders, strict=True):
        sent += [created(name, first)] * chance.randint(1, 2) if first is not None else []
        sent += [cancelled(name, version) for version in cancellations]
    chance.shuffle(sent)
    while sent:
        size = chance.randint(1, 7)
        side.take(*sent[:size], partition=chance.randrange(2))  # an order's, wherever they come from
        del sent[:size]
    for name, (first, cancellations) in zip(names, orders, strict=True):
        waits = side.one("SELECT count(*) FROM waiting_cancellations WHERE stream = %s", order_stream(name))
        found = side.order(name)
        folded = (found.version, found.status == "cancelled", waits) if found else waits
        assert folded == outcome(first, cancellations)


# --- At the same time --------------------------------------------------------------------------------------------


def test_a_consumer_that_was_deposed_stores_nothing(side: OrderSide, order: str) -> None:
    late = side.placed([created(order)])
    side.take(created(next(_names)))
    with pytest.raises(Deposed):
        side.intake.take(late, [Move(side.topic, 0, 0, 1, 0)], NOON)
    assert (side.order(order), side.offset()) == (None, 1)


def test_when_an_order_is_paid_at_the_same_moment_the_batch_is_done_again(
    side: OrderSide, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    side.take(created(order))
    append = LogTransaction.append

    def just_after_it_is_paid(transaction: LogTransaction, appends: object) -> None:
        pay(side, order)
        append(transaction, appends)  # type: ignore[arg-type]

    monkeypatch.setattr(LogTransaction, "append", just_after_it_is_paid)
    with pytest.raises(StreamMoved):
        side.take(cancelled(order))
    assert side.offset() == 1
    monkeypatch.setattr(LogTransaction, "append", append)
    side.take(cancelled(order))
    assert side.facts(order) == ["OrderPlaced", "OrderPaid", "OrderCancelled"]


def test_a_cancellation_and_its_creation_do_not_miss_each_other(
    side: OrderSide, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come over two partitions, as after a change of their number; the creation is decided on, not yet stored."""
    append = LogTransaction.append
    decided, may_store = threading.Event(), threading.Event()

    def when_told(transaction: LogTransaction, appends: object) -> None:
        if threading.current_thread().name == "creation":
            decided.set()
            assert may_store.wait(PATIENCE_S)
        append(transaction, appends)  # type: ignore[arg-type]

    monkeypatch.setattr(LogTransaction, "append", when_told)
    creation = threading.Thread(target=side.take, args=(created(order),), name="creation")
    cancellation = threading.Thread(target=side.take, args=(cancelled(order),), kwargs={"partition": 1})
    creation.start()
    assert decided.wait(PATIENCE_S)
    cancellation.start()
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    eventually(lambda: side.one(waits) == 1 or not cancellation.is_alive(), PATIENCE_S)
    may_store.set()
    creation.join(PATIENCE_S)
    cancellation.join(PATIENCE_S)
    assert side.facts(order) == ["OrderPlaced", "OrderCancelled"]
    assert side.waiting() == 0


# --- Parked ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_parks_with_what_follows_it_and_others_go_on(side: OrderSide, order: str) -> None:
    other = next(_names)
    batch = (garbage(order), created(order), created(other), cancelled(order), cancelled(other))
    assert side.became(*batch) == {"parked": 3, "applied": 2}
    assert side.became(cancelled(order)) == {"parked": 1}
    assert side.reasons() == ["body: is not JSON", BEHIND, BEHIND, BEHIND]
    assert [one.place for one in side.parked()] == [f"{side.topic}/0/{offset}" for offset in (0, 1, 3, 5)]
    assert (side.order(order), side.facts(other)) == (None, ["OrderPlaced", "OrderCancelled"])
    assert side.offset() == 6


def test_a_creation_that_contradicts_what_is_known_parks(side: OrderSide, order: str) -> None:
    side.take(created(order))
    assert side.became(created(order, 4)) == {"parked": 1}
    assert side.reasons() == ["version: it was created before"]


def test_what_breaks_its_reader_parks_like_what_it_cannot_read(side: OrderSide, order: str) -> None:
    def fails(message: Message) -> object:
        raise RecursionError(message)

    side.intake._read = fails  # type: ignore[assignment]
    assert side.became(created(order)) == {"parked": 1}
    assert side.reasons() == ["body: its reader fails with RecursionError"]


def test_an_order_whose_history_is_not_one_of_an_order_parks(side: OrderSide, order: str) -> None:
    append(side, order, 1, AUTHORIZED[0])
    assert side.became(created(order)) == {"parked": 1}
    assert side.reasons() == ["the order's history is not one of an order"]


def test_a_message_without_a_key_parks_alone(side: OrderSide) -> None:
    keyless = Sent(None, b"not JSON", (("event-type", b"order:created"),))
    assert side.became(keyless, keyless) == {"parked": 2}
    assert side.reasons() == ["body: is not JSON"] * 2


def test_a_retry_takes_a_lane_in_in_its_order(side: OrderSide, order: str) -> None:
    side.take(created(order, price="20.120"), cancelled(order))
    (first, _) = side.parked()
    newer = OrderIntake(side.ledger, Keys((KEY,), secrets.token_bytes), reader("kwd"))
    assert newer.retry(first.id, NOON) == Retried(2, 0)
    assert side.order(order) == Order(order, 1, "user_42", Money(20_120, "kwd"), "cancelled")
    assert side.parked() == []
    assert side.became(cancelled(order)) == {"unchanged": 1}


def test_a_retry_that_fails_again_counts_and_keeps_the_lane(side: OrderSide, order: str) -> None:
    side.take(garbage(order), created(order))
    first, second = side.parked()
    assert side.intake.retry(second.id, NOON) == Retried(0, 2, "body: is not JSON")
    assert [(one.id, one.attempts) for one in side.parked()] == [(first.id, 2), (second.id, 1)]
    assert side.order(order) is None


def test_a_retry_gets_as_far_as_it_can(side: OrderSide, order: str) -> None:
    side.take(created(order, price="20.120"), garbage(order), cancelled(order))
    newer = OrderIntake(side.ledger, Keys((KEY,), secrets.token_bytes), reader("kwd"))
    assert newer.retry(side.parked()[0].id, NOON) == Retried(1, 2, "body: is not JSON")
    assert side.facts(order) == ["OrderPlaced"]
    assert side.reasons() == ["body: is not JSON", BEHIND]


def test_a_discarded_message_lets_those_behind_it_in_and_leaves_word(side: OrderSide, order: str) -> None:
    side.take(garbage(order), created(order), cancelled(order))
    (first, _, _) = side.parked()
    assert side.intake.discard(first.id, "ada", "a test of theirs", NOON) == Retried(2, 0)
    assert side.facts(order) == ["OrderPlaced", "OrderCancelled"]
    assert side.parked() == []
    word = "SELECT row(message_offset, reason, discarded_by, why)::text FROM discarded_orders"
    assert side.one(word) == '(0,"body: is not JSON",ada,"a test of theirs")'


def test_discarding_a_creation_leaves_its_cancellation_waiting(side: OrderSide, order: str) -> None:
    side.take(created(order, price="0"), cancelled(order))
    assert side.intake.discard(side.parked()[0].id, "ada", "free", NOON) == Retried(1, 0)
    assert (side.order(order), side.waiting()) == (None, 1)


def test_what_is_not_parked_cannot_be_retried_or_discarded(side: OrderSide) -> None:
    with pytest.raises(NotParked):
        side.intake.retry(0, NOON)
    with pytest.raises(NotParked):
        side.intake.discard(0, "ada", "why", NOON)


def test_what_is_parked_is_kept_under_seal(side: OrderSide, order: str) -> None:
    side.take(created(order, user="alice@example.com", price="-1"))
    row = str(side.one("SELECT row(parked_orders.*)::text || encode(sealed, 'escape') FROM parked_orders"))
    assert order in row
    assert "alice" not in row


def test_a_seal_is_opened_with_an_older_key_and_by_nobody_else(side: OrderSide, order: str) -> None:
    side.take(garbage(order))
    (parked,) = side.parked()
    rotated, stranger = OrderSide(side.ledger, bytes([1]) * 32, KEY), OrderSide(side.ledger, bytes([1]) * 32)
    with pytest.raises(SealUnknown):
        stranger.intake.retry(parked.id, NOON)
    assert rotated.intake.retry(parked.id, NOON).stay == 1
    moved = "UPDATE parked_orders SET message_offset = message_offset + 1"
    side.run(moved)
    with pytest.raises(SealUnknown):
        rotated.intake.retry(parked.id, NOON)


@pytest.mark.parametrize(("limit", "most"), [("MAX_LANES", 2), ("MAX_PARKED", 4)])
def test_too_many_that_park_stop_the_batch(
    side: OrderSide, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(order_parking, limit, most)
    first, second, third, fine = (next(_names) for _ in range(4))
    side.take(garbage(first), created(first), garbage(second), created(second))
    with pytest.raises(TooManyParked):
        side.take(created(fine), garbage(third))
    assert (len(side.parked()), side.order(fine), side.offset()) == (4, None, 4)


def test_an_order_cannot_have_too_many_changes_wait(side: OrderSide, order: str) -> None:
    counts = side.became(*(cancelled(order, version) for version in range(2, 105)))
    assert counts == {"waiting": 100, "parked": 3}
    assert side.reasons()[0] == "version: too many of the order's changes wait already"


# --- Helpers -----------------------------------------------------------------------------------------------------


def pay(side: OrderSide, order: str) -> None:
    append(side, order, 2, OrderPaid(order, order_stream(order), Money(20_00, "usd"), "ch_1"))


def append(side: OrderSide, order: str, version: int, fact: Fact) -> None:
    stream = order_stream(order)
    tail = side.ledger.load(stream).tail
    side.ledger.append(
        [
            Envelope(
                stream=stream,
                version=version,
                fact=fact,
                at=NOON,
                actor="a test",
                operation=None,
                correlation="c",
                causation=None,
                fingerprint=None,
                person=str(stream),
            )
        ],
        tail,
    )
