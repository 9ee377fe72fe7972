"""A pytest plugin: whatever the adapters ask of the Stripe stand-in must be what Stripe's OpenAPI allows.

`-p tests.peers.beside_stripe_mock`, with STRIPE_MOCK_URL. Every request of `StripeApi`, the one way to Stripe, is kept,
and at the end sent once more to Stripe's own stripe-mock, which checks paths, parameters and values and answers with
fixtures. What it refuses fails the run; so does a path in the adapters that no test has used.
"""

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import stripe

from application.stripe_client import StripeApi
from tests.peers.real_kafka import CHECKOUT

URL = "STRIPE_MOCK_URL"
KEY = "sk_test_123"
ADAPTERS, CLIENT = "application/stripe_*.py", "application/stripe_client.py"
# What the functions that send a request are called in the adapters.
SENDERS = {"get", "post", "delete", "_get", "_post", "request", "listing", "_all"}
PATH = re.compile(r"[a-z_]+(/.*)?|/v1/.+|\x00.+")
ESCAPED = "%2F"

Request = tuple[str, str, dict[str, Any]]


class Kept:
    """What was asked, each request once: keys of idempotency aside, which differ and mean nothing to a mock."""

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        original = StripeApi.request

        async def request(api: StripeApi, method: str, path: str, /, **params: object) -> stripe.StripeResponse:
            if ESCAPED in path:  # a name that means harm, which Stripe does not know any more than the mock does
                return await original(api, method, path, **params)
            said = {name: value for name, value in params.items() if name != "idempotency_key"}
            self.requests.setdefault(json.dumps([method, path, said], sort_keys=True), (method, path, said))
            return await original(api, method, path, **params)

        self.patch = patch.object(StripeApi, "request", request)

    def refused(self, url: str) -> dict[str, str]:
        """Each request that the mock refuses, one of a kind, with its reason."""
        client = stripe.StripeClient(KEY, base_addresses={"api": url}, max_network_retries=0)
        with pytest.raises(stripe.InvalidRequestError):  # else its silence would prove nothing
            client.raw_request("post", "/v1/refunds", amuont=1)
        found: dict[str, str] = {}
        for method, path, params in self.requests.values():
            try:
                client.raw_request(method, path, **params)
            except stripe.StripeError as error:
                found.setdefault(f"{method.upper()} {path}", f"{error} in {params}")
        return found

    def unused(self) -> list[str]:
        """Paths in the adapters that nothing was sent to."""
        sent = [path.removeprefix("/v1/") for _, path, _ in self.requests.values()]
        return [shown for shown, pattern in _written() if not any(map(pattern.fullmatch, sent))]


def pytest_configure(config: pytest.Config) -> None:
    kept = Kept()
    kept.patch.start()
    config.add_cleanup(kept.patch.stop)
    config.stash[_KEPT] = kept


def pytest_sessionfinish(session: pytest.Session) -> None:
    kept = session.config.stash[_KEPT]
    refused, unused = kept.refused(os.environ[URL]), kept.unused()
    print(f"\nstripe-mock: {len(kept.requests):,} different requests, {len(refused)} refused")  # noqa: T201
    for request, reason in refused.items():
        print(f"  {request}: {reason}")  # noqa: T201
    for path in unused:
        print(f"  no test asks for {path}")  # noqa: T201
    if refused or unused:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _written() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Each path that stands in the adapters' source: as it is written, and as what is sent must look."""
    for file in sorted(set(CHECKOUT.glob(ADAPTERS)) - {CHECKOUT / CLIENT}):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and _called(node) in SENDERS:
                yield from _paths(file, node)


def _called(node: ast.Call) -> str:
    """The last word of what is called; nothing where that belongs to a mapping (`headers.get`)."""
    match node.func:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name("self") | ast.Name("api") | ast.Attribute(attr="api" | "_api"), name):
            return name
        case _:
            return ""


def _paths(file: Path, node: ast.Call) -> Iterator[tuple[str, re.Pattern[str]]]:
    for argument in node.args[:2]:
        parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
        if not all(isinstance(part, ast.FormattedValue) or _is_text(part) for part in parts):
            continue
        path = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in parts)  # type: ignore[misc]
        if path not in {"get", "post", "delete"} and PATH.fullmatch(path):
            pattern = re.escape(path.removeprefix("/v1/")).replace("\0", ".+")
            yield f"{path.replace(chr(0), '{}')} ({file.name}:{node.lineno})", re.compile(pattern)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


_KEPT = pytest.StashKey[Kept]()
