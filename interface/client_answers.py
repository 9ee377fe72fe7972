"""What the ledger answers, as the client hands it on. Amounts are whole minor units of the currency beside them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from domain.payment import Status
from domain.payment_facts import CaptureMethod, Card, Failure, NextAction

ACCEPTED = 202
# Of a position: a 64-bit number.
MAX_DIGITS = 19


class Answer(Struct, frozen=True):
    """An answer over HTTP. `headers` are found by lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StripeIds(Struct, frozen=True):
    payment_intent: str | None
    charge: str | None


class Payment(Struct, frozen=True):
    """A payment as the ledger has it.

    `status` is `pending` while the outcome of the authorization is not known. `outcome_known` is false while that of
    the command just sent is not known: a capture, refund or void of an unknown outcome leaves the payment as it is.
    `position` is what a query's `after` needs to include the command.
    """

    id: UUID
    status: Status
    currency: str
    amount: int
    amount_authorized: int
    amount_capturable: int
    amount_captured: int
    amount_refunded: int
    amount_refundable: int
    capture: CaptureMethod
    customer: str | None
    order: str | None
    description: str | None
    metadata: dict[str, str]
    card: Card | None
    failure: Failure | None
    next_action: NextAction | None
    stripe: StripeIds
    created_at: datetime
    updated_at: datetime
    version: int
    position: int | None = None
    outcome_known: bool = True


class PaymentPage(Struct, frozen=True):
    """Payments, newest first; `next_cursor` asks for those that follow, if there are any."""

    payments: list[Payment]
    next_cursor: str | None


class Fact(Struct, frozen=True):
    """A fact of the log. `data` depends on `type`."""

    position: int
    id: str
    type: str
    stream: UUID
    version: int
    at: datetime
    actor: str
    correlation_id: str
    causation_id: str | None
    data: dict[str, Any]


class FactList(Struct, frozen=True):
    events: list[Fact]


class Collected(Struct, frozen=True, rename="camel"):
    """`price` is what was taken, in minor units. `receipt_url`: the provider's receipt, if it has made one."""

    receipt_url: str | None
    price: int


class RefundedCharge(Struct, frozen=True, rename={"refund_id": "refundId"}):
    """`refund_id` is the provider's; of a charge that was released before it was taken, the ledger's own."""

    refund_id: str


class FieldError(Struct, frozen=True):
    """What is wrong with one part of a request: `pointer` into the body, or the name of a parameter or header."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class Problem(Struct, frozen=True):
    """An RFC 9457 problem document. `payment` is the payment that a declined command was about."""

    type: str
    title: str
    detail: str
    errors: list[FieldError] = []
    payment: Payment | None = None


def payment_in(answer: Answer) -> Payment:
    """Raises msgspec.MsgspecError when the answer is no payment."""
    payment = msgspec.json.decode(answer.body, type=Payment)
    return replace(payment, position=position_in(answer), outcome_known=answer.status != ACCEPTED)


def position_in(answer: Answer) -> int | None:
    told = answer.headers.get("ledger-position", "")
    return int(told) if told.isdecimal() and len(told) <= MAX_DIGITS else None


class _Captured(Struct, frozen=True):
    amount_captured: int
    receipt_url: str | None = None


class _CaptureAnswer(Struct, frozen=True, rename="camel"):
    captured_charge: _Captured


class _Refund(Struct, frozen=True):
    id: str


class _RefundAnswer(Struct, frozen=True, rename="camel"):
    created_refund: _Refund


def collected_in(answer: Answer) -> Collected:
    """Raises msgspec.MsgspecError when the answer is no captured charge."""
    charge = msgspec.json.decode(answer.body, type=_CaptureAnswer).captured_charge
    return Collected(charge.receipt_url, charge.amount_captured)


def refunded_in(answer: Answer) -> RefundedCharge:
    """Raises msgspec.MsgspecError when the answer is no refund."""
    return RefundedCharge(msgspec.json.decode(answer.body, type=_RefundAnswer).created_refund.id)


def page_in(answer: Answer) -> PaymentPage:
    """Raises msgspec.MsgspecError when the answer is no page of payments."""
    return msgspec.json.decode(answer.body, type=PaymentPage)


def facts_in(answer: Answer) -> list[Fact]:
    """Raises msgspec.MsgspecError when the answer is no list of facts."""
    return msgspec.json.decode(answer.body, type=FactList).events
