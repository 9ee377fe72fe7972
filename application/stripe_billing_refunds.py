"""What has gone back of what invoices were paid with.

An invoice names the PaymentIntents that paid it (https://docs.stripe.com/api/invoice-payment/object), a charge its own,
and a refund its charge. No expansion of a list of invoices reaches as far (https://docs.stripe.com/api/expanding_objects
names the limit), so the charges of the customer are listed, with their latest refunds. Of these such as have not failed
count: whether a charge's own `amount_refunded` forgets what failed later is not documented.
"""

from collections.abc import Collection, Sequence

from application.stripe_answers import Charge, Page, Refund
from application.stripe_billing_answers import Invoice
from application.stripe_billing_lists import Get, Listing, listing
from application.stripe_standing import refunds_seen
from domain.money import Money
from domain.subscription_commands import RecordInvoiceRefunded

# A thousand charges of a customer: what was paid before is not looked at again.
MAX_PAGES = 10


async def refunds_of(get: Get, customer: str, invoices: Sequence[Invoice]) -> tuple[RecordInvoiceRefunded, ...]:
    """Of each of these invoices of a customer what has gone back by now, if only nothing; of none that is not known."""
    paid = [invoice for invoice in invoices if invoice.status == "paid" and invoice.paid_by]
    if not paid:
        return ()
    charges = await listing(get, "charges", Page[Charge], MAX_PAGES, customer=customer, expand=["data.refunds"])
    back = {charge.payment_intent or charge.id: await _gone_back(get, charge) for charge in _succeeded(charges)}
    return tuple(
        RecordInvoiceRefunded(
            invoice.id,
            Money(sum(back.get(name, 0) for name in invoice.paid_by), invoice.currency),
            charges.as_of,
            charges.evidence,
        )
        for invoice in paid
        if charges.whole or invoice.paid_by <= back.keys()
    )


def _succeeded(charges: Listing[Charge]) -> Collection[Charge]:
    return [charge for charge in charges.found if charge.status == "succeeded"]


async def _gone_back(get: Get, charge: Charge) -> int:
    """In minor units."""
    page = charge.refunds
    if page is None or page.has_more:
        found = (await listing(get, "refunds", Page[Refund], MAX_PAGES, charge=charge.id)).found
    else:
        found = page.data
    return sum(seen.amount.minor for seen in refunds_seen(found) if seen.failure is None)
