"""Stripe behind the port: PaymentIntents through the SDK's async client.

Only this file and its neighbours stripe_* import stripe.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from uuid import UUID

import aiohttp
import stripe
from msgspec import DecodeError
from stripe.params import (
    PaymentIntentCancelParams,
    PaymentIntentCaptureParams,
    PaymentIntentCreateParams,
    RefundCreateParams,
)

from application import stripe_bare_charges as bare
from application.gateway import (
    Absent,
    AnyInstruction,
    AuthorizeInstruction,
    CaptureInstruction,
    ChargeSeen,
    GatewayMisconfigured,
    Instruction,
    RefundInstruction,
    Standing,
    Unknown,
    VoidInstruction,
)
from application.inbox import EventPage
from application.stripe_adoption import ADOPTED, adopt
from application.stripe_answers import Intent, Refund, evidence, read
from application.stripe_errors import Refused, judge
from application.stripe_lookups import StripeLookups
from application.stripe_methods import NotAllowed, RawCard, keep_bodies_out_of_logs, of_card, of_token
from application.stripe_outcomes import authorization, charge_id
from application.stripe_standing import marks, refund_failure
from domain.errors import InvalidMoney
from domain.money import from_stripe, to_stripe
from domain.payment_commands import Outcome, RecordCaptured, RecordFailed, RecordRefunded, RecordVoided
from domain.payment_facts import Failure

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 30
# Everything for one operation, the SDK's own retries included. Shorter than the age at which it counts as abandoned.
OPERATION_DEADLINE_S = 40
MAX_NETWORK_RETRIES = 2
# Callers that may wait for Stripe at once; each holds a connection and little else.
MAX_CONNECTIONS = 1_000


class StripeGateway:
    """One a process. Every POST carries the operation's own idempotency key."""

    def __init__(self, api_key: str, api_base: str | None = None, public_url: str | None = None) -> None:
        stripe.enable_telemetry = False  # it would write to the home folder
        keep_bodies_out_of_logs()
        self._public_url = public_url
        self._api_key = api_key
        self._api_base = api_base
        self._lookups = StripeLookups(self._get)
        self._session: aiohttp.ClientSession | None = None
        self._client_or_none: stripe.StripeClient | None = None

    async def charge(self, charge: str) -> ChargeSeen | Absent | Unknown:
        """See ChargeLookup."""
        return await self._lookups.charge(charge)

    async def method_of(self, card: RawCard) -> str | Failure | NotAllowed | Unknown:
        """A payment method for a card by its number: see of_card."""
        return await of_card(card, self._client.raw_request_async)

    async def events(self, since: datetime, after: str | None) -> EventPage | Unknown:
        """A page of the list of events: see StripeLookups."""
        return await self._lookups.events(since, after)

    def unavailable_s(self) -> float | None:
        return None  # it does not remember: application/breaker.py does

    async def verify(self) -> None:
        """Ask Stripe who we are. Raises GatewayMisconfigured when it refuses, and only then."""
        try:
            async with asyncio.timeout(OPERATION_DEADLINE_S):
                await self._client.v1.balance.retrieve_async()
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            raise GatewayMisconfigured(type(error).__name__) from error
        except (stripe.StripeError, aiohttp.ClientError, TimeoutError):
            log.warning("the provider did not answer at start-up; operations stay open until it does")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        return await self._ask(instruction.operation, lambda: self._perform(instruction))

    async def standing(
        self, payment: UUID, authorization: str, payment_intent: str | None
    ) -> Standing | Absent | Unknown:
        return await self._lookups.standing(payment, authorization, payment_intent)

    async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
        return await self._lookups.payment_of(payment_intent)

    # --- Instructions --------------------------------------------------------------------------------------------

    async def _perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        match instruction:
            case RefundInstruction():
                return await self._refund(instruction)
            case _ if bare.about_bare(instruction):
                return await bare.perform(instruction, self._get, self._post)
            case AuthorizeInstruction():
                return await self._authorize(instruction)
            case CaptureInstruction():
                return await self._capture(instruction)
            case VoidInstruction():
                return await self._void(instruction)

    async def _authorize(self, instruction: AuthorizeInstruction) -> Outcome | Unknown:
        if instruction.payment_method.startswith(ADOPTED):
            ours = {"metadata": marks(instruction), "expand": ["latest_charge"]}
            return await adopt(instruction, self._get, lambda path: self._post(path, ours, instruction))
        params: PaymentIntentCreateParams = {
            "amount": to_stripe(instruction.amount),
            "currency": instruction.amount.currency,
            "capture_method": instruction.capture,
            "payment_method": await of_token(instruction, self._post),
            # Without an address to come back to, only methods that send nobody away can be confirmed.
            "automatic_payment_methods": {
                "enabled": True,
                "allow_redirects": "always" if self._public_url else "never",
            },
            "confirm": True,
            "metadata": instruction.metadata | marks(instruction),
            "expand": ["latest_charge"],
        }
        if instruction.capture == "manual":
            params["payment_method_options"] = {"card": {"request_multicapture": "if_available"}}
        if instruction.description:  # Stripe takes an empty one for a wish to remove it
            params["description"] = instruction.description
        if self._public_url is not None:
            params["return_url"] = f"{self._public_url}/return/{instruction.payment}"
        return authorization(instruction.operation, await self._post("payment_intents", params, instruction))

    async def _capture(self, instruction: CaptureInstruction) -> Outcome | Unknown:
        params: PaymentIntentCaptureParams = {
            "amount_to_capture": to_stripe(instruction.amount),
            "metadata": marks(instruction),
        }
        if instruction.multicapture:
            params["final_capture"] = instruction.final
        path = f"payment_intents/{instruction.payment_intent}/capture"
        response = await self._post(path, params, instruction)
        intent = read(response, Intent)
        return RecordCaptured(
            operation=instruction.operation,
            amount=instruction.amount,
            final=intent.status != "requires_capture",
            charge=charge_id(intent.latest_charge),
            evidence=evidence(response, intent.id),
        )

    async def _void(self, instruction: VoidInstruction) -> Outcome | Unknown:
        """After a partial capture the rest is released by a last capture of nothing, as Stripe documents it."""
        intent = f"payment_intents/{instruction.payment_intent}"
        if instruction.partly_captured:
            nothing: PaymentIntentCaptureParams = {"amount_to_capture": 0, "final_capture": True}
            response = await self._post(f"{intent}/capture", nothing, instruction)
        else:
            cancel: PaymentIntentCancelParams = {"cancellation_reason": "requested_by_customer"}
            response = await self._post(f"{intent}/cancel", cancel, instruction)
        return RecordVoided(instruction.operation, evidence(response, read(response, Intent).id))

    async def _refund(self, instruction: RefundInstruction) -> Outcome | Unknown:
        params: RefundCreateParams = {
            "amount": to_stripe(instruction.amount),
            "metadata": marks(instruction),
        }
        response = await self._post("refunds", {**params, **bare.named(instruction.payment_intent)}, instruction)
        refund = read(response, Refund)
        proof = evidence(response, refund.id)
        if failure := refund_failure(refund):
            return RecordFailed(operation=instruction.operation, failure=failure, evidence=proof)
        return RecordRefunded(instruction.operation, from_stripe(refund.amount, refund.currency), refund.id, proof)

    # --- The call ------------------------------------------------------------------------------------------------

    async def _get(self, path: str, /, **params: object) -> stripe.StripeResponse:
        response: stripe.StripeResponse = await self._client.raw_request_async("get", f"/v1/{path}", **params)
        return response

    async def _post(
        self, path: str, params: Mapping[str, object], instruction: Instruction, step: str = ""
    ) -> stripe.StripeResponse:
        """A POST under the operation's own key. The SDK encodes, signs, retries and judges the status."""
        response: stripe.StripeResponse = await self._client.raw_request_async(
            "post", f"/v1/{path}", idempotency_key=instruction.idempotency_key + step, **params
        )
        return response

    async def _ask(self, operation: str, call: Callable[[], Awaitable[Outcome | Unknown]]) -> Outcome | Unknown:
        """Make the call within its deadline and judge how it ended. Only a clear no is a failure."""
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


def _judged(operation: str, error: stripe.StripeError) -> Outcome | Unknown:
    try:
        verdict = judge(error)
    except GatewayMisconfigured:
        log.error("the provider refuses our credentials", extra={"operation": operation})  # noqa: TRY400  its text may quote the key
        return Unknown("misconfigured")
    if isinstance(verdict, Refused):
        return RecordFailed(operation, verdict.failure, verdict.evidence, verdict.payment_intent, verdict.expired)
    return verdict
