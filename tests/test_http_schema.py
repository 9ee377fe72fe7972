"""The OpenAPI document, held against the running system: nothing it allows breaks it, nothing it hides comes back."""

import json
import re
import uuid
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.system import System
from tests.test_http_customers import Shop

Case = schemathesis.Case[Any]
DOCUMENT = "/schema/openapi.json"
PROBLEM = "application/problem+json"
METHODS = ("get", "put", "post", "delete", "patch")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
STRICT = [*CHECKS, negative_data_rejection, missing_required_header, unsupported_method]
ROUTES = [
    "DELETE /payments-gateway/api/subscriptions/{}",
    "GET /health",
    "GET /payment/methods",
    "GET /payment/status/{}",
    "GET /payments-gateway/api/users/{}/payment-status",
    "GET /ready",
    "GET /v1/customers",
    "GET /v1/customers/{}",
    "GET /v1/customers/{}/events",
    "GET /v1/customers/{}/subscriptions",
    "GET /v1/orders",
    "GET /v1/orders/{}",
    "GET /v1/payments",
    "GET /v1/payments/{}",
    "GET /v1/payments/{}/events",
    "GET /v1/subscriptions/{}",
    "GET /v1/subscriptions/{}/events",
    "PATCH /v1/subscriptions/{}",
    "POST /capture",
    "POST /charge",
    "POST /payment/process",
    "POST /api/payments",
    "POST /payment/refund",
    "POST /payments-gateway/api/subscriptions",
    "POST /refund",
    "POST /v1/customers",
    "POST /v1/payments",
    "POST /v1/payments/{}/captures",
    "POST /v1/payments/{}/refunds",
    "POST /v1/payments/{}/return",
    "POST /v1/payments/{}/void",
    "POST /v1/subscriptions",
    "POST /v1/subscriptions/{}/cancellation",
    "POST /v1/subscriptions/{}/resumption",
    "POST /v1/tokens/{}/invalidation",
    "PUT /payment",
    "PUT /payments-gateway/api/subscriptions/{}",
    "PUT /payments-gateway/api/users/{}/card",
    "PUT /v1/customers/{}/card",
]
# Older contracts, which take fields that they do not know, and parameters too.
CONTRACTS = {name for name in ROUTES if "/v1/" not in name and name not in {"GET /health", "GET /ready"}}
# Streams that do not end, a text for machines, and what only Stripe can sign: they have tests of their own.
ELSEWHERE = {
    "GET /asyncapi.json",
    "GET /metrics",
    "GET /v1/events",
    "GET /v1/events/stream",
    "POST /payments-gateway/api/webhooks/charge/failed",
    "POST /payments-gateway/api/webhooks/charge/succeeded",
    "POST /webhooks/stripe",
}
# The same requests every time, and no search for the smallest one that fails: each costs a round trip.
BOUNDED: Any = {
    "max_examples": 12,
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def document(system: System) -> dict[str, Any]:
    read: dict[str, Any] = system.found(DOCUMENT)
    return read


@pytest.fixture(scope="module")
def api(system: System, document: dict[str, Any]) -> dict[str, Any]:
    """The operations of the document without its tokens: every request here carries a good one."""
    open_to_all = deepcopy(document)
    open_to_all.pop("security", None)
    open_to_all["components"].pop("securitySchemes", None)
    for operation in operations(open_to_all).values():
        operation.pop("security", None)
    schema: Any = schemathesis.openapi.from_dict(open_to_all)
    schema.config.update(base_url=system.url)
    found = [operation.ok() for operation in schema.get_all_operations()]
    return {nameless(operation.label): operation for operation in found}


def _authorized(system: System) -> dict[str, str]:
    return {"Authorization": f"Bearer {system.token}"}


def nameless(route: str) -> str:
    """A route whatever its parameters are called."""
    return re.sub(r"\{\w+\}", "{}", route)


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


# What schemathesis makes of it


def send(api: dict[str, Any], name: str, mode: GenerationMode, request: Callable[[Case], None]) -> None:
    """Carry out requests that schemathesis draws for one operation: such as fit the document, or such as do not."""
    drawn: Any = given(api[name].as_strategy(generation_mode=mode))
    settings(**BOUNDED)(drawn(request))()


class Subject:
    """What requests are about: the same for all until one of them may have changed it, then another."""

    def __init__(self, make: Callable[[], dict[str, str]]) -> None:
        self._make = make
        self._made: dict[str, str] | None = None

    def asked(self, case: Case, **headers: str) -> None:
        """Send the request about it and hold the answer against the document."""
        self._made = self._made or self._make()
        case.path_parameters = self._made
        status = case.call_and_validate(headers=headers, checks=CHECKS).status_code
        refused = 400 <= status < 500 and status != 402
        if case.method != "GET" and not refused:
            self._made = None


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for name in ROUTES
        for mode in GenerationMode
        if "/v1/" in name or (name in CONTRACTS and not name.startswith("GET")) or mode.is_positive
    ],
)
def test_whatever_is_sent_is_answered_as_documented(
    api: dict[str, Any], system: System, name: str, mode: GenerationMode
) -> None:
    def request(case: Case) -> None:
        case.call_and_validate(headers=_authorized(system), checks=STRICT)

    send(api, name, mode, request)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("name", [name for name in ROUTES if "/payments/{}" in name])
