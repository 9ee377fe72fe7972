"""Card numbers and an e-mail at the routes of customers, subscriptions and the payments gateway: where they are meant
to stand, which for a card number is nowhere, and everywhere else.
"""

import json
from collections.abc import Iterator
from itertools import cycle, product
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import stripe

from tests.canary import EMAIL, PLANTED, grouped
from tests.canary_caller import HEADERS, NOBODY, VALUES, Caller, broken

USER = f"user-{PLANTED}"
GATEWAY = "/payments-gateway/api"
PATHS = (
    "/v1/customers/{}",
    "/v1/customers/{}/card",
    "/v1/customers/{}/events",
    "/v1/customers/{}/subscriptions",
    "/v1/subscriptions/{}",
    "/v1/subscriptions/{}/events",
    "/v1/subscriptions/{}/cancellation",
    f"{GATEWAY}/{{}}",
    f"{GATEWAY}/users/{{}}/card",
    f"{GATEWAY}/users/{{}}/payment-status",
    f"{GATEWAY}/subscriptions/{{}}",
)
METHODS = ("POST", "PUT", "PATCH", "DELETE")
QUERIES = (
    "/v1/customers",
    f"/v1/customers/{USER}",
    f"/v1/customers/{USER}/subscriptions",
    f"/v1/subscriptions/{NOBODY}",
    f"{GATEWAY}/users/{USER}/payment-status",
    f"{GATEWAY}/subscriptions/{NOBODY}",
)
NAMES = ("after", "at_period_end", "cursor", "email", "limit", "user", "x")
# Of writing it, in each field.
WAYS = 4
WEBHOOKS = tuple(f"{GATEWAY}/webhooks/charge/{kind}" for kind in ("succeeded", "failed"))


def subscribe(caller: Caller) -> None:
    """Somebody is registered, pays and is asked for by an e-mail, everywhere that an e-mail may stand."""
    sold = stripe.StripeClient("sk_test_canary", base_addresses={"api": caller.system.stripe}).v1
    monthly: Any = {"currency": "usd", "unit_amount": 5_00, "recurring": {"interval": "month"}}
    plan = sold.prices.create(monthly | {"product_data": {"name": "Canary"}}).product
    done = [
        caller.post("/v1/customers", {"user": USER, "email": EMAIL}),
        caller.post(f"/v1/customers/{quote(EMAIL)}/card", {"payment_method": "pm_card_visa"}, "PUT"),
        caller.post(f"{GATEWAY}/users/{quote(EMAIL)}/card", {"token": "tok_visa"}, "PUT"),
        caller.post("/v1/subscriptions", {"customer": EMAIL, "product": plan}),
        caller.post(f"{GATEWAY}/subscriptions", {"user": EMAIL, "product": plan}),
        caller.send("GET", f"{GATEWAY}/users/{quote(EMAIL)}/payment-status"),
        *(caller.send("GET", f"/v1/customers/{quote(EMAIL)}{more}") for more in ("", "/events", "/subscriptions")),
        caller.send("GET", "/v1/customers"),
    ]
    assert [answer.status_code for answer in done] == [201, 200, 200, 201, 409, 200, 200, 200, 200, 200]


def put_it_everywhere(caller: Caller) -> None:
    """Each way of writing it in some of the places, and in each place some of the ways: all of them took a minute."""
    _in_fields(caller)
    _around_the_body(caller)
    for name in HEADERS:
        value = f"{grouped(caller.number(), ' ')} {EMAIL}"
        told = {name: f"Bearer {value}" if name == "Authorization" else value}
        caller.send("GET", "/v1/customers", headers=told)
        caller.send("POST", "/v1/subscriptions", b'{"customer": "nobody", "product": "none"}', told)
        caller.send("PUT", f"{GATEWAY}/users/{USER}/card", b'{"token": "tok_none"}', told)


def _in_fields(caller: Caller) -> None:
    values = cycle((*VALUES, _email))
    for route, body in bodies().items():
        method, _, path = route.partition(" ")
        for name in body:
            for _ in range(WAYS):
                caller.post(path, body | {name: next(values)(caller.number())}, method)
        caller.post(path, body | {"note": caller.number(), caller.number(): EMAIL}, method)
        for content, kind in broken(json.dumps(body | {"note": EMAIL}).encode(), caller.number()):
            caller.send(method, path, content, {"Content-Type": kind})


def _email(_: str) -> str:
    return EMAIL


def _around_the_body(caller: Caller) -> None:
    methods, texts = cycle(METHODS), list(_texts(caller))
    for path, text in product(PATHS, texts):
        caller.send("GET", path.format(text))
        caller.send(next(methods), path.format(text), b"{}")
    several = cycle(texts)
    for path, name in product(QUERIES, (*NAMES, *texts)):
        text = next(several)
        if (name, text.isdigit()) != ("after", True):  # where any number may be a position
            caller.send("DELETE" if path.endswith(NOBODY) else "GET", f"{path}?{name}={text}")


def _texts(caller: Caller) -> Iterator[str]:
    """What stands in a path or behind a question mark."""
    yield quote(EMAIL)
    yield quote(f"nobody.{EMAIL}")
    for by in ("", "-", "%20"):
        yield grouped(caller.number(), by)
        yield f"{grouped(caller.number(), by)}{quote('@canary.example')}"


def bodies() -> dict[str, dict[str, Any]]:
    """By route, what each takes; only that a field is wrong keeps it from being done."""
    return {
        "POST /v1/customers": {"user": f"user-{uuid4()}", "email": EMAIL},
        f"PUT /v1/customers/{USER}/card": {"payment_method": "pm_card_visa"},
        "POST /v1/subscriptions": {
            "customer": USER, "product": "none", "price": "none", "quantity": 1, "trial_days": 0, "another": False,
        },
        f"PATCH /v1/subscriptions/{NOBODY}": {"product": "none", "price": "none", "quantity": 1},
        f"POST /v1/subscriptions/{NOBODY}/cancellation": {"at_period_end": True},
        f"POST /v1/subscriptions/{NOBODY}/resumption": {},
        f"PUT {GATEWAY}/users/{USER}/card": {"token": "tok_visa"},
        f"POST {GATEWAY}/subscriptions": {"user": USER, "product": "none", "price": "none"},
        f"PUT {GATEWAY}/subscriptions/{NOBODY}": {"product": "none", "price": "none"},
    }  # fmt: skip
