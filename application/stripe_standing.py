"""How a payment stands at Stripe: a PaymentIntent with its charge, its refunds and its disputes, in our words."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import stripe

from application.gateway import Instruction, RefundSeen, Standing
from application.stripe_answers import Charge, Dispute, Intent, Refund, evidence, read
from application.stripe_errors import RAN_OUT
from application.stripe_outcomes import authorization, charge_id
from domain.money import from_stripe
from domain.payment_commands import RecordDispute
from domain.payment_facts import Failure

# What ties every Stripe object of ours to the fact that explains it.
PAYMENT = "payledger_payment"
OPERATION = "payledger_operation"

_DISPUTED: dict[str, Literal["open", "won", "lost"]] = {
    "needs_response": "open",
    "under_review": "open",
    "won": "won",
    "lost": "lost",
}


def standing(
    operation: str, response: stripe.StripeResponse, refunds: list[Refund], disputes: list[Dispute]
) -> Standing:
    """`response` is the PaymentIntent with its latest charge; `operation` the one that began it.

    A refund without a balance transaction moved nothing: so Stripe shows a reserve that was released.
    An inquiry (`warning_…`) moves nothing either, and is no dispute yet.
    """
    intent = read(response, Intent)
    proof = evidence(response, intent.id)
    return Standing(
        payment_intent=intent.id,
        operation=intent.metadata.get(OPERATION),
        authorization=authorization(operation, response),
        captured=from_stripe(intent.amount_received, intent.currency),
        released=_released(intent),
        charge=charge_id(intent.latest_charge),
        refunds=refunds_seen(refunds),
        disputes=disputes_seen(disputes, proof),
        evidence=proof,
    )


def is_disputed(intent: Intent) -> bool:
    return isinstance(intent.latest_charge, Charge) and intent.latest_charge.disputed


def refunds_seen(refunds: Sequence[Refund]) -> tuple[RefundSeen, ...]:
    """Those that moved money, or are to, in the order they were made; `refunds` are newest first."""
    return tuple(_seen(refund) for refund in reversed(refunds) if not _only_released(refund))


def disputes_seen(disputes: Sequence[Dispute], proof: str) -> tuple[RecordDispute, ...]:
    """Those that are more than an inquiry, in the order they were opened; `disputes` are newest first."""
    return tuple(
        RecordDispute(
            dispute.id, from_stripe(dispute.amount, dispute.currency), dispute.reason, _DISPUTED[dispute.status], proof
        )
        for dispute in reversed(disputes)
        if dispute.status in _DISPUTED
    )


def marks(instruction: Instruction) -> dict[str, str]:
    """The metadata of whatever is made or taken over for an instruction."""
    return {PAYMENT: str(instruction.payment), OPERATION: instruction.operation}


def payment_named(metadata: dict[str, str] | None) -> UUID | None:
    """The payment of ours that an object is marked with."""
    try:
        return UUID((metadata or {}).get(PAYMENT, ""))
    except ValueError:
        return None


def _released(intent: Intent) -> Literal["no", "taken", "cancelled", "expired"]:
    match intent.status:
        case "succeeded":
            return "taken"
        case "canceled":
            return "expired" if intent.cancellation_reason in RAN_OUT else "cancelled"
        case _:
            return "no"


def _only_released(refund: Refund) -> bool:
    return refund.status == "succeeded" and refund.balance_transaction is None


def _seen(refund: Refund) -> RefundSeen:
    return RefundSeen(
        id=refund.id,
        amount=from_stripe(refund.amount, refund.currency),
        operation=(refund.metadata or {}).get(OPERATION),
        failure=refund_failure(refund),
    )


def refund_failure(refund: Refund) -> Failure | None:
    """Why a refund came to nothing, if it did."""
    if refund.status not in {"failed", "canceled"}:
        return None
    code = refund.failure_reason or f"refund_{refund.status}"
    return Failure(code=code, decline_code=None, message="the refund did not go through", retryable=False)
