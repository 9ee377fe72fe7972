"""What a browser gets tells it what not to do, and pages of others call only where the settings name them."""

import re
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from interface.web.limits import MAX_URL_BYTES
from tests.system import System
from tests.test_rate_limits_shared import MINUTE, asked, bearer, one_more_api

NOBODY = "00000000-0000-4000-8000-000000000000"
SHOP, OFFICE = "https://shop.example", "http://office.example:8080"
STRANGERS = ("https://elsewhere.example", "https://shop.example.elsewhere.example", "http://shop.example", "null")
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


# --- Every answer ------------------------------------------------------------------------------------------------


def answers(system: System) -> dict[str, httpx.Response]:
    """One of each kind."""
    http = system.http
    return {
        "a query": http.get("/v1/orders"),
        "a command": system.pay(),
        "the log": http.get("/v1/events"),
        "a refusal of a route": system.post("/v1/payments", {}),
        "a refusal of a contract": system.post("/payment/process", {}),
        "a refusal before any route": http.get(f"/v1/orders/{'o' * MAX_URL_BYTES}"),
        "nobody's path": http.get("/nothing"),
        "a method that is not": http.delete("/v1/orders"),
        "no token": httpx.get(f"{system.url}/v1/orders"),
        "health": http.get("/health"),
        "metrics": http.get("/metrics"),
        "the document": http.get("/schema/openapi.json"),
        "the document's page": http.get("/schema"),
        "a page": http.get(f"/return/{system.paid()['id']}"),
        "no such page": http.get(f"/return/{NOBODY}"),
    }


def test_no_answer_is_guessed_at_or_kept(system: System) -> None:
    for name, answer in answers(system).items():
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"], name
        assert answer.headers.get_list("Cache-Control") == ["no-store"], name


def test_every_page_may_do_only_what_it_needs(system: System) -> None:
    pages = {name: answer for name, answer in answers(system).items() if "html" in answer.headers["Content-Type"]}
    assert set(pages) == {"the document's page", "a page", "no such page"}
    for name, page in pages.items():
        [policy] = page.headers.get_list("Content-Security-Policy")
        rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
        assert rules["default-src"] == ["'none'"], name
        assert rules["frame-ancestors"] == ["'none'"], name
        assert page.headers.get_list("Referrer-Policy") == ["no-referrer"], name
        assert page.headers.get_list("X-Frame-Options") == ["DENY"], name
        assert rules.get("script-src", []) == re.findall(r"<script[^>]*\ssrc=\"([^\"]+)", page.text), (
            "nothing else runs"
        )
        for source in re.findall(r"<link rel=\"stylesheet\"[^>]*href=\"([^\"]+)", page.text):
            assert any(source.startswith(allowed) for allowed in rules["style-src"]), name


def test_a_reader_of_the_document_is_there_once(system: System) -> None:
    for path in ("/schema/redoc", "/schema/swagger", "/schema/rapidoc", "/schema/elements", "/schema/scalar"):
        assert system.http.get(path).status_code == 404, path


# --- Pages of others ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_to_two(system: System) -> Iterator[httpx.Client]:
    """An API that pages of two origins may call, four times a minute."""
    with one_more_api(system, **MINUTE, CORS_ORIGINS=f"{SHOP}, {OFFICE}", TRUSTED_PROXIES="127.0.0.1") as client:
        yield client


@pytest.mark.parametrize("origin", [SHOP, OFFICE])
def test_a_page_that_is_named_may_read_even_why_it_is_refused(
    system: System, open_to_two: httpx.Client, origin: str
) -> None:
    ada = bearer(system) | {"Origin": origin}
    answers = [asked(open_to_two, ada) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]
    answers += [
        asked(open_to_two, {"Origin": origin, "X-Forwarded-For": f"2001:db8::{uuid4().hex[:4]}"}),
        open_to_two.post("/v1/payments", headers=bearer(system) | {"Origin": origin}),
        open_to_two.get("/nothing", headers=bearer(system) | {"Origin": origin}),
        open_to_two.get(f"/v1/orders/{'o' * MAX_URL_BYTES}", headers={"Origin": origin}),
    ]
    assert [answer.status_code for answer in answers[5:]] == [401, 400, 404, 414]
    for answer in answers:
        assert answer.headers.get_list("Access-Control-Allow-Origin") == [origin]
        assert "Origin" in answer.headers["Vary"]
        told = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].lower().split(",")}
        assert {"retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= told


def test_preflights_cost_nothing_and_are_answered_to_those_that_are_named(
    system: System, open_to_two: httpx.Client
) -> None:
    for _ in range(10):
        answer = open_to_two.options("/v1/orders", headers={"Origin": SHOP} | PREFLIGHT)
        assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert {"GET", "POST"} <= set(answer.headers["Access-Control-Allow-Methods"].replace(" ", "").split(","))
    assert answer.headers["Access-Control-Max-Age"] == "86400"
    assert asked(open_to_two, bearer(system)).headers["X-RateLimit-Remaining"] == "3"


@pytest.mark.parametrize("origin", STRANGERS)
def test_a_page_that_is_not_named_may_read_nothing(system: System, open_to_two: httpx.Client, origin: str) -> None:
    answers = [
        open_to_two.options("/v1/orders", headers={"Origin": origin} | PREFLIGHT),
        open_to_two.options("/charge", headers={"Origin": origin} | PREFLIGHT),
        asked(open_to_two, bearer(system) | {"Origin": origin}),
    ]
    for answer in answers:
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_without_the_setting_no_page_of_others_may_call(system: System) -> None:
    for answer in (
        system.http.get("/v1/orders", headers={"Origin": SHOP}),
        system.http.options("/v1/orders", headers={"Origin": SHOP} | PREFLIGHT),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-allow")]
