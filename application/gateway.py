"""The port to the payment provider.

`payment_intent` is the provider's name for a payment: a PaymentIntent, or a charge that was made without one.
An instruction is one started operation, told in the ledger's own words. The provider's answer is either an outcome that
may be recorded, with its evidence, or `Unknown`: not a failure, but something still to be learned.
"""

from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

from domain.money import Money
from domain.payment import Payment
from domain.payment_commands import Outcome, RecordDispute
from domain.payment_facts import CaptureMethod, Failure


class Unknown(Struct, frozen=True):
    """The provider may or may not have done it. `reason` names the kind of failure, never its text."""

    reason: str


class Instruction(Struct, frozen=True, kw_only=True):
    payment: UUID
    operation: str

    @property
    def idempotency_key(self) -> str:
        """The same for every try of this operation, and for nothing else."""
        return f"{self.payment}:{self.operation}"


class AuthorizeInstruction(Instruction, frozen=True, kw_only=True):
    amount: Money
    capture: CaptureMethod
    payment_method: str
    description: str | None
    metadata: dict[str, str]


class CaptureInstruction(Instruction, frozen=True, kw_only=True):
    """`multicapture`: the provider is told whether this capture is the last."""

    payment_intent: str
    amount: Money
    final: bool
    multicapture: bool


class VoidInstruction(Instruction, frozen=True, kw_only=True):
    """`partly_captured`: some of the reserve was taken already, and only the rest is released."""

    payment_intent: str
    partly_captured: bool


class RefundInstruction(Instruction, frozen=True, kw_only=True):
    payment_intent: str
    amount: Money


AnyInstruction = AuthorizeInstruction | CaptureInstruction | VoidInstruction | RefundInstruction


class RefundSeen(Struct, frozen=True):
    """A refund as the provider has it; `operation` is ours, when it was made for one."""

    id: str
    amount: Money
    operation: str | None
    failure: Failure | None


class Standing(Struct, frozen=True):
    """What the provider says of a payment now.

    `operation` is the last one of ours that it was marked with; `authorization` what it says of the operation that
    began it. `released`: nothing is reserved any more, and why. `captured` is all that was ever taken.
    """

    payment_intent: str
    operation: str | None
    authorization: Outcome | Unknown
    captured: Money
    released: Literal["no", "taken", "cancelled", "expired"]
    charge: str
    refunds: tuple[RefundSeen, ...]
    disputes: tuple[RecordDispute, ...]
    evidence: str


class ChargeSeen(Struct, frozen=True):
    """A charge as the provider has it; `payment` is ours, when it was made for one."""

    id: str
    payment: UUID | None
    payment_intent: str | None
    amount: Money
    captured: Money
    refunded: Money
    receipt_url: str | None


class Absent(Struct, frozen=True):
    """The provider knows nothing of it."""

    evidence: str


class GatewayMisconfigured(Exception):  # noqa: N818  it says what is so
    """The provider does not accept our credentials or their permissions: nothing can work, so nothing should start."""


class ChargeLookup(Protocol):
    async def charge(self, charge: str) -> ChargeSeen | Absent | Unknown:
        """A charge, by the provider's name for it. Moves nothing."""
        ...


class PaymentGateway(Protocol):
    """What a provider must be able to do. None of these raise on a provider's failure: they answer Unknown."""

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        """Carry the instruction out. Safe to repeat within the provider's idempotency window."""
        ...

    async def standing(
        self, payment: UUID, authorization: str, payment_intent: str | None
    ) -> Standing | Absent | Unknown:
        """How a payment stands there now. Moves nothing.

        `authorization` is the operation that began it; without `payment_intent` it is searched for by that.
        """
        ...

    async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
        """The payment of ours that goes by this name there; Absent when it is none of ours, or is not there."""
        ...

    def unavailable_s(self) -> float | None:
        """Seconds until it is worth asking again, when it has not answered for a while; None when it answers."""
        ...

    async def verify(self) -> None:
        """Raises GatewayMisconfigured when the provider refuses our credentials."""
        ...


def instruction_for(stream: UUID, name: str, payment: Payment) -> AnyInstruction:
    """The instruction that carries out an open operation of this payment."""
    operation = payment.operations[name]
    if operation.kind == "authorize":
        return AuthorizeInstruction(
            payment=stream,
            operation=name,
            amount=operation.amount,
            capture=payment.capture,
            payment_method=payment.payment_method,
            description=payment.description,
            metadata=payment.metadata,
        )
    assert payment.payment_intent is not None, "only an authorization can be without one"  # noqa: S101
    if operation.kind == "capture":
        return CaptureInstruction(
            payment=stream,
            operation=name,
            payment_intent=payment.payment_intent,
            amount=operation.amount,
            final=operation.final,
            multicapture=payment.multicapture,
        )
    if operation.kind == "void":
        return VoidInstruction(
            payment=stream,
            operation=name,
            payment_intent=payment.payment_intent,
            partly_captured=bool(payment.captured),
        )
    return RefundInstruction(
        payment=stream, operation=name, payment_intent=payment.payment_intent, amount=operation.amount
    )
