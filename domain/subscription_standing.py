"""What is known of how a subscription stands at the provider: values that come out the same in whatever order
their parts are heard, and however often.
"""

from datetime import datetime, timedelta
from typing import Generic, TypeVar, get_args

from msgspec import Struct, json
from msgspec.structs import replace

from domain.calendar import Period
from domain.money import Money
from domain.payment_facts import Failure
from domain.subscription_facts import BillingStatus, RenewalFailed, SubscriptionRenewed

T = TypeVar("T")

# --- What changes: of two the later holds ------------------------------------------------------------------------


class Dated(Struct, Generic[T], frozen=True):
    """What holds, and as of when at the provider."""

    value: T
    as_of: datetime


def is_news(known: Dated[T] | None, value: T, as_of: datetime) -> bool:
    """Whether it replaces what is known: the later does.

    Stripe tells time in seconds. Of two in the same one the heavier holds, so that all who hear of both agree; should
    that be the wrong one, whoever looks later finds out.
    """
    return known is None or (as_of, _weight(value)) > (known.as_of, _weight(known.value))


def latest(known: Dated[T] | None, value: T, as_of: datetime) -> Dated[T]:
    return Dated(value, as_of) if known is None or is_news(known, value, as_of) else known


def after(known_at: datetime | None, as_of: datetime) -> datetime:
    """When it became so, of something that was asked for once all up to `known_at` was known: later than that, even in
    the second that Stripe tells for both.
    """
    return as_of if known_at is None else max(as_of, known_at + _NEXT)


def furthest(known: Period | None, told: Period) -> Period:
    return told if known is None else max(known, told)


_NEXT = timedelta(microseconds=1)
_STATUSES = get_args(BillingStatus)


def _weight(value: object) -> bytes:
    """A status weighs what it says is owed, money what it is; for the rest it matters only that unequal things weigh
    unequally.
    """
    if isinstance(value, Money):
        return value.minor.to_bytes(16)
    return bytes([_STATUSES.index(value)]) if value in _STATUSES else json.encode(value)


# --- What is owed: a paid invoice stays paid ---------------------------------------------------------------------


class Invoice(Struct, frozen=True):
    """What is owed, or was paid, for a period. `attempts`: the numbers of those that failed; `failure`: of the last."""

    period: Period
    amount: Money
    paid: bool = False
    attempts: tuple[int, ...] = ()
    next_attempt_at: datetime | None = None
    failure: Failure | None = None


def paid(known: Invoice | None, fact: SubscriptionRenewed) -> Invoice:
    invoice = known or Invoice(Period(fact.period_start, fact.period_end), fact.amount)
    period = Period(fact.period_start, fact.period_end)
    return replace(invoice, period=period, amount=fact.amount, paid=True, next_attempt_at=None)


def failed(known: Invoice | None, fact: RenewalFailed) -> Invoice:
    invoice = known or Invoice(Period(fact.period_start, fact.period_end), fact.amount)
    attempts = tuple(sorted({*invoice.attempts, fact.attempt}))
    if fact.attempt < attempts[-1]:
        return replace(invoice, attempts=attempts)
    invoice = replace(invoice, attempts=attempts, failure=fact.failure)
    if invoice.paid:
        return invoice
    period = Period(fact.period_start, fact.period_end)
    return replace(invoice, period=period, amount=fact.amount, next_attempt_at=fact.next_attempt_at)
