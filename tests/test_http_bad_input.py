"""Whatever a caller gets wrong is told to them field by field, and leaves no trace: no fact, no call of Stripe."""

import base64
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from tests.system import VISA, System, named, problem, running

BODY_BYTES_AT_MOST = 64 * 1024
CARD = "4242424242424242"
SPACED_CARD = "4000 0566 5566 5556"
NOBODY = "00000000-0000-4000-8000-000000000000"
PAYMENTS = "/v1/payments"
JSON = {"Content-Type": "application/json"}
LEFT_OUT = object()


@dataclass(frozen=True)
class Case:
    """A request, the status it deserves, and the fields its problem document must name."""

    name: str
    status: int
    named: tuple[str, ...] = ()
    method: str = "POST"
    path: str = PAYMENTS
    content: bytes | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str | bytes | None] = field(default_factory=dict)
    also: tuple[int, ...] = ()


def text(body: Any) -> bytes:
    return json.dumps(body).encode()


def wrong(name: str, value: Any, *pointers: str, status: int = 400, **fields: Any) -> Case:
    """A payment whose one field is wrong; `value` may be left out."""
    body = {key: given for key, given in (VISA | {name: value} | fields).items() if given is not LEFT_OUT}
    told = "left out" if value is LEFT_OUT else repr(value)[:40]
    return Case(f"{name}: {told}", status, pointers or (f"#/{name}",), content=text(body))


def raw(name: str, fragment: str, *pointers: str) -> Case:
    """A payment whose amount, or another member, is written in a way that no JSON library would."""
    body = text(VISA | {"amount": 0}).replace(b'"amount": 0', fragment.encode("utf-8", "surrogatepass"))
    return Case(name, 400, pointers, content=body)


def move(name: str, operation: str, status: int, body: Any, *pointers: str) -> Case:
    """A movement of a payment that is `authorized`, `captured`, `voided` or `failed`."""
    return Case(name, status, pointers, path=operation, content=text(body))


def keyed(name: str, key: str | bytes | None) -> Case:
    return Case(name, 400, ("Idempotency-Key",), content=text(VISA), headers={"Idempotency-Key": key})


def listed(name: str, *parameters: str, path: str = PAYMENTS, **values: str) -> Case:
    given = {parameter.rstrip("_"): value for parameter, value in values.items()}
    told = "&".join(f"{parameter.rstrip('_')}={value}" for parameter, value in values.items())
    return Case(f"{path.rpartition('/')[2]}?{told}", 400, parameters or (name,), "GET", path, parameters=given)


def deep(levels: int) -> bytes:
    return b'{"metadata":' * levels + b"1" + b"}" * levels


def metadata(entries: int) -> dict[str, str]:
    return {f"k{number}": "v" for number in range(entries)}


NO_NUMBERS: list[Any] = ["10099", "100.99", "", True, False, [], [100], {}, {"minor": 1}]
NO_TEXTS: list[Any] = [1, True, [], {}]
NO_ENTRIES: list[Any] = [1, True, "a=b", [], [["a", "b"]], None, {f"k{number}": "v" for number in range(60)}]
NO_AMOUNTS: list[Any] = [0, -1, 10.5, 1.0, "10", True, [], {}, 10**12, 10**30]

