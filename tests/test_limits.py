"""Everything about a request has a limit that refuses it clearly."""

import hmac
import json
import re
import socket
import time
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from litestar import Router
from litestar.routes import HTTPRoute

from interface import web
from interface.web import contracts
from interface.web.limits import MAX_HEADER_BYTES, MAX_HEADERS, MAX_NESTING, MAX_URL_BYTES, nests_too_deep
from interface.web.reading import MAX_BODY_BYTES, MAX_TOLD
from interface.web.requests import MAX_METADATA
from interface.web.webhooks import MAX_EVENT_BYTES
from tests.system import VISA, System, named, problem
from tests.test_rate_limits_shared import secret

NOBODY = "00000000-0000-4000-8000-000000000000"
PAYMENTS = "/v1/payments"
JSON = {"Content-Type": "application/json"}

# Every route that reads a body, with what stands in for its parameters.
PARAMETERS = {"token_id": "t-1"}
MODULES = [
    import_module(f"{package.__name__}.{found.name}")
    for package in (web, contracts)
    for found in iter_modules(package.__path__)
]
BODIES = sorted(
    {
        (method, re.sub(r"\{(\w+)\}", lambda name: PARAMETERS.get(name[1], NOBODY), route.path_format))
        for module in MODULES
        if isinstance(router := getattr(module, "router", None), Router)
        for route in router.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method in {"POST", "PUT", "PATCH"}
    }
)
# Of these, the ones that are commands without a body, and look at none: they find nothing of that name.
READ_NONE = ("/return", "/resumption")
# What a body of a hundred levels and more may look like.
DEEP = {
    "open lists": b"[" * 60_000,
    "open objects": b'{"a":' * 12_000,
    "closed lists": b"[" * 30_000 + b"]" * 30_000,
    "closed objects": b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    "one too many": b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1),
    "in a field that there is": b'{"metadata": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "in a field that there is not": b'{"x": "[", "y": ' + b"[[1," * 9_000 + b"0",
    "behind quoted brackets": b'{"x": "]]]]\\"]]]]", "y": ' + b"[" * 9_000 + b"]" * 9_000 + b"}",
}


def sent(system: System, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
    own = JSON | {"Idempotency-Key": f"key-{uuid4()}"} | headers
    return system.http.request(method, path, content=body, headers=own)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """The status of a refusal and what it is called, in the words of whichever contract."""
    told = answer.json()
    if "error" in told:
        return answer.status_code, told["error"]["code"]
    if answer.headers["Content-Type"] == "application/json" and "errors" in told:
        return answer.status_code, told["errors"][0]["message"]
    return answer.status_code, told["type"].rpartition(":")[2] if "type" in told else told["detail"][0]["msg"]


def over_a_socket(system: System, *parts: bytes) -> bytes:
    """What is answered to bytes before the connection ends; nothing when it was cut off."""
    address = urlsplit(system.url)
    answer = b""
    with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=30) as connection:
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        with suppress(ConnectionError):
            while more := connection.recv(65_536):
                answer += more
    return answer


# --- What stands before a body -----------------------------------------------------------------------------------


def test_a_url_has_a_limit(system: System) -> None:
    longest = MAX_URL_BYTES + len("?")  # which belongs to neither path nor query
    for path in (f"/v1/orders/{'o' * MAX_URL_BYTES}", "/v1/orders?x=".ljust(longest + 1, "o")):
        assert refusal(system.http.get(path)) == (414, "url-too-long")
        assert str(MAX_URL_BYTES) in system.http.get(path).json()["detail"]
    assert named(problem(system.http.get("/v1/orders?x=".ljust(longest, "o")), 400)) == {"x"}
    assert refusal(httpx.post(f"{system.url}/charge/{'o' * MAX_URL_BYTES}")) == (414, "url-too-long")
    assert refusal(httpx.get(f"{system.url}/payment/{'o' * MAX_URL_BYTES}")) == (414, "URL_TOO_LONG")


