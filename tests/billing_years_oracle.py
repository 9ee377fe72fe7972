"""What must hold between a world and the stand-in: every period has one outcome, ours and theirs say the same, and
every date is what a calendar says that counts otherwise than ours does.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from domain.money import from_stripe
from domain.subscription import Subscription
from domain.subscription_facts import (
    InvoiceRefunded,
    InvoiceVoided,
    RenewalFailed,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionRenewed,
    SubscriptionRequested,
    SubscriptionResumed,
    SubscriptionStarted,
)
from domain.subscription_paid import paid_until
from projections import customers
from projections.customer_standing import CustomerStatus
from tests.billing_years import World
from tests.billing_years_people import People, Person
from tests.other_calendar import A_DAY, Json, Span, There, moment

STATUSES = {"canceled": "cancelled", "incomplete_expired": "cancelled"}
COUNTED: dict[type[object], str] = {
    SubscriptionStarted: "subscriptions",
    SubscriptionRenewed: "periods renewed",
    RenewalFailed: "attempts failed",
    InvoiceVoided: "invoices voided",
    InvoiceRefunded: "refunds learned",
    SubscriptionCancelled: "subscriptions ended",
    SubscriptionChanged: "plans changed",
    SubscriptionResumed: "ends taken back",
}
CAUSES = {"cancellation_requested": "requested", "payment_failed": "payment_failed"}


# --- Ours and theirs ----------------------------------------------------------------------------------------------


async def differences(world: World, people: People) -> list[str]:
    """Empty, when all is well. What is compared is counted in the world."""
    state = world.shop.state()
    for what in COUNTED.values():
        world.counted[what] = 0
    owned = _Owned(state, people.months)
    begun = [person for person in people.persons if person.stream is not None]
    found = [f"{one['id']} is nobody's" for one in state["customers"] if one["id"] not in {p.provider for p in begun}]
    for person in begun:
        assert person.stream is not None
        status = await customers.status_of(world.conn, person.stream, world.clock())
        assert status is not None
        found += [f"{person.user}: {odd}" for odd in _of_person(world, person, status, owned)]
    return found


class _Owned:
    """The stand-in's objects by whose they are."""

    def __init__(self, state: Json, months: dict[str, int]) -> None:
        self.months = months
        self.now = moment(state["now"])
        self.customers = {one["id"]: one for one in state["customers"]}
        self.methods = {one["id"]: one for one in state["payment_methods"]}
        self.subscriptions = _grouped(state["subscriptions"], lambda one: one["customer"])
        self.charges = _grouped(state["charges"], lambda one: one["customer"])
        self.back = _gone_back(state)
        self.invoices = _grouped(state["invoices"], lambda one: one["parent"]["subscription_details"]["subscription"])


def _gone_back(state: Json) -> Counter[str]:
    """How much of each invoice."""
    of_intents, of_invoices = Counter[str](), Counter[str]()
    for refund in state["refunds"]:
        of_intents[refund["payment_intent"]] += refund["amount"] if refund["status"] == "succeeded" else 0
    for payment in state["invoice_payments"]:
        of_invoices[payment["invoice"]] += of_intents[payment["payment"]["payment_intent"]]
    return of_invoices


def _grouped(found: list[Json], owner: Callable[[Json], str]) -> defaultdict[str, list[Json]]:
    grouped: defaultdict[str, list[Json]] = defaultdict(list)
    for one in found:
        grouped[owner(one)].append(one)
    return grouped


def _of_person(world: World, person: Person, status: CustomerStatus, owned: _Owned) -> Iterator[str]:
    known = [(at.state.provider_subscription, at) for at in status.subscriptions]
    ours = {name: at for name, at in known if name is not None}
    theirs = {one["id"]: one for one in owned.subscriptions[person.provider]}
    if sorted(name for name, _ in known if name is not None) != sorted(theirs):
        yield f"has {sorted(theirs)}, and we know {sorted(ours)}"
        return
    if open_ := [name for at in status.subscriptions for name, _ in at.state.in_flight()]:
        yield f"still open: {open_}"
    yield from _card(status, owned.customers[person.provider], owned.methods)
    until: list[datetime] = []
    renewed = 0
    for name, at in ours.items():
        facts = [envelope.fact for envelope in world.ledger.load(at.id).envelopes]
        wished = [fact for fact in facts if isinstance(fact, SubscriptionRequested)]  # of several the last began it
        there = There(theirs[name], owned.invoices[name], owned.months, owned.back, wished[-1].trial_days)
        for odd in (*there.odd, *_standing(at.state, there, owned.now), *_invoices(facts, there)):
            yield f"{name}: {odd}"
        until += [there.paid_until] if there.paid_until else []
        renewed += sum(fact.amount.minor for fact in facts if isinstance(fact, SubscriptionRenewed))
        _count(world, facts)
    if status.payment_expire_date != max(until, default=None):
        yield f"paid until {status.payment_expire_date}, and the calendar says {max(until, default=None)}"
    charged = sum(one["amount"] for one in owned.charges[person.provider] if one["status"] == "succeeded")
    if renewed != charged:
        yield f"renewed for {renewed}, charged {charged}"


