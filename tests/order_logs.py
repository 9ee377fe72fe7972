"""Logs of announced orders and of payments that name orders, and what a read model of them should say."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from msgspec.structs import replace
from psycopg import Connection

from application.orders import order_payment, order_stream, paid
from domain import order as orders
from domain.envelope import Envelope
from domain.errors import Refusal
from domain.facts import Fact
from domain.order import Cancel, Order, OrderCommand, Place, RecordPaid
from domain.order_facts import OrderCancelled, OrderFact, OrderPaid, OrderPlaced, OrderStatus
from domain.payment import Payment, evolve
from domain.payment_commands import Capture, PaymentCommand, Refund, Void
from domain.payment_decisions import decide
from domain.payment_facts import AuthorizationStarted, PaymentFact
from tests.billing_logs import decided
from tests.given import (
    NOON,
    authorize,
    captured_by_hand,
    confirm_action_required,
    confirm_authorized,
    confirm_captured,
    confirm_expired,
    confirm_failed,
    confirm_refunded,
    confirm_voided,
    fold,
    told_of_dispute,
    told_of_reversal,
    usd,
)

NAMES = ("order-1", "order-2", "order-3")
USERS = ("user-1", "user-2")
PRICE = 100_00
EMPTY = "TRUNCATE orders, order_payments, announced_orders"

# --- Any history -------------------------------------------------------------------------------------------------


def placed(order: str = NAMES[0], user: str = USERS[0], minor: int = PRICE, version: int = 0) -> OrderPlaced:
    return OrderPlaced(order, version, user, usd(minor), "created")


def any_order(random: Random, name: str) -> tuple[OrderFact, ...]:
    """From its announcement on, as the domain allows."""
    announced: OrderStatus = random.choice(["created", "created", "awaiting:payment", "cancelled", "complete"])
    price = usd(random.choice([PRICE, PRICE, 40_00]))
    place = Place(name, random.randrange(3), random.choice(USERS), price, announced)
    state: Order | None = None
    facts: tuple[OrderFact, ...] = ()
    then: list[OrderCommand] = [RecordPaid(order_payment(name), price, "ch_1"), Cancel(name, place.version + 1)]
    for command in (place, *random.sample(then, 2)):
        if facts and random.random() < 0.5:
            continue
        try:
            new = orders.decide(state, command)
        except Refusal:
            continue
        for fact in new:
            state = orders.evolve(state, fact)
        facts += new
    return facts


def any_payment(random: Random) -> tuple[PaymentFact, ...]:
    """Attempts that mostly name one order, each as far as chance takes it."""
    usual, state = random.choice([*NAMES, None]), None
    facts: tuple[PaymentFact, ...] = ()
    while not facts or random.random() < 0.95:
        order = usual if random.random() < 0.7 else random.choice([*NAMES, None])
        try:
            new = decide(state, _payment_command(random, order, attempt=state.attempt if state else 0))
        except Refusal:
            continue
        state, facts = fold(new, state), facts + new
    return facts


def _payment_command(random: Random, order: str | None, attempt: int) -> PaymentCommand:
    maybe, auth = f"op_{random.randrange(3)}", f"auth_{attempt}"
    minor = random.choice([PRICE, PRICE, 40_00])
    if not attempt or random.random() < 0.2:
        return replace(authorize(f"auth_{attempt + 1}", minor), order=order)
    any_of: list[PaymentCommand] = [
        confirm_authorized(auth, usd(minor), taken_at_once=random.random() < 0.5, multicapture=random.random() < 0.5),
        confirm_authorized(auth, usd(PRICE)),
        confirm_action_required(auth),
        confirm_failed(auth),
        confirm_failed(maybe),
        Capture(maybe, random.choice([None, 40_00])),
        confirm_captured(maybe, usd(minor)),
        captured_by_hand(maybe, minor),
        Void(maybe),
        confirm_voided(maybe),
        Refund(maybe, random.choice([None, 40_00])),
        confirm_refunded(maybe, usd(minor)),
        told_of_dispute(random.choice(["open", "won", "lost"]), minor=minor),
        told_of_reversal(maybe),
        confirm_expired(),
    ]
    return random.choice(any_of)


def any_log(random: Random) -> list[Envelope]:
    """Each stream in order, the streams as they may lie, and the clocks of those who wrote them off by some minutes."""
    orders = [history(random, order_stream(name), *any_order(random, name)) for name in NAMES if random.random() < 0.7]
    streams = random.sample([*map(order_payment, NAMES), *(UUID(int=number) for number in range(4))], 4)
    return interleaved(random, [*orders, *(history(random, stream, *any_payment(random)) for stream in streams)])


def history(random: Random, stream: UUID, *facts: Fact) -> list[Envelope]:
    return decided(stream, *facts, at=NOON + timedelta(seconds=random.randrange(600)))


def interleaved(random: Random, histories: Sequence[Sequence[Envelope]]) -> list[Envelope]:
    left, log = [list(one) for one in histories if one], list[Envelope]()
    while left:
        chosen = random.choice(left)
        log.append(replace(chosen.pop(0), position=len(log) + 1))
        left = [one for one in left if one]
    return log


def positioned(log: Sequence[Envelope]) -> list[Envelope]:
    return [replace(envelope, position=position) for position, envelope in enumerate(log, 1)]


def batches(random: Random, log: Sequence[Envelope]) -> list[Sequence[Envelope]]:
    """The log, cut anywhere."""
    cuts = sorted({0, len(log), *(random.randrange(len(log)) for _ in range(random.choice([0, 2, 10])))})
    return [log[start:end] for start, end in pairwise(cuts)]


# --- What it comes to --------------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """An order: whose it is, how it stands, since when, and the payments that name it with what is due of each."""

    user: str | None
    status: str | None
    created_at: datetime
    payments: dict[UUID, str | None]


def expected(log: Iterable[Envelope]) -> dict[str, Expected]:
    """Every order that is told of, from each stream's whole history: nothing is carried from one fact to the next."""
    streams: dict[UUID, list[Envelope]] = {}
    for envelope in log:
        streams.setdefault(envelope.stream, []).append(envelope)
    announced = {own[0].fact.order: own for own in streams.values() if isinstance(own[0].fact, OrderPlaced)}
    naming = {stream: _named_by(own) for stream, own in streams.items() if _named_by(own)}
    lasting = {stream: own for stream, own in naming.items() if None not in own.values()}
    begun = [(name, at) for own in naming.values() for at, name in _before_it_left(own)]
    begun += [(name, own[0].at) for name, own in announced.items()]
    found = {}
    for name in {name for name, _ in begun}:
        payments = {
            stream: _state(streams[stream]) for stream, own in lasting.items() if list(own.values())[-1] == name
        }
        own = announced.get(name, [])
        if own or payments:
            since = min(at for one, at in begun if one == name)
            found[name] = _expected(name, [envelope.fact for envelope in own], payments, since)
    return found