def test_headers_have_a_limit_each_of_bytes_and_of_number(system: System) -> None:
    own = system.http.build_request("GET", "/v1/orders").headers.raw
    free = MAX_HEADER_BYTES - sum(len(name) + len(value) for name, value in own)
    for path, called in (("/v1/orders", "headers-too-large"), ("/payment/methods", "HEADERS_TOO_LARGE")):
        for more, expected in ((0, None), (1, (431, called))):
            for headers in (
                {"X-Long": "x" * (free - len("X-Long") + more)},
                {f"X-Part-{number}": "x" * (free // 10 - len("X-Part-0") + 9 * more) for number in range(10)},
                {f"X-{number}": "x" for number in range(MAX_HEADERS - len(own) + more)},
            ):
                answer = system.http.get(path, headers=headers)
                assert (refusal(answer) if answer.is_error else None) == expected, list(headers)
    assert refusal(httpx.post(f"{system.url}/webhooks/stripe", headers={"X-Long": "x" * MAX_HEADER_BYTES}))[0] == 431


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /" + b"o" * 1_000,
        b"GET / HTTP/1.1\r\nHost: ledger\r\nX-Long: ",
        b"POST /v1/payments HTTP/1.1\r\nHost: ledger\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ",
        b"POST /v1/payments HTTP/1.1\r\nHost: ledger\r\nTransfer-Encoding: chunked\r\n\r\n1;x=",
    ],
    ids=["a line", "a header", "a trailer", "a chunk's extension"],
)
def test_what_never_ends_is_cut_off(system: System, begun: bytes) -> None:
    answer = over_a_socket(system, begun, *[b"x" * 64_000] * 20)
    assert re.match(rb"HTTP/1.1 (?:400|401|413|431) |$", answer), answer[:200]
    assert system.http.get("/health").status_code == 200


def test_many_requests_on_one_connection_are_not_taken_for_a_large_one(system: System) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: ledger\r\nX-Long: " + b"x" * 4_000 + b"\r\n\r\n"
    last = request.replace(b"Host:", b"Connection: close\r\nHost:")
    answer = over_a_socket(system, request * 19 + last)
    assert answer.count(b"HTTP/1.1 200 ") == 20


# --- Bodies ------------------------------------------------------------------------------------------------------


def test_every_route_that_takes_a_body_is_looked_at(system: System) -> None:
    documented = system.found("/schema/openapi.json")["paths"]
    told = {(method.upper(), path) for path, item in documented.items() for method in item if method in {"post", "put"}}
    filled = {
        (method, re.sub(r"\{(\w+)\}", lambda name: PARAMETERS.get(name[1], NOBODY), path)) for method, path in told
    }
    assert filled <= set(BODIES)
    assert {("PUT", "/payment"), ("POST", "/payment/process"), ("POST", "/webhooks/stripe")} <= set(BODIES)


@pytest.mark.parametrize(("method", "path"), BODIES, ids=[f"{method} {path}" for method, path in BODIES])
def test_a_body_that_nests_too_deep_is_refused_clearly(system: System, method: str, path: str) -> None:
    expected = (422, "the body nests too deep") if path.startswith("/payment/") else (400, "nested-too-deep")
    if path == "/api/payments":
        expected = (400, f"the body must not nest deeper than {MAX_NESTING} levels")
    before = system.pids["api"]
    for name, body in DEEP.items():
        answer = sent(system, method, path, body)
        if path.endswith(READ_NONE):
            assert answer.status_code == 404
        else:
            assert refusal(answer) == expected, name
    assert system.pids["api"] == before


def test_a_signed_event_that_nests_too_deep_is_refused_like_any_other(system: System) -> None:
    key = f"whsec_{secret(system, 'webhook.key')}".encode()
    for start in (b"", b'{"id": "evt_1", "type": "x", "created": 1, "data": {"object": {"payment_intent": '):
        body, stamp = start + b'{"a":' * 20_000, str(int(time.time())).encode()
        signature = hmac.digest(key, stamp + b"." + body, "sha256").hex()
        header = f"t={stamp.decode()},v1={signature}"
        refused = sent(system, "POST", "/webhooks/stripe", body, **{"Stripe-Signature": header})
        assert refusal(refused) == (400, "nested-too-deep")


