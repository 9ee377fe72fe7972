"""The way to Stripe's API: one SDK client with one session a process, and what became of a call, judged once for all.

Answers are read into types of our own (stripe_answers.py and its siblings), so the SDK's raw requests are used: it
encodes, signs, retries and judges the status.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp
import stripe
from msgspec import DecodeError
from stripe import _util

from application.gateway import Absent, GatewayMisconfigured, Unknown
from application.stripe_errors import Refused, judge
from domain.errors import InvalidMoney

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 30
# Everything for one operation, the SDK's own retries included. Shorter than the age at which it counts as abandoned.
OPERATION_DEADLINE_S = 40
MAX_NETWORK_RETRIES = 2
# Callers that may wait for Stripe at once; each holds a connection and little else.
MAX_CONNECTIONS = 1_000
MISSING = "resource_missing"

T = TypeVar("T")


class StripeApi:
    """One a process, shared by all that speak to Stripe."""

    def __init__(self, api_key: str, api_base: str | None = None) -> None:
        keep_bodies_out_of_logs()
        stripe.enable_telemetry = False  # it would write to the home folder
        self._api_key = api_key
        self._api_base = api_base
        self._session: aiohttp.ClientSession | None = None
        self._client_or_none: stripe.StripeClient | None = None

    async def request(self, method: str, path: str, /, **params: object) -> stripe.StripeResponse:
        """Any request, by its whole path. Raises stripe.StripeError, as all of these do."""
        response: stripe.StripeResponse = await self._client.raw_request_async(method, path, **params)
        return response

    async def get(self, path: str, /, **params: object) -> stripe.StripeResponse:
        """A GET below `/v1/`."""
        return await self.request("get", f"/v1/{path}", **params)

    async def post(self, path: str, params: Mapping[str, object], key: str) -> stripe.StripeResponse:
        """A POST below `/v1/` under its idempotency key."""
        return await self.request("post", f"/v1/{path}", idempotency_key=key, **params)

    async def delete(self, path: str) -> stripe.StripeResponse:
        """A DELETE below `/v1/`. Stripe has no keys for it: what is gone is missing when it is deleted again."""
        return await self.request("delete", f"/v1/{path}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def _client(self) -> stripe.StripeClient:
        """Built at first use, inside the event loop that its session belongs to."""
        if self._client_or_none is None:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
            # Stripe sets no cookies; looking for some at each request takes longer than one would think.
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
            self._client_or_none = stripe.StripeClient(
                self._api_key,
                base_addresses={"api": self._api_base} if self._api_base else {},
                max_network_retries=MAX_NETWORK_RETRIES,
                http_client=stripe.AIOHTTPClient(timeout=timeout, session=self._session),
            )
        return self._client_or_none


async def answered(operation: str, call: Callable[[], Awaitable[T]]) -> T | Refused | Unknown:
    """What the call came to within its deadline. Only a clear no is a refusal, and nothing is raised."""
    try:
        async with asyncio.timeout(OPERATION_DEADLINE_S):
            return await call()
    except stripe.StripeError as error:
        return _judged(operation, error)
    except (aiohttp.ClientError, TimeoutError) as error:
        return Unknown(type(error).__name__)
    except (DecodeError, ValueError, AttributeError, TypeError, AssertionError, InvalidMoney) as error:
        # An answer we cannot read is an answer all the same: the money may have moved.
        log.exception("the provider's answer could not be read", extra={"operation": operation})
        return Unknown(type(error).__name__)


async def looked(call: Callable[[], Awaitable[T]]) -> T | Absent | Unknown:
    """What a question came to. Nothing is raised; what Stripe has not is Absent."""
    found = await answered("look", call)
    if not isinstance(found, Refused):
        return found
    return Absent(found.evidence) if found.failure.code == MISSING else Unknown(found.failure.code)


def _judged(operation: str, error: stripe.StripeError) -> Refused | Unknown:
    try:
        return judge(error)
    except GatewayMisconfigured:
        log.error("the provider refuses our credentials", extra={"operation": operation})  # noqa: TRY400  its text may quote the key
        return Unknown("misconfigured")


def keep_bodies_out_of_logs() -> None:
    """The SDK logs each request's body at DEBUG, on the logger `stripe` and with STRIPE_LOG=debug on standard error.

    Neither can be had from here on. What it logs at INFO (method, address, status) stays as it was asked for.
    """
    logging.getLogger("stripe").addFilter(_no_bodies)
    if "debug" in {stripe.log, _util.STRIPE_LOG}:  # read from the environment, and under no public name
        stripe.log = "info"


def _no_bodies(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
