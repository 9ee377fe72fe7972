"""What the cinema hears on Kafka of its own payments, and of nobody else's."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import json
from msgspec.structs import replace

from domain.envelope import Envelope
from domain.money import Money
from domain.payment_facts import AuthorizationStarted, Failed, PaymentFact, Refunded, RefundStarted
from interface.kafka.cinema_events import INTENTS, cinema_messages
from interface.kafka.messages import Message
from interface.web.contracts.cinema_words import channel
from tests.given import CAPTURED, DECLINED, NOON

STREAM = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
TRANSACTION = "TXN-0F8FAD5BD9CB469FA16570867728950E"
REFUND = str(uuid4())


def stored(*facts: PaymentFact, stream: UUID = STREAM, method: str | None = "debit_card") -> list[Envelope]:
    """The facts as the log has them; of a payment that the cinema wished, unless `method` is None."""
    return [
        Envelope(
            stream=stream,
            version=version,
            fact=_wished(fact, method),
            at=NOON + timedelta(seconds=version),
            actor="cinema",
            operation=None,
            correlation="request-1",
            causation=None,
            fingerprint=None,
            position=version,
        )
        for version, fact in enumerate(facts, 1)
    ]


def _wished(fact: PaymentFact, method: str | None) -> PaymentFact:
    if not isinstance(fact, AuthorizationStarted):
        return fact
    named = replace(fact, order="booking-1", customer="user-1")
    return replace(named, channel=channel(method)) if method else named  # type: ignore[arg-type]  # one of the four


def told(batch: Sequence[Envelope], before: Sequence[Envelope] = ()) -> list[Message]:
    def intents_of(streams: Sequence[UUID]) -> Iterable[Envelope]:
        assert streams, "it is not asked for nothing"
        return [one for one in (before or batch) if one.stream in streams and isinstance(one.fact, INTENTS)]

    return cinema_messages(batch, intents_of)


def bodies(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [json.decode(message.value) for message in messages]


def refunded(minor: int, operation: str = REFUND) -> Refunded:
    return Refunded(operation, Money(minor, "usd"), "re_1", "req_1")


def test_a_paid_booking_is_told_with_the_contracts_fields() -> None:
    (message,) = told(stored(*CAPTURED))
    (body,) = bodies([message])

    assert body.pop("event_id")
    assert body == {
        "event_type": "payment.success",
        "user_id": "user-1",
        "user_email": None,
        "booking_id": "booking-1",
        "transaction_id": TRANSACTION,
        "amount": 100.0,
        "payment_method": "debit_card",
        "timestamp": "2026-11-03T12:00:04Z",
    }
    assert message.key == b"booking-1"
    assert ("event-type", b"payment.success") in message.headers


def test_a_declined_booking_is_told_with_its_reason_and_without_a_transaction() -> None:
    (body,) = bodies(told(stored(*DECLINED)))
    failure = DECLINED[-1]
    assert isinstance(failure, Failed)
    assert body["event_type"] == "payment.failed"
    assert (body["failure_reason"], body["error_code"]) == (failure.failure.message, "INSUFFICIENT_FUNDS")
    assert "transaction_id" not in body


def test_a_refund_is_told_with_both_transactions_and_without_what_somebody_wrote() -> None:
    before = stored(*CAPTURED, refunded(12_34))
    (body,) = bodies(told(before[-1:], before))
    assert body["event_type"] == "payment.refund"
    assert body["original_transaction_id"] == TRANSACTION
    assert body["refund_transaction_id"] == f"REF-{UUID(REFUND).hex.upper()}"
    assert (body["refund_amount"], body["reason"], "amount" in body) == (12.34, None, False)


def test_a_refund_tells_its_reason_where_it_may_be_opened() -> None:
    begun = RefundStarted(REFUND, Money(12_34, "usd"), "the show was cancelled")
    history = stored(*CAPTURED, begun, refunded(12_34))
    sealed = [replace(one, fact=replace(one.fact, reason=None)) if one.fact is begun else one for one in history]
    (body,) = bodies(told(sealed[-2:], history))
    assert body["reason"] == "the show was cancelled"


def test_a_refund_made_at_the_provider_by_hand_has_a_transaction_too() -> None:
    (body,) = bodies(told(stored(*CAPTURED, refunded(5, "re_by_hand")))[1:])
    assert body["refund_transaction_id"].startswith("REF-")


@pytest.mark.parametrize("facts", [CAPTURED, DECLINED, (*CAPTURED, refunded(5))])
def test_a_payment_of_another_contract_is_none_of_its_business(facts: tuple[PaymentFact, ...]) -> None:
    assert told(stored(*facts, method=None)) == []


def test_sent_again_an_event_has_the_same_id_and_every_event_has_its_own() -> None:
    history = stored(*CAPTURED, refunded(5), refunded(6, str(uuid4())))
    ids = [body["event_id"] for body in bodies(told(history))]
    assert ids == [body["event_id"] for body in bodies(told(history))]
    assert len(set(ids)) == 3


def test_however_the_log_is_cut_into_batches_the_same_is_told() -> None:
    mine, others = stored(*DECLINED, *CAPTURED, refunded(5)), stored(*CAPTURED, stream=uuid4(), method=None)
    history = [envelope for pair in zip(mine, [*others, *others], strict=False) for envelope in pair]
    whole = bodies(told(history))
    assert [body["event_type"] for body in whole] == ["payment.failed", "payment.success", "payment.refund"]
    for cut in range(1, len(history)):
        assert bodies([*told(history[:cut]), *told(history[cut:], history)]) == whole


def test_each_attempt_is_told_by_the_method_it_was_made_with() -> None:
    again = [replace(one, version=one.version + len(DECLINED)) for one in stored(*CAPTURED, method="stripe")]
    methods = [body["payment_method"] for body in bodies(told([*stored(*DECLINED), *again]))]
    assert methods == ["debit_card", "stripe"]