def test_whatever_is_asked_of_a_payment_that_exists_is_answered_as_documented(
    api: dict[str, Any], system: System, name: str, mode: GenerationMode
) -> None:
    capture = "automatic" if name.endswith("/refunds") else "manual"
    subject = Subject(lambda: {"payment": system.paid(capture=capture)["id"]})

    def request(case: Case) -> None:
        named = {"Idempotency-Key": uuid.uuid4().hex} if case.method == "POST" else {}
        subject.asked(case, **_authorized(system), **named)

    send(api, name, mode, request)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("name", [name for name in ROUTES if "/subscriptions/{}" in name or "/customers/{}" in name])
def test_whatever_is_asked_of_a_customer_and_a_subscription_that_exist_is_answered_as_documented(
    api: dict[str, Any], system: System, name: str, mode: GenerationMode
) -> None:
    shop = Shop(system)
    product = shop.price().product

    def subscribed() -> dict[str, str]:
        customer = shop.registered()
        return {"customer": customer["user"], "subscription": shop.subscribed(customer["id"], product)["id"]}

    subject = Subject(subscribed)

    def request(case: Case) -> None:
        if isinstance(case.body, dict) and case.body.get("product"):
            case.body["product"] = product
        subject.asked(case, **_authorized(system), **{"Idempotency-Key": uuid.uuid4().hex})

    send(api, name, mode, request)


def test_whatever_body_is_allowed_is_answered_as_documented(api: dict[str, Any], system: System) -> None:
    """A card that exists, so that more than declines come back."""
    statuses: set[int] = set()

    def request(case: Case) -> None:
        if isinstance(case.body, dict):
            case.body |= {"payment_method": "pm_card_visa", "currency": "usd"}
        headers = _authorized(system) | {"Idempotency-Key": uuid.uuid4().hex}
        statuses.add(case.call_and_validate(headers=headers, checks=CHECKS).status_code)

    send(api, "POST /v1/payments", GenerationMode.POSITIVE, request)
    assert 201 in statuses


# What a stranger reads


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"]
    assert document["info"]["version"]
    assert document["info"]["description"]


def test_every_route_is_documented_and_tried_above(document: dict[str, Any]) -> None:
    assert {nameless(name) for name in operations(document)} - ELSEWHERE == set(ROUTES)


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    silent = {name for name, operation in operations(document).items() if not operation.get("description")}
    silent |= {name for name, operation in operations(document).items() if not operation.get("summary")}
    assert not silent
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(ids)) == len(ids)


def test_every_refusal_is_a_problem_with_an_example(document: dict[str, Any]) -> None:
    lacking = [
        f"{name} {status}"
        for name, operation in operations(document).items()
        if "/v1/" in name
        for status in {"400", "401", "403", *operation["responses"]}
        if status >= "400"
        for content in [operation["responses"].get(status, {}).get("content", {})]
        if not _has_example(content.get(PROBLEM, {})) or set(content) != {PROBLEM}
    ]
    assert not lacking


def test_every_answer_and_every_body_has_an_example(document: dict[str, Any]) -> None:
    lacking = [
        f"{name} {where}"
        for name, operation in operations(document).items()
        if "/v1/" in name
        for where, part in [("body", operation.get("requestBody")), *operation["responses"].items()]
        if part is not None
        for content in part.get("content", {}).values()
        if not _has_example(content) and not _has_example(_resolved(document, content.get("schema", {})))
    ]
    assert not lacking


def _has_example(part: dict[str, Any]) -> bool:
    return bool(part.get("example") or part.get("examples"))


def _resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    name = str(part.get("$ref", "")).rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"].get(name, part)
    return found


def test_every_v1_operation_asks_for_a_token(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    for name, operation in operations(document).items():
        asked = operation.get("security", document.get("security", []))
        if "/v1/" in name or nameless(name) in CONTRACTS:
            assert asked, name
            assert all(scheme in schemes for entry in asked for scheme in entry), name
        else:
            assert not any(entry for entry in asked), f"{name} needs none"


def test_every_command_documents_its_key_and_its_headers(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        if not name.startswith("POST /v1/payments") or name.endswith("/return"):
            continue
        headers = {parameter["name"]: parameter for parameter in operation["parameters"] if parameter["in"] == "header"}
        assert headers["Idempotency-Key"]["required"] is True, name
        assert {"200", "201", "202", "402", "409", "413", "415", "422"} <= set(operation["responses"]), name
        answered = operation["responses"]["201"].get("headers", {})
        assert {"ETag", "Ledger-Position"} <= set(answered), name
        assert "Idempotent-Replayed" in operation["responses"]["200"].get("headers", {}), name


def test_a_body_with_a_field_too_many_is_refused_and_documented_so(document: dict[str, Any]) -> None:
    """Only the older contracts take what they do not know: their callers send what they always sent."""
    lenient = {name.rpartition("/")[2] for name in _references(document, CONTRACTS)}
    bodies = [name for name in document["components"]["schemas"] if name.endswith("Body") and name not in lenient]
    assert bodies
    lax = [name for name in bodies if document["components"]["schemas"][name].get("additionalProperties") is not False]
    assert not lax


def _references(document: dict[str, Any], routes: set[str]) -> list[str]:
    """What the bodies of these routes refer to."""
    named = {name: op for name, op in operations(document).items() if nameless(name) in routes}
    bodies = [op["requestBody"] for op in named.values() if "requestBody" in op]
    return [part.partition('"')[0] for part in json.dumps(bodies).split('"$ref": "')[1:]]


def test_the_document_refers_to_nothing_that_is_missing(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    references = {part.partition('"')[0] for part in text.split('"$ref": "#/')[1:]}
    for reference in references:
        found: Any = document
        for step in reference.split("/"):
            found = found[step.replace("~1", "/").replace("~0", "~")]
        assert found, reference


def test_the_document_is_shown_to_people_too(system: System) -> None:
    page = system.get("/schema")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
