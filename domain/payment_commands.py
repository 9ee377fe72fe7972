"""What may be asked of a payment: the wishes of callers, and the recording of what the provider answered."""

from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from domain.money import Money
from domain.payment_facts import CaptureMethod, Card, Failure, NextAction

# --- Wishes: may be refused -------------------------------------------------------------------------------------


class Authorize(Struct, frozen=True):
    """Have the issuer reserve `amount` (and take it, with `automatic` capture)."""

    operation: str
    amount: Money
    capture: CaptureMethod
    payment_method: str
    customer: str | None = None
    order: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    channel: str | UnsetType = UNSET


class Capture(Struct, frozen=True):
    """Take `amount_minor` of the reserve, or all that is left of it."""

    operation: str
    amount_minor: int | None = None
    reason: str | None = None


class Void(Struct, frozen=True):
    """Release what is left of the reserve."""

    operation: str
    reason: str | None = None


class Refund(Struct, frozen=True):
    """Give `amount_minor` of the captured money back, or all that is left of it."""

    operation: str
    amount_minor: int | None = None
    reason: str | None = None


# --- Outcomes: what the provider answered to an operation --------------------------------------------------------


class RecordActionRequired(Struct, frozen=True):
    operation: str
    payment_intent: str
    next_action: NextAction
    evidence: str


class RecordAuthorized(Struct, frozen=True):
    """`captured`: the money was taken in the same movement (automatic capture)."""

    operation: str
    amount: Money
    captured: bool
    payment_intent: str
    charge: str
    card: Card | None
    expires_at: datetime | None
    multicapture: bool
    evidence: str


class RecordCaptured(Struct, frozen=True):
    operation: str
    amount: Money
    final: bool
    charge: str
    evidence: str


class RecordVoided(Struct, frozen=True):
    operation: str
    evidence: str


class RecordRefunded(Struct, frozen=True):
    operation: str
    amount: Money
    refund: str
    evidence: str


class RecordFailed(Struct, frozen=True):
    """`expired`: the provider refused because the authorization had run out, which is a fact of its own."""

    operation: str
    failure: Failure
    evidence: str
    payment_intent: str | None = None
    expired: bool = False


class RecordExpired(Struct, frozen=True):
    """The provider reports that the authorization ran out."""

    evidence: str


class RecordReversed(Struct, frozen=True):
    """A refund that had been made did not reach the cardholder: the money is ours again."""

    operation: str
    failure: Failure
    evidence: str


class RecordDispute(Struct, frozen=True):
    """How a dispute stands at the provider now."""

    dispute: str
    amount: Money
    code: str
    outcome: Literal["open", "won", "lost"]
    evidence: str


class Adopt(Struct, frozen=True):
    """A movement that the provider reports and no operation of ours explains: somebody made it there."""

    movement: RecordCaptured | RecordVoided | RecordRefunded


Wish = Authorize | Capture | Void | Refund
Outcome = (
    RecordActionRequired
    | RecordAuthorized
    | RecordCaptured
    | RecordVoided
    | RecordRefunded
    | RecordFailed
    | RecordExpired
)
# What is learned by looking at how a payment stands at the provider, beside the outcomes of our own operations.
Learned = Outcome | RecordReversed | RecordDispute | Adopt
PaymentCommand = Wish | Learned