def _count(world: World, facts: Sequence[object]) -> None:
    for fact in facts:
        if (what := COUNTED.get(type(fact))) is not None:
            world.counted[what] += 1


def _card(status: CustomerStatus, theirs: Json, methods: dict[str, Json]) -> Iterator[str]:
    default = theirs["invoice_settings"]["default_payment_method"]
    there = methods[default]["card"] if default else None
    expected = there and (there["brand"], there["last4"], there["exp_month"], there["exp_year"])
    ours = status.card and (status.card.brand, status.card.last4, status.card.exp_month, status.card.exp_year)
    if ours != expected:
        yield f"pays with {ours}, there with {expected}"


def _standing(ours: Subscription, there: There, now: datetime) -> Iterator[str]:
    theirs, item = there.found, there.found["items"]["data"][0]
    status = STATUSES.get(theirs["status"], theirs["status"])
    pairs: list[tuple[str, object, object]] = [("status", ours.status, status)]
    if ours.terms is not None:
        terms, price = ours.terms.value, item["price"]
        amount = from_stripe(price["unit_amount"] * item["quantity"], price["currency"])
        trial_end = theirs["trial_end"] and moment(theirs["trial_end"])
        pairs += [
            ("price", (terms.product, terms.price, terms.quantity), (price["product"], price["id"], item["quantity"])),
            ("amount", terms.amount, amount),
            ("anchor", terms.anchor, moment(theirs["billing_cycle_anchor"])),
            ("trial", terms.trial_end, trial_end),
        ]
    if ours.cancelled is not None:
        cause = CAUSES.get(theirs["cancellation_details"]["reason"])
        cause = "never_paid" if theirs["status"] == "incomplete_expired" else cause
        pairs += [("end", ours.cancelled.at, moment(theirs["ended_at"])), ("cause", ours.cancelled.cause, cause)]
    else:
        pairs.append(("planned end", ours.ends_at, theirs["cancel_at"] and moment(theirs["cancel_at"])))
    pairs.append(("paid until", paid_until(ours), there.paid_until))
    back = {name: told.value.minor for name, told in ours.refunds.items() if told.value.minor}
    pairs.append(("refunds", back, {name: minor for name, minor in there.back.items() if minor}))
    yield from (f"{what} {here}, there {expected}" for what, here, expected in pairs if here != expected)
    over = theirs["ended_at"] and moment(theirs["ended_at"])
    if there.due is None or there.due < (over or now):
        yield f"no period since {there.due}"


# --- Invoices: each has one outcome -------------------------------------------------------------------------------


def _invoices(facts: Sequence[object], there: There) -> Iterator[str]:
    """Of a paid one that it was renewed, once; of one that is failing its last attempt, and of no attempt twice."""
    told = {one["id"]: one for one in there.invoices if one["id"] in there.spans}
    renewals = [fact for fact in facts if isinstance(fact, SubscriptionRenewed)]
    failures = [fact for fact in facts if isinstance(fact, RenewalFailed)]
    yield from _same(
        "renewed", [f.invoice for f in renewals], [n for n, one in told.items() if one["status"] == "paid"]
    )
    voided = [fact.invoice for fact in facts if isinstance(fact, InvoiceVoided)]
    yield from _same("voided", voided, [name for name, one in told.items() if one["status"] == "void"])
    attempts = Counter((fact.invoice, fact.attempt) for fact in failures)
    yield from (f"{attempt} is told {times} times" for attempt, times in attempts.items() if times > 1)
    for name, one in told.items():
        tried = one["attempt_count"] if one["status"] in {"open", "uncollectible"} else 0
        if tried and (name, tried) not in attempts:
            yield f"{name}: of {tried} attempts the last is not known"
    outcomes: list[SubscriptionRenewed | RenewalFailed] = [*renewals, *failures]
    for fact in outcomes:
        if fact.invoice in told:
            yield from _outcome(fact, told[fact.invoice], there.spans[fact.invoice])
        else:
            yield f"{fact.invoice} is not there"


def _same(what: str, ours: list[str], theirs: list[str]) -> Iterator[str]:
    if sorted(ours) != sorted(theirs):
        yield f"{what} {sorted((Counter(ours) - Counter(theirs)).elements())} too much, "
        yield f"{what} {sorted((Counter(theirs) - Counter(ours)).elements())} missing"


def _outcome(fact: SubscriptionRenewed | RenewalFailed, one: Json, span: Span) -> Iterator[str]:
    start = fact.period_start if span[1] - span[0] < A_DAY else span[0]  # the rest of a period: only its end is told
    if (fact.period_start, fact.period_end) != (start, span[1]):
        yield f"{fact.invoice} is for {fact.period_start} to {fact.period_end}, by the calendar {span}"
    if isinstance(fact, SubscriptionRenewed):
        if fact.amount.minor != one["amount_paid"]:
            yield f"{fact.invoice}: {fact.amount} renewed, {one['amount_paid']} paid"
    elif not 1 <= fact.attempt <= one["attempt_count"] or fact.amount.minor != one["amount_due"]:
        yield f"{fact.invoice}: attempt {fact.attempt} of {one['attempt_count']} for {fact.amount}, {one['amount_due']}"
