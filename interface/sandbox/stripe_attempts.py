"""One attempt to pay a PaymentIntent with a card: approved, declined, or challenged (3-D Secure)."""

from typing import NoReturn

from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_cards import AUTHENTICATION, Decline, TestCard, card_of_fingerprint, decline_of
from interface.sandbox.stripe_charges import approve, decline_facts, doc_url, fail, take
from interface.sandbox.stripe_errors import DeclinedError, Json, invalid
from interface.sandbox.stripe_methods import attach, not_attached
from interface.sandbox.stripe_store import Change

AUTHENTICATION_FAILED = (
    "We are unable to authenticate your payment method. Please choose a different payment method and try again."
)


def attempt(call: Call, intent: Json) -> Json:
    """Try the card that the intent names; the intent comes back in its new status, or `DeclinedError` is raised."""
    method = call.change.get("payment_method", intent["payment_method"], "payment_method", status=400)
    _check_owner(intent, method)
    card = card_of_fingerprint(method["card"]["fingerprint"])
    off_session = call.params.get("off_session") not in (None, False)
    if _challenged(card, intent, off_session=off_session):
        if off_session or call.params.get("error_on_requires_action"):
            _decline(call.change, intent, method, AUTHENTICATION)
        return _challenge(call, intent)
    if (decline := decline_of(method, call.now)) is not None:
        _decline(call.change, intent, method, decline)
    return _approve(call.change, intent, method)


def authenticate(change: Change, intent: Json, *, passed: bool) -> Json:
    """The cardholder's answer to the challenge. A decline afterwards is a status here, not an error."""
    method = change.get("payment_method", intent["payment_method"], "payment_method")
    intent["next_action"] = None
    change.put(intent)
    if not passed:
        intent["last_payment_error"] = {
            "code": "payment_intent_authentication_failure",
            "doc_url": doc_url("payment_intent_authentication_failure"),
            "message": AUTHENTICATION_FAILED,
            "payment_method": method,
            "type": "invalid_request_error",
        }
        _needs_another_card(change, intent)
        return intent
    if (decline := decline_of(method, change.now)) is not None:
        _record_decline(change, intent, method, decline)
        return intent
    return _approve(change, intent, method)


def _check_owner(intent: Json, method: Json) -> None:
    owner, customer = method["customer"], intent["customer"]
    if owner is not None and customer is None:
        raise invalid(
            "The provided PaymentMethod belongs to a Customer. Please include the Customer in the `customer` parameter"
            " on the PaymentIntent.",
            param="payment_method",
        )
    if owner not in (None, customer):
        raise not_attached(method["id"], "payment_method")


def _challenged(card: TestCard, intent: Json, *, off_session: bool) -> bool:
    asked = intent["payment_method_options"].get("card", {}).get("request_three_d_secure") in ("any", "challenge")
    return {
        "never": False,
        "required": True,
        "optional": asked,
        "unless_off_session": not off_session,
    }[card.challenge]


def _challenge(call: Call, intent: Json) -> Json:
    url = f"{call.own_url}/_sandbox/3ds/{intent['id']}"
    intent["status"] = "requires_action"
    intent["next_action"] = {
        "type": "redirect_to_url",
        "redirect_to_url": {"return_url": call.params.get("return_url"), "url": url},
    }
    call.change.put(intent)
    call.change.emit("payment_intent.requires_action", intent)
    return intent


def _approve(change: Change, intent: Json, method: Json) -> Json:
    wanted = intent["payment_method_options"].get("card", {}).get("request_multicapture") == "if_available"
    manual = intent["capture_method"] == "manual"
    charge = approve(change, intent, method, multicapture=wanted and manual)
    intent |= {"latest_charge": charge["id"], "last_payment_error": None, "next_action": None}
    change.put(intent)
    if intent["setup_future_usage"] and intent["customer"] and method["customer"] is None:
        attach(change, method, change.get("customer", intent["customer"], "customer"))
    if manual:
        intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
        change.emit("charge.succeeded", charge)
        change.emit("payment_intent.amount_capturable_updated", intent)
        return intent
    take(change, charge, charge["amount"], final=True)
    intent |= {"status": "succeeded", "amount_received": intent["amount"]}
    change.emit("charge.succeeded", charge)
    change.emit("payment_intent.succeeded", intent)
    return intent


def _decline(change: Change, intent: Json, method: Json, decline: Decline) -> NoReturn:
    facts = _record_decline(change, intent, method, decline)
    raise DeclinedError(decline.message, **facts, payment_intent=intent, payment_method=method)


def _record_decline(change: Change, intent: Json, method: Json, decline: Decline) -> Json:
    charge = fail(change, intent, method, decline)
    facts = decline_facts(decline, charge)
    intent["latest_charge"] = charge["id"]
    intent["last_payment_error"] = {
        **facts,
        "doc_url": doc_url(decline.code),
        "message": decline.message,
        "payment_method": method,
        "type": "card_error",
    }
    _needs_another_card(change, intent)
    return facts


def _needs_another_card(change: Change, intent: Json) -> None:
    intent |= {"status": "requires_payment_method", "payment_method": None, "next_action": None}
    change.put(intent)
    change.emit("payment_intent.payment_failed", intent)
