"""The cinema's three events, made from the facts of payments that were wished by its contract.

`user_email` and `reason` are always null: the log's readers hold no keys, and what is personal could not be erased from
Kafka.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID, uuid5

from msgspec import json

from domain.envelope import Envelope
from domain.payment_facts import AuthorizationStarted, Captured, Failed, Refunded
from interface.kafka.messages import Message, milliseconds
from interface.web.contracts.amounts import to_major
from interface.web.contracts.cinema_words import code_of, method_of, refund_of, transaction_of


class Begun(Protocol):
    def __call__(self, streams: Sequence[UUID], /) -> Iterable[Envelope]:
        """Every AuthorizationStarted of these streams."""
        ...


def cinema_messages(envelopes: Sequence[Envelope], begun: Begun) -> list[Message]:
    """What a batch of the log tells the cinema, in order. `begun` is asked once, for payments that began before it."""
    told = [envelope for envelope in envelopes if _is_told(envelope)]
    starts = [envelope for envelope in envelopes if isinstance(envelope.fact, AuthorizationStarted)]
    whole = {start.stream for start in starts if start.version == 1}
    if earlier := {envelope.stream for envelope in told} - whole:
        starts += begun(list(earlier))
    attempts = defaultdict[UUID, list[Envelope]](list)
    for start in starts:
        attempts[start.stream].append(start)
    messages = (_message(envelope, _attempt(envelope, attempts[envelope.stream])) for envelope in told)
    return [message for message in messages if message is not None]


def _is_told(envelope: Envelope) -> bool:
    match envelope.fact:
        case Captured() | Refunded() | Failed(stage="authorize"):
            return True
        case _:
            return False


def _attempt(envelope: Envelope, starts: Sequence[Envelope]) -> AuthorizationStarted:
    """The attempt to pay that was the last one when this happened."""
    start = max((start for start in starts if start.version < envelope.version), key=lambda start: start.version)
    assert isinstance(start.fact, AuthorizationStarted)  # noqa: S101  chosen so
    return start.fact


def _message(envelope: Envelope, start: AuthorizationStarted) -> Message | None:
    """Nothing, when the payment was wished by another contract."""
    method = method_of(start)
    if method is None:
        return None
    event_type, said = _said(envelope, start)
    body = {
        "event_id": str(uuid5(envelope.stream, f"{event_type}.{envelope.version}")),
        "event_type": event_type,
        "user_id": start.customer,
        "user_email": None,
        "booking_id": start.order,
        **said,
        "payment_method": method,
        "timestamp": envelope.at,
    }
    headers = [("event-type", event_type.encode()), ("content-type", b"application/json")]
    return Message((start.order or "").encode(), json.encode(body), headers, milliseconds(envelope.at))


def _said(envelope: Envelope, start: AuthorizationStarted) -> tuple[str, dict[str, Any]]:
    transaction = transaction_of(envelope.stream)
    match envelope.fact:
        case Captured(amount=amount):
            return "payment.success", {"transaction_id": transaction, "amount": to_major(amount)}
        case Refunded(operation=operation, amount=amount):
            refund = {"original_transaction_id": transaction, "refund_transaction_id": refund_of(operation)}
            return "payment.refund", refund | {"refund_amount": to_major(amount), "reason": None}
        case Failed(failure=failure):
            why = {"failure_reason": failure.message, "error_code": code_of(failure)}
            return "payment.failed", {"amount": to_major(start.amount)} | why
        case _:
            raise AssertionError(envelope.fact)
