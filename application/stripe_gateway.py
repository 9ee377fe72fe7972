"""Stripe behind the port: PaymentIntents through the SDK's async client.

Only this file and its neighbours stripe_* import stripe.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import aiohttp
import stripe
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
from application.stripe_client import OPERATION_DEADLINE_S, StripeApi, answered
from application.stripe_errors import Refused
from application.stripe_lookups import StripeLookups
from application.stripe_methods import NotAllowed, RawCard, of_card, of_token
from application.stripe_outcomes import authorization, charge_id
from application.stripe_standing import marks, refund_failure
from domain.money import from_stripe, to_stripe
from domain.payment_commands import Outcome, RecordCaptured, RecordFailed, RecordRefunded, RecordVoided
from domain.payment_facts import Failure

log = logging.getLogger(__name__)


class StripeGateway:
    """One a process. Every POST carries the operation's own idempotency key."""

    def __init__(self, api_key: str, api_base: str | None = None, public_url: str | None = None) -> None:
        self.api = StripeApi(api_key, api_base)
        self._public_url = public_url
        self._lookups = StripeLookups(self._get)

    async def charge(self, charge: str) -> ChargeSeen | Absent | Unknown:
        """See ChargeLookup."""
        return await self._lookups.charge(charge)

    async def method_of(self, card: RawCard) -> str | Failure | NotAllowed | Unknown:
        """A payment method for a card by its number: see of_card."""
        return await of_card(card, self.api.request)

    async def events(self, since: datetime, after: str | None) -> EventPage | Unknown:
        """A page of the list of events: see StripeLookups."""
        return await self._lookups.events(since, after)

    def unavailable_s(self) -> float | None:
        return None  # it does not remember: application/breaker.py does

    async def verify(self) -> None:
        """Ask Stripe who we are. Raises GatewayMisconfigured when it refuses, and only then."""
        try:
            async with asyncio.timeout(OPERATION_DEADLINE_S):
                await self.api.get("balance")
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            raise GatewayMisconfigured(type(error).__name__) from error
        except (stripe.StripeError, aiohttp.ClientError, TimeoutError):
            log.warning("the provider did not answer at start-up; operations stay open until it does")

    async def close(self) -> None:
        await self.api.close()

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        operation = instruction.operation
        answer = await answered(operation, lambda: self._perform(instruction))
        if isinstance(answer, Refused):
            return RecordFailed(operation, answer.failure, answer.evidence, answer.payment_intent, answer.expired)
        return answer

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

    async def _get(self, path: str, /, **params: object) -> stripe.StripeResponse:
        return await self.api.get(path, **params)

    async def _post(
        self, path: str, params: Mapping[str, object], instruction: Instruction, step: str = ""
    ) -> stripe.StripeResponse:
        """A POST under the operation's own key."""
        return await self.api.post(path, params, instruction.idempotency_key + step)
