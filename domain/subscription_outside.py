"""What happened to a subscription at the provider without us: invoices paid or not, changes made in the portal or by
dunning, and the facts that tell it.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypeVar, assert_never

from msgspec import Struct
from msgspec.structs import asdict, replace

from domain.calendar import Period
from domain.errors import OutcomeMismatch, SubscriptionNotReady
from domain.subscription import Cancelled, Subscription
from domain.subscription_commands import (
    AdoptSubscription,
    Movement,
    RecordCancelled,
    RecordChanged,
    RecordInvoiceRefunded,
    RecordInvoiceVoided,
    RecordRenewal,
    RecordRenewalFailed,
    RecordResumed,
    RecordScheduled,
    RecordStarted,
    RecordStatus,
)
from domain.subscription_facts import (
    BillingStatus,
    CancellationScheduled,
    InvoiceRefunded,
    InvoiceVoided,
    RenewalFailed,
    StatusMoved,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionFact,
    SubscriptionRenewed,
    SubscriptionRequested,
    SubscriptionResumed,
    SubscriptionStarted,
    Terms,
)
from domain.subscription_paid import next_period
from domain.subscription_standing import Dated, after, is_news

T = TypeVar("T")


def without_us(subscription: Subscription, told: Movement) -> tuple[SubscriptionFact, ...]:
    """The facts that tell it, or none if it is known or older than what is; also before the start and after the end.

    Raises a Refusal when it does not fit the history.
    """
    match told:
        case RecordRenewal():
            return _paid(subscription, told)
        case RecordRenewalFailed():
            return _failed(subscription, told)
        case RecordInvoiceVoided():
            return () if told.invoice in subscription.voided else (InvoiceVoided(told.invoice, told.evidence),)
        case RecordInvoiceRefunded():
            return _refunded(subscription, told)
        case RecordStatus():
            news = is_news(subscription.standing, told.status, told.as_of)
            return (StatusMoved(told.status, told.as_of, told.evidence),) if news else ()
        case RecordChanged():
            return (changed(told),) if is_news(subscription.terms, told.terms, told.as_of) else ()
        case RecordScheduled():
            return (scheduled(told),) if is_news(subscription.ending, told.ends_at, told.as_of) else ()
        case RecordResumed():
            return (resumed(told),) if is_news(subscription.ending, None, told.as_of) else ()
        case RecordCancelled():
            return () if subscription.cancelled else (cancelled(told),)
        case _:
            assert_never(told)


# --- Invoices: one outcome for each of them, one failure for each attempt ----------------------------------------


def _paid(subscription: Subscription, told: RecordRenewal) -> tuple[SubscriptionFact, ...]:
    known = subscription.invoices.get(told.invoice)
    if known is None or not known.paid:
        period = _period(subscription, told)
        return (SubscriptionRenewed(told.invoice, told.amount, period.start, period.end, told.evidence),)
    if told.amount != known.amount:
        raise OutcomeMismatch(told.invoice, expected=str(known.amount), confirmed=str(told.amount))
    return ()


def _failed(subscription: Subscription, told: RecordRenewalFailed) -> tuple[SubscriptionFact, ...]:
    known = subscription.invoices.get(told.invoice)
    if known is not None and told.attempt in known.attempts:
        return ()
    period = _period(subscription, told)
    return (
        RenewalFailed(
            invoice=told.invoice,
            amount=told.amount,
            attempt=told.attempt,
            next_attempt_at=told.next_attempt_at,
            failure=told.failure,
            period_start=period.start,
            period_end=period.end,
            evidence=told.evidence,
        ),
    )


def _refunded(subscription: Subscription, told: RecordInvoiceRefunded) -> tuple[SubscriptionFact, ...]:
    known = subscription.refunds.get(told.invoice)
    if not is_news(known, told.amount, told.as_of):
        return ()
    return (InvoiceRefunded(told.invoice, told.amount, told.as_of, told.evidence),)


def _period(subscription: Subscription, told: RecordRenewal | RecordRenewalFailed) -> Period:
    known = subscription.invoices.get(told.invoice)
    period = told.period or (known.period if known else next_period(subscription))
    if period is None:
        raise SubscriptionNotReady(command=type(told).__name__, status=subscription.status)
    return period


# --- Adoption, and looking ---------------------------------------------------------------------------------------


def adopted(subscription: Subscription | None, told: AdoptSubscription) -> tuple[SubscriptionFact, ...]:
    """Intent and outcome at once: whoever wished for it did not ask us."""
    begun = told.started
    if subscription is None:
        terms = begun.terms
        wish = SubscriptionRequested(
            begun.operation, told.customer, terms.product, terms.price, terms.quantity, trial_days=0
        )
        return wish, started(begun)
    known = subscription.provider_subscription
    if known != begun.subscription:
        raise OutcomeMismatch(begun.operation, expected=known or "no subscription", confirmed=begun.subscription)
    return ()


class Standing(Struct, frozen=True):
    """How a subscription stands at the provider now. `ends_at`: when it is planned to end."""

    terms: Terms
    period: Period
    status: BillingStatus
    ends_at: datetime | None = None
    cancelled: Cancelled | None = None


def movements(
    subscription: Subscription, standing: Standing, as_of: datetime, evidence: str
) -> tuple[RecordChanged | RecordStatus | RecordScheduled | RecordResumed | RecordCancelled, ...]:
    """What a look tells that we do not know, as movements that nobody asked us for; none where all is as we know it.

    Whoever looks has known all that the subscription is known by, so that what differs is later than that, even in the
    second that Stripe tells for both.
    """
    told: list[RecordChanged | RecordStatus | RecordScheduled | RecordResumed | RecordCancelled] = []
    terms, status, ending = subscription.terms, subscription.standing, subscription.ending
    if terms is None or terms.value != standing.terms:
        told.append(RecordChanged(None, standing.terms, standing.period, _later(terms, as_of), evidence))
    if standing.cancelled is not None:
        over = RecordCancelled(None, standing.cancelled.at, standing.cancelled.cause, evidence)
        return (*told, over) if subscription.cancelled is None else tuple(told)
    if status is None or status.value != standing.status:
        told.append(RecordStatus(standing.status, _later(status, as_of), evidence))
    ends_at = ending.value if ending else None
    if standing.ends_at is None and ends_at is not None:
        told.append(RecordResumed(None, _later(ending, as_of), evidence))
    elif standing.ends_at is not None and standing.ends_at != ends_at:
        told.append(RecordScheduled(None, standing.ends_at, _later(ending, as_of), evidence))
    return tuple(told)


def refunds(subscription: Subscription, seen: Iterable[RecordInvoiceRefunded]) -> Iterator[RecordInvoiceRefunded]:
    """Of what a look tells of the refunds of invoices what we do not know, dated as in `movements`."""
    for told in seen:
        known = subscription.refunds.get(told.invoice)
        if told.amount.minor != (known.value.minor if known else 0):
            yield replace(told, as_of=_later(known, told.as_of))


def _later(known: Dated[T] | None, as_of: datetime) -> datetime:
    return after(known.as_of if known else None, as_of)


# --- The facts ---------------------------------------------------------------------------------------------------


def started(told: RecordStarted) -> SubscriptionStarted:
    return SubscriptionStarted(
        operation=told.operation,
        subscription=told.subscription,
        **asdict(told.terms),
        status=told.status,
        period_start=told.period.start,
        period_end=told.period.end,
        as_of=told.as_of,
        evidence=told.evidence,
    )


def changed(told: RecordChanged) -> SubscriptionChanged:
    return SubscriptionChanged(
        operation=told.operation,
        **asdict(told.terms),
        period_start=told.period.start,
        period_end=told.period.end,
        as_of=told.as_of,
        evidence=told.evidence,
    )


def scheduled(told: RecordScheduled) -> CancellationScheduled:
    return CancellationScheduled(told.operation, told.ends_at, told.as_of, told.evidence)


def resumed(told: RecordResumed) -> SubscriptionResumed:
    return SubscriptionResumed(told.operation, told.as_of, told.evidence)


def cancelled(told: RecordCancelled) -> SubscriptionCancelled:
    return SubscriptionCancelled(told.operation, told.at, told.cause, told.evidence)
