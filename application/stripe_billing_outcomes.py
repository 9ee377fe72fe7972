"""What Stripe's customers, subscriptions and invoices mean, in the words that `decide` records.

One clock tells it all, Stripe's: its objects carry their times by it, and its answers the `Date` by it (which RFC 9110,
6.6.1, asks of every server). Ours may be off, and differ between our processes: it is not asked. (Stripe's test clocks
turn the times in objects only; what is billed by one has two clocks, and is no case for here.)
"""

from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from uuid import UUID

import stripe

from application.billing import BillingInstruction, CardSeen
from application.stripe_answers import PaymentError
from application.stripe_billing_answers import (
    Invoice,
    InvoiceIntent,
    Line,
    PaymentMethod,
    Subscription,
    moment,
)
from application.stripe_errors import RETRYABLE_DECLINES
from domain.calendar import Period
from domain.money import from_stripe
from domain.payment_facts import Card, Failure
from domain.subscription import Cancelled
from domain.subscription_commands import InvoiceOutcome, RecordInvoiceVoided, RecordRenewal, RecordRenewalFailed
from domain.subscription_facts import BillingStatus, Cause, Terms
from domain.subscription_outside import Standing

# What ties every Stripe object of ours to the fact that explains it: our stream, the operation that it was made for,
# and the last one that changed it. A customer's is told from a subscription's by what it marks.
STREAM = "payledger_stream"
OPERATION = "payledger_operation"
CHANGED_BY = "payledger_changed_by"
USER = "payledger_user"

# Codes by which Stripe says that only the cardholder can go on; here they have one name.
CHALLENGES = frozenset(
    {
        "authentication_required",
        "invoice_payment_intent_requires_action",
        "subscription_payment_intent_requires_action",
    }
)
CHALLENGED = Failure(
    "authentication_required",
    "authentication_required",
    "the card's issuer wants its holder to authenticate the payment",
    retryable=True,
)
NO_METHOD = Failure("no_payment_method", None, "there was nothing to pay with", retryable=False)

_STATUSES: dict[str, BillingStatus] = {
    "incomplete": "incomplete",
    "trialing": "trialing",
    "active": "active",
    "past_due": "past_due",
    "unpaid": "unpaid",
    # A trial that ended with nothing to pay with, where that is what the account wants: served and billed no more.
    "paused": "unpaid",
    # How it stood before it ended is not told any more; that it is over is.
    "canceled": "active",
    "incomplete_expired": "incomplete",
}
_CAUSES: dict[str | None, Cause] = {
    "cancellation_requested": "requested",
    "payment_failed": "payment_failed",
    "payment_disputed": "disputed",
}

# --- When, and for whom ------------------------------------------------------------------------------------------


def told_at(response: stripe.StripeResponse) -> datetime:
    """When Stripe answered, by its own clock, to the second. Raises KeyError or ValueError without a `Date`."""
    return parsedate_to_datetime(response.headers["Date"])


def is_repeated(response: stripe.StripeResponse) -> bool:
    """Whether it is the answer that was given when its key was first used: its `Date` is now, its body was then."""
    return bool(response.headers.get("Idempotent-Replayed") == "true")


def marks(instruction: BillingInstruction) -> dict[str, str]:
    """The metadata of whatever is made for an instruction."""
    return {STREAM: str(instruction.stream), OPERATION: instruction.operation}


def changed_by(instruction: BillingInstruction) -> dict[str, str]:
    """The metadata of whatever is changed for an instruction; the marks of what it was made for stay."""
    return {CHANGED_BY: instruction.operation}


def stream_named(metadata: dict[str, str]) -> UUID | None:
    try:
        return UUID(metadata.get(STREAM, ""))
    except ValueError:
        return None


# --- Cards -------------------------------------------------------------------------------------------------------


def card_seen(method: PaymentMethod) -> CardSeen | None:
    """What may be kept of a payment method, if it is a card."""
    card = method.card
    if card is None:
        return None
    return CardSeen(method.id, Card(card.brand, card.last4, card.exp_month, card.exp_year), card.fingerprint)


# --- Subscriptions -----------------------------------------------------------------------------------------------


def status(told: Subscription) -> BillingStatus:
    return _STATUSES[told.status]


