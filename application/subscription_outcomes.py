"""What is to be asked of the provider for an operation of a subscription, and what a look at it there tells."""

from collections.abc import Iterator
from functools import reduce
from uuid import UUID

from application.billing import (
    CancelSubscription,
    ChangeSubscription,
    ResumeSubscription,
    StartSubscription,
    SubscriptionInstruction,
    SubscriptionSeen,
)
from application.gateway import Absent, Unknown
from application.standing import NOT_CARRIED_OUT
from application.streams import Story
from domain.subscription import Operation, Subscription, evolve
from domain.subscription_commands import (
    AdoptSubscription,
    RecordCancelled,
    RecordChanged,
    RecordRefused,
    RecordResumed,
    RecordScheduled,
    RecordStarted,
    SubscriptionLearned,
    SubscriptionOutcome,
)
from domain.subscription_decisions import decide
from domain.subscription_facts import SubscriptionRequested
from domain.subscription_outside import movements, refunds


def instruction(story: Story[Subscription], operation: str, provider_customer: str) -> SubscriptionInstruction:
    """What carries out an open operation."""
    wish, stream = story.known.operations[operation], story.stream
    if wish.kind == "subscribe":
        started = story.started(operation)
        assert started is not None  # noqa: S101  it is open
        assert isinstance(started.fact, SubscriptionRequested)  # noqa: S101  which is what began it
        return StartSubscription(
            stream=stream,
            operation=operation,
            provider_customer=provider_customer,
            price=started.fact.price,
            quantity=started.fact.quantity,
            trial_days=started.fact.trial_days,
        )
    subscription = story.known.provider_subscription
    assert subscription is not None  # noqa: S101  the domain lets no other start one
    if wish.kind == "change":
        assert wish.price is not None  # noqa: S101  what it is to be changed to is recorded
        assert wish.quantity is not None  # noqa: S101  likewise
        return ChangeSubscription(
            stream=stream,
            operation=operation,
            subscription=subscription,
            price=wish.price,
            quantity=wish.quantity,
        )
    if wish.kind == "cancel":
        return CancelSubscription(
            stream=stream, operation=operation, subscription=subscription, at_period_end=wish.at_period_end
        )
    return ResumeSubscription(stream=stream, operation=operation, subscription=subscription)


def learned(subscription: Subscription | None, customer: UUID, seen: SubscriptionSeen) -> list[SubscriptionLearned]:
    """All that a look tells that was taken once the subscription was known to stand so; what is known of it already is
    decided to be no news.

    `customer`: ours, for a subscription that no wish of ours explains.
    """
    told: list[SubscriptionLearned] = []
    if subscription is None:
        told = [AdoptSubscription(customer, _started(f"adopted:{seen.subscription}", seen))]
        # It may be planned to end, or be over, when it is first heard of.
        subscription = reduce(evolve, decide(None, told[0]), subscription)
        assert subscription is not None  # noqa: S101  it has begun
    for name, operation in subscription.in_flight():
        told += _shown(name, operation, seen)
    moved = movements(subscription, seen.standing, seen.as_of, seen.evidence)
    return [*told, *seen.invoices, *refunds(subscription, seen.refunds), *moved]


def outcomes(
    subscription: Subscription, operation: str, seen: SubscriptionSeen | Absent | Unknown, *, over: bool
) -> list[SubscriptionLearned]:
    """What became of an operation whose key is too old to be sent again. `over`: it cannot happen any more."""
    if isinstance(seen, Unknown):
        return []
    if isinstance(seen, SubscriptionSeen):
        told = learned(subscription, subscription.customer, seen)
        if any(getattr(one, "operation", None) == operation for one in told):
            return told
    return [RecordRefused(operation, NOT_CARRIED_OUT, seen.evidence)] if over else []


def _shown(name: str, operation: Operation, seen: SubscriptionSeen) -> Iterator[SubscriptionOutcome]:
    """The outcome of an open operation, where the subscription bears its mark and stands as it wanted it to.

    That it stands so is not enough: a look that took long may tell of before the operation began.
    """
    now, ours = seen.standing, seen.changed_by == name
    if operation.kind == "subscribe":
        if seen.operation == name:
            yield _started(name, seen)
    elif now.cancelled is not None:
        if operation.kind == "cancel":
            yield RecordCancelled(name, now.cancelled.at, now.cancelled.cause, seen.evidence)
    elif operation.kind == "change":
        if ours and (now.terms.price, now.terms.quantity) == (operation.price, operation.quantity):
            yield RecordChanged(name, now.terms, now.period, seen.as_of, seen.evidence)
    elif operation.kind == "cancel":
        if ours and operation.at_period_end and now.ends_at is not None:
            yield RecordScheduled(name, now.ends_at, seen.as_of, seen.evidence)
    elif now.ends_at is None and (ours or _is_later(seen, operation)):  # what is resumed already is not marked
        yield RecordResumed(name, seen.as_of, seen.evidence)


def _is_later(seen: SubscriptionSeen, operation: Operation) -> bool:
    """Than all that was known when the operation began."""
    return operation.known_at is None or seen.as_of > operation.known_at


def _started(operation: str, seen: SubscriptionSeen) -> RecordStarted:
    now = seen.standing
    return RecordStarted(operation, seen.subscription, now.terms, now.status, now.period, seen.as_of, seen.evidence)


def sold(subscription: Subscription) -> tuple[str, str]:
    """The product that it is for now, and its price."""
    of = subscription.terms.value if subscription.terms else subscription
    return of.product, of.price


def is_to(subscription: Subscription, product: str) -> bool:
    """Whether it is one to the product that has not ended."""
    return sold(subscription)[0] == product and subscription.status not in {"cancelled", "refused"}