FIELDS = [
    *(wrong(name, LEFT_OUT) for name in ("amount", "currency", "payment_method", "capture")),
    *(wrong(name, None) for name in ("amount", "currency", "payment_method", "capture")),
    *(wrong("amount", value) for value in (0, -1, -100_99, 10**9, 10**12, 2**63, 10**30, 100.99, 0.1, 1.0)),
    *(wrong("amount", value) for value in NO_NUMBERS),
    *(wrong("currency", value) for value in ("", "us", "usdd", "xxx", "zzz", "USD", "Usd", "us ", "u$d", "€", 840)),
    *(wrong("currency", value) for value in (*NO_TEXTS, "usd\x00", "usd\n")),
    *(wrong("payment_method", value) for value in ("", "visa", "pm_", CARD, f"pm_{CARD}", "pm_card visa", *NO_TEXTS)),
    *(wrong("payment_method", value) for value in ("pm_" + "x" * 5_000, "pm_a\x00b", "pm_card_visa\n", "../pm_card")),
    *(wrong("capture", value) for value in ("", "later", "Manual", "AUTOMATIC", *NO_TEXTS)),
    *(wrong("description", value) for value in (*NO_TEXTS, "x" * 5_000, "a\x00b", f"card {CARD}", SPACED_CARD)),
    *(wrong("order", value) for value in (*NO_TEXTS, "", "x" * 1_000, "a\x00b", "a\nb", "a\x7fb", CARD)),
    *(wrong("customer", value) for value in (*NO_TEXTS, "", "x" * 1_000, "a\x00b", "a\rb", "\x1b[2J", CARD)),
    *(wrong("metadata", value) for value in NO_ENTRIES),
    *(wrong("metadata", {"key": value}) for value in (*NO_TEXTS, 1.5, None, "x" * 5_000, "a\x00b")),
    *(wrong("metadata", {key: "v"}) for key in ("", "k" * 200, "a\x00b")),
    wrong("metadata", {"note": f"paid with {CARD}"}),
    wrong("metadata", {CARD: "note"}),
    wrong("amount", 10_011, currency="kwd"),
    wrong("amount", 10_001, currency="bhd"),
    wrong("amonut", 100_99),
    wrong("amount", LEFT_OUT, "#/amount", "#/Amount", Amount=100_99),
    wrong("idempotency_key", "k"),
    wrong("", 1, "#/"),
    wrong("amount", 0, "#/amount", "#/currency", "#/payment_method", "#/capture", "#/order", "#/extra",
          currency="USD", payment_method=LEFT_OUT, capture="later", order=7, extra=None),
    wrong("metadata", {"a": 1, "b": 2}, "#/metadata", "#/amount", amount=-5),
    wrong("amount", LEFT_OUT, "#/amount", "#/currency", "#/payment_method", "#/capture",
          currency=LEFT_OUT, payment_method=LEFT_OUT, capture=LEFT_OUT),
]  # fmt: skip

SYNTAX = [
    raw("an exponent", '"amount": 1e3', "#/amount"),
    raw("an exponent with a capital", '"amount": 1E3', "#/amount"),
    raw("a fraction with an exponent", '"amount": 1.0099e4', "#/amount"),
    raw("an enormous exponent", '"amount": 1e999999', "#/amount"),
    raw("a whole number written as a fraction", '"amount": 100.0', "#/amount"),
    raw("minus nothing", '"amount": -0', "#/amount"),
    raw("more digits than a number has", '"amount": ' + "9" * 5_000, "#/amount"),
    raw("a leading nought", '"amount": 010'),
    raw("a plus", '"amount": +10'),
    raw("hexadecimal", '"amount": 0x10'),
    raw("not a number", '"amount": NaN'),
    raw("infinity", '"amount": Infinity'),
    raw("minus infinity", '"amount": -Infinity'),
    raw("Python's none", '"amount": None'),
    raw("single quotes", "'amount': 10"),
    raw("a lone surrogate escaped", '"amount": 100, "description": "\\ud800"'),
    raw("a lone low surrogate escaped", '"amount": 100, "description": "\\udc00 and on"'),
    raw("a lone surrogate in bytes", '"amount": 100, "description": "\ud800"'),
    raw("a raw line feed in a text", '"amount": 100, "description": "a\nb"'),
    raw("an unknown escape", '"amount": 100, "description": "\\x41"'),
    raw("a comment", '"amount": 100 /* dollars */'),
    Case("a trailing comma", 400, content=text(VISA)[:-1] + b",}"),
    Case("two documents", 400, content=text(VISA) * 2),
    Case("half a document", 400, content=text(VISA)[:-10]),
    Case("no document", 400, content=b"", headers={**JSON}),
    Case("only white space", 400, content=b" \n\t "),
    Case("a NUL", 400, content=b"\0"),
    Case("words", 400, content=b"please pay"),
    Case("a form", 400, content=b"amount=10099&currency=usd"),
    Case("latin-1", 400, content=text(VISA)[:-1] + b', "description": "caf\xe9"}'),
    Case("overlong UTF-8", 400, content=text(VISA)[:-1] + b', "description": "\xc0\xaf"}'),
    Case("UTF-16", 400, content=json.dumps(VISA).encode("utf-16")),
    Case("a list", 400, content=text([VISA])),
    Case("an empty list", 400, content=b"[]"),
    Case("a string", 400, content=b'"pay"'),
    Case("a number", 400, content=b"10099"),
    Case("null", 400, content=b"null"),
    Case("true", 400, content=b"true"),
    Case("a thousand levels", 400, content=deep(1_000)),
    Case("four thousand levels", 400, content=deep(4_000)),
    Case("thirty thousand open brackets", 400, content=b"[" * 30_000),
    wrong("metadata", {"a": {"b": {"c": {"d": "e"}}}}),
]

