"""A payment: its state, and how facts change it (what may be decided about it: payment_decisions.py).

    (nothing) ──Authorize──▶ authorizing ──▶ authorized ──Capture──▶ … ──Refund──▶ …
                              │      ▲          │  └─Void─▶ voided
                              │      │          └─(time)──▶ expired
                              │   action required ─▶ authorized | declined
                              └────▶ declined ──Authorize──▶ authorizing (another attempt)

Invariant, in every reachable state: 0 ≤ refunded ≤ captured ≤ authorized.
"""

from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Literal, assert_never
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from domain.money import Money
from domain.payment_facts import (
    ActionRequired,
    AuthorizationStarted,
    Authorized,
    Captured,
    CaptureMethod,
    CaptureStarted,
    Card,
    DisputeLost,
    DisputeOpened,
    DisputeWon,
    Expired,
    Failed,
    Failure,
    NextAction,
    PaymentFact,
    Refunded,
    RefundStarted,
    Stage,
    Voided,
    VoidStarted,
)
from domain.personal import Sealed


class Phase(StrEnum):
    """Where the authorization stands; what was captured and refunded is told by the amounts."""

    AUTHORIZING = "authorizing"
    ACTION_REQUIRED = "action_required"
    DECLINED = "declined"
    AUTHORIZED = "authorized"
    VOIDED = "voided"
    EXPIRED = "expired"


Status = Literal[
    "pending",
    "requires_action",
    "authorized",
    "partially_captured",
    "captured",
    "partially_refunded",
    "refunded",
    "voided",
    "expired",
    "failed",
    "disputed",
]


class Operation(Struct, frozen=True):
    """One wish that was started: `open` until its outcome is known."""

    kind: Stage
    amount: Money
    outcome: Literal["open", "done", "failed"] = "open"
    final: bool = False


class Dispute(Struct, frozen=True):
    """Money the cardholder contests. Until the dispute is won, it is not ours to give back."""

    amount: Money
    outcome: Literal["open", "won", "lost"] = "open"


class Payment(Struct, frozen=True):
    """The state of a payment, folded from its facts. All amounts are in one currency, that of `amount`."""

    phase: Phase
    attempt: int
    amount: Money
    authorized: Money
    capturable: Money
    captured: Money
    refunded: Money
    capture: CaptureMethod
    payment_method: str
    authorization: str
    operations: dict[str, Operation]
    customer: str | None = None
    order: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    payment_intent: str | None = None
    charge: str | None = None
    card: Card | None = None
    multicapture: bool = False
    next_action: NextAction | None = None
    failure: Failure | None = None
    disputes: dict[str, Dispute] = {}

    @property
    def disputed(self) -> bool:
        """Whether the cardholder contests it, or has done so with success."""
        return any(dispute.outcome != "won" for dispute in self.disputes.values())

    @property
    def status(self) -> Status:
        match self.phase:
            case Phase.AUTHORIZING:
                return "pending"
            case Phase.ACTION_REQUIRED:
                return "requires_action"
            case Phase.DECLINED:
                return "failed"
            case Phase.VOIDED if not self.captured:
                return "voided"
            case Phase.EXPIRED if not self.captured:
                return "expired"
            case _:
                return self._money_status()

    def _money_status(self) -> Status:
        if self.disputed:
            return "disputed"
        if self.refunded:
            whole = self.refunded == self.captured and not self.capturable
            return "refunded" if whole else "partially_refunded"
        if not self.captured:
            return "authorized"
        return "captured" if self.captured == self.authorized else "partially_captured"

    @property
    def refundable(self) -> Money:
        return self.captured - self.refunded

    def in_flight(self, kind: Stage) -> tuple[tuple[str, Operation], ...]:
        """The open operations of a kind, by id."""
        return tuple((name, op) for name, op in self.operations.items() if op.outcome == "open" and op.kind == kind)


# --- Fold --------------------------------------------------------------------------------------------------------


