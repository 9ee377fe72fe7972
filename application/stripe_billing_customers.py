"""A customer is made at Stripe, and what it and its subscriptions pay with. All of it may be repeated."""

from collections.abc import Mapping
from urllib.parse import quote

import stripe
from stripe.params import (
    CustomerCreateParams,
    CustomerUpdateParams,
    PaymentMethodCreateParams,
    SubscriptionUpdateParams,
)

from application.billing import CreateCustomer, SetCard
from application.stripe_answers import Method, evidence, read
from application.stripe_billing_answers import Customer, PaymentMethod, Subscription
from application.stripe_billing_lookups import subscriptions_of
from application.stripe_billing_outcomes import USER, card_seen, changed_by, marks
from application.stripe_client import StripeApi
from application.stripe_errors import despite_kept_error
from domain.customer_commands import RecordCard, RecordCreated, RecordRefused
from domain.payment_facts import Failure

NOT_A_CARD = Failure("payment_method_not_card", None, "only cards are taken here", retryable=False)
TOKEN = "tok_"  # noqa: S105  how such a name begins


async def create(instruction: CreateCustomer, api: StripeApi) -> RecordCreated:
    ours = marks(instruction)
    if instruction.user is not None:
        ours[USER] = instruction.user
    params: CustomerCreateParams = {"metadata": ours}
    if instruction.email is not None:
        params["email"] = instruction.email
    response = await api.post("customers", params, instruction.idempotency_key)
    made = read(response, Customer)
    return RecordCreated(instruction.operation, made.id, evidence(response, made.id))


async def set_card(instruction: SetCard, api: StripeApi) -> RecordCard | RecordRefused:
    """The customer is told last, and marked then: whoever finds the mark knows that all before it was done.

    Raises stripe.StripeError. A card that its issuer would decline is declined when it is attached
    (https://docs.stripe.com/api/payment_methods/attach), and then nothing else has changed.
    """
    attached = await _attached(instruction, api)
    seen = card_seen(read(attached, PaymentMethod))
    if seen is None:
        return RecordRefused(instruction.operation, NOT_A_CARD, evidence(attached, instruction.payment_method))
    for subscription in (await subscriptions_of(instruction.provider_customer, api.get)).found:
        if _pays_otherwise(subscription, seen.payment_method):
            await _move(subscription.id, seen.payment_method, instruction, api)
    params: CustomerUpdateParams = {
        "invoice_settings": {"default_payment_method": seen.payment_method},
        "metadata": changed_by(instruction),
    }
    response = await _step(f"customers/{instruction.provider_customer}", params, ":default", instruction, api)
    proof = evidence(response, seen.payment_method)
    return RecordCard(instruction.operation, seen.payment_method, seen.card, seen.fingerprint, proof)


async def _attached(instruction: SetCard, api: StripeApi) -> stripe.StripeResponse:
    """The payment method, as the customer's. One that was the customer's before is as good."""
    name = quote(await _method(instruction, api), safe="")
    customer = instruction.provider_customer
    try:
        return await _step(f"payment_methods/{name}/attach", {"customer": customer}, ":attach", instruction, api)
    except stripe.InvalidRequestError:
        found = await api.get(f"payment_methods/{name}")
        if read(found, PaymentMethod).customer != customer:
            raise
        return found


async def _method(instruction: SetCard, api: StripeApi) -> str:
    """Of one of Stripe's older card tokens; what is none is a method already."""
    if not instruction.payment_method.startswith(TOKEN):
        return instruction.payment_method
    params: PaymentMethodCreateParams = {"type": "card", "card": {"token": instruction.payment_method}}
    return read(await _step("payment_methods", params, ":method", instruction, api), Method).id


def _pays_otherwise(subscription: Subscription, method: str) -> bool:
    """Whether it has something of its own to pay with: that comes before the customer's
    (https://docs.stripe.com/api/subscriptions/object#subscription_object-default_payment_method).
    """
    own = subscription.default_payment_method or subscription.default_source
    return not subscription.over and own not in {None, method}


async def _move(subscription: str, method: str, instruction: SetCard, api: StripeApi) -> None:
    """Its own payment method is given up for the new one, unless it has ended meanwhile."""
    params: SubscriptionUpdateParams = {"default_payment_method": method}
    try:
        await _step(f"subscriptions/{subscription}", params, f":{subscription}", instruction, api)
    except stripe.InvalidRequestError:
        if not read(await api.get(f"subscriptions/{subscription}"), Subscription).over:
            raise


async def _step(
    path: str, params: Mapping[str, object], step: str, instruction: SetCard, api: StripeApi
) -> stripe.StripeResponse:
    """One of the operation's requests, under a key of its own. None of them moves money."""
    key = instruction.idempotency_key + step
    return await despite_kept_error(lambda again: api.post(path, params, key + again))
