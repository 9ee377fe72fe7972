"""Invoices as they are asked for: shown, listed, finalized, paid, voided, given up."""

from dataclasses import replace

from interface.sandbox import stripe_objects as form
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_collection import collect, finalize_and_collect
from interface.sandbox.stripe_errors import Json, StripeError, invalid
from interface.sandbox.stripe_invoices import delinquent, finalize, give_up, mark_paid
from interface.sandbox.stripe_lists import lister
from interface.sandbox.stripe_methods import not_attached
from interface.sandbox.stripe_standings import in_good_standing_again
from interface.sandbox.stripe_store import SUBSCRIPTION_OF_INVOICE, member

_NO_FILTERS = frozenset({"collection_method", "customer_account", "due_date"})


def retrieve_invoice(call: Call) -> Json:
    return call.named("invoice", "invoice")


def update_invoice(call: Call) -> Json:
    """Metadata and description, and whether it goes on by itself."""
    invoice = call.named("invoice", "invoice")
    if beyond := sorted(set(call.params) - {"metadata", "description", "auto_advance", "expand"}):
        raise invalid(f"The stand-in does not change {beyond[0]} of an invoice.", param=beyond[0])
    form.copied(invoice, call.params, ("description", "auto_advance"))
    call.change.put(invoice)
    call.change.emit("invoice.updated", invoice)
    return invoice


def finalize_invoice(call: Call) -> Json:
    invoice = _in_status(call, "finalized", "draft")
    if "auto_advance" in call.params:
        invoice["auto_advance"] = call.params["auto_advance"]
    finalize(call.change, invoice)
    if invoice["status"] == "open" and invoice["auto_advance"]:
        invoice["next_payment_attempt"] = call.now
    return invoice


def pay_invoice(call: Call) -> Json:
    """Now, with the card that is given or the default one; what the card answers is the answer."""
    invoice = _in_status(call, "paid", "draft", "open", "uncollectible")
    method = _method(call, invoice)
    if call.params.get("paid_out_of_band"):
        if invoice["status"] == "draft":
            finalize(call.change, invoice)
        if invoice["status"] != "paid":
            mark_paid(call.change, invoice)
        return invoice
    off_session = bool(call.params.get("off_session"))
    if invoice["status"] == "draft" and method is None:
        error = finalize_and_collect(call, invoice, off_session=off_session)
    else:
        if invoice["status"] == "draft":
            finalize(call.change, invoice)
        due = invoice["status"] != "paid"
        error = collect(call, invoice, off_session=off_session, method=method, automatic=False) if due else None
    if error is not None:
        raise error
    return invoice


def _method(call: Call, invoice: Json) -> Json | None:
    if (wanted := call.params.get("payment_method")) is None:
        return None
    method = call.change.get("payment_method", wanted, "payment_method", status=400)
    if method["customer"] != invoice["customer"]:
        raise not_attached(wanted, "payment_method")
    return method


def void_invoice(call: Call) -> Json:
    invoice = _in_status(call, "voided", "open", "uncollectible")
    give_up(call.change, invoice, "void", "invoice.voided")
    return _forgiven(call, invoice)


def mark_uncollectible(call: Call) -> Json:
    invoice = _in_status(call, "marked uncollectible", "open")
    give_up(call.change, invoice, "uncollectible", "invoice.marked_uncollectible")
    return _forgiven(call, invoice)


def _forgiven(call: Call, invoice: Json) -> Json:
    delinquent(call.change, invoice, owing=False)
    if invoice["billing_reason"] != "subscription_create":
        in_good_standing_again(call.change, invoice)
    return invoice


def _in_status(call: Call, done: str, *allowed: str) -> Json:
    invoice = call.named("invoice", "invoice")
    if invoice["status"] == "paid" and done == "paid":
        raise invalid("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] not in allowed:
        raise _wrong_status(invoice, done, allowed)
    return invoice


def _wrong_status(invoice: Json, done: str, allowed: tuple[str, ...]) -> StripeError:
    return invalid(
        f"The invoice is {invoice['status']}; only {' and '.join(allowed)} ones can be {done}.",
        code="invoice_not_editable" if done == "finalized" else None,
        param="invoice",
    )


# Lists

_LIST = lister(
    "invoice",
    "customer",
    "status",
    where=lambda call, invoice: call.params.get("subscription") in (None, member(invoice, SUBSCRIPTION_OF_INVOICE)),
)


def list_invoices(call: Call) -> Json:
    if beyond := sorted(_NO_FILTERS.intersection(call.params)):
        raise invalid(f"The stand-in does not filter by {beyond[0]}.", param=beyond[0])
    owner = call.change.find("subscription", call.params["subscription"]) if "subscription" in call.params else None
    if owner is None or "customer" in call.params:
        return _LIST(call)
    return _LIST(replace(call, params={**call.params, "customer": owner["customer"]}))


def list_lines(call: Call) -> Json:
    """All lines of an invoice at once: there are never more than a page of them."""
    found: Json = call.named("invoice", "invoice")["lines"]
    return found


def _paid_with(call: Call, payment: Json) -> bool:
    wanted = (call.params.get("payment") or {}).get("payment_intent")
    return wanted in (None, payment["payment"]["payment_intent"])


_LIST_PAYMENTS = lister("invoice_payment", "invoice", "status", "payment.payment_intent", where=_paid_with)


def list_payments(call: Call) -> Json:
    """The ties between invoices and PaymentIntents, from either end."""
    if (wanted := (call.params.get("payment") or {}).get("payment_intent")) is None:
        return _LIST_PAYMENTS(call)
    return _LIST_PAYMENTS(replace(call, params={**call.params, "payment.payment_intent": wanted}))


def retrieve_payment(call: Call) -> Json:
    return call.named("invoice_payment", "invoice_payment")
