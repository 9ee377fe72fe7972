"""The cinema's contract: a booking is paid once, refunded in parts, and asked about by its transaction.

Translations only. A booking's payment is one stream, so whatever keys, clicks and races say it is paid once.
"""

import time
from collections.abc import Awaitable
from typing import Any
from uuid import UUID

import psycopg
from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from msgspec import DecodeError, Raw, ValidationError, json

from application.event_store import StoreUnavailable
from application.gateway import Unknown
from application.history import History
from application.payment_stream import Context
from application.payments import KeyReused, PaymentNotFound, ProviderUnavailable, operation_id, payment_id
from application.settlement import Contended
from domain.errors import InvalidMoney, PaymentRefusal
from domain.payment import Phase
from domain.payment_commands import Authorize, Refund
from domain.payment_facts import Failure
from interface.services import Services
from interface.tokens import Caller
from interface.web.access import caller_of, needs
from interface.web.card_numbers import fields_with_card_numbers
from interface.web.contracts import cinema_bodies as bodies
from interface.web.contracts.amounts import from_major, to_major
from interface.web.contracts.cinema_answers import duplicate, processed, refunded, shown
from interface.web.contracts.cinema_bodies import MethodView, ProcessBody, RefundBody
from interface.web.contracts.cinema_cards import NO_METHOD, method_for, takes_cards
from interface.web.contracts.cinema_words import (
    channel,
    outcome_of,
    refused,
)
from interface.web.waiting import correlation_of

# Derives a booking's stream, whoever asks: it never changes.
CONTRACT = "contract:cinema"
Http = Request[Caller, Any, State]


# --- Calls -------------------------------------------------------------------------------------------------------


@post("/process", guards=[needs("write:payment")], status_code=200, operation_class=bodies.PROCESS)
async def process(request: Http, services: Services) -> Response[Any]:
    """Pay a booking, once."""
    return await _metered("process", services, _process(request, services))


@post("/refund", guards=[needs("write:payment")], status_code=200, operation_class=bodies.REFUND)
async def refund(request: Http, services: Services) -> Response[Any]:
    """Give part or all of a booking's money back. The same refund asked again is answered again."""
    return await _metered("refund", services, _refund(request, services))


async def _metered(call: str, services: Services, answering: Awaitable[Response[Any]]) -> Response[Any]:
    began = time.perf_counter()
    answer = await answering
    metrics = services.metrics
    metrics.cinema_seconds.labels(call).observe(time.perf_counter() - began)
    metrics.cinema_answers.labels(call, *outcome_of(answer.content)).inc()
    return answer


async def _process(request: Http, services: Services) -> Response[Any]:
    now, body = services.clock(), await _read(request, ProcessBody)
    if isinstance(body, Response):
        return body
    try:
        amount = from_major(body.amount, services.settings.default_currency)
    except InvalidMoney as error:
        return refused("INVALID_AMOUNT", f"amount {getattr(error, 'reason', 'cannot be')}", now)
    stream = payment_id(CONTRACT, body.booking_id)
    history = await _history(services, stream)
    if history.payment is not None and history.payment.phase is not Phase.DECLINED:
        return duplicate(history, now)
    method = await method_for(body.payment_method, body.card_details, services)
    if isinstance(method, Unknown):
        return refused("PAYMENT_GATEWAY_ERROR", "the payment provider does not answer", now, retry=True)
    attempt = history.payment.attempt + 1 if history.payment else 1
    wish = Authorize(
        operation=operation_id(stream, CONTRACT, f"attempt:{attempt}"),
        amount=amount,
        capture="automatic",
        payment_method=method if isinstance(method, str) else NO_METHOD,
        customer=body.user_id,
        order=body.booking_id,
        metadata={"contract": "cinema", "payment_method": body.payment_method},
        channel=channel(body.payment_method),
    )
    try:
        if isinstance(method, Failure):
            answer = await services.payments.decline(stream, wish, method, _context(request))
        else:
            answer = await services.payments.carry_out(stream, wish, _context(request))
    except InvalidMoney:
        return refused("INVALID_AMOUNT", "amount cannot be moved", now)
    except (KeyReused, PaymentRefusal, Contended):
        return refused("DUPLICATE_TRANSACTION", "the booking is being paid or paid already", now, retry=True)
    except ProviderUnavailable:
        return refused("PAYMENT_GATEWAY_ERROR", "the payment provider does not answer", now, retry=True)
    if answer.outcome == "done" and not answer.replayed:
        services.metrics.cinema_volume.labels("process", amount.currency).inc(amount.minor)
    return processed(answer, body, now)


