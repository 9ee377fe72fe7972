"""What may be decided about a subscription: the table of legal (state, wish) pairs, and the recording of outcomes.

A wish for what is so already decides nothing new, like a wish that is asked twice: nothing would come of asking the
provider, and a caller whose answer was lost is to be answered and not refused.
"""

from typing import assert_never

from msgspec.structs import replace

from domain.errors import (
    AlreadySubscribed,
    InvalidTerms,
    OutcomeMismatch,
    SubscriptionBusy,
    SubscriptionNotReady,
    SubscriptionOver,
    TooManyChanges,
)
from domain.subscription import Kind, Operation, Subscription
from domain.subscription_commands import (
    AdoptSubscription,
    Cancel,
    Change,
    RecordCancelled,
    RecordChanged,
    RecordInvoiceRefunded,
    RecordInvoiceVoided,
    RecordRefused,
    RecordRenewal,
    RecordRenewalFailed,
    RecordResumed,
    RecordScheduled,
    RecordStarted,
    RecordStatus,
    Resume,
    Subscribe,
    SubscriptionCommand,
    SubscriptionOutcome,
    SubscriptionWish,
)
from domain.subscription_facts import (
    CancellationRefused,
    CancellationRequested,
    ChangeRefused,
    ChangeRequested,
    ResumeRefused,
    ResumeRequested,
    SubscriptionFact,
    SubscriptionRefused,
    SubscriptionRequested,
)
from domain.subscription_outside import adopted, cancelled, changed, resumed, scheduled, started, without_us
from domain.subscription_standing import after

# A subscription with more operations than this is a loop in somebody's code; its stream would only get slower to load.
MAX_OPERATIONS = 1_000
# As many as Stripe takes, and the two years that its trials may last (https://docs.stripe.com/billing/subscriptions/trials).
MAX_QUANTITY = 1_000_000
MAX_TRIAL_DAYS = 730


def decide(subscription: Subscription | None, command: SubscriptionCommand) -> tuple[SubscriptionFact, ...]:
    """Answer a command with facts, or refuse it. Asking twice decides nothing new.

    Raises a Refusal: of a wish, SubscriptionRefusal; of an outcome that contradicts its intent or what is recorded,
    OutcomeMismatch; of what cannot have happened yet, SubscriptionNotReady.
    """
    match subscription, command:
        case None, Subscribe():
            return (_requested(command),)
        case _, AdoptSubscription():
            return adopted(subscription, command)
        case None, _:
            raise SubscriptionNotReady(command=type(command).__name__, status="none")
        case Subscription(), Subscribe() | Change() | Cancel() | Resume():
            return _wished(subscription, command)
        case (
            Subscription(),
            RecordRenewal() | RecordRenewalFailed() | RecordInvoiceVoided() | RecordInvoiceRefunded() | RecordStatus(),
        ):
            return without_us(subscription, command)
        case Subscription(), RecordChanged() | RecordScheduled() | RecordResumed() | RecordCancelled() if (
            command.operation is None
        ):
            return without_us(subscription, command)
        case _:
            return _record(subscription, command)


def _wished(subscription: Subscription, wish: SubscriptionWish) -> tuple[SubscriptionFact, ...]:
    if wish.operation in subscription.operations:
        return ()
    if len(subscription.operations) >= MAX_OPERATIONS:
        raise TooManyChanges(limit=MAX_OPERATIONS)
    match wish:
        case Subscribe():
            return _subscribe_again(subscription, wish)
        case Change():
            return _change(subscription, wish)
        case Cancel():
            return _cancel(subscription, wish)
        case Resume():
            return _resume(subscription, wish)
        case _:
            assert_never(wish)


def _requested(wish: Subscribe) -> SubscriptionRequested:
    _within("quantity", wish.quantity, 1, MAX_QUANTITY)
    _within("trial_days", wish.trial_days, 0, MAX_TRIAL_DAYS)
    return SubscriptionRequested(
        wish.operation, wish.customer, wish.product, wish.price, wish.quantity, wish.trial_days
    )


def _within(field: str, given: int, least: int, most: int) -> None:
    if not least <= given <= most:
        raise InvalidTerms(field=field, given=given, least=least, most=most)


def _subscribe_again(subscription: Subscription, wish: Subscribe) -> tuple[SubscriptionFact, ...]:
    if subscription.status != "refused" or wish.customer != subscription.customer:
        raise AlreadySubscribed(product=subscription.product, status=subscription.status)
    return (_requested(wish),)


def _change(subscription: Subscription, wish: Change) -> tuple[SubscriptionFact, ...]:
    _lasts(subscription, wish)
    if subscription.terms is None or subscription.status == "incomplete":  # the provider changes only what was paid for
        raise SubscriptionNotReady(command="Change", status=subscription.status)
    _nothing_in_flight(subscription)
    terms = subscription.terms.value
    quantity = terms.quantity if wish.quantity is None else wish.quantity
    _within("quantity", quantity, 1, MAX_QUANTITY)
    if (wish.price, quantity) == (terms.price, terms.quantity):  # a price is of one product only
        return ()
    return (ChangeRequested(wish.operation, wish.product, wish.price, quantity),)


