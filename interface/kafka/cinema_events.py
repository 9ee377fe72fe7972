"""The cinema's three events, made from the facts of payments that were wished by its contract.

`user_email` is always null: no call of the contract carries one. `reason` is free text, sealed in the log, and
null unless the deployment lets the publisher open it: what went to Kafka cannot be erased any more.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID, uuid5

from msgspec import json

from domain.envelope import Envelope
from domain.payment_facts import AuthorizationStarted, Captured, Failed, Refunded, RefundStarted
from interface.kafka.messages import Message, milliseconds
from interface.web.contracts.amounts import to_major
from interface.web.contracts.cinema_words import code_of, method_of, refund_of, transaction_of

# What an event tells of a payment before its outcome.
INTENTS = (AuthorizationStarted, RefundStarted)


class Intents(Protocol):
    def __call__(self, streams: Sequence[UUID], /) -> Iterable[Envelope]:
        """Every intent (INTENTS) of these streams, opened where that is allowed."""
        ...


def cinema_messages(envelopes: Sequence[Envelope], intents_of: Intents) -> list[Message]:
    """What a batch of the log tells the cinema, in order. `intents_of` is asked once, for what began before it."""
    told = [envelope for envelope in envelopes if _is_told(envelope)]
    begun = {envelope.stream for envelope in envelopes if envelope.version == 1}
    # A refund's reason may have to be opened, whatever is in the batch.
    asked = {
        envelope.stream for envelope in told if envelope.stream not in begun or isinstance(envelope.fact, Refunded)
    }
    intents = defaultdict[UUID, list[Envelope]](list)
    for envelope in (*envelopes, *(intents_of(list(asked)) if asked else ())):
        if isinstance(envelope.fact, INTENTS):
            intents[envelope.stream].append(envelope)
    messages = (_message(envelope, intents[envelope.stream]) for envelope in told)
    return [message for message in messages if message is not None]


def _is_told(envelope: Envelope) -> bool:
    match envelope.fact:
        case Captured() | Refunded() | Failed(stage="authorize"):
            return True
        case _:
            return False


def _message(envelope: Envelope, intents: Sequence[Envelope]) -> Message | None:
    """Nothing, when the payment was wished by another contract."""
    attempts = [one for one in intents if isinstance(one.fact, AuthorizationStarted) and one.version < envelope.version]
    start = max(attempts, key=lambda one: one.version).fact
    assert isinstance(start, AuthorizationStarted)  # noqa: S101  chosen so
    method = method_of(start)
    if method is None:
        return None
    event_type, said = _said(envelope, start, intents)
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


def _said(envelope: Envelope, start: AuthorizationStarted, intents: Sequence[Envelope]) -> tuple[str, dict[str, Any]]:
    transaction = transaction_of(envelope.stream)
    match envelope.fact:
        case Captured(amount=amount):
            return "payment.success", {"transaction_id": transaction, "amount": to_major(amount)}
        case Refunded(operation=operation, amount=amount):
            refund = {"original_transaction_id": transaction, "refund_transaction_id": refund_of(operation)}
            return "payment.refund", refund | {"refund_amount": to_major(amount), "reason": _reason(operation, intents)}
        case Failed(failure=failure):
            why = {"failure_reason": failure.message, "error_code": code_of(failure)}
            return "payment.failed", {"amount": to_major(start.amount)} | why
        case _:
            raise AssertionError(envelope.fact)


def _reason(operation: str, intents: Sequence[Envelope]) -> str | None:
    refunds = (one.fact for one in intents if isinstance(one.fact, RefundStarted))
    return next((refund.reason for refund in refunds if refund.operation == operation and refund.reason), None)