def _expected(name: str, facts: list[Fact], payments: dict[UUID, Payment], since: datetime) -> Expected:
    if not facts:
        return Expected(None, None, since, dict.fromkeys(payments))
    first = facts[0]
    assert isinstance(first, OrderPlaced)
    said = {OrderPlaced: first.status, OrderCancelled: "cancelled", OrderPaid: "complete"}[type(facts[-1])]
    going = ("pending", "requires_action", "authorized", "partially_captured", "captured")
    if said == "created" and [payment for payment in payments.values() if payment.status in going]:
        said = "awaiting:payment"
    due: dict[UUID, str | None] = dict.fromkeys(payments)
    for stream, payment in payments.items():
        back = _granted(payment, Void("probe")) or _granted(payment, Refund("probe", None))
        if said == "cancelled":
            due[stream] = "return" if back else None
        elif said != "complete" and stream == order_payment(name) and paid(payment):
            due[stream] = "record" if payment.captured == first.price else "return" if back else None
    return Expected(first.user, said, since, due)


def _granted(payment: Payment, wish: PaymentCommand) -> bool:
    """Whether the domain would begin it."""
    try:
        return bool(decide(payment, wish))
    except Refusal:
        return False


def _named_by(own: Sequence[Envelope]) -> dict[datetime, str | None]:
    """What each attempt of a payment named, by when it was made."""
    return {envelope.at: envelope.fact.order for envelope in own if isinstance(envelope.fact, AuthorizationStarted)}


def _before_it_left(named: dict[datetime, str | None]) -> list[tuple[datetime, str]]:
    found = []
    for at, name in named.items():
        if name is None:
            break
        found.append((at, name))
    return found


def _state(own: Sequence[Envelope]) -> Payment:
    state: Payment | None = None
    for envelope in own:
        fact = envelope.fact
        assert isinstance(fact, PaymentFact)
        state = evolve(state, fact)
    assert state is not None
    return state


# --- What the rows say -------------------------------------------------------------------------------------------


def told(conn: Connection[Any]) -> dict[str, Expected]:
    """What the rows say of each order that is told of."""
    payments: dict[str, dict[UUID, str | None]] = {}
    for payment, order, due in conn.execute("SELECT id, order_id, due FROM order_payments"):
        payments.setdefault(order, {})[payment] = due
    found = conn.execute("SELECT id, user_id, status, created_at FROM orders").fetchall()
    return {
        name: Expected(user, status, since, payments.get(name, {}))
        for name, user, status, since in found
        if status is not None or name in payments
    }