async def _refund(request: Http, services: Services) -> Response[Any]:
    now, body = services.clock(), await _read(request, RefundBody)
    if isinstance(body, Response):
        return body
    stream = _stream(body.original_transaction_id)
    history = await _history(services, stream) if stream else None
    if stream is None or history is None or history.payment is None:
        return refused("TRANSACTION_NOT_FOUND", "there is no such transaction", now)
    payment = history.payment
    if (payment.order, payment.customer) != (body.booking_id, body.user_id):
        return refused("REFUND_NOT_ALLOWED", "the transaction is another booking's or another user's", now)
    try:
        amount = from_major(body.refund_amount, payment.amount.currency)
    except InvalidMoney as error:
        return refused("INVALID_AMOUNT", f"refund_amount {getattr(error, 'reason', 'cannot be')}", now)
    wish = Refund(operation_id(stream, CONTRACT, f"refund:{amount.minor}:{body.reason}"), amount.minor, body.reason)
    try:
        answer = await services.payments.carry_out(stream, wish, _context(request))
    except (PaymentRefusal, InvalidMoney, KeyReused):
        left = to_major(payment.refundable)
        said = f"at most {bytes(left).decode()} can be refunded now"
        return refused("REFUND_NOT_ALLOWED", said, now, transaction_id=body.original_transaction_id)
    except Contended:
        said = "other operations on this payment are under way; the same request may be sent again"
        return refused("PAYMENT_GATEWAY_ERROR", said, now, transaction_id=body.original_transaction_id, retry=True)
    except ProviderUnavailable:
        return refused("PAYMENT_GATEWAY_ERROR", "the payment provider does not answer", now, retry=True)
    if answer.outcome == "done" and not answer.replayed:
        services.metrics.cinema_volume.labels("refund", amount.currency).inc(amount.minor)
    return refunded(answer, body, wish.operation, amount, now)


@get("/status/{transaction_id:str}", guards=[needs("read:payment")], operation_class=bodies.STATUS)
async def status(services: Services, transaction_id: str) -> Response[Any]:
    """How a transaction stands."""
    now, stream = services.clock(), _stream(transaction_id)
    history = await _history(services, stream) if stream else None
    if history is None or history.payment is None or not history.payment.order:
        return refused("TRANSACTION_NOT_FOUND", "there is no such transaction", now)
    return Response(shown(history.payment, history))


@get("/methods", guards=[needs("read:payment")], sync_to_thread=False, operation_class=bodies.METHODS)
def methods(services: Services) -> dict[str, list[MethodView]]:
    """The four methods, and which of them work here."""
    cards = takes_cards(services)
    return {
        "payment_methods": [
            MethodView("credit_card", "Credit card", "Visa, Mastercard, American Express", enabled=cards),
            MethodView("debit_card", "Debit card", "Visa, Mastercard", enabled=cards),
            MethodView("paypal", "PayPal", "Not offered by this deployment", enabled=False),
            MethodView("stripe", "Stripe", "A card, by way of Stripe", enabled=cards),
        ]
    }


# --- Translations ------------------------------------------------------------------------------------------------


async def _read(request: Http, into: type[Any]) -> Any:
    """The body, or the answer that says which field is wrong: its name, never its value."""
    try:
        body = json.decode(await request.body(), type=into)
    except ValidationError as error:
        said, _, path = str(error).partition(" - at `$.")
        said = said.partition(" '")[0]  # between such quotes it repeats what was given
        missing = "missing required field" in said
        return _invalid((path.rstrip("`") or (said.split("`")[1] if missing else "")).split("."), said)
    except (DecodeError, UnicodeDecodeError):
        return _invalid([], "the body is not well-formed JSON")
    except RecursionError:
        return _invalid([], "the body nests too deep")
    if wrong := fields_with_card_numbers(body):
        return _invalid(wrong[:1], "a card number must not stand here")
    amount: Raw = body.amount if isinstance(body, ProcessBody) else body.refund_amount
    if bytes(amount)[:1] not in b"-0123456789":
        return _invalid(["amount" if isinstance(body, ProcessBody) else "refund_amount"], "must be a number")
    return body


def _invalid(path: list[str], said: str) -> Response[Any]:
    where = ["body", *filter(None, path)]
    return Response({"detail": [{"loc": where, "msg": said, "type": "value_error"}]}, status_code=422)


async def _history(services: Services, stream: UUID) -> History:
    try:
        return await services.payments.history(stream)
    except PaymentNotFound:
        return History(stream)


def _stream(transaction_id: str) -> UUID | None:
    prefix, _, text = transaction_id.partition("-")
    try:
        return UUID(text) if prefix == "TXN" and len(text) == 32 else None
    except ValueError:
        return None


def _context(request: Http) -> Context:
    return Context(caller_of(request).subject, correlation_of(request))


def unavailable(request: Http, _: Exception) -> Response[Any]:
    """The store's outage in this contract's words."""
    services: Services = request.app.state.services
    answer = refused("PAYMENT_GATEWAY_ERROR", "the ledger cannot answer now", services.clock(), retry=True, status=503)
    answer.headers["Retry-After"] = "1"
    return answer


router = Router(
    "/payment",
    route_handlers=[process, refund, status, methods],
    exception_handlers={StoreUnavailable: unavailable, psycopg.OperationalError: unavailable},
    tags=["cinema"],
)