def evolve(payment: Payment | None, fact: PaymentFact) -> Payment:
    """Fold one fact in. It never refuses: the past has already happened."""
    if isinstance(fact, AuthorizationStarted):
        return _begun(payment, fact)
    assert payment is not None, "a payment's history begins with AuthorizationStarted"  # noqa: S101  corruption
    match fact:
        case ActionRequired():
            return replace(
                payment,
                phase=Phase.ACTION_REQUIRED,
                payment_intent=fact.payment_intent,
                next_action=fact.next_action,
            )
        case Authorized():
            return _reserved(payment, fact)
        case CaptureStarted():
            return _opened(payment, fact.operation, Operation("capture", fact.amount, final=fact.final))
        case Captured():
            return _taken(payment, fact)
        case VoidStarted():
            return _opened(payment, fact.operation, Operation("void", payment.capturable))
        case Voided():
            return _ended(_closed(payment, fact.operation, "done", failure=None), Phase.VOIDED)
        case RefundStarted():
            return _opened(payment, fact.operation, Operation("refund", fact.amount))
        case Refunded():
            refunded = payment.refunded + fact.amount
            return _closed(payment, fact.operation, "done", refunded=refunded, failure=None)
        case Failed():
            return _declined(payment, fact)
        case Expired():
            return _ended(payment, Phase.EXPIRED)
        case DisputeOpened():
            return _disputed(payment, fact.dispute, Dispute(fact.amount))
        case DisputeWon():
            return _disputed(payment, fact.dispute, replace(payment.disputes[fact.dispute], outcome="won"))
        case DisputeLost():
            return _disputed(payment, fact.dispute, replace(payment.disputes[fact.dispute], outcome="lost"))
        case _:
            assert_never(fact)


def _begun(payment: Payment | None, fact: AuthorizationStarted) -> Payment:
    zero = _zero(fact.amount.currency)
    earlier = payment.operations if payment else {}
    return Payment(
        phase=Phase.AUTHORIZING,
        attempt=fact.attempt,
        amount=fact.amount,
        authorized=zero,
        capturable=zero,
        captured=zero,
        refunded=zero,
        capture=fact.capture,
        payment_method=fact.payment_method,
        authorization=fact.operation,
        operations=earlier | {fact.operation: Operation("authorize", fact.amount)},
        customer=fact.customer,
        order=fact.order,
        description=fact.description,
        metadata=fact.metadata,
        disputes=payment.disputes if payment else {},
    )


def _reserved(payment: Payment, fact: Authorized) -> Payment:
    return _closed(
        payment,
        fact.operation,
        "done",
        phase=Phase.AUTHORIZED,
        authorized=fact.amount,
        capturable=fact.amount,
        payment_intent=fact.payment_intent,
        charge=fact.charge,
        card=fact.card,
        multicapture=fact.multicapture,
        next_action=None,
        failure=None,
    )


def _taken(payment: Payment, fact: Captured) -> Payment:
    # The reserve may have run out before we heard of the capture: then nothing is left of it either.
    left = _none(payment) if fact.final or fact.amount >= payment.capturable else payment.capturable - fact.amount
    captured = payment.captured + fact.amount
    return _closed(
        payment,
        fact.operation,
        "done",
        captured=captured,
        capturable=left,
        charge=fact.charge,
        failure=None,
    )


def _declined(payment: Payment, fact: Failed) -> Payment:
    undone = payment.operations[fact.operation]
    closed = _closed(payment, fact.operation, "failed", failure=fact.failure)
    if undone.kind == "refund" and undone.outcome == "done":
        return replace(closed, refunded=payment.refunded - undone.amount)
    if fact.stage != "authorize":
        return closed
    intent = fact.payment_intent or payment.payment_intent
    return replace(closed, phase=Phase.DECLINED, next_action=None, payment_intent=intent)


def _disputed(payment: Payment, name: str, dispute: Dispute) -> Payment:
    return replace(payment, disputes=payment.disputes | {name: dispute})


def _ended(payment: Payment, phase: Phase) -> Payment:
    """Nothing is reserved any more, and an authorization that still waited for the cardholder will not be answered."""
    waited = payment.operations[payment.authorization].outcome == "open"
    ended = _closed(payment, payment.authorization, "failed") if waited else payment
    return replace(ended, phase=phase, capturable=_none(payment), next_action=None)


def _opened(payment: Payment, name: str, operation: Operation) -> Payment:
    return replace(payment, operations=payment.operations | {name: operation})


def _closed(payment: Payment, name: str, outcome: Literal["done", "failed"], **changed: Any) -> Payment:
    """An operation has its outcome, and what else `changed` with it: all at once, as each replacing copies all."""
    operation = replace(payment.operations[name], outcome=outcome)
    return replace(payment, operations=payment.operations | {name: operation}, **changed)


def _none(payment: Payment) -> Money:
    return _zero(payment.amount.currency)


@cache
def _zero(currency: str) -> Money:
    return Money.zero(currency)


# --- As of -------------------------------------------------------------------------------------------------------


class PaymentAt(Struct, frozen=True):
    """A payment as it stood after `version` facts, the last of them at `position` in the log.

    Where the facts were read without opening what is personal in them, that is in `sealed`.
    """

    id: UUID
    payment: Payment
    version: int
    position: int
    created_at: datetime
    updated_at: datetime
    sealed: Sealed | None = None