ENVELOPE = [
    *(
        Case(f"content type {kind}", 415, content=text(VISA), headers={"Content-Type": kind})
        for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonp", "json")
    ),
    Case("content type application/msgpack", 415, content=b"\x80", headers={"Content-Type": "application/msgpack"}),
    Case("no content type", 415, content=text(VISA), headers={"Content-Type": None}),
    Case("one byte too many", 413, content=text(VISA).ljust(BODY_BYTES_AT_MOST + 1)),
    Case("a megabyte", 413, content=text(VISA | {"description": "x" * 2**20})),
    Case("a megabyte of brackets", 413, content=b"[" * 2**20),
    keyed("no key", None),
    keyed("an empty key", ""),
    keyed("a key too long", "k" * 256),
    keyed("a key much too long", "k" * 8_000),
    keyed("a key with a space", "two words"),
    keyed("a key with a tab", "two\twords"),
    keyed("a key beyond ASCII", "schlüssel".encode()),
    keyed("a key of bytes", b"\xff\xfe"),
    Case("an unknown parameter of a command", 400, ("dry_run",), content=text(VISA), parameters={"dry_run": "1"}),
    Case("the body in the query", 400, ("amount",), content=text(VISA), parameters={"amount": "1"}),
    Case("key and body wrong at once", 400, content=text(VISA | {"amount": 0}), headers={"Idempotency-Key": ""}),
]

