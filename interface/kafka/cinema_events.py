"""The cinema's three events, made from the facts of payments that were wished by its contract.

`user_email` is always null: no call of the contract carries one. `reason` is free text, sealed in the log, and
null unless the deployment lets the publisher open it: what went to Kafka cannot be erased any more.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol
from uuid import UUID, uuid5

from msgspec import Meta, Raw, Struct, json

from domain.envelope import Envelope
from domain.payment_facts import AuthorizationStarted, Captured, Failed, Refunded, RefundStarted
from interface.kafka.messages import Message, milliseconds
from interface.web.contracts.amounts import to_major
from interface.web.contracts.cinema_words import Method, code_of, method_of, refund_of, transaction_of

# What an event tells of a payment before its outcome.
INTENTS = (AuthorizationStarted, RefundStarted)
# The kinds of facts that may be an event; most are none.
TOLD = frozenset({Captured, Refunded, Failed})


# Major units, as a JSON number with the currency's digits.
Amount = Annotated[Raw, Meta(extra_json_schema={"type": "number"})]


class Event(Struct, frozen=True, kw_only=True, tag_field="event_type"):
    """What all three say. `user_email` is there because the contract has it."""

    event_id: str
    user_id: str | None
    user_email: None
    booking_id: str | None
    payment_method: Method
    timestamp: Annotated[datetime, Meta(tz=True)]

    @property
    def event_type(self) -> str:
        return str(self.__struct_config__.tag)


class PaymentSuccess(Event, frozen=True, kw_only=True, tag="payment.success"):
    """A booking was paid."""

    transaction_id: str
    amount: Amount


class PaymentFailed(Event, frozen=True, kw_only=True, tag="payment.failed"):
    """A booking could not be paid. There is no transaction."""

    amount: Amount
    failure_reason: str
    error_code: str


class PaymentRefund(Event, frozen=True, kw_only=True, tag="payment.refund"):
    """All or part of what was paid for a booking went back."""

    original_transaction_id: str
    refund_transaction_id: str
    refund_amount: Amount
    reason: str | None


EVENTS = {str(event.__struct_config__.tag): event for event in (PaymentSuccess, PaymentFailed, PaymentRefund)}


class Intents(Protocol):
    def __call__(self, streams: Sequence[UUID], /) -> Iterable[Envelope]:
        """Every intent (INTENTS) of these streams, opened where that is allowed."""
        ...


def cinema_messages(envelopes: Sequence[Envelope], intents_of: Intents) -> list[Message]:
    """What a batch of the log tells the cinema, in order. `intents_of` is asked once, for what began before it."""
    told = [envelope for envelope in envelopes if type(envelope.fact) in TOLD and _is_told(envelope)]
    concerned = {envelope.stream for envelope in told}
    ours = [envelope for envelope in envelopes if envelope.stream in concerned]
    begun = {envelope.stream for envelope in ours if envelope.version == 1}
    # A refund's reason may have to be opened, whatever is in the batch.
    asked = {
        envelope.stream for envelope in told if envelope.stream not in begun or isinstance(envelope.fact, Refunded)
    }
    intents = defaultdict[UUID, list[Envelope]](list)
    for envelope in (*ours, *(intents_of(list(asked)) if asked else ())):
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
    event = _event(envelope, start, method, intents)
    headers = [("event-type", event.event_type.encode()), ("content-type", b"application/json")]
    return Message((start.order or "").encode(), json.encode(event), headers, milliseconds(envelope.at))


def _event(envelope: Envelope, start: AuthorizationStarted, method: Method, intents: Sequence[Envelope]) -> Event:
    transaction = transaction_of(envelope.stream)
    kind: type[Event]
    said: dict[str, Any]
    match envelope.fact:
        case Captured(amount=amount):
            kind, said = PaymentSuccess, {"transaction_id": transaction, "amount": to_major(amount)}
        case Refunded(operation=operation, amount=amount):
            refund = {"original_transaction_id": transaction, "refund_transaction_id": refund_of(operation)}
            said = refund | {"refund_amount": to_major(amount), "reason": _reason(operation, intents)}
            kind = PaymentRefund
        case Failed(failure=failure):
            why = {"failure_reason": failure.message, "error_code": code_of(failure)}
            kind, said = PaymentFailed, {"amount": to_major(start.amount)} | why
        case _:
            raise AssertionError(envelope.fact)
    event_type = kind.__struct_config__.tag
    return kind(
        event_id=str(uuid5(envelope.stream, f"{event_type}.{envelope.version}")),
        user_id=start.customer,
        user_email=None,
        booking_id=start.order,
        payment_method=method,
        timestamp=envelope.at,
        **said,
    )


def _reason(operation: str, intents: Sequence[Envelope]) -> str | None:
    refunds = (one.fact for one in intents if isinstance(one.fact, RefundStarted))
    return next((refund.reason for refund in refunds if refund.operation == operation and refund.reason), None)
