"""Refunds: captured money goes back, in parts and repeatedly, never more than was captured.

To some cards it does not: a day later the refund fails, and what was to go back is the account's again
(https://docs.stripe.com/refunds#failed-refunds).
"""

from interface.sandbox import stripe_objects as form
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_cards import card_of_fingerprint
from interface.sandbox.stripe_charges import multicapture, reversal
from interface.sandbox.stripe_errors import Json, invalid, refused
from interface.sandbox.stripe_money import check_digits, check_positive, display
from interface.sandbox.stripe_store import Change

# So Stripe says that the card's issuer will never confirm it; here a sign that it is going to fail.
UNAVAILABLE = "unavailable"


def create_refund(call: Call) -> Json:
    charge = _charge_to_refund(call)
    if charge["amount_captured"] == 0:
        return _reverse(call, charge)
    if charge["disputed"]:
        raise invalid(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.",
            code="charge_disputed",
            param="charge",
        )
    left = _refundable(charge, released=call.release_as_refund)
    if left == 0:
        raise _already_refunded(charge)
    amount = call.whole("amount", left)
    check_positive(amount, "amount")
    check_digits(amount, charge["currency"], "amount")
    if amount > left:
        raise invalid(
            f"Refund amount ({display(amount, charge['currency'])}) is greater than unrefunded amount on charge"
            f" ({display(left, charge['currency'])})",
            param="amount",
        )
    refund = form.refund(charge, amount, call.params, call.now)
    moved = call.change.put(form.balance_transaction(refund, -amount, 0, call.now))
    refund["balance_transaction"] = moved["id"]
    if card_of_fingerprint(charge["payment_method_details"]["card"]["fingerprint"]).returns:
        refund["destination_details"]["card"]["reference_status"] = UNAVAILABLE
    return _record(call, charge, refund, everything=amount == left and charge["captured"])


def _reverse(call: Call, charge: Json) -> Json:
    """A charge without an intent that was never captured: the whole reserve goes back, nothing moves."""
    if charge["payment_intent"] is not None:
        raise invalid(
            f"This uncaptured Charge was created by a PaymentIntent ({charge['payment_intent']}). You must cancel the"
            " PaymentIntent to reverse the authorization instead of refunding the Charge directly.",
            param="charge",
        )
    if charge["refunded"]:
        raise _already_refunded(charge)
    if call.whole("amount", charge["amount"]) != charge["amount"]:
        raise invalid(
            "You cannot partially refund an uncaptured charge. Instead, capture the charge for an amount less than the"
            " original amount",
            param="amount",
        )
    refund = reversal(charge, charge["amount"], call.params, call.now)
    return _record(call, charge, refund, everything=True)


def _record(call: Call, charge: Json, refund: Json, *, everything: bool) -> Json:
    previous = {"amount_refunded": charge["amount_refunded"], "refunded": charge["refunded"]}
    charge["amount_refunded"] += refund["amount"]
    charge["refunded"] = everything
    call.change.put(charge)
    call.change.put(refund)
    call.change.emit("refund.created", refund)
    call.change.emit("charge.refunded", charge, previous)
    return refund


def fail_refund(change: Change, refund: Json) -> None:
    """The card's issuer sent it back."""
    charge = change.get("charge", refund["charge"], "charge")
    charge |= {"amount_refunded": charge["amount_refunded"] - refund["amount"], "refunded": False}
    returned = form.balance_transaction(refund, refund["amount"], 0, change.now) | {"type": "refund_failure"}
    previous = {"status": refund["status"], "failure_balance_transaction": None, "failure_reason": None}
    refund |= {
        "failure_balance_transaction": change.put(returned)["id"],
        "failure_reason": "expired_or_canceled_card",
        "status": "failed",
    }
    change.put(charge)
    change.put(refund)
    for told in ("refund.updated", "refund.failed"):
        change.emit(told, refund, previous)


def _charge_to_refund(call: Call) -> Json:
    params = call.params
    if "charge" in params:
        charge = call.change.get("charge", params["charge"], "charge")
        if params.get("payment_intent") not in (None, charge["payment_intent"]):
            raise invalid(f"Charge {charge['id']} does not belong to {params['payment_intent']}.", param="charge")
        if charge["status"] == "succeeded":
            return charge
        raise invalid(f"Charge {charge['id']} failed and cannot be refunded.", param="charge")
    if "payment_intent" not in params:
        raise refused(
            "One of the following params should be provided for this request: payment_intent or charge.",
            code="parameter_missing",
        )
    intent = call.change.get("payment_intent", params["payment_intent"], "payment_intent")
    found = call.change.find("charge", intent["latest_charge"]) if intent["latest_charge"] else None
    released = intent["status"] == "canceled" and intent["amount_received"] == 0
    if found is None or found["status"] != "succeeded" or released:
        raise invalid(
            f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.", param="payment_intent"
        )
    return found


def _refundable(charge: Json, *, released: bool) -> int:
    """What was captured and not given back yet. A release that is shown as a refund was no money."""
    counted = released and charge["captured"] and not multicapture(charge)
    total: int = charge["amount"] if counted else charge["amount_captured"]
    refunded: int = charge["amount_refunded"]
    return max(0, total - refunded)


def _already_refunded(charge: Json) -> Exception:
    return invalid(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded", param="charge")


def retrieve_refund(call: Call) -> Json:
    return call.named("refund", "refund")


def update_refund(call: Call) -> Json:
    refund = call.named("refund", "refund")
    form.copied(refund, call.params, ())
    call.change.put(refund)
    call.change.emit("refund.updated", refund)
    return refund