MOVEMENTS = [
    *(
        move(f"{operation} {json.dumps(value)[:40]}", f"{state}/{operation}", 400, {"amount": value}, "#/amount")
        for state, operation in (("authorized", "captures"), ("captured", "refunds"))
        for value in NO_AMOUNTS
    ),
    *(
        move(f"{operation} with {body}", f"{state}/{operation}", 400, body, f"#/{next(iter(body))}")
        for state, operation in (("authorized", "captures"), ("captured", "refunds"), ("authorized", "void"))
        for body in (
            {"currency": "eur"},
            {"reason": 1},
            {"reason": "x" * 5_000},
            {"reason": "a\x00b"},
            {"reason": f"it was {CARD}"},
            {"reasons": "none"},
        )
    ),
    move("void with an amount", "authorized/void", 400, {"amount": 1}, "#/amount"),
    move("capture of a list", "authorized/captures", 400, []),
    move("two wrong fields", "authorized/captures", 400, {"amount": 0, "reason": 1}, "#/amount", "#/reason"),
    move("an unknown and a wrong field", "captured/refunds", 400, {"amount": 0, "x": 1}, "#/amount", "#/x"),
    move("more than authorized", "authorized/captures", 422, {"amount": 100_99 + 1}, "#/amount"),
    move("more than captured", "captured/refunds", 422, {"amount": 100_99 + 1}, "#/amount"),
    move("refund of nothing captured", "authorized/refunds", 409, {"amount": 1}),
    move("capture of what is captured", "captured/captures", 409, {"amount": 1}),
    move("void of what is captured", "captured/void", 409, {}),
    *(move(f"{op} of what is void", f"voided/{op}", 409, {}) for op in ("captures", "refunds", "void")),
    *(move(f"{op} of what failed", f"failed/{op}", 409, {}) for op in ("captures", "refunds", "void")),
    *(move(f"{op} of nobody's payment", f"{NOBODY}/{op}", 404, {}) for op in ("captures", "refunds", "void")),
    *(
        Case(f"{op} of {bad!r}", 400, method="POST", path=f"{PAYMENTS}/{bad}/{op}", content=b"{}", also=(404,))
        for op in ("captures", "refunds", "void", "return")
        for bad in ("1", "pay_1", "%00", "%F0%9F%92%B8", "..%2Forders", "0" * 300, f"{{{NOBODY}}}")
    ),
    Case("return of nobody's payment", 404, path=f"{PAYMENTS}/{NOBODY}/return"),
    *(
        Case(
            f"If-Match {match!r} on {op}", 400, ("If-Match",),
            path=f"authorized/{op}", content=b"{}", headers={"If-Match": match},
        )
        for op in ("captures", "void")
        for match in ("two", '"two"', '"', "", '"-1"', '"1.5"', '"1e3"', "x" * 3_000, '"' + "9" * 40 + '"')
    ),
    Case("If-Match of yesterday", 412, path="authorized/captures", content=b"{}", headers={"If-Match": '"1"'}),
    Case("If-Match of tomorrow", 412, path="authorized/void", content=b"{}", headers={"If-Match": '"99"'}),
]  # fmt: skip

LIMITS = ("0", "-1", "101", "9" * 30, "1.5", "1e1", "ten", "", "٣", "0x5", "null")
CURSORS = ("x", "AAAA", "!!", "%00", "x" * 3_000, base64.urlsafe_b64encode(b"0 0").decode(), "bnVsbA==", "é", "null")

QUERIES = [
    listed("status", status="done"),
    listed("status", status=""),
    listed("status", status="Captured"),
    listed("status", status="null"),
    listed("customer", customer="x" * 1_000),
    listed("customer", customer="a\x00b"),
    listed("order", order="x" * 1_000),
    listed("order", order="a\x00b"),
    *(listed("limit", limit=value) for value in LIMITS),
    *(listed("cursor", cursor=value) for value in CURSORS),
    *(
        listed(name, **{f"{name}_": value})
        for name in ("from", "to")
        for value in (
            "x", "", "yesterday", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z",
            "1767225600", "NaN", "2026-01-01T00:00:00+99:00", "99999-01-01T00:00:00Z", "2026-01-01T00:00:00Z\x00",
            "2026-01-01T00:00:00",
        )
    ),
    *(
        listed("after", path=path, after=value)
        for path in (PAYMENTS, "/v1/orders", "authorized", "/v1/orders/no-order")
        for value in ("x", "", "1.5", "1e3", "0x1", "9" * 30, str(2**63 - 1), "99999999999", "null")
    ),
    listed("colour", colour="red"),
    listed("Limit", Limit="5"),
    listed("limit", limit="5", path="authorized"),
    listed("colour", colour="red", path="authorized/events"),
    listed("status", status="captured", path="/v1/orders"),
    listed("colour", colour="red", path="/v1/orders/no-order"),
    listed("two", "limit", "status", limit="0", status="done"),
    listed("many", "limit", "status", "from", "cursor", "x", limit="0", status="z", from_="y", cursor="!", x="1"),
    *(
        Case(f"GET {bad!r}", 400, method="GET", path=f"{PAYMENTS}/{bad}", also=(404,))
        for bad in ("1", "%00", "%FF%FE", "pi_1", "0" * 3_000, "%F0%9F%92%B8", f"{NOBODY}x", "..%2F..%2Fetc")
    ),
    *(Case(f"GET {part}", 404, method="GET", path=f"{PAYMENTS}/{NOBODY}{part}") for part in ("", "/events")),
    Case("GET an unknown order", 404, method="GET", path="/v1/orders/no-such-order"),
    *(
        Case(f"GET the order {bad!r}", 400, method="GET", path=f"/v1/orders/{bad}", also=(404,))
        for bad in ("%00", "a%0Ab", "x" * 1_000, "%FF", "%ED%A0%80")
    ),
]  # fmt: skip

