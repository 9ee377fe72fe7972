"""A charge that was made without a PaymentIntent: adopted, captured and released by the older Charges API.

Such a charge is its own name: wherever the port says `payment_intent`, it holds `ch_…`. It is captured once, and what
is not captured then is released (https://docs.stripe.com/api/charges/capture). While it is not captured, a refund
releases it: a reversal without a balance transaction (so in Stripe's own fixtures, https://github.com/stripe/openapi).
One that runs out is marked as refunded by Stripe itself, which says so in the refund's reason
(https://docs.stripe.com/api/refunds/object#refund_object-reason).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import stripe

from application.gateway import (
    AuthorizeInstruction,
    CaptureInstruction,
    Instruction,
    Standing,
    Unknown,
    VoidInstruction,
)
from application.stripe_answers import Charge, Dispute, Refund, evidence, read
from application.stripe_errors import despite_kept_error
from application.stripe_outcomes import card_of, expiry_of
from application.stripe_standing import OPERATION, disputes_seen, marks, payment_named, refund_failure, refunds_seen
from domain.money import from_stripe, to_stripe
from domain.payment_commands import Outcome, RecordAuthorized, RecordCaptured, RecordFailed, RecordVoided
from domain.payment_facts import Failure

PREFIX = "ch_"
# Stripe's reason for the refund with which it ends an authorization that nobody captured in time.
RAN_OUT = "expired_uncaptured_charge"
GONE = Failure("canceled", None, "the authorization was released at the provider", retryable=False)
EXPIRED = Failure("charge_expired_for_capture", None, "the authorization had run out", retryable=False)
TAKEN = Failure("charge_already_captured", None, "the charge was captured before it was released", retryable=False)

# What captured money is refunded by is the same for every charge.
OfReserve = AuthorizeInstruction | CaptureInstruction | VoidInstruction
Get = Callable[..., Awaitable[stripe.StripeResponse]]


class Post(Protocol):
    """A POST below `/v1/`, under the instruction's own key and what is appended to it."""

    def __call__(
        self, path: str, params: Mapping[str, object], instruction: Instruction, step: str = ""
    ) -> Awaitable[stripe.StripeResponse]: ...


def is_bare(name: str) -> bool:
    """Whether a payment of this name is a charge without a PaymentIntent."""
    return name.startswith(PREFIX)


def named(name: str) -> dict[str, str]:
    """How a refund, or a list of refunds or disputes, says which payment it is about."""
    return {"charge" if is_bare(name) else "payment_intent": name}


def about_bare(instruction: OfReserve) -> bool:
    """Whether it is carried out here."""
    if isinstance(instruction, AuthorizeInstruction):
        return is_bare(instruction.payment_method)
    return is_bare(instruction.payment_intent)


async def perform(instruction: OfReserve, get: Get, post: Post) -> Outcome | Unknown:
    """Carry out what is about such a charge. Raises what `get` and `post` raise, and msgspec.DecodeError."""
    match instruction:
        case AuthorizeInstruction():
            return await _adopt(instruction, get, post)
        case CaptureInstruction():
            return await _capture(instruction, post)
        case VoidInstruction():
            return await _void(instruction, get, post)


# --- Instructions ------------------------------------------------------------------------------------------------


async def _adopt(instruction: AuthorizeInstruction, get: Get, post: Post) -> Outcome | Unknown:
    """Take a charge over. One that is not what we were told is refused, and nothing is changed of it.

    What bears the marks of this very operation was taken over by an earlier try, whatever has become of it since.
    """
    name, ours = instruction.payment_method, marks(instruction)
    response = await get(f"charges/{name}")
    charge = read(response, Charge)
    if ours.items() <= (charge.metadata or {}).items():
        return authorization(instruction.operation, response)
    wrong = _wrong(charge, instruction)
    if wrong is not None:
        failure = Failure("adoption_refused", None, wrong, retryable=False)
        return RecordFailed(instruction.operation, failure, evidence(response, name), name)
    marked = await despite_kept_error(lambda step: post(f"charges/{name}", {"metadata": ours}, instruction, step))
    return authorization(instruction.operation, marked)


