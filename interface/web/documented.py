"""What the OpenAPI document says each route may answer, with examples a stranger can build a client from."""

from collections.abc import Mapping
from typing import Any

from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example, OpenAPI, OpenAPIHeader, OpenAPIResponse, OpenAPIType, Operation, Schema
from msgspec import Struct

from interface.web.problems import MEDIA_TYPE, Problem
from interface.web.views import FactList, OrderPage, OrderView, PaymentPage, PaymentView

PAYMENT: dict[str, Any] = {
    "id": "0b2f6a34-6a4b-5d8e-9a55-3a2f5e8a1c11",
    "status": "authorized",
    "currency": "usd",
    "amount": 10099,
    "amount_authorized": 10099,
    "amount_capturable": 10099,
    "amount_captured": 0,
    "amount_refunded": 0,
    "amount_refundable": 0,
    "capture": "manual",
    "customer": "user_42",
    "order": "order_7",
    "description": None,
    "metadata": {},
    "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034},
    "failure": None,
    "next_action": None,
    "stripe": {"payment_intent": "pi_3Qabc", "charge": "ch_3Qabc"},
    "created_at": "2026-11-20T12:00:00Z",
    "updated_at": "2026-11-20T12:00:01Z",
    "version": 2,
}

FACT: dict[str, Any] = {
    "position": 42,
    "id": "0b2f6a34-6a4b-5d8e-9a55-3a2f5e8a1c11.1",
    "type": "AuthorizationStarted",
    "stream": "0b2f6a34-6a4b-5d8e-9a55-3a2f5e8a1c11",
    "version": 1,
    "at": "2026-11-20T12:00:00Z",
    "actor": "checkout",
    "correlation_id": "req-1",
    "causation_id": None,
    "data": {"amount": 10099, "currency": "usd", "capture": "manual", "payment_method": "pm_card_visa"},
}
_TOTALS = {"currency": "usd", "amount_authorized": 10099, "amount_captured": 10099, "amount_refunded": 1050}
_BRIEF = {"id": FACT["stream"], "status": "partially_refunded", "amount": 10099, "created_at": FACT["at"]}
ORDER: dict[str, Any] = {
    "id": "order_7",
    "status": "complete",
    "payment_status": "partially_refunded",
    "user": "user_42",
    "price": 10099,
    "currency": "usd",
    "version": 0,
    "totals": [_TOTALS],
    "payments": [_BRIEF | _TOTALS],
    "created_at": FACT["at"],
}


def refused(status: int, name: str, detail: str, **extra: Any) -> ResponseSpec:
    body = {"type": f"urn:payledger:problem:{name}", "title": name.replace("-", " ").capitalize()}
    example = Example(summary=name, value=body | {"status": status, "detail": detail} | extra)
    return ResponseSpec(Problem, generate_examples=False, description=detail, media_type=MEDIA_TYPE, examples=[example])


def answer(view: type[Struct], description: str, value: Mapping[str, Any]) -> ResponseSpec:
    """An answer that succeeds, with an example of it."""
    example = Example(summary=description, value=dict(value))
    return ResponseSpec(view, generate_examples=False, description=description, examples=[example])


def _payment(description: str, **changed: Any) -> ResponseSpec:
    return answer(PaymentView, description, PAYMENT | changed)


_AMOUNT = [{"detail": "Expected 'int' >= 1", "pointer": "#/amount"}]
FAILURE = {"code": "card_declined", "decline_code": "insufficient_funds", "message": "declined", "retryable": True}
_DECLINED = PAYMENT | {"status": "failed", "amount_authorized": 0, "amount_capturable": 0, "failure": FAILURE}

