"""Questions to Stripe about billing. None moves anything, and none raises: what could not be learned is Unknown."""

from collections.abc import Awaitable, Sequence
from typing import Generic, Protocol, TypeVar
from uuid import UUID

import stripe
from msgspec import Struct

from application.billing import CustomerSeen, Price, Product, SubscriptionSeen
from application.gateway import Absent, Unknown
from application.stripe_answers import Found, Page, evidence, read
from application.stripe_billing_answers import (
    Customer,
    Invoice,
    InvoiceIntent,
    Line,
    PaymentMethod,
    PriceTold,
    ProductTold,
    Subscription,
)
from application.stripe_billing_outcomes import (
    CHANGED_BY,
    OPERATION,
    STREAM,
    billed,
    card_seen,
    is_failing,
    standing,
    stream_named,
    told_at,
)
from application.stripe_client import looked
from domain.money import from_stripe
from domain.subscription_commands import InvoiceOutcome

PAGE = 100
# A thousand invoices: eighty years of months, nineteen of weeks. Of daily ones the latest thousand are told.
MAX_PAGES = 10
MAX_CATALOG_PAGES = 50
# An account may leave what was never paid open for ever. Each takes a question of its own: the latest are asked about.
MAX_OWED = 24
NAMELESS = Unknown("no name to look for")

Listed = TypeVar("Listed", Subscription, Invoice, Line, PriceTold, ProductTold)


class Get(Protocol):
    """A GET below `/v1/`."""

    def __call__(self, path: str, /, **params: object) -> Awaitable[stripe.StripeResponse]: ...


class Listing(Struct, Generic[Listed], frozen=True):
    """A list of Stripe's, the newest first. Not `whole`: there are more than were asked for."""

    found: list[Listed]
    evidence: str
    whole: bool


async def listing(get: Get, path: str, page: type[Page[Listed]], most: int, /, **params: object) -> Listing[Listed]:
    """As many pages of a list as there are, and `most` at the most."""
    found: list[Listed] = []
    after: dict[str, object] = {}
    proof, more = path, True
    for _ in range(most):
        response = await get(path, limit=PAGE, **params, **after)
        listed = read(response, page)
        found += listed.data
        proof, more = evidence(response, path), listed.has_more and bool(listed.data)
        if not more:
            break
        after = {"starting_after": listed.data[-1].id}
    return Listing(found, proof, not more)