ROUTES = [
    *(
        Case(f"{method} {path}", 404, method=method, path=path)
        for method, path in (
            ("GET", "/"), ("GET", "/v1"), ("POST", "/v1"), ("GET", "/v2/payments"), ("GET", "/v1/payment"),
            ("GET", "/v1/payments/authorized/nothing"), ("POST", f"/v1/payments/{NOBODY}/chargebacks"),
            ("GET", "/.env"), ("GET", "/v1/%2e%2e/%2e%2e/etc/passwd"), ("GET", "/v1/payments/\u2603"),
        )
    ),
    *(
        Case(f"{method} {path}", 405, method=method, path=path)
        for method, path in (
            ("PUT", PAYMENTS), ("PATCH", PAYMENTS), ("DELETE", PAYMENTS), ("DELETE", f"{PAYMENTS}/{NOBODY}"),
            ("PUT", f"{PAYMENTS}/{NOBODY}"), ("GET", f"{PAYMENTS}/{NOBODY}/captures"),
            ("GET", f"{PAYMENTS}/{NOBODY}/void"), ("POST", f"{PAYMENTS}/{NOBODY}/events"), ("POST", "/v1/orders"),
            ("POST", "/health"), ("DELETE", "/v1/orders/o-1"),
        )
    ),
]  # fmt: skip
CASES = [*FIELDS, *SYNTAX, *ENVELOPE, *MOVEMENTS, *QUERIES, *ROUTES]


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own: its Stripe holds little, and all of it is looked at before and after each request."""
    with running() as system:
        yield system


@pytest.fixture(scope="module")
def targets(system: System) -> dict[str, str]:
    """A payment in each state, by the word that cases use in their paths."""
    declined = problem(system.pay(payment_method="pm_card_visa_chargeDeclined"), 402)["payment"]
    payments = {
        "authorized": system.paid(),
        "captured": system.paid(capture="automatic"),
        "voided": system.moved(system.paid(), "void"),
        "failed": declined,
        NOBODY: {"id": NOBODY},
    }
    return {word: str(payment["id"]) for word, payment in payments.items()}


@pytest.fixture
def untouched(system: System) -> Iterator[None]:
    """After the test the log and Stripe hold what they held before."""
    before = traces(system)
    yield
    assert traces(system) == before, "a fact was appended, or Stripe was called"


def traces(system: System) -> tuple[int, dict[str, Any]]:
    state = system.state()
    del state["now"]
    return system.facts_in_log(), {kind: len(held) if isinstance(held, list) else held for kind, held in state.items()}


def raw_headers(headers: Mapping[str, str | bytes | None]) -> list[tuple[bytes, bytes]]:
    """As they go over the wire; those that are None are left out."""
    return [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
        if value is not None
    ]


def send(system: System, case: Case, path: str) -> httpx.Response:
    own = {"Idempotency-Key": f"bad-{time.time_ns()}"} | (JSON if case.content is not None else {})
    given = raw_headers({**own, **case.headers})
    request = system.http.build_request(
        case.method, path, params=case.parameters or None, content=case.content, headers=given
    )
    return system.http.send(request)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name)[1:70])
def test_bad_input_is_named_and_leaves_no_trace(system: System, targets: dict[str, str], case: Case) -> None:
    word, _, operation = case.path.partition("/")
    path = f"{PAYMENTS}/{targets[word]}/{operation}".rstrip("/") if word in targets else case.path
    answer = send(system, case, path)
    expected = answer.status_code if answer.status_code in case.also else case.status
    document = problem(answer, expected)
    for field_name in case.named:
        assert any(name == field_name or name.startswith(f"{field_name}/") for name in named(document)), document
    assert not re.search(f"{CARD}|{SPACED_CARD}", answer.text), "a card number must not be told again"


# Tokens


def forged(system: System, *, key: str | None = None, algorithm: str = "HS256", **claims: Any) -> str:
    """A token like the development token, with other claims; signed with the ledger's own key unless one is given."""
    own: dict[str, Any] = jwt.decode(system.token, options={"verify_signature": False})
    told = {name: claim for name, claim in (own | claims).items() if claim is not LEFT_OUT}
    secret = (system.data / "jwt.key").read_text().strip() if key is None else key
    return jwt.encode(told, "" if algorithm == "none" else secret, algorithm=algorithm)


