"""What the cinema is answered: what became of a payment or a refund, and how a transaction stands."""

from datetime import datetime
from typing import Any, cast, get_args

from litestar import Response
from msgspec import Raw

from application.history import History
from application.payments import Answer
from domain.money import Money
from domain.payment import Payment
from interface.web.contracts.amounts import to_major
from interface.web.contracts.cinema_bodies import ProcessBody, RefundBody
from interface.web.contracts.cinema_words import (
    Code,
    Method,
    NotPaid,
    Paid,
    Returned,
    Transaction,
    code_of,
    refund_of,
    refused,
    transaction_of,
    word_for,
)

# What a payment that another contract made is shown as.
PAID_BY: Method = "credit_card"


# --- Of a payment ------------------------------------------------------------------------------------------------


def processed(answer: Answer, body: ProcessBody, now: datetime) -> Response[Any]:
    transaction = transaction_of(answer.at.id)
    amount = to_major(answer.at.payment.amount)
    if answer.outcome == "done":
        if answer.replayed:
            said = "the booking is paid already"
            return refused("DUPLICATE_TRANSACTION", said, now, transaction_id=transaction)
        paid = Paid(
            transaction_id=transaction,
            booking_id=body.booking_id,
            amount=amount,
            payment_method=body.payment_method,
            processed_at=answer.at.updated_at,
            message="Payment processed successfully",
        )
        return Response(paid)
    if answer.outcome == "failed":
        failure = answer.at.payment.failure
        return _not_paid(body, amount, code_of(failure), failure.message if failure else "declined", now)
    if answer.replayed:
        said = "the booking is being paid"
        return refused("DUPLICATE_TRANSACTION", said, now, transaction_id=transaction, retry=True)
    said = "the outcome is not known yet; ask for the transaction's status"
    return refused("PAYMENT_GATEWAY_ERROR", said, now, transaction_id=transaction, retry=True)


def duplicate(history: History, now: datetime) -> Response[Any]:
    pending = word_for(cast(Payment, history.payment)) == "pending"
    said = "the booking is being paid" if pending else "the booking is paid already"
    return refused("DUPLICATE_TRANSACTION", said, now, transaction_id=transaction_of(history.stream), retry=pending)


def _not_paid(body: ProcessBody, amount: Raw, code: Code, said: str, now: datetime) -> Response[Any]:
    failed = NotPaid(
        booking_id=body.booking_id,
        amount=amount,
        payment_method=body.payment_method,
        error_code=code,
        error_message=said,
        processed_at=now,
    )
    return Response(failed, status_code=400)


# --- Of a refund -------------------------------------------------------------------------------------------------


def refunded(answer: Answer, body: RefundBody, operation: str, amount: Money, now: datetime) -> Response[Any]:
    if answer.outcome == "failed":
        failure = answer.at.payment.failure
        said = failure.message if failure else "the refund was refused"
        return refused("REFUND_NOT_ALLOWED", said, now, transaction_id=body.original_transaction_id)
    if answer.outcome == "open":
        said = "the outcome is not known yet; the same request may be sent again"
        return refused("PAYMENT_GATEWAY_ERROR", said, now, transaction_id=body.original_transaction_id, retry=True)
    returned = Returned(
        refund_transaction_id=refund_of(operation),
        original_transaction_id=body.original_transaction_id,
        booking_id=body.booking_id,
        refund_amount=to_major(amount),
        processed_at=answer.at.updated_at,
        message="Refund processed successfully",
    )
    return Response(returned)


# --- Of a question -----------------------------------------------------------------------------------------------


def shown(payment: Payment, history: History) -> Transaction:
    word = word_for(payment)
    return Transaction(
        transaction_id=transaction_of(history.stream),
        status=word,
        booking_id=payment.order or "",
        amount=to_major(payment.amount),
        payment_method=_paid_by(payment),
        created_at=history.envelopes[0].at,
        processed_at=None if word == "pending" else history.envelopes[-1].at,
    )


def _paid_by(payment: Payment) -> Method:
    given = payment.metadata.get("payment_method")
    return next((name for name in get_args(Method) if name == given), PAID_BY)
