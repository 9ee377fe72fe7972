"""Logs of customers, their names, subscriptions and payments: histories that the domain allows, lying as they may."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID

from msgspec import json
from msgspec.structs import replace

from domain import customer as customers
from domain import customer_decisions, subscription_decisions
from domain import subscription as subscriptions
from domain.customer import Customer
from domain.customer_commands import AddName, CustomerCommand, Register, UpdateCard
from domain.customer_facts import CustomerFact, NameClaimed
from domain.envelope import Envelope
from domain.errors import Refusal
from domain.facts import Fact
from domain.personal import Sealed, joined, split
from domain.subscription import Subscription
from domain.subscription_commands import Cancel, Change, Resume, Subscribe, SubscriptionCommand
from domain.subscription_facts import SubscriptionFact, SubscriptionRequested
from tests.given import CAPTURED, NO_FUNDS, NOON, VISA
from tests.given_customer import MASTERCARD, confirm_card, confirm_created, confirm_refused, told_card_is_gone
from tests.given_subscription import (
    FEB_28,
    FIRST,
    PRICIER,
    SECOND,
    THIRD,
    confirm_started,
    later,
    told_changed,
    told_ended,
    told_paid,
    told_resumed,
    told_scheduled,
    told_status,
    told_unpaid,
    told_voided,
)
from tests.given_subscription import confirm_refused as refuse_subscription

# --- Envelopes ---------------------------------------------------------------------------------------------------


def decided(stream: UUID, *facts: Fact, first: int = 1, at: datetime = NOON) -> list[Envelope]:
    """The facts on their way into the log, a second apart."""
    return [
        Envelope(
            stream=stream,
            version=version,
            fact=fact,
            at=at + timedelta(seconds=version),
            actor="app",
            operation=getattr(fact, "operation", None),
            correlation=f"request-{version}",
            causation=None,
            fingerprint=None,
            person=str(stream),
        )
        for version, fact in enumerate(facts, first)
    ]


def history(stream: UUID, *facts: Fact) -> list[Envelope]:
    """The facts as the log's readers see them: what is personal in them is in a box."""
    return [_read(envelope) for envelope in decided(stream, *facts)]


def _read(envelope: Envelope) -> Envelope:
    bare, personal = split(envelope.fact)
    box = Sealed(str(envelope.stream), envelope.version, json.encode(personal)) if personal else None
    return replace(envelope, fact=bare, sealed=box, position=envelope.version)


def box_opened(_: UUID, box: Sealed) -> dict[str, Any]:
    return json.decode(box.box, type=dict[str, Any])


def unboxed(envelope: Envelope) -> Envelope:
    """With the fact as it was decided."""
    if envelope.sealed is None:
        return envelope
    return replace(envelope, fact=joined(envelope.fact, box_opened(envelope.stream, envelope.sealed)), sealed=None)


def customer_of(history: Sequence[Envelope]) -> Customer:
    """As the domain folds it."""
    facts: list[Any] = [envelope.fact for envelope in history]
    state = reduce(customers.evolve, facts, None)
    assert state is not None
    return state


def subscription_of(history: Sequence[Envelope]) -> Subscription:
    facts: list[Any] = [envelope.fact for envelope in history]
    state = reduce(subscriptions.evolve, facts, None)
    assert state is not None
    return state


def of(customer: UUID, *facts: SubscriptionFact) -> tuple[SubscriptionFact, ...]:
    """The facts, about a subscription of this customer."""
    return tuple(
        replace(fact, customer=customer) if isinstance(fact, SubscriptionRequested) else fact for fact in facts
    )


# --- Any history -------------------------------------------------------------------------------------------------


def _customer_command(random: Random) -> CustomerCommand:
    name, card = f"op_{random.randrange(8)}", random.choice([VISA, MASTERCARD])
    email = f"ada{random.randrange(3)}@example.org"
    any_of: list[CustomerCommand] = [
        Register(name, random.choice([None, "user-7"]), email),
        AddName(name, random.choice(["user-7", email])),
        UpdateCard(name, "pm_1"),
        confirm_created(name),
        confirm_card(random.choice([name, None]), card=card),
        confirm_refused(name, NO_FUNDS),
        told_card_is_gone(),
    ]
    return random.choice(any_of)


def _subscription_command(random: Random, customer: UUID) -> SubscriptionCommand:
    name, seconds = f"op_{random.randrange(10)}", random.randrange(1_000)
    maybe = random.choice([name, None])
    invoice, period = random.choice([("in_1", FIRST), ("in_2", SECOND), ("in_3", THIRD)])
    any_of: list[SubscriptionCommand] = [
        Subscribe(name, customer, "prod_1", "price_1"),
        Change(name, "prod_1", random.choice(["price_1", "price_2"])),
        Cancel(name, at_period_end=random.random() < 0.5),
        Resume(name, later(seconds)),
        confirm_started(name, random.choice(["active", "incomplete", "trialing"])),
        told_changed(maybe, PRICIER, later(seconds)),
        told_scheduled(maybe, FEB_28, later(seconds)),
        told_resumed(maybe, later(seconds)),
        told_paid(invoice, period),
        told_unpaid(invoice, period, random.randrange(1, 4), random.choice([None, FEB_28])),
        told_voided(invoice),
        told_status(random.choice(["active", "past_due", "unpaid"]), later(seconds)),
        refuse_subscription(name),
    ]
    return random.choice([*any_of, *([told_ended(maybe)] if random.random() < 0.2 else [])])


def any_customer(random: Random) -> tuple[CustomerFact, ...]:
    state: Customer | None = None
    facts: tuple[CustomerFact, ...] = ()
    while not facts or random.random() < 0.97:
        try:
            new = customer_decisions.decide(state, _customer_command(random))
        except Refusal:
            continue
        state, facts = reduce(customers.evolve, new, state), facts + new
    return facts


def any_subscription(random: Random, customer: UUID) -> tuple[SubscriptionFact, ...]:
    state: Subscription | None = None
    facts: tuple[SubscriptionFact, ...] = ()
    while not facts or random.random() < 0.98:
        try:
            new = subscription_decisions.decide(state, _subscription_command(random, customer))
        except Refusal:
            continue
        state, facts = reduce(subscriptions.evolve, new, state), facts + new
    return facts


def new_stream(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128))


def any_log(random: Random) -> list[Envelope]:
    """Customers with names and subscriptions, and a payment: each stream in order, the streams as they may lie."""
    histories = [history(new_stream(random), *CAPTURED)]
    for _ in range(3):
        customer = new_stream(random)
        histories.append(history(customer, *any_customer(random)))
        for _ in range(random.randrange(3)):
            histories.append(history(new_stream(random), NameClaimed(customer)))
            histories.append(history(new_stream(random), *any_subscription(random, customer)))
    log: list[Envelope] = []
    while any(histories):
        log.append(replace(random.choice([one for one in histories if one]).pop(0), position=len(log) + 1))
    return log


def batches(random: Random, log: Sequence[Envelope]) -> list[Sequence[Envelope]]:
    """The log, cut anywhere."""
    cuts = sorted({0, len(log), *random.choices(range(len(log)), k=random.choice([0, 3, 10, len(log)]))})
    return [log[start:end] for start, end in pairwise(cuts)]
