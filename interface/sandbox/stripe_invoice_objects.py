"""The shapes of invoices when they are new: the invoice, its lines, what waits for the next one, its payments."""

from typing import NamedTuple

from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_objects import listed

_NOTHING = (
    "account_tax_ids", "amount_paid_off_stripe", "application", "automatically_finalizes_at", "custom_fields",
    "customer_account", "default_payment_method", "default_source", "description", "due_date", "effective_at",
    "ending_balance", "footer", "from_invoice", "hosted_invoice_url", "invoice_pdf", "last_finalization_error",
    "latest_revision", "next_payment_attempt", "number", "on_behalf_of", "receipt_number", "rendering",
    "shipping_cost", "shipping_details", "statement_descriptor", "status_details", "test_clock", "threshold_reason",
    "webhooks_delivered_at",
)  # fmt: skip
_ZERO = (
    "amount_overpaid", "amount_paid", "amount_shipping", "attempt_count", "post_payment_credit_notes_amount",
    "pre_payment_credit_notes_amount",
)  # fmt: skip
_EMPTY = ("customer_tax_ids", "default_tax_rates", "discounts", "total_discount_amounts", "total_taxes")


class Sold(NamedTuple):
    """What a line is about: a subscription's item, at a price, for a time. `amount` is signed, in minor units."""

    item: Json
    amount: int
    period: tuple[int, int]
    description: str
    # The line or the invoiceitem that a credit gives back from, where there is one.
    credited: Json | None = None


def invoice_form(subscription: Json, customer: Json, reason: str, period: tuple[int, int], now: int) -> Json:
    """A draft without lines."""
    wanted = new_id("in_")
    details = {"metadata": subscription["metadata"], "subscription": subscription["id"]}
    return {
        "id": wanted,
        "object": "invoice",
        **dict.fromkeys(_NOTHING),
        **dict.fromkeys(_ZERO, 0),
        **{name: [] for name in _EMPTY},
        **dict.fromkeys(("amount_due", "amount_remaining", "subtotal", "subtotal_excluding_tax", "total"), 0),
        "account_country": "US",
        "account_name": "payledger sandbox",
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None,
        },
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": subscription["currency"],
        "customer": customer["id"],
        **{f"customer_{name}": customer[name] for name in ("address", "email", "name", "phone", "shipping")},
        "customer_tax_exempt": customer["tax_exempt"],
        "issuer": {"type": "self"},
        "lines": listed([], f"/v1/invoices/{wanted}/lines", more=False),
        "livemode": False,
        "metadata": {},
        "parent": {"quote_details": None, "subscription_details": details, "type": "subscription_details"},
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": period[1],
        "period_start": period[0],
        "starting_balance": 0,
        "status": "draft",
        "status_transitions": dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
    }  # fmt: skip


def line_form(invoice: str, sold: Sold) -> Json:
    """A line for the time that an item is used."""
    item = sold.item
    details = {"invoice_item": None, "proration": False, "proration_details": None, **_owners(item)}
    return _line(
        invoice,
        amount=sold.amount,
        currency=item["price"]["currency"],
        description=sold.description,
        parent=_of_item(details),
        period={"end": sold.period[1], "start": sold.period[0]},
        pricing=_pricing(item),
        quantity=item["quantity"],
        subscription=item["subscription"],
    )


def line_of_pending(invoice: str, pending: Json) -> Json:
    """A line for what waited for an invoice."""
    owners = {name: pending["parent"]["subscription_details"][name] for name in ("subscription", "subscription_item")}
    credited = ((pending["proration_details"] or {}).get("credited_items") or {}).get("invoice_line_item_details")
    proration = {"credited_items": credited}
    details = {"invoice_item": pending["id"], "proration": True, "proration_details": proration, **owners}
    shared = ("amount", "currency", "description", "period", "pricing", "quantity")
    copied = {name: pending[name] for name in shared}
    return _line(invoice, parent=_of_item(details), subscription=owners["subscription"], **copied)


def _line(invoice: str, **given: object) -> Json:
    return {
        "id": new_id("il_"),
        "object": "line_item",
        "discount_amounts": [],
        "discountable": False,
        "discounts": [],
        "invoice": invoice,
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity_decimal": str(given["quantity"]),
        "subtotal": given["amount"],
        "taxes": [],
        **given,
    }


def _of_item(details: Json) -> Json:
    return {"invoice_item_details": None, "subscription_item_details": details, "type": "subscription_item_details"}


def _owners(item: Json) -> Json:
    return {"subscription": item["subscription"], "subscription_item": item["id"]}


def _pricing(item: Json) -> Json:
    price = item["price"]
    details = {"price": price["id"], "product": price["product"]}
    return {"price_details": details, "type": "price_details", "unit_amount_decimal": price["unit_amount_decimal"]}


def pending_form(customer: str, sold: Sold, now: int) -> Json:
    """A proration that waits for an invoice: an `invoiceitem`."""
    return {
        "id": new_id("ii_"),
        "object": "invoiceitem",
        "amount": sold.amount,
        "currency": sold.item["price"]["currency"],
        "customer": customer,
        "customer_account": None,
        "date": now,
        "description": sold.description,
        "discountable": False,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "net_amount": sold.amount,
        "parent": {"subscription_details": _owners(sold.item), "type": "subscription_details"},
        "period": {"end": sold.period[1], "start": sold.period[0]},
        "pricing": _pricing(sold.item),
        "proration": True,
        "proration_details": {"credited_items": _credited(sold.credited), "discount_amounts": []},
        "quantity": sold.item["quantity"],
        "quantity_decimal": str(sold.item["quantity"]),
        "tax_rates": [],
        "test_clock": None,
    }


def _credited(line: Json | None) -> Json | None:
    if line is None:
        return None
    if line["object"] == "invoiceitem":
        return {"invoice_item": line["id"], "invoice_line_item_details": None, "type": "invoice_item"}
    details = {"invoice": line["invoice"], "invoice_line_items": [line["id"]]}
    return {"invoice_item": None, "invoice_line_item_details": details, "type": "invoice_line_items"}


def invoice_payment_form(invoice: Json, intent: Json, now: int) -> Json:
    """The tie between an invoice and the PaymentIntent that is to pay it."""
    return {
        "id": new_id("inpay_"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": intent["amount"],
        "created": now,
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
