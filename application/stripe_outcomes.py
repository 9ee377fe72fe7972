"""What a PaymentIntent means for the authorization it was made for, in the words that `decide` records."""

from datetime import UTC, datetime

import stripe

from application.gateway import Unknown
from application.stripe_answers import Charge, Intent, PaymentError, evidence, read
from domain.money import from_stripe
from domain.payment_commands import Outcome, RecordActionRequired, RecordAuthorized, RecordFailed
from domain.payment_facts import Card, Failure, NextAction


def authorization(operation: str, response: stripe.StripeResponse) -> Outcome | Unknown:
    """What a PaymentIntent says of the operation that made it, whatever it has come to since."""
    intent = read(response, Intent)
    proof = evidence(response, intent.id)
    match intent.status:
        case "requires_capture" | "succeeded":
            return _authorized(operation, intent, proof)
        case "requires_action":
            return RecordActionRequired(operation, intent.id, _next_action(intent), proof)
        case "requires_payment_method":
            return _declined(operation, intent, proof)
        case "canceled":
            failure = Failure("canceled", None, "the authorization was cancelled at the provider", retryable=False)
            return RecordFailed(operation, failure, proof, intent.id)
        case _:
            return Unknown(intent.status)


def _authorized(operation: str, intent: Intent, proof: str) -> RecordAuthorized:
    charge = intent.latest_charge
    assert isinstance(charge, Charge), "asked for by `expand`"  # noqa: S101
    multicapture = charge.card.multicapture if charge.card else None
    return RecordAuthorized(
        operation=operation,
        amount=from_stripe(intent.amount, intent.currency),
        captured=intent.status == "succeeded" and intent.capture_method != "manual",
        payment_intent=intent.id,
        charge=charge.id,
        card=card_of(charge),
        expires_at=expiry_of(charge),
        multicapture=multicapture is not None and multicapture.status == "available",
        evidence=proof,
    )


def _declined(operation: str, intent: Intent, proof: str) -> RecordFailed:
    error = intent.last_payment_error or PaymentError()
    failure = Failure(
        code=error.code or "declined",
        decline_code=error.decline_code,
        message=error.message or "the card was declined",
        retryable=True,
    )
    return RecordFailed(operation, failure, proof, intent.id)


def card_of(charge: Charge) -> Card | None:
    """What may be kept of the card that was charged, if it was one."""
    card = charge.card
    if card is None or not card.last4 or not card.exp_month or not card.exp_year:
        return None
    return Card(card.brand or "unknown", card.last4, card.exp_month, card.exp_year)


def expiry_of(charge: Charge) -> datetime | None:
    """Until when it can be captured, where Stripe says so."""
    before = charge.card.capture_before if charge.card else None
    return datetime.fromtimestamp(before, UTC) if before else None


def _next_action(intent: Intent) -> NextAction:
    action = intent.next_action
    if action is None:
        return NextAction("unknown")
    return NextAction(action.type, action.redirect_to_url.url if action.redirect_to_url else None)


def charge_id(value: Charge | str | None) -> str:
    return value if isinstance(value, str) else value.id if value else ""
