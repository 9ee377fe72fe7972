"""Stripe's events: their signatures, their shape (https://docs.stripe.com/webhooks), and the list of them.

Only what is not personal is read of an event. The shapes go back to API versions that named half of the members null.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import stripe
from msgspec import DecodeError, Struct, json

from application.inbox import Event
from application.stripe_standing import payment_named

# Both ways: an older signature may be a recording, one from the future was made by a clock that cannot be trusted.
TOLERANCE_S = 300

# What Stripe's endpoint is to be enabled for. Its other events of a payment say the same again, or nothing to us.
ENABLED = (
    "payment_intent.amount_capturable_updated",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
    "charge.captured",
    "charge.expired",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "customer.deleted",
    "customer.updated",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_action_required",
    "payment_method.attached",
    "payment_method.automatically_updated",
    "payment_method.detached",
    "payment_method.updated",
)


class BadSignature(Exception):  # noqa: N818  it says what was found
    """The body was not signed by Stripe with one of our secrets, or not now."""


class BadEvent(Exception):  # noqa: N818  it says what was found
    """The body is signed and no event."""


class Thing(Struct, frozen=True):
    """The object of an event: a PaymentIntent, a charge, a refund, a dispute, an invoice or something else.

    What it names is an id, or the named object itself.
    """

    object: str = ""
    id: str = ""
    payment_intent: str | dict[str, Any] | None = None
    charge: Any = None
    metadata: dict[str, str] | None = None
    customer: Any = None
    subscription: Any = None
    parent: Any = None


class Data(Struct, frozen=True):
    """`previous_attributes`: of what has changed, how it was before."""

    object: Thing
    previous_attributes: dict[str, Any] | None = None


class Request(Struct, frozen=True):
    idempotency_key: str | None = None


class StripeEvent(Struct, frozen=True):
    """`request` was once only an id."""

    id: str
    type: str
    created: int
    data: Data
    account: str | None = None
    request: Request | str | None = None


def verified(body: bytes, header: str, secrets: Sequence[str], now: datetime) -> Event:
    """The event in a webhook. Raises BadSignature or BadEvent; nothing of the body is in their text."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadSignature("the body is not UTF-8") from None
    at = _timestamp(header)
    if at is None:
        raise BadSignature("the Stripe-Signature header is missing or has no timestamp")
    if abs(now.timestamp() - at) > TOLERANCE_S:
        raise BadSignature("the signature's timestamp is more than 300 seconds away from now")
    if not any(_signed(text, header, secret) for secret in secrets):
        raise BadSignature("no signature fits the body")
    try:
        return event(json.decode(body, type=StripeEvent))
    except (DecodeError, OverflowError, ValueError, OSError):
        raise BadEvent("the body is no event of Stripe's") from None


def event(told: StripeEvent) -> Event:
    thing = told.data.object
    payment = payment_named(thing.metadata)
    return Event(
        event_id=told.id,
        type=told.type,
        object_id=thing.id,
        payment_intent=_about(thing),
        payment=payment,
        operation=operation_of(told.request.idempotency_key, payment) if isinstance(told.request, Request) else None,
        created_at=datetime.fromtimestamp(told.created, UTC),
        account=told.account,
        customer=_customer(told.data),
        subscription=thing.id if thing.object == "subscription" else _named(_subscription(thing)),
    )


def _about(thing: Thing) -> str | None:
    """Stripe's name of the payment: its PaymentIntent, or the charge when it has none."""
    if thing.object == "payment_intent" or (thing.object == "charge" and not thing.payment_intent):
        return thing.id
    return _named(thing.payment_intent or thing.charge)


def _customer(data: Data) -> str | None:
    """Whom it is about. What was taken from a customer names it no more, and says so."""
    thing, before = data.object, data.previous_attributes or {}
    return thing.id if thing.object == "customer" else _named(thing.customer or before.get("customer"))


def _subscription(thing: Thing) -> object:
    """What an invoice is for; its parent says so since API version 2025-03-31."""
    told = thing.parent.get("subscription_details") if isinstance(thing.parent, dict) else None
    return thing.subscription or (told.get("subscription") if isinstance(told, dict) else None)


def _named(told: object) -> str | None:
    name = told.get("id") if isinstance(told, dict) else told
    return name if isinstance(name, str) and name else None


def operation_of(key: str | None, payment: UUID | None) -> str | None:
    """The operation in an idempotency key of ours (application/gateway.py): `payment:operation`, or a step of it."""
    named, _, rest = (key or "").partition(":")
    return rest.partition(":")[0] or None if payment is not None and named == str(payment) else None


def _timestamp(header: str) -> int | None:
    """The very part that the SDK takes: were it another, a recording could be given any age."""
    parts = (part.partition("=") for part in header.split(","))
    value = next((value for name, _, value in parts if name == "t"), "")
    return int(value) if value.isdecimal() and len(value) < 12 else None


def _signed(text: str, header: str, secret: str) -> bool:
    # The age was judged above, by a clock that can be handed in; without a tolerance the SDK does not look at it.
    try:
        return bool(stripe.WebhookSignature.verify_header(text, header, secret, tolerance=None))
    except (stripe.SignatureVerificationError, TypeError):  # the latter for a signature that is not ASCII
        return False
