"""Questions to Stripe about billing. None moves anything, and none raises: what could not be learned is Unknown."""

from collections.abc import Sequence
from uuid import UUID

import stripe

from application.billing import CustomerSeen, Price, Product, SubscriptionSeen
from application.gateway import Absent, Unknown
from application.stripe_answers import Found, Page, evidence, read
from application.stripe_bare_charges import is_bare
from application.stripe_billing_answers import (
    Customer,
    Invoice,
    InvoiceIntent,
    Line,
    Owned,
    PaymentMethod,
    PriceTold,
    ProductTold,
    Subscription,
)
from application.stripe_billing_lists import Get, Listing, listing
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
from application.stripe_billing_refunds import refunds_of
from application.stripe_client import looked
from domain.money import from_stripe
from domain.subscription_commands import InvoiceOutcome, RecordInvoiceRefunded, RecordRenewal

# A thousand invoices: eighty years of months, nineteen of weeks. Of daily ones the latest thousand are told.
MAX_PAGES = 10
MAX_CATALOG_PAGES = 50
# An account may leave what was never paid open for ever. Each takes a question of its own: the latest are asked about.
MAX_OWED = 24
NAMELESS = Unknown("no name to look for")


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
            told = read(response, Subscription)
            listed = await listing(
                self._get, "invoices", Page[Invoice], MAX_PAGES, subscription=name, expand=["data.payments"]
            )
            invoices = await self._billed_all(listed)
            renewed = {one.invoice for one in invoices if isinstance(one, RecordRenewal)}
            paid = [invoice for invoice in listed.found if invoice.id in renewed]
            return _subscription_seen(response, invoices, await refunds_of(self._get, told.customer, paid))

        return await looked(ask)

    async def subscriptions_of(self, provider_customer: str) -> tuple[str, ...] | Absent | Unknown:
        """See BillingGateway."""

        async def ask() -> tuple[str, ...] | Unknown:
            owned = await subscriptions_of(provider_customer, self._get, status="all")
            return tuple(one.id for one in owned.found) if owned.whole else Unknown("too many subscriptions")

        return await looked(ask)

    async def customer_of(self, payment: str) -> str | Absent | Unknown:
        """See BillingGateway. A PaymentIntent's, or a charge's without one."""

        async def ask() -> str | Absent:
            response = await self._get(f"{'charges' if is_bare(payment) else 'payment_intents'}/{payment}")
            return read(response, Owned).customer or Absent(evidence(response, payment))

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

    async def _billed_all(self, listed: Listing[Invoice]) -> tuple[InvoiceOutcome, ...]:
        """What came of them, the oldest first."""
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


def _subscription_seen(
    response: stripe.StripeResponse,
    invoices: tuple[InvoiceOutcome, ...],
    refunds: tuple[RecordInvoiceRefunded, ...],
) -> SubscriptionSeen:
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
        refunds=refunds,
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
