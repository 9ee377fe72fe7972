"""What is done to customers and subscriptions that nobody asked us for: in the provider's portal and dashboard."""

from collections.abc import Callable
from typing import Any

import stripe

from projections.customer_rows import SubscriptionAt
from tests.billing_years import World


def elsewhere(world: World, customer: str, at: SubscriptionAt, price: Any) -> None:
    """One thing, to one of a customer's subscriptions."""
    sdk, rng, name = world.shop.sdk, world.rng, at.state.provider_subscription
    match rng.choice(("changed", "planned", "ended", "begun", "card", "refunded", "refunded")):
        case "changed":
            item = sdk.subscriptions.retrieve(name)["items"].data[0].id
            told = {"items": [{"id": item, "price": price.id, "quantity": rng.randint(1, 4)}]}
            out(world, lambda: sdk.subscriptions.update(name, told))
        case "planned":
            out(world, lambda: sdk.subscriptions.update(name, {"cancel_at_period_end": True}))
        case "ended":
            out(world, lambda: sdk.subscriptions.cancel(name))
        case "begun":
            begun = {"customer": customer, "items": [{"price": price.id}]}
            out(world, lambda: sdk.subscriptions.create(begun))
        case "card":
            card = rng.choice(("pm_card_visa", "pm_card_chargeCustomerFail"))
            method = sdk.payment_methods.attach(card, {"customer": customer})
            default = {"invoice_settings": {"default_payment_method": method.id}}
            out(world, lambda: sdk.customers.update(customer, default))
        case _:
            _give_back(world, name)


def _give_back(world: World, subscription: str | None) -> None:
    """One of the latest payments: some of it, or all that is left."""
    wanted = {"subscription": subscription, "status": "paid", "limit": 3, "expand": ["data.payments"]}
    paid = [one for one in world.shop.sdk.invoices.list(wanted).data if one.payments.data]
    if paid:
        back = {"payment_intent": world.rng.choice(paid).payments.data[0].payment.payment_intent}
        part = {"amount": world.rng.randint(1, 9_00)} if world.rng.random() < 0.5 else {}
        out(world, lambda: world.shop.sdk.refunds.create({**back, **part}))


def out(world: World, call: Callable[[], Any]) -> None:
    """Something is done at the provider; it may say no."""
    try:
        call()
    except stripe.StripeError:
        world.counted["refused elsewhere"] += 1
    else:
        world.counted["done elsewhere"] += 1
