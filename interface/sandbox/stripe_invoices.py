"""An invoice's life: draft -> open -> paid | uncollectible | void. How it is paid is told in `stripe_collection`.

The customer's balance takes part when an invoice is finalized: a credit lowers what is due, and what is negative or
too little to charge is carried over to the next invoice.
"""

from collections.abc import Iterable

from interface.sandbox import stripe_objects as form
from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_invoice_objects import (
    Sold,
    invoice_form,
    invoice_payment_form,
    line_form,
    line_of_pending,
)
from interface.sandbox.stripe_money import MINIMUM_MINOR
from interface.sandbox.stripe_standings import in_good_standing_again
from interface.sandbox.stripe_store import SUBSCRIPTION_OF_INVOICE, Change

FINALIZED_AFTER_S = 3600

_PURPOSE = {"subscription_create": "Subscription creation"}


def draft(
    change: Change, subscription: Json, reason: str, period: tuple[int, int], sold: Iterable[Sold], *, later: bool
) -> Json:
    """An invoice over what is sold and what was waiting. `later`: it will be finalized by itself in an hour."""
    customer = change.get("customer", subscription["customer"], "customer")
    invoice = invoice_form(subscription, customer, reason, period, change.now)
    lines = []
    for pending in waiting(change, subscription):
        lines.append(line_of_pending(invoice["id"], pending))
        change.put(pending)["invoice"] = invoice["id"]
    lines += [line_form(invoice["id"], one) for one in sold]
    invoice["lines"]["data"] = lines
    total = sum(line["amount"] for line in lines)
    invoice |= dict.fromkeys(("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"), total)
    invoice |= dict.fromkeys(("amount_due", "amount_remaining"), max(0, total))
    if later:
        at = change.now + FINALIZED_AFTER_S
        invoice |= {"automatically_finalizes_at": at, "next_payment_attempt": at}
    change.put(invoice)
    change.emit("invoice.created", invoice)
    return invoice


def waiting(change: Change, subscription: Json) -> list[Json]:
    """The prorations that no invoice has taken yet, oldest first."""
    found = change.related("invoiceitem", SUBSCRIPTION_OF_INVOICE, subscription["id"])
    return [pending for pending in found if pending["invoice"] is None and not pending.get("deleted")][::-1]


def finalize(change: Change, invoice: Json) -> None:
    """From now on it cannot be changed, only paid or given up. When nothing is due, it is paid at once."""
    assert invoice["status"] == "draft", "finalized twice"  # noqa: S101
    customer = change.get("customer", invoice["customer"], "customer")
    balance, number = customer["balance"], customer["next_invoice_sequence"]
    due = invoice["total"] + balance
    carried = due if due < MINIMUM_MINOR.get(invoice["currency"], 1) else 0
    customer |= {"balance": carried, "next_invoice_sequence": number + 1}
    change.put(customer)
    if carried != balance:
        change.emit("customer.updated", customer, {"balance": balance})
    invoice["status_transitions"]["finalized_at"] = change.now
    invoice |= {
        "amount_due": due - carried,
        "amount_remaining": due - carried,
        "automatically_finalizes_at": None,
        "effective_at": change.now,
        "ending_balance": carried,
        "hosted_invoice_url": f"https://invoice.stripe.com/i/acct_sandbox/{invoice['id']}",
        "number": f"{customer['invoice_prefix']}-{number:04}",
        "starting_balance": balance,
        "status": "open",
    }
    change.put(invoice)
    change.emit("invoice.finalized", invoice)
    if invoice["amount_due"] == 0:
        mark_paid(change, invoice)
    else:
        _ask_for_payment(change, invoice)


def _ask_for_payment(change: Change, invoice: Json) -> Json:
    reason = invoice["billing_reason"]
    asked = {
        "amount": invoice["amount_remaining"],
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "description": _PURPOSE.get(reason, "Subscription update"),
        "setup_future_usage": "off_session" if reason == "subscription_create" else None,
    }
    intent = change.put(form.payment_intent(asked, change.now))
    change.put(invoice_payment_form(invoice, intent, change.now))
    change.emit("payment_intent.created", intent)
    return intent


def intent_of(change: Change, invoice: Json) -> Json:
    """The PaymentIntent that is to pay it; a new one where somebody canceled the old one."""
    for payment in change.related("invoice_payment", "invoice", invoice["id"]):
        if payment["status"] == "open":
            intent = change.get("payment_intent", payment["payment"]["payment_intent"], "payment_intent")
            if intent["status"] != "canceled":
                return intent
            _end_payment(change, payment, "canceled")
    return _ask_for_payment(change, invoice)


def mark_paid(change: Change, invoice: Json, *, amount: int = 0) -> None:
    """`amount` is what was paid for it just now, in minor units; what is left of it was paid elsewhere."""
    assert invoice["status"] in ("open", "uncollectible"), "paid what is not owed"  # noqa: S101
    invoice["status_transitions"]["paid_at"] = change.now
    invoice |= {
        "amount_paid": invoice["amount_paid"] + amount,
        "amount_paid_off_stripe": (invoice["amount_remaining"] - amount) or None,
        "amount_remaining": 0,
        "attempted": True,
        "next_payment_attempt": None,
        "status": "paid",
    }
    change.put(invoice)
    for payment in change.related("invoice_payment", "invoice", invoice["id"]):
        if payment["status"] == "open" and amount:
            _end_payment(change, payment, "paid")
        elif payment["status"] == "open":
            _drop_payment(change, payment)
    change.emit("invoice.paid", invoice)
    change.emit("invoice.payment_succeeded", invoice)
    delinquent(change, invoice, owing=False)
    in_good_standing_again(change, invoice)


def give_up(change: Change, invoice: Json, status: str, told: str) -> None:
    """Void or uncollectible: nothing is asked for any more."""
    moment = {"void": "voided_at", "uncollectible": "marked_uncollectible_at"}[status]
    invoice["status_transitions"][moment] = change.now
    invoice |= {"auto_advance": False, "next_payment_attempt": None, "status": status}
    change.put(invoice)
    if status == "void":
        for payment in change.related("invoice_payment", "invoice", invoice["id"]):
            if payment["status"] == "open":
                _drop_payment(change, payment)
    change.emit(told, invoice)


def _end_payment(change: Change, payment: Json, status: str) -> None:
    payment["status_transitions"]["paid_at" if status == "paid" else "canceled_at"] = change.now
    payment |= {"status": status, "amount_paid": payment["amount_requested"] if status == "paid" else None}
    change.put(payment)
    if status == "paid":
        change.emit("invoice_payment.paid", payment)


def _drop_payment(change: Change, payment: Json) -> None:
    """Its PaymentIntent is not needed any more."""
    _end_payment(change, payment, "canceled")
    intent = change.get("payment_intent", payment["payment"]["payment_intent"], "payment_intent")
    if intent["status"] in ("succeeded", "canceled"):
        return
    intent |= {"status": "canceled", "canceled_at": change.now, "cancellation_reason": "void_invoice"}
    intent["next_action"] = None
    change.put(intent)
    change.emit("payment_intent.canceled", intent)


def delinquent(change: Change, invoice: Json, *, owing: bool) -> None:
    """Whether the customer's latest invoice that changed is owed after a failed attempt."""
    customer = change.find("customer", invoice["customer"])
    if customer is None or customer.get("deleted") or customer["delinquent"] == owing:
        return
    change.put(customer)["delinquent"] = owing
    change.emit("customer.updated", customer, {"delinquent": not owing})
