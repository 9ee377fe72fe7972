"""The facts of a payment. Their names and fields are the storage format: they may grow, never change their meaning.

Every outcome carries its evidence: the id of the provider's request or event that told us.
"""

from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from domain.money import Money

CaptureMethod = Literal["automatic", "manual"]
Stage = Literal["authorize", "capture", "void", "refund"]


class Card(Struct, frozen=True):
    """What may be kept of a card: never its number."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int


class Failure(Struct, frozen=True):
    """Why the issuer or the provider said no. `retryable`: whether the same card may be tried again."""

    code: str
    decline_code: str | None
    message: str
    retryable: bool


class NextAction(Struct, frozen=True):
    """What the cardholder must do, as the provider words it; `url` is where, when there is a page for it."""

    type: str
    url: str | None = None


class AuthorizationStarted(Struct, frozen=True):
    """An attempt to have the issuer reserve `amount`; with `automatic` capture the money is taken at once.

    `channel`: the contract that it was wished by, and in which of its ways; not written when there is none to name.
    """

    operation: str
    attempt: int
    amount: Money
    capture: CaptureMethod
    payment_method: str
    customer: str | None = None
    order: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    channel: str | UnsetType = UNSET


class ActionRequired(Struct, frozen=True):
    """The issuer wants the cardholder to authenticate (3-D Secure) before it answers."""

    operation: str
    payment_intent: str
    next_action: NextAction
    evidence: str


class Authorized(Struct, frozen=True):
    """The issuer reserved `amount` until `expires_at`. `multicapture`: it may be taken in several parts."""

    operation: str
    amount: Money
    payment_intent: str
    charge: str
    card: Card | None
    expires_at: datetime | None
    multicapture: bool
    evidence: str


class CaptureStarted(Struct, frozen=True):
    """An attempt to take `amount` of the reserve. `final`: the rest is released with it."""

    operation: str
    amount: Money
    final: bool
    reason: str | None = None


class Captured(Struct, frozen=True):
    """`amount` was taken. `final`: nothing of the reserve is left to take."""

    operation: str
    amount: Money
    final: bool
    charge: str
    evidence: str


class VoidStarted(Struct, frozen=True):
    operation: str
    reason: str | None = None


class Voided(Struct, frozen=True):
    """The reserve was released; `amount` had not been taken and never will be."""

    operation: str
    amount: Money
    evidence: str


class RefundStarted(Struct, frozen=True):
    operation: str
    amount: Money
    reason: str | None = None


class Refunded(Struct, frozen=True):
    """`amount` of captured money went back, as a movement of its own (`refund`)."""

    operation: str
    amount: Money
    refund: str
    evidence: str


class Failed(Struct, frozen=True):
    """The provider or the issuer said no to the operation. Never written for an outcome that is merely unknown.

    A refund may fail after it was made: the money could not be delivered, and is ours again.
    """

    operation: str
    stage: Stage
    failure: Failure
    evidence: str
    payment_intent: str | None = None


class Expired(Struct, frozen=True):
    """The reserve ran out at the issuer; `amount` had not been taken and never will be."""

    amount: Money
    evidence: str


class DisputeOpened(Struct, frozen=True):
    """The cardholder contests `amount`; the issuer has taken it back for now. `code`: the provider's word for why."""

    dispute: str
    amount: Money
    code: str
    evidence: str


class DisputeWon(Struct, frozen=True):
    """The contested money came back."""

    dispute: str
    evidence: str


class DisputeLost(Struct, frozen=True):
    """The contested money stays with the cardholder."""

    dispute: str
    evidence: str


PaymentFact = (
    AuthorizationStarted
    | ActionRequired
    | Authorized
    | CaptureStarted
    | Captured
    | VoidStarted
    | Voided
    | RefundStarted
    | Refunded
    | Failed
    | Expired
    | DisputeOpened
    | DisputeWon
    | DisputeLost
)
