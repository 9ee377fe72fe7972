"""How an invoice is paid: with which card, what follows a decline, when it is tried again, and what is done at last."""

from dataclasses import replace

from interface.sandbox.stripe_attempts import attempt
from interface.sandbox.stripe_billing_settings import billing_settings
from interface.sandbox.stripe_calendar import DAY_S
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_cards import card_of_fingerprint
from interface.sandbox.stripe_errors import DeclinedError, Json, StripeError
from interface.sandbox.stripe_invoices import delinquent, finalize, give_up, intent_of, mark_paid
from interface.sandbox.stripe_standings import end, fallen_behind, revise, subscription_of
from interface.sandbox.stripe_store import Change

CHALLENGED = "invoice_payment_intent_requires_action"


def default_method(change: Change, subscription: Json) -> Json | None:
    """The subscription's own payment method, else the customer's default."""
    customer = change.get("customer", subscription["customer"], "customer")
    wanted = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    return change.find("payment_method", wanted) if wanted else None


def finalize_and_collect(call: Call, invoice: Json, *, off_session: bool) -> StripeError | None:
    """What is done with an invoice that is due; the error is the reason why it was not paid."""
    finalize(call.change, invoice)
    return None if invoice["status"] == "paid" else collect(call, invoice, off_session=off_session)


def collect(
    call: Call, invoice: Json, *, off_session: bool, method: Json | None = None, automatic: bool = True
) -> StripeError | None:
    """Try to charge a card for an open invoice, and draw the consequences. `automatic`: nobody asked for it just now,
    so it counts in the plan of retries.
    """
    change = call.change
    method = method or default_method(change, subscription_of(change, invoice))
    first = not invoice["attempted"]
    invoice["attempted"] = True
    invoice["attempt_count"] += 1 if first or automatic else 0
    change.put(invoice)
    if method is None:
        error: StripeError | None = no_method()
    else:
        error = _charge(call, invoice, method, off_session=off_session)
    if error is not None:
        _failed(change, invoice, planned=first or automatic, challenged=error.facts.get("code") == CHALLENGED)
    return error


def no_method() -> StripeError:
    return StripeError(
        400,
        "invalid_request_error",
        "This customer has no default payment method to charge.",
        code="resource_missing",
    )


def _charge(call: Call, invoice: Json, method: Json, *, off_session: bool) -> StripeError | None:
    intent = intent_of(call.change, invoice)
    intent |= {"payment_method": method["id"], "status": "requires_confirmation", "next_action": None}
    # A card that always wants its holder is asked for, not charged in vain.
    always = card_of_fingerprint(method["card"]["fingerprint"]).challenge == "required"
    quiet = replace(call, params={"off_session": off_session and not always})
    try:
        attempt(quiet, call.change.put(intent))
    except DeclinedError as declined:
        return declined
    if intent["status"] == "succeeded":
        mark_paid(call.change, invoice, amount=intent["amount"])
        return None
    return StripeError(402, "card_error", "The payment needs its cardholder to act.", code=CHALLENGED)


# After a failure


def _failed(change: Change, invoice: Json, *, planned: bool, challenged: bool) -> None:
    settings = billing_settings(change.store)
    over = False
    if planned and invoice["billing_reason"] != "subscription_create" and invoice["auto_advance"]:
        waits: list[int] = settings["retry_days"]
        tried = invoice["attempt_count"]
        over = tried > len(waits)
        invoice["next_payment_attempt"] = None if over else change.now + waits[tried - 1] * DAY_S
    change.put(invoice)
    change.emit("invoice.payment_action_required" if challenged else "invoice.payment_failed", invoice)
    if invoice["billing_reason"] != "subscription_create":
        delinquent(change, invoice, owing=True)
    fallen_behind(change, invoice)
    if over:
        _end_of_retries(change, invoice, settings)


def _end_of_retries(change: Change, invoice: Json, settings: Json) -> None:
    subscription = subscription_of(change, invoice)
    if settings["then"] == "canceled":
        end(change, subscription, "payment_failed")
    elif settings["then"] == "unpaid":
        revise(change, subscription, status="unpaid")
    if settings["invoice"] == "uncollectible":
        give_up(change, invoice, "uncollectible", "invoice.marked_uncollectible")


# Paid by somebody else than us: the customer confirmed the PaymentIntent, or passed the challenge


def settle(change: Change, intent: Json) -> Json:
    """An invoice's PaymentIntent came to an end by its own; the invoice follows."""
    payment = next(change.related("invoice_payment", "payment.payment_intent", intent["id"]), None)
    if payment is None or payment["status"] != "open":
        return intent
    invoice = change.get("invoice", payment["invoice"], "invoice")
    if intent["status"] == "succeeded":
        _remember_method(change, invoice, intent)
        if not invoice["attempted"]:
            invoice["attempt_count"] += 1
        mark_paid(change, invoice, amount=intent["amount"])
    elif intent["last_payment_error"] is not None:
        change.emit("invoice.payment_failed", invoice)
    return intent


def _remember_method(change: Change, invoice: Json, intent: Json) -> None:
    subscription = subscription_of(change, invoice)
    if subscription["payment_settings"]["save_default_payment_method"] == "on_subscription":
        revise(change, subscription, default_payment_method=intent["payment_method"])
