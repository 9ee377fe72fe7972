"""What the OpenAPI document says of customers and subscriptions, as documented.py says it of payments."""

from collections.abc import Mapping
from typing import Any

from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example

from interface.web.customer_views import (
    CustomerPage,
    CustomerStatusView,
    CustomerView,
    SubscriptionPage,
    SubscriptionView,
)
from interface.web.documented import ANY, FACT, FAILURE, LIST, PAYMENT, WISH, answer, refused
from interface.web.views import FactList

SUBSCRIPTION: dict[str, Any] = {
    "id": "5d0e6f0a-1f0c-5b57-8f5f-6a1f7a1f2b10",
    "customer": "8c7a4b7e-90f4-5e52-9f42-0f6f0b8f4d21",
    "status": "active",
    "payment_status": "paid",
    "product": "prod_Qabc",
    "price": "price_1Qabc",
    "quantity": 1,
    "amount": 1200,
    "currency": "usd",
    "interval": "month",
    "interval_count": 1,
    "trial_end": None,
    "period_start": "2026-01-31T09:00:00Z",
    "period_end": "2026-02-28T09:00:00Z",
    "paid_until": "2026-02-28T09:00:00Z",
    "ends_at": None,
    "latest_invoice": None,
    "failure": None,
    "stripe": {"subscription": "sub_1Qabc"},
    "created_at": "2026-01-31T09:00:00Z",
    "updated_at": "2026-01-31T09:00:02Z",
    "version": 3,
}
CUSTOMER: dict[str, Any] = {
    "id": SUBSCRIPTION["customer"],
    "status": "active",
    "user": "user_42",
    "email": "ada@example.com",
    "card": PAYMENT["card"],
    "failure": None,
    "stripe": {"customer": "cus_Qabc", "payment_method": "pm_1Qabc"},
    "created_at": "2026-01-31T08:59:00Z",
    "updated_at": "2026-01-31T08:59:01Z",
    "version": 4,
}
_EXPIRES = {
    "type": "card_expires",
    "detail": "the card will have run out when the next period is to be paid",
    "subscription": SUBSCRIPTION["id"],
    "at": "2026-02-01T00:00:00Z",
    "failure": None,
}
_STANDING = {
    "customer": CUSTOMER,
    "payment_status": "paid",
    "paid_until": SUBSCRIPTION["paid_until"],
    "subscriptions": [SUBSCRIPTION],
    "open_problems": [_EXPIRES],
}
CUSTOMER_EXAMPLES = [Example(summary="by both names", value={"user": "user_42", "email": "ada@example.com"})]
CARD_EXAMPLES = [Example(summary="a new card", value={"payment_method": "pm_card_visa"})]
SUBSCRIBE_EXAMPLES = [Example(summary="after a week", value={"customer": "user_42", "product": "Pro", "trial_days": 7})]
CHANGE_EXAMPLES = [Example(summary="three of it", value={"quantity": 3})]
CANCEL_EXAMPLES = [Example(summary="when the paid period ends", value={"at_period_end": True})]


def _customer(description: str, **changed: Any) -> ResponseSpec:
    return answer(CustomerView, description, CUSTOMER | changed)


def _history(fact: dict[str, Any]) -> ResponseSpec:
    return answer(FactList, "every fact, oldest first", {"events": [fact]})


def _subscription(description: str, **changed: Any) -> ResponseSpec:
    return answer(SubscriptionView, description, SUBSCRIPTION | changed)


_REFUNDED = FACT | {
    "id": f"{SUBSCRIPTION['id']}.3",
    "type": "InvoiceRefunded",
    "stream": SUBSCRIPTION["id"],
    "version": 3,
    "actor": "provider",
    "causation_id": "evt_1Qabc",
    "data": {
        "invoice": "in_1Qabc",
        "amount": 1200,
        "currency": "usd",
        "as_of": "2026-02-01T10:00:00Z",
        "evidence": "req_abc",
    },
}
_CARD_UPDATED = FACT | {
    "id": f"{CUSTOMER['id']}.4",
    "type": "CardUpdated",
    "stream": CUSTOMER["id"],
    "version": 4,
    "data": {
        "operation": "5f0c",
        "payment_method": "pm_1Qabc",
        "card": PAYMENT["card"],
        "fingerprint": "Xt5EWLLDS7FJjR1c",
        "evidence": "req_abc",
    },
}
_NO_CUSTOMER: Mapping[int, ResponseSpec] = {404: refused(404, "customer-not-found", "there is no such customer")}
_NO_SUBSCRIPTION: Mapping[int, ResponseSpec] = {
    404: refused(404, "subscription-not-found", "there is no such subscription, product or price")
}
_ON_A_CUSTOMER: Mapping[int, ResponseSpec] = {
    **ANY,
    **WISH,
    202: _customer("the outcome is not known yet; ask again", status="registering"),
    402: refused(402, "declined", "the card was declined", customer=CUSTOMER | {"failure": FAILURE}),
}
_ON_A_SUBSCRIPTION: Mapping[int, ResponseSpec] = {
    **ANY,
    **WISH,
    200: _subscription("how it stands after this; Idempotent-Replayed: true if it was asked before"),
    202: _subscription("the outcome is not known yet; ask again", status="pending"),
    402: refused(402, "declined", "a payment was declined", subscription=SUBSCRIPTION | {"failure": FAILURE}),
}
REGISTER = {
    **_ON_A_CUSTOMER,
    200: _customer("the customer that is known by these names"),
    201: _customer("the new customer", card=None),
}
SET_CARD = {**_ON_A_CUSTOMER, **_NO_CUSTOMER, 200: _customer("the customer with its card")}
GET_CUSTOMER = {**ANY, **_NO_CUSTOMER, 200: answer(CustomerStatusView, "how it stands", _STANDING)}
_PAGE = {"subscriptions": [SUBSCRIPTION], "next_cursor": None}
LIST_SUBSCRIPTIONS = {**ANY, **_NO_CUSTOMER, 200: answer(SubscriptionPage, "a page, newest first", _PAGE)}
_ALL = {"customers": [CUSTOMER], "next_cursor": None}
LIST_CUSTOMERS = {**LIST, 200: answer(CustomerPage, "a page, newest first", _ALL)}
CUSTOMER_EVENTS = {**ANY, **_NO_CUSTOMER, 200: _history(_CARD_UPDATED)}
SUBSCRIPTION_EVENTS = {**ANY, **_NO_SUBSCRIPTION, 200: _history(_REFUNDED)}
SUBSCRIBE = {**_ON_A_SUBSCRIPTION, **_NO_SUBSCRIPTION, 201: _subscription("the subscription, begun")}
CHANGE = {**_ON_A_SUBSCRIPTION, **_NO_SUBSCRIPTION}
CANCEL = {**CHANGE, 200: _subscription("with its end", status="cancelled", ends_at="2026-02-10T17:30:00Z")}
GET_SUBSCRIPTION = {**ANY, **_NO_SUBSCRIPTION, 200: _subscription("the subscription as the read model has it")}