class StripeBillingLookups:
    """The part of BillingGateway that asks."""

    def __init__(self, get: Get) -> None:
        self._get = get

    async def customer(self, stream: UUID | None, provider_customer: str | None) -> CustomerSeen | Absent | Unknown:
        """See BillingGateway. Stripe's search shows an object within a minute (https://docs.stripe.com/search#data-freshness)."""

        async def ask() -> CustomerSeen | Absent | Unknown:
            name = provider_customer
            if name is None:
                if stream is None:
                    return NAMELESS
                response = await self._get("customers/search", query=f"metadata['{STREAM}']:'{stream}'")
                found = read(response, Page[Found]).data
                if not found:
                    return Absent(evidence(response, "search"))
                name = found[-1].id
            response = await self._get(f"customers/{name}", expand=["invoice_settings.default_payment_method"])
            return _customer_seen(response)

        return await looked(ask)

    async def subscription(
        self, stream: UUID | None, subscription: str | None, provider_customer: str | None
    ) -> SubscriptionSeen | Absent | Unknown:
        """See BillingGateway. Among those of its customer it is found at once, where a search would lag."""

        async def ask() -> SubscriptionSeen | Absent | Unknown:
            name = subscription
            if name is None:
                if stream is None or provider_customer is None:
                    return NAMELESS
                owned = await subscriptions_of(provider_customer, self._get, status="all")
                name = next((one.id for one in owned.found if stream_named(one.metadata) == stream), None)
                if name is None:
                    return Absent(owned.evidence) if owned.whole else Unknown("too many subscriptions")
            response = await self._get(f"subscriptions/{name}")
            return _subscription_seen(response, await self._invoices(name))

        return await looked(ask)

    async def subscriptions_of(self, provider_customer: str) -> tuple[str, ...] | Absent | Unknown:
        """See BillingGateway."""

        async def ask() -> tuple[str, ...] | Unknown:
            owned = await subscriptions_of(provider_customer, self._get, status="all")
            return tuple(one.id for one in owned.found) if owned.whole else Unknown("too many subscriptions")

        return await looked(ask)

    async def catalog(self) -> tuple[Product, ...] | Unknown:
        """See BillingGateway. What is sold once, or at a price that is not so much a piece, is left out."""

        async def ask() -> tuple[Product, ...] | Unknown:
            prices = await listing(self._get, "prices", Page[PriceTold], MAX_CATALOG_PAGES, type="recurring")
            products = await listing(self._get, "products", Page[ProductTold], MAX_CATALOG_PAGES)
            if not (prices.whole and products.whole):
                return Unknown("too many products or prices")  # a part would be taken for all there is
            known: dict[str, list[Price]] = {}
            for price in filter(None, map(_price, prices.found)):
                known.setdefault(price.product, []).append(price)
            return tuple(_product(told, known.get(told.id, ())) for told in products.found)

        found = await looked(ask)
        return Unknown("the cursor is gone") if isinstance(found, Absent) else found

    # --- Invoices ------------------------------------------------------------------------------------------------

    async def _invoices(self, subscription: str) -> tuple[InvoiceOutcome, ...]:
        """What came of them, the oldest first."""
        listed = await listing(
            self._get, "invoices", Page[Invoice], MAX_PAGES, subscription=subscription, expand=["data.payments"]
        )
        failing = [invoice for invoice in listed.found if is_failing(invoice)]
        forgotten = {invoice.id for invoice in failing[MAX_OWED:]}
        told = [await self._billed(one, listed.evidence) for one in listed.found if one.id not in forgotten]
        return tuple(outcome for outcome in reversed(told) if outcome is not None)

    async def _billed(self, invoice: Invoice, proof: str) -> InvoiceOutcome | None:
        intent = await self._intent(invoice) if is_failing(invoice) else None
        return billed(invoice, await self._lines(invoice), intent, proof)

    async def _intent(self, invoice: Invoice) -> InvoiceIntent | None:
        name = invoice.intent
        return None if name is None else read(await self._get(f"payment_intents/{name}"), InvoiceIntent)

    async def _lines(self, invoice: Invoice) -> list[Line]:
        """An invoice brings its first ten along."""
        if not invoice.lines.has_more:
            return invoice.lines.data
        return (await listing(self._get, f"invoices/{invoice.id}/lines", Page[Line], MAX_PAGES)).found


async def subscriptions_of(customer: str, get: Get, /, **params: object) -> Listing[Subscription]:
    """Those of a customer that are not cancelled, or by their `status`."""
    return await listing(get, "subscriptions", Page[Subscription], MAX_PAGES, customer=customer, **params)


def _customer_seen(response: stripe.StripeResponse) -> CustomerSeen | Absent:
    found = read(response, Customer)
    if found.deleted:
        return Absent(evidence(response, found.id))
    method = found.invoice_settings.default_payment_method
    return CustomerSeen(
        provider_customer=found.id,
        operation=found.metadata.get(OPERATION),
        card=card_seen(method) if isinstance(method, PaymentMethod) else None,
        evidence=evidence(response, found.id),
        changed_by=found.metadata.get(CHANGED_BY),
        stream=stream_named(found.metadata),
    )


def _subscription_seen(response: stripe.StripeResponse, invoices: tuple[InvoiceOutcome, ...]) -> SubscriptionSeen:
    told = read(response, Subscription)
    return SubscriptionSeen(
        subscription=told.id,
        stream=stream_named(told.metadata),
        operation=told.metadata.get(OPERATION),
        provider_customer=told.customer,
        standing=standing(told),
        invoices=invoices,
        as_of=told_at(response),
        evidence=evidence(response, told.id),
        changed_by=told.metadata.get(CHANGED_BY),
    )


def _product(told: ProductTold, prices: Sequence[Price]) -> Product:
    return Product(told.id, told.name, told.active, told.default_price, tuple(prices))


def _price(told: PriceTold) -> Price | None:
    if told.recurring is None or told.unit_amount is None:
        return None
    return Price(
        id=told.id,
        product=told.product,
        amount=from_stripe(told.unit_amount, told.currency),
        interval=told.recurring.interval,
        interval_count=told.recurring.interval_count,
        active=told.active,
    )