def _wrong(charge: Charge, instruction: AuthorizeInstruction) -> str | None:
    """Why it cannot be adopted, if it cannot."""
    if payment_named(charge.metadata) not in {None, instruction.payment}:
        return "it belongs to another payment already"
    if charge.payment_intent is not None:
        return "it belongs to a PaymentIntent"
    if charge.status != "succeeded":
        return f"it has not been authorized: {charge.status}"
    if charge.refunded and not charge.captured:
        return "its authorization has been released"
    if charge.amount_refunded or (charge.captured and charge.amount_captured != charge.amount):
        return "some of it has been released or refunded already"
    told = {"amount": to_stripe(instruction.amount), "currency": instruction.amount.currency}
    differing = [name for name, value in told.items() if getattr(charge, name) != value]
    return f"its {' and '.join(differing)} is not what was asked for" if differing else None


async def _capture(instruction: CaptureInstruction, post: Post) -> Outcome | Unknown:
    params = {"amount": to_stripe(instruction.amount)}
    response = await post(f"charges/{instruction.payment_intent}/capture", params, instruction)
    charge = read(response, Charge)
    return RecordCaptured(
        operation=instruction.operation,
        amount=from_stripe(charge.amount_captured, charge.currency),
        final=True,
        charge=charge.id,
        evidence=evidence(response, charge.id),
    )


async def _void(instruction: VoidInstruction, get: Get, post: Post) -> Outcome | Unknown:
    """Release by a refund, which would give money back if there were any: so it is looked at first.

    When somebody captures it between the look and the refund, money has gone back that nobody asked for. That is no
    release; the next look records both movements as what they are.
    """
    name = instruction.payment_intent
    look = await get(f"charges/{name}", expand=["refunds"])
    charge = read(look, Charge)
    how = released(charge, charge.refunds.data if charge.refunds else ())
    if how == "taken":
        return RecordFailed(instruction.operation, TAKEN, evidence(look, name))
    if how == "expired":
        return RecordFailed(instruction.operation, EXPIRED, evidence(look, name), expired=True)
    response = await post("refunds", {"charge": name, "metadata": marks(instruction)}, instruction)
    refund = read(response, Refund)
    if failure := refund_failure(refund):
        return RecordFailed(instruction.operation, failure, evidence(response, refund.id))
    if refund.balance_transaction is not None:
        return Unknown("captured_meanwhile")
    return RecordVoided(instruction.operation, evidence(response, refund.id))


# --- What a charge says ------------------------------------------------------------------------------------------


def authorization(operation: str, response: stripe.StripeResponse) -> Outcome | Unknown:
    """What a charge says of the operation that adopted it, whatever it has come to since."""
    charge = read(response, Charge)
    proof = evidence(response, charge.id)
    if charge.status == "failed":
        said = charge.failure_message or "the charge was declined"
        failure = Failure(charge.failure_code or "card_declined", None, said, retryable=False)
        return RecordFailed(operation, failure, proof, charge.id)
    if charge.status != "succeeded":
        return Unknown(charge.status)
    if charge.refunded and not charge.captured:
        return RecordFailed(operation, GONE, proof, charge.id)
    return RecordAuthorized(
        operation=operation,
        amount=from_stripe(charge.amount, charge.currency),
        captured=charge.captured and charge.amount_captured == charge.amount,
        payment_intent=charge.id,
        charge=charge.id,
        card=card_of(charge),
        expires_at=expiry_of(charge),
        multicapture=False,  # only PaymentIntents have it: https://docs.stripe.com/payments/multicapture
        evidence=proof,
    )


def standing(
    operation: str, response: stripe.StripeResponse, refunds: Sequence[Refund], disputes: Sequence[Dispute]
) -> Standing:
    """`response` is the charge; `operation` the one that adopted it. What was never captured cannot be refunded."""
    charge = read(response, Charge)
    proof = evidence(response, charge.id)
    return Standing(
        payment_intent=charge.id,
        operation=(charge.metadata or {}).get(OPERATION),
        authorization=authorization(operation, response),
        captured=from_stripe(charge.amount_captured, charge.currency),
        released=released(charge, refunds),
        charge=charge.id,
        refunds=refunds_seen(refunds) if charge.captured else (),
        disputes=disputes_seen(disputes, proof),
        evidence=proof,
    )


def released(charge: Charge, refunds: Sequence[Refund]) -> Literal["no", "taken", "cancelled", "expired"]:
    """Whether anything is still reserved, and if not, why."""
    if charge.captured:
        return "taken"
    if not charge.refunded:
        return "no"
    return "expired" if any(refund.reason == RAN_OUT for refund in refunds) else "cancelled"