def terms(told: Subscription) -> Terms:
    """One that somebody made of several items is named by its first and costs what all of them do.

    Raises ValueError for what has no price of its own to be multiplied, such as one in tiers.
    """
    first = told.item.price
    if first.recurring is None or any(item.price.unit_amount is None for item in told.items.data):
        raise ValueError("a price that is not so much a piece, at an interval")
    amount = sum((item.price.unit_amount or 0) * _pieces(item.quantity) for item in told.items.data)
    return Terms(
        product=first.product,
        price=first.id,
        quantity=_pieces(told.item.quantity),
        amount=from_stripe(amount, first.currency),
        interval=first.recurring.interval,
        interval_count=first.recurring.interval_count,
        anchor=moment(told.billing_cycle_anchor),
        trial_end=None if told.trial_end is None else moment(told.trial_end),
    )


def _pieces(quantity: int | None) -> int:
    return 1 if quantity is None else quantity


def period(told: Subscription) -> Period:
    """The one that it is in. Raises ValueError where neither its item nor itself tells of one."""
    start = told.item.current_period_start or told.current_period_start
    end = told.item.current_period_end or told.current_period_end
    if start is None or end is None:
        raise ValueError("a subscription without a period")
    return Period(moment(start), moment(end))


def ends_at(told: Subscription) -> datetime | None:
    """When it is planned to end."""
    if not told.ending:
        return None
    return moment(told.cancel_at) if told.cancel_at is not None else period(told).end


def cancelled(told: Subscription) -> Cancelled | None:
    ended = told.ended_at or told.canceled_at
    if not told.over or ended is None:
        return None
    if told.status == "incomplete_expired":
        return Cancelled(moment(ended), "never_paid")
    return Cancelled(
        moment(ended), _CAUSES.get(told.cancellation_details.reason if told.cancellation_details else None)
    )


def standing(told: Subscription) -> Standing:
    return Standing(terms(told), period(told), status(told), ends_at(told), cancelled(told))


# --- Invoices ----------------------------------------------------------------------------------------------------


def is_failing(invoice: Invoice) -> bool:
    """Whether somebody tried to have it paid, and it is not. Void is not owed any more, a draft not yet."""
    return invoice.status in {"open", "uncollectible"} and invoice.attempt_count > 0


def billed(invoice: Invoice, lines: Sequence[Line], intent: InvoiceIntent | None, proof: str) -> InvoiceOutcome | None:
    """What came of an invoice; nothing for one that nothing came of yet, or that pays for no time of a subscription.

    `intent`: of one that is failing, the payment that was tried.
    """
    span = paid_for(lines)
    if span is None:
        return None
    if invoice.status == "paid":
        return RecordRenewal(invoice.id, from_stripe(invoice.amount_paid, invoice.currency), span, proof)
    if invoice.status == "void":
        return RecordInvoiceVoided(invoice.id, proof)
    if not is_failing(invoice) or (intent is not None and intent.status == "processing"):
        return None
    return RecordRenewalFailed(
        invoice=invoice.id,
        amount=from_stripe(invoice.amount_remaining, invoice.currency),
        attempt=invoice.attempt_count,
        next_attempt_at=moment(invoice.next_payment_attempt) if invoice.next_payment_attempt is not None else None,
        failure=_failure(intent),
        period=span,
        evidence=proof,
    )


def paid_for(lines: Sequence[Line]) -> Period | None:
    """The time that an invoice pays for: its lines say which, its own period is the one before.

    Prorations of the time before may be on the invoice of a renewal, too: they are not what it renews. An invoice of
    nothing else pays for the rest of a period that was changed; of nothing but credits, for nothing.
    """
    ours = [line for line in lines if line.of_subscription]
    renewing = [line for line in ours if not line.prorated]
    paying = renewing or [line for line in ours if line.amount > 0]
    if not paying:
        return None
    latest = max(paying, key=lambda line: (line.period.end, line.period.start))
    return Period(moment(latest.period.start), moment(latest.period.end))


def _failure(intent: InvoiceIntent | None) -> Failure:
    if intent is None:
        return NO_METHOD
    if intent.status == "requires_action":
        return CHALLENGED
    error = intent.last_payment_error
    return NO_METHOD if error is None else failure_of(error)


def failure_of(error: PaymentError) -> Failure:
    """Why a payment failed, by the PaymentIntent's last error."""
    if error.code in CHALLENGES or error.decline_code in CHALLENGES:
        return CHALLENGED
    retryable = error.decline_code in RETRYABLE_DECLINES or error.code == "processing_error"
    message = error.message or "the payment was declined"
    return Failure(error.code or "card_declined", error.decline_code, message, retryable=retryable)
