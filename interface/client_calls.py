"""What the client sends: a function a call."""

import re
import string
from datetime import datetime
from typing import Any, TypedDict, Unpack
from urllib.parse import quote
from uuid import UUID, uuid4

from msgspec import json
from msgspec.structs import replace

from domain.payment import Status
from domain.payment_facts import CaptureMethod
from interface.client_answers import (
    Collected,
    Fact,
    Payment,
    PaymentPage,
    RefundedCharge,
    collected_in,
    facts_in,
    page_in,
    payment_in,
    refunded_in,
)
from interface.client_attempts import KEY, Call
from interface.client_errors import InvalidChargeID

# What may stand in a header as it is; `%` marks what may not.
_PLAIN = string.punctuation.replace("%", "")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Once(TypedDict, total=False):
    """`key`: the idempotency key, a fresh one unless given. `wait`: ask until the outcome is known, or the deadline."""

    key: str | None
    wait: bool


class PaymentDetails(Once, total=False):
    """What a payment may carry besides its amount."""

    customer: str | None
    order: str | None
    description: str | None
    metadata: dict[str, str] | None


class MovementDetails(Once, total=False):
    """`version`: only if the payment is at this version."""

    reason: str | None
    version: int | None


class Wanted(TypedDict, total=False):
    """Which payments: created from `since` until before `until`, both with their offset; `limit` of them."""

    status: Status | None
    customer: str | None
    order: str | None
    since: datetime | None
    until: datetime | None
    cursor: str | None
    limit: int | None
    after: int | None


# --- Commands ----------------------------------------------------------------------------------------------------


def authorize(  # noqa: PLR0913  what a payment may carry
    amount: int,
    currency: str,
    payment_method: str,
    capture: CaptureMethod,
    *,
    customer: str | None = None,
    order: str | None = None,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
    **once: Unpack[Once],
) -> Call[Payment]:
    wish = {"amount": amount, "currency": currency, "payment_method": payment_method, "capture": capture}
    about = {"customer": customer, "order": order, "description": description, "metadata": metadata}
    return _command("/v1/payments", wish | about, **once)


def move(
    payment: UUID | str,
    operation: str,
    amount: int | None = None,
    *,
    reason: str | None = None,
    version: int | None = None,
    **once: Unpack[Once],
) -> Call[Payment]:
    """`operation` is `captures`, `refunds` or `void`. Raises ValueError when `payment` is no payment's id."""
    call = _command(f"/v1/payments/{UUID(str(payment))}/{operation}", {"amount": amount, "reason": reason}, **once)
    return call if version is None else replace(call, headers=call.headers | {"If-Match": f'"{version}"'})


def _command(path: str, body: dict[str, Any], *, key: str | None = None, wait: bool = False) -> Call[Payment]:
    headers = {KEY: _key(key)}
    return Call(method="POST", path=path, read=payment_in, headers=headers, body=_json(body), wait=wait)


def _key(given: str | None) -> str:
    if given is None:
        return str(uuid4())
    if not _KEY.fullmatch(given):
        raise ValueError("an idempotency key has 1 to 255 printable ASCII characters, and no space")
    return given


# --- Queries -----------------------------------------------------------------------------------------------------


def payment(payment: UUID | str, after: int | None) -> Call[Payment]:
    """Raises ValueError when `payment` is no payment's id."""
    query = {} if after is None else {"after": str(after)}
    return Call(method="GET", path=f"/v1/payments/{UUID(str(payment))}", read=payment_in, query=query)


def payments(wanted: Wanted) -> Call[PaymentPage]:
    renamed = {"since": "from", "until": "to"}
    query = {renamed.get(name, name): _text(value) for name, value in wanted.items() if value is not None}
    return Call(method="GET", path="/v1/payments", read=page_in, query=query)


def events(payment: UUID | str) -> Call[list[Fact]]:
    """Raises ValueError when `payment` is no payment's id."""
    return Call(method="GET", path=f"/v1/payments/{UUID(str(payment))}/events", read=facts_in)


# --- The airline's booking workflow ------------------------------------------------------------------------------


def collect(charge_id: str, customer_id: str, booking_id: str) -> Call[Collected]:
    """Raises InvalidChargeID."""
    named = {"X-Customer-Id": customer_id, "X-Booking-Id": booking_id}
    headers = {name: quote(value, safe=_PLAIN) for name, value in named.items()}
    return Call(method="POST", path="/capture", read=collected_in, headers=headers, body=_charge(charge_id))


def refund(charge_id: str) -> Call[RefundedCharge]:
    """Raises InvalidChargeID."""
    return Call(method="POST", path="/refund", read=refunded_in, body=_charge(charge_id))


def _charge(charge_id: str) -> bytes:
    if not charge_id or not charge_id.strip():
        raise InvalidChargeID
    return _json({"chargeId": charge_id})


def _json(body: dict[str, Any]) -> bytes:
    return json.encode({name: value for name, value in body.items() if value is not None})


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