def test_a_deep_body_in_pieces_is_a_deep_body(system: System) -> None:
    pieces = iter([b'{"metadata": "[[[', b'"', *[b', "x": ', b"[" * 10] * 20])
    assert refusal(sent(system, "POST", PAYMENTS, pieces)) == (400, "nested-too-deep")


def test_brackets_in_a_text_are_no_levels(system: System) -> None:
    told = '[{"' * 100 + "\\"
    assert system.paid(description=told)["description"] == told


@pytest.mark.parametrize(("method", "path"), BODIES, ids=[f"{method} {path}" for method, path in BODIES])
def test_a_body_has_a_limit_however_it_is_sent(system: System, method: str, path: str) -> None:
    most = MAX_EVENT_BYTES if "/webhooks/" in path else MAX_BODY_BYTES
    called = {"/payment/": "REQUEST_ENTITY_TOO_LARGE", "/api/payments": "Request Entity Too Large"}
    assert sent(system, method, path, b" " * most).status_code in {400, 404, 422}
    for body in (b" " * (most + 1), iter([b" " * most, b" "])):
        answer = sent(system, method, path, body)
        if path.endswith(READ_NONE):
            assert answer.status_code == 404
        else:
            name = next((called[start] for start in called if path.startswith(start)), "request-entity-too-large")
            assert refusal(answer) == (413, name)


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b"", False),
        (b"[" * MAX_NESTING, False),
        (b"[" * (MAX_NESTING + 1), True),
        (b'{"a":' * MAX_NESTING + b"[", True),
        (b"[]" * 10_000, False),
        (b'"' + b"[" * 1_000 + b'"', False),
        (b'"' + b"[" * 1_000, False),
        (b'"\\"' + b"[" * 1_000 + b'"', False),
        (b'"\\\\"' + b"[" * 1_000, True),
        (b"[" * 40 + b'"]]]]]]]"' + b"[" * 40, True),
        (b'["' + b"[" * 1_000 + b"\\", False),
        (b'"\\\n' + b"[" * 1_000 + b'"', False),
    ],
)
def test_levels_are_counted_as_a_reader_of_json_would(body: bytes, *, deep: bool) -> None:
    assert nests_too_deep(body) == deep


@pytest.mark.parametrize("body", [b'\\"' * 250_000, b'"' * 500_000, b"\\" * 500_000, b'"[' * 250_000, b'"\\' * 250_000])
def test_counting_levels_takes_one_pass_whatever_it_reads(body: bytes) -> None:
    assert nests_too_deep(b"[" * (MAX_NESTING + 1) + body)


# --- Lists -------------------------------------------------------------------------------------------------------


def test_a_map_of_more_entries_than_allowed_is_named(system: System) -> None:
    entries = {f"k{number}": "v" for number in range(MAX_METADATA)}
    assert len(system.paid(metadata=entries)["metadata"]) == MAX_METADATA
    assert named(problem(system.pay(metadata=entries | {"one": "more"}), 400)) == {"#/metadata"}


def test_an_answer_to_what_is_all_wrong_is_not_larger_than_it(system: System) -> None:
    body = json.dumps(VISA | {f"wrong{number}": 1 for number in range(3_000)}).encode()
    refused = sent(system, "POST", PAYMENTS, body)
    assert len(named(problem(refused, 400))) == MAX_TOLD
    assert len(refused.content) < len(body)
    query = "&".join(f"w{number}=" for number in range(1_000))
    assert len(named(problem(system.http.get(f"/v1/orders?{query}"), 400))) == MAX_TOLD


def test_a_list_in_a_header_has_a_limit(system: System) -> None:
    path = f"{PAYMENTS}/{system.paid()['id']}/captures"
    tags = ", ".join(f'"{number}"' for number in range(11))
    assert named(problem(sent(system, "POST", path, b"{}", **{"If-Match": tags}), 400)) == {"If-Match"}