ANY: Mapping[int, ResponseSpec] = {
    400: refused(400, "invalid-request", "a field, parameter or header is wrong; each is named", errors=_AMOUNT),
    401: refused(401, "not-authenticated", "no bearer token, or not a valid one"),
    403: refused(403, "missing-scope", "the token lacks the scope this needs"),
    429: refused(429, "too-many-requests", "more than the limit; see Retry-After and X-RateLimit-*"),
    503: refused(503, "store-unavailable", "the ledger cannot answer now; see Retry-After"),
}
_READ_ONE: Mapping[int, ResponseSpec] = {404: refused(404, "payment-not-found", "there is no such thing")}
WISH: Mapping[int, ResponseSpec] = {
    409: refused(409, "operation-in-flight", "not now, or not in this state"),
    413: refused(413, "request-entity-too-large", "the body is too large"),
    415: refused(415, "unsupported-media-type", "the body must be application/json"),
    422: refused(422, "idempotency-key-reused", "cannot be granted as asked"),
    503: refused(503, "provider-unavailable", "the ledger or the provider cannot answer now; see Retry-After"),
}
_COMMAND: Mapping[int, ResponseSpec] = {
    **WISH,
    200: _payment("asked before: the first answer again (Idempotent-Replayed: true)"),
    202: _payment("the outcome is not known yet; ask again", status="pending"),
    402: refused(402, "declined", "the card was declined", payment=_DECLINED),
}

READ_ONE = {**ANY, **_READ_ONE}
LIST = {**ANY}
GET_PAYMENT = READ_ONE | {200: _payment("the payment as the read model has it")}
GET_EVENTS = READ_ONE | {200: answer(FactList, "every fact, oldest first", {"events": [FACT]})}
LIST_PAYMENTS = LIST | {200: answer(PaymentPage, "a page, newest first", {"payments": [PAYMENT], "next_cursor": None})}
GET_ORDER = {**ANY, 404: refused(404, "order-not-found", "there is no such order")} | {
    200: answer(OrderView, "the order", ORDER)
}
LIST_ORDERS = LIST | {200: answer(OrderPage, "a page, newest first", {"orders": [ORDER], "next_cursor": None})}
AUTHORIZE = {**ANY, **_COMMAND, 201: _payment("the payment, authorized")}
MOVEMENT = {
    **ANY,
    **_READ_ONE,
    **_COMMAND,
    201: _payment("the payment after the movement", status="captured", amount_captured=10099),
    412: refused(412, "version-moved", "If-Match does not hold"),
}
WEBHOOK: Mapping[int, ResponseSpec] = {
    400: refused(400, "bad-signature", "not signed by Stripe with a secret of ours, or not now"),
    413: refused(413, "request-entity-too-large", "the body is too large"),
    503: refused(503, "store-unavailable", "not kept; send it again"),
}
INVALIDATION: Mapping[int, ResponseSpec] = {
    **ANY,
    413: refused(413, "request-entity-too-large", "the body is too large"),
    415: refused(415, "unsupported-media-type", "the body must be application/json"),
}
RETURN = {
    **ANY,
    **_READ_ONE,
    200: _payment("the payment as the provider now reports it"),
    202: _payment("the outcome is not known yet; ask again", status="pending"),
    402: refused(402, "declined", "authentication failed", payment=_DECLINED),
}


# --- What the framework's document leaves out --------------------------------------------------------------------

_HEADERS = {
    "ETag": "The version, for If-Match where that is taken.",
    "Ledger-Position": "The position of its last fact, for `after`.",
    "Idempotent-Replayed": "`true` when the same request was answered before.",
}
_COMMANDS = ("/v1/payments", "/v1/customers", "/v1/subscriptions")


def complete(document: OpenAPI) -> None:
    """Say that bodies take no other fields, and which headers come with the answer to a command."""
    for name, schema in document.components.schemas.items():
        if name.endswith("Body"):
            schema.additional_properties = False
    for path, item in (document.paths or {}).items():
        if path.startswith(_COMMANDS):
            for operation in filter(None, (item.post, item.put, item.patch)):
                _with_headers(operation)


def _with_headers(operation: Operation) -> None:
    for status, response in (operation.responses or {}).items():
        if status in {"200", "201", "202", "402"} and isinstance(response, OpenAPIResponse):
            named = _HEADERS if status in {"200", "402"} else dict(list(_HEADERS.items())[:2])
            response.headers = {name: _header(said) for name, said in named.items()}


def _header(said: str) -> OpenAPIHeader:
    return OpenAPIHeader(schema=Schema(type=OpenAPIType.STRING), description=said)
