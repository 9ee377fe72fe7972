"""Stripe Billing behind the port (application/billing.py): customers, their cards and their subscriptions.

A subscription begins and changes only if what that costs at once is paid (`error_if_incomplete`): else Stripe answers
402, and nothing has begun or changed. Otherwise a declined card would leave an incomplete subscription behind for 23
hours, or an active one past due, while the caller, to whom 201 and 200 mean that it has what it asked for, was told so.
The price: whoever's card wants its holder at each payment (3-D Secure) cannot begin or change here at once, and hears
`authentication_required`; there is nobody to authenticate in a call between services, which is why it says that it is
off session, and a card that was set up for that is not asked. What is begun elsewhere may be incomplete all the same.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

import stripe
from stripe.params import SubscriptionCreateParams, SubscriptionUpdateParams

from application.billing import (
    BillingInstruction,
    CancelSubscription,
    ChangeSubscription,
    CreateCustomer,
    CustomerInstruction,
    ResumeSubscription,
    SetCard,
    StartSubscription,
    SubscriptionInstruction,
)
from application.gateway import Unknown
from application.stripe_answers import evidence, read
from application.stripe_billing_answers import Subscription, moment
from application.stripe_billing_customers import create, set_card
from application.stripe_billing_lookups import StripeBillingLookups
from application.stripe_billing_outcomes import (
    CHALLENGED,
    CHALLENGES,
    NO_METHOD,
    cancelled,
    changed_by,
    ends_at,
    is_repeated,
    marks,
    period,
    status,
    terms,
    told_at,
)
from application.stripe_client import MISSING, StripeApi, answered
from application.stripe_errors import Refused
from domain import customer_commands as customers
from domain import subscription_commands as subscriptions
from domain.payment_facts import Failure

SEVERAL_ITEMS = Failure(
    "several_items", None, "it was made elsewhere, of several things: it can be changed there only", retryable=False
)


class StripeBilling(StripeBillingLookups):
    """One a process, over the same client as StripeGateway. Every POST carries the operation's own idempotency key."""

    def __init__(self, api: StripeApi) -> None:
        super().__init__(api.get)
        self._api = api

    def unavailable_s(self) -> float | None:
        return None  # it does not remember: application/breaker.py does

    # --- Customers -----------------------------------------------------------------------------------------------

    async def perform_customer(self, instruction: CustomerInstruction) -> customers.CustomerOutcome | Unknown:
        answer = await answered(instruction.operation, lambda: self._customer(instruction))
        if isinstance(answer, Refused):
            return customers.RecordRefused(instruction.operation, _about(instruction, answer), answer.evidence)
        return answer

    async def _customer(self, instruction: CustomerInstruction) -> customers.CustomerOutcome:
        match instruction:
            case CreateCustomer():
                return await create(instruction, self._api)
            case SetCard():
                return await set_card(instruction, self._api)

    # --- Subscriptions -------------------------------------------------------------------------------------------

    async def perform_subscription(
        self, instruction: SubscriptionInstruction
    ) -> subscriptions.SubscriptionOutcome | Unknown:
        answer = await answered(instruction.operation, lambda: self._subscription(instruction))
        if isinstance(answer, Refused):
            return subscriptions.RecordRefused(instruction.operation, _about(instruction, answer), answer.evidence)
        return answer

    async def _subscription(self, instruction: SubscriptionInstruction) -> subscriptions.SubscriptionOutcome:
        try:
            return await self._carried_out(instruction)
        except stripe.InvalidRequestError as error:
            # What is missing has a name, unless it is something to pay with.
            if error.code != MISSING or error.param:
                raise
            return subscriptions.RecordRefused(instruction.operation, NO_METHOD, error.request_id or MISSING)

    async def _carried_out(self, instruction: SubscriptionInstruction) -> subscriptions.SubscriptionOutcome:
        match instruction:
            case StartSubscription():
                return await self._start(instruction)
            case ChangeSubscription():
                return await self._change(instruction)
            case CancelSubscription():
                return await self._cancel(instruction)
            case ResumeSubscription():
                return await self._resume(instruction)

    async def _start(self, instruction: StartSubscription) -> subscriptions.RecordStarted:
        params: SubscriptionCreateParams = {
            "customer": instruction.provider_customer,
            "items": [{"price": instruction.price, "quantity": instruction.quantity}],
            "payment_behavior": "error_if_incomplete",
            "off_session": True,
            "metadata": marks(instruction),
        }
        if instruction.trial_days:
            params["trial_period_days"] = instruction.trial_days
        response = await self._api.post("subscriptions", params, instruction.idempotency_key)
        begun = read(response, Subscription)
        return subscriptions.RecordStarted(
            operation=instruction.operation,
            subscription=begun.id,
            terms=terms(begun),
            status=status(begun),
            period=period(begun),
            as_of=moment(begun.created),  # so it stood then, however late the answer is repeated
            evidence=evidence(response, begun.id),
        )

    async def _change(
        self, instruction: ChangeSubscription
    ) -> subscriptions.RecordChanged | subscriptions.RecordRefused:
        """Prorations wait for the next invoice, unless the interval changes too: then a new period begins at once, and
        is billed at once (https://docs.stripe.com/billing/subscriptions/prorations).
        """
        wanted = (instruction.price, instruction.quantity)
        found = await self._found(instruction.subscription)
        before = read(found, Subscription)
        if len(before.items.data) > 1:
            return subscriptions.RecordRefused(instruction.operation, SEVERAL_ITEMS, evidence(found, before.id))
        params: SubscriptionUpdateParams = {
            "items": [{"id": before.item.id, "price": instruction.price, "quantity": instruction.quantity}],
            "proration_behavior": "create_prorations",
            "payment_behavior": "error_if_incomplete",
            "off_session": True,
            "metadata": changed_by(instruction),
        }
        response = await self._update(
            instruction.subscription, params, instruction, lambda now: (now.item.price.id, now.item.quantity) == wanted
        )
        told = read(response, Subscription)
        return subscriptions.RecordChanged(
            instruction.operation, terms(told), period(told), _as_of(response, told), evidence(response, told.id)
        )

    async def _cancel(
        self, instruction: CancelSubscription
    ) -> subscriptions.RecordCancelled | subscriptions.RecordScheduled:
        """What has ended already has ended: by this operation when it was first sent, or by another's."""
        params: SubscriptionUpdateParams = {"cancel_at_period_end": True, "metadata": changed_by(instruction)}
        path = f"subscriptions/{instruction.subscription}"
        try:
            if instruction.at_period_end:
                response = await self._api.post(path, params, instruction.idempotency_key)
            else:
                response = await self._api.delete(path)
        except stripe.InvalidRequestError:
            response = await self._found(instruction.subscription)
            if not read(response, Subscription).over:
                raise
        told = read(response, Subscription)
        proof = evidence(response, told.id)
        if (over := cancelled(told)) is not None:
            return subscriptions.RecordCancelled(instruction.operation, over.at, over.cause, proof)
        end = ends_at(told)
        assert end is not None, "it was planned to end"  # noqa: S101
        # `canceled_at` is when the end was planned, however late the answer is repeated.
        as_of = moment(told.canceled_at) if told.canceled_at is not None else _as_of(response, told)
        return subscriptions.RecordScheduled(instruction.operation, end, as_of, proof)

    async def _resume(self, instruction: ResumeSubscription) -> subscriptions.RecordResumed:
        """Stripe takes the two ways in which an end may be planned back one at a time, each by its own name."""
        response = await self._found(instruction.subscription)
        before = read(response, Subscription)
        if before.ending or before.over:
            params: SubscriptionUpdateParams = {"metadata": changed_by(instruction)}
            if before.cancel_at_period_end or before.over:
                params["cancel_at_period_end"] = False
            else:
                params["cancel_at"] = ""
            response = await self._update(instruction.subscription, params, instruction, lambda now: not now.ending)
        told = read(response, Subscription)
        return subscriptions.RecordResumed(instruction.operation, _as_of(response, told), evidence(response, told.id))

    async def _update(
        self,
        subscription: str,
        params: Mapping[str, object],
        instruction: BillingInstruction,
        holds: Callable[[Subscription], bool],
    ) -> stripe.StripeResponse:
        """An answer that is repeated does not say when it was first given: where what was asked for holds still, how it
        stands now is taken instead.
        """
        response = await self._api.post(f"subscriptions/{subscription}", params, instruction.idempotency_key)
        if is_repeated(response):
            now = await self._found(subscription)
            told = read(now, Subscription)
            return now if holds(told) and not told.over else response
        return response

    async def _found(self, subscription: str) -> stripe.StripeResponse:
        return await self._api.get(f"subscriptions/{subscription}")


def _as_of(response: stripe.StripeResponse, told: Subscription) -> datetime:
    """As of when it stood so. Of a repeated answer only that it was after the beginning: all that is known is later."""
    return moment(told.created) if is_repeated(response) else told_at(response)


def _about(instruction: BillingInstruction, refused: Refused) -> Failure:
    """Stripe quotes an e-mail that it does not like, and has several words for a card that wants its holder."""
    failure = refused.failure
    if isinstance(instruction, CreateCustomer):
        return Failure(
            failure.code, failure.decline_code, "the provider would not make the customer", failure.retryable
        )
    if failure.code in CHALLENGES or failure.decline_code in CHALLENGES:
        return CHALLENGED
    return failure