def _cancel(subscription: Subscription, wish: Cancel) -> tuple[SubscriptionFact, ...]:
    if subscription.cancelled:
        return ()
    unpaid_for = wish.at_period_end and subscription.status == "incomplete"  # there is no period to be kept for
    if subscription.provider_subscription is None or unpaid_for:
        raise SubscriptionNotReady(command="Cancel", status=subscription.status)
    _nothing_in_flight(subscription)
    if wish.at_period_end and _ends_with_its_period(subscription):
        return ()
    return (CancellationRequested(wish.operation, wish.at_period_end),)


def _ends_with_its_period(subscription: Subscription) -> bool:
    ends_at, period = subscription.ends_at, subscription.period
    return ends_at is not None and period is not None and ends_at <= period.end


def _resume(subscription: Subscription, wish: Resume) -> tuple[SubscriptionFact, ...]:
    _lasts(subscription, wish)
    _nothing_in_flight(subscription)
    if subscription.ends_at is None:
        return ()
    if subscription.ends_at <= wish.now:
        raise SubscriptionOver(command="Resume", ended_at=subscription.ends_at)
    return (ResumeRequested(wish.operation),)


def _lasts(subscription: Subscription, wish: Change | Resume) -> None:
    """It has begun, and is not over."""
    if subscription.cancelled:
        raise SubscriptionOver(command=type(wish).__name__, ended_at=subscription.cancelled.at)
    if subscription.provider_subscription is None:
        raise SubscriptionNotReady(command=type(wish).__name__, status=subscription.status)


def _nothing_in_flight(subscription: Subscription) -> None:
    """One wish after the other: what two of them come to would depend on which reached the provider first."""
    for name, operation in subscription.in_flight():
        raise SubscriptionBusy(operation=name, kind=operation.kind)


def _record(subscription: Subscription, outcome: SubscriptionOutcome) -> tuple[SubscriptionFact, ...]:
    name = outcome.operation
    assert name is not None  # noqa: S101  what nobody asked for has rows of its own
    operation = subscription.operations.get(name)
    if operation is None:
        raise OutcomeMismatch(operation=name, expected="an operation of this subscription", confirmed="none")
    if isinstance(outcome, RecordStarted):
        _no_second_subscription(subscription, operation, outcome)
    if operation.outcome != "open":
        return ()
    kind = _OUTCOME_OF.get(type(outcome), operation.kind)
    if kind != operation.kind:
        raise OutcomeMismatch(operation=name, expected=operation.kind, confirmed=kind)
    if isinstance(outcome, RecordChanged | RecordScheduled | RecordResumed):
        outcome = replace(outcome, as_of=after(operation.known_at, outcome.as_of))
    match outcome:
        case RecordStarted():
            return (started(outcome),)
        case RecordChanged():
            _confirmed(name, _terms(operation.price, operation.quantity), outcome)
            return (changed(outcome),)
        case RecordScheduled():
            if not operation.at_period_end:
                raise OutcomeMismatch(operation=name, expected="cancelled", confirmed="scheduled")
            return (scheduled(outcome),)
        case RecordCancelled():
            return (cancelled(outcome),)
        case RecordResumed():
            return (resumed(outcome),)
        case RecordRefused():
            return (_REFUSED[operation.kind](name, outcome.failure, outcome.evidence),)
        case _:
            assert_never(outcome)


# Which kind of operation an outcome answers; a refusal answers any, and is another fact for each.
_OUTCOME_OF: dict[type[SubscriptionOutcome], Kind] = {
    RecordStarted: "subscribe",
    RecordChanged: "change",
    RecordScheduled: "cancel",
    RecordCancelled: "cancel",
    RecordResumed: "resume",
}
_REFUSED: dict[Kind, type[SubscriptionRefused | ChangeRefused | CancellationRefused | ResumeRefused]] = {
    "subscribe": SubscriptionRefused,
    "change": ChangeRefused,
    "cancel": CancellationRefused,
    "resume": ResumeRefused,
}


def _no_second_subscription(subscription: Subscription, operation: Operation, outcome: RecordStarted) -> None:
    """A wish that made two, or one where we know of none, would have somebody billed for what nobody sees here."""
    known = subscription.provider_subscription
    if operation.outcome == "failed" or known not in {None, outcome.subscription}:
        raise OutcomeMismatch(
            operation=outcome.operation, expected=known or "no subscription", confirmed=outcome.subscription
        )


def _confirmed(operation: str, expected: str, outcome: RecordChanged) -> None:
    confirmed = _terms(outcome.terms.price, outcome.terms.quantity)
    if expected != confirmed:
        raise OutcomeMismatch(operation=operation, expected=expected, confirmed=confirmed)


def _terms(price: str | None, quantity: int | None) -> str:
    return f"{quantity} of {price}"