def test_a_forged_token_with_nothing_wrong_in_it_is_taken(system: System) -> None:
    """The counterpart of the next test: its refusals come from what is wrong in each token."""
    assert system.pay(token=forged(system, exp=int(time.time()) + 60)).status_code == 201


@pytest.mark.usefixtures("untouched")
def test_only_a_token_of_ours_is_taken(system: System) -> None:
    now, (head, claims, signature) = int(time.time()), system.token.split(".")
    tokens = {
        "garbage": "garbage",
        "two dots": "..",
        "bytes": "\x7f",
        "long": "x" * 6_000,
        "no signature": f"{head}.{claims}.",
        "another signature": f"{head}.{claims}.{signature[::-1]}",
        "other claims": f"{head}.{base64.urlsafe_b64encode(b'{}').decode().rstrip('=')}.{signature}",
        "algorithm none": forged(system, algorithm="none"),
        "another key": forged(system, key="another key, of thirty-two bytes at least"),
        "an empty key": forged(system, key=" " * 64),
        "expired": forged(system, exp=now - 3_600),
        "from the future": forged(system, nbf=now + 3_600),
        "never expires": forged(system, exp=LEFT_OUT),
        "nobody's": forged(system, sub=LEFT_OUT),
    }
    values = {name: f"Bearer {token}" for name, token in tokens.items() if token.isprintable()}
    values |= {"nothing": "", "only the word": "Bearer", "bare": system.token}
    values["another scheme"] = f"Basic {system.token}"
    wrong_status: dict[str, int] = {}
    for name, value in values.items():
        for method, body in (("GET", None), ("POST", VISA)):
            headers = {"Authorization": value, "Idempotency-Key": f"token-{time.time_ns()}"}
            answer = system.http.request(method, PAYMENTS, json=body, headers=headers)
            if answer.status_code != 401:
                wrong_status[f"{method} with {name}"] = answer.status_code
            else:
                problem(answer, 401)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer"), name
    assert not wrong_status


@pytest.mark.usefixtures("untouched")
def test_a_stranger_learns_nothing_from_the_refusal(system: System, targets: dict[str, str]) -> None:
    """Without a token there is no telling which payments exist and which bodies are right."""
    with httpx.Client(base_url=system.url) as stranger:
        answers = [
            stranger.get(f"{PAYMENTS}/{targets['authorized']}"),
            stranger.get(f"{PAYMENTS}/{NOBODY}"),
            stranger.get(PAYMENTS, params={"limit": "0"}),
            stranger.post(PAYMENTS, content=b"{", headers=JSON),
            stranger.post(PAYMENTS, content=b"[" * 2**17, headers=JSON),
            stranger.post(f"{PAYMENTS}/{targets['authorized']}/captures", json={"amount": -1}),
        ]
    assert {answer.status_code for answer in answers} <= {401}


