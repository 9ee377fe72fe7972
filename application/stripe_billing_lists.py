"""Stripe's lists, read to their ends or as far as is worth it."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import stripe
from msgspec import Struct

from application.stripe_answers import Charge, Page, Refund, evidence, read
from application.stripe_billing_answers import Invoice, Line, PriceTold, ProductTold, Subscription
from application.stripe_billing_outcomes import told_at

PAGE = 100

Listed = TypeVar("Listed", Subscription, Invoice, Line, PriceTold, ProductTold, Charge, Refund)


class Get(Protocol):
    """A GET below `/v1/`."""

    def __call__(self, path: str, /, **params: object) -> Awaitable[stripe.StripeResponse]: ...


class Listing(Struct, Generic[Listed], frozen=True):
    """A list of Stripe's, the newest first, as it was `as_of`. Not `whole`: there are more than were asked for."""

    found: list[Listed]
    evidence: str
    whole: bool
    as_of: datetime


async def listing(get: Get, path: str, page: type[Page[Listed]], most: int, /, **params: object) -> Listing[Listed]:
    """As many pages of a list as there are, and `most` at the most."""
    response = await get(path, limit=PAGE, **params)
    as_of, listed = told_at(response), read(response, page)
    found = listed.data
    for _ in range(most - 1):
        if not (listed.has_more and listed.data):
            break
        response = await get(path, limit=PAGE, **params, starting_after=listed.data[-1].id)
        listed = read(response, page)
        found += listed.data
    return Listing(found, evidence(response, path), not (listed.has_more and listed.data), as_of)