# What no HTTP library would send


def over_a_socket(system: System, request: bytes) -> bytes:
    """The first bytes of the answer to bytes."""
    address = urlsplit(system.url)
    with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("key", [b"a\x01b", b"a\x00b", b"a\x7fb", b"a\rb", b"\x1b[2J"])
def test_a_key_with_control_characters_is_refused(system: System, key: bytes) -> None:
    body = text(VISA)
    head = (
        f"POST /v1/payments HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {system.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\nIdempotency-Key: "
    )
    answer = over_a_socket(system, head.encode() + key + b"\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 400 "), answer


@pytest.mark.usefixtures("untouched")
def test_a_body_that_never_says_its_length_is_cut_off(system: System) -> None:
    head = (
        f"POST /v1/payments HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {system.token}\r\nIdempotency-Key: k\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = over_a_socket(system, head.encode() + chunk * 5)
    assert answer.startswith(b"HTTP/1.1 413 "), answer


# The edge of what is allowed, and what must not be kept


def test_the_largest_body_allowed_is_taken(system: System) -> None:
    headers = {"Idempotency-Key": f"large-{time.time_ns()}"} | JSON
    answer = system.http.post(PAYMENTS, content=text(VISA).ljust(BODY_BYTES_AT_MOST), headers=headers)
    assert answer.status_code == 201, answer.text


def test_metadata_that_is_taken_reaches_stripe(system: System) -> None:
    """Whatever number of entries is allowed: none that passes the edge may be refused behind it."""
    answers = {entries: system.pay(metadata=metadata(entries)) for entries in range(46, 52)}
    assert {answer.status_code for answer in answers.values()} == {201, 400}
    for entries, answer in answers.items():
        assert answer.status_code == 400 or len(answer.json()["metadata"]) == entries


def test_words_of_the_world_are_kept_as_they_are(system: System) -> None:
    told = {
        "description": "Kaffee für zwei ☕ \U0001d518 \u202e",
        "order": "bestellung-ä'; DROP TABLE--",
        "customer": "Łódź",
    }
    payment = system.paid(**told, metadata={"ключ": "значение"})
    assert {name: payment[name] for name in told} == told
    assert payment["metadata"] == {"ключ": "значение"}


def test_a_number_that_is_no_card_may_name_an_order(system: System) -> None:
    assert system.paid(order="1234567890123456")["order"] == "1234567890123456"


def test_a_card_number_enters_neither_facts_nor_logs(system: System) -> None:
    number = "5555555555554444"
    for fields in ({"description": number}, {"metadata": {"n": number}}, {"order": number}, {"payment_method": number}):
        problem(system.pay(**fields), 400)
    answer = system.post(PAYMENTS, VISA, X_Correlation_Id=number)
    if answer.is_success:
        assert number not in str(system.facts(answer.json()["id"]))
    keyed_by_it = system.pay(key=number)
    if keyed_by_it.is_success:
        assert number not in str(system.facts(keyed_by_it.json()["id"]))
    written = [path for path in (system.data / "logs").rglob("*") if path.is_file()]
    assert not [path.name for path in written if number.encode() in path.read_bytes()]


@pytest.mark.parametrize("correlation", ["x" * 5_000, "a\tb", "naïve".encode(), b"\xff"])
def test_a_strange_correlation_is_refused_or_bounded(system: System, correlation: str | bytes) -> None:
    headers = raw_headers({"Idempotency-Key": f"strange-{time.time_ns()}", "X-Correlation-Id": correlation})
    answer = system.http.post(PAYMENTS, json=VISA, headers=headers)
    if answer.status_code == 400:
        assert "X-Correlation-Id" in named(problem(answer, 400))
    else:
        assert answer.status_code == 201, answer.text
        kept = {fact["correlation_id"] for fact in system.facts(answer.json()["id"])}
        assert all(len(told) <= 255 and told.isprintable() for told in kept), kept
