"""PaymentIntents: the endpoints and which of them is allowed in which status.

requires_payment_method -> requires_confirmation -> [requires_action] -> requires_capture -> succeeded
                 ^--------------- declined ---------------'                     '-> canceled
"""

from interface.sandbox import stripe_objects as form
from interface.sandbox.stripe_attempts import attempt
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_charges import capture_before, multicapture, release, take, too_much
from interface.sandbox.stripe_collection import settle
from interface.sandbox.stripe_errors import Json, StripeError, invalid, unexpected_state
from interface.sandbox.stripe_methods import method_for, method_of_data
from interface.sandbox.stripe_money import check_amount, check_currency, check_digits, check_positive
from interface.sandbox.stripe_store import Change

MAX_CAPTURES = 50

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELABLE = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action", "processing")
_ALWAYS_UPDATABLE = frozenset({"metadata", "description", "receipt_email", "expand"})
_TEXTS = (
    "description",
    "receipt_email",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_group",
    "capture_method",
    "application_fee_amount",
)


def create_intent(call: Call) -> Json:
    params = {**call.params, "currency": check_currency(call.params["currency"])}
    check_amount(params["amount"], params["currency"])
    if params.get("customer"):
        call.change.get("customer", params["customer"], "customer", status=400)
    intent = call.change.put(form.payment_intent(params, call.now))
    _choose_method(call, intent)
    call.change.emit("payment_intent.created", intent)
    return _confirm(call, intent) if params.get("confirm") else intent


def retrieve_intent(call: Call) -> Json:
    intent = call.named("payment_intent", "intent")
    secret = call.params.get("client_secret")
    if secret is not None and secret != intent["client_secret"]:
        raise invalid("The client_secret provided does not match any associated PaymentIntent.", param="client_secret")
    return intent


def update_intent(call: Call) -> Json:
    intent, params = call.named("payment_intent", "intent"), call.params
    if intent["status"] not in CONFIRMABLE and not _ALWAYS_UPDATABLE.issuperset(params):
        raise unexpected_state(
            f"This PaymentIntent's parameters could not be updated because it has a status of {intent['status']}."
            " You may only update the metadata and description of such a PaymentIntent.",
            intent,
        )
    currency = check_currency(str(params.get("currency", intent["currency"])))
    intent["currency"], intent["amount"] = currency, check_amount(call.whole("amount", intent["amount"]), currency)
    if params.get("customer"):
        intent["customer"] = call.change.get("customer", params["customer"], "customer", status=400)["id"]
    form.copied(intent, params, _TEXTS)
    _choose_method(call, intent)
    return call.change.put(intent)


def confirm_intent(call: Call) -> Json:
    intent = call.named("payment_intent", "intent")
    status = intent["status"]
    if status in ("succeeded", "requires_capture"):
        raise unexpected_state(
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed.",
            intent,
        )
    if status not in CONFIRMABLE:
        raise _wrong_status("You cannot confirm this PaymentIntent", intent, "confirmed", CONFIRMABLE[1:])
    form.copied(intent, call.params, _TEXTS)
    _choose_method(call, intent)
    return settle(call.change, _confirm(call, call.change.put(intent)))


def _choose_method(call: Call, intent: Json) -> None:
    if (data := call.params.get("payment_method_data")) is not None:
        if data.get("type") != "card":
            raise invalid("The stand-in takes cards only.", param="payment_method_data[type]")
        method = call.change.put(method_of_data(call.change, data, "payment_method_data[card]"))
    elif call.params.get("payment_method"):
        method = method_for(call.change, call.params["payment_method"], "payment_method")
    else:
        return
    intent["payment_method"] = method["id"]
    intent["status"] = "requires_confirmation"
    intent["next_action"] = None


def _confirm(call: Call, intent: Json) -> Json:
    if intent["payment_method"] is None:
        raise unexpected_state(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the"
            " PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a"
            " payment method or ConfirmationToken.",
            intent,
        )
    _check_return_url(intent, call.params)
    options = (call.params.get("payment_method_options") or {}).get("card") or {}
    intent["payment_method_options"].setdefault("card", {}).update(options)
    return attempt(call, intent)


def _check_return_url(intent: Json, params: Json) -> None:
    """Stripe demands a return_url when redirecting methods are allowed. It does so by default, too; the stand-in
    insists only where `automatic_payment_methods` was asked for in so many words.
    """
    automatic = intent["automatic_payment_methods"]
    asked = isinstance(params.get("automatic_payment_methods"), dict) and automatic["enabled"]
    if (
        asked
        and automatic["allow_redirects"] == "always"
        and not (params.get("return_url") or params.get("off_session"))
    ):
        raise invalid(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of"
            " these payment methods might redirect your customer off of your page, you must provide a `return_url`."
            " If you don't want to accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to"
            " `true` and `automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and"
            " Payment Intents.",
            param="return_url",
        )


def capture_intent(call: Call) -> Json:
    intent = call.named("payment_intent", "intent")
    if intent["status"] == "succeeded":
        raise unexpected_state("This PaymentIntent could not be captured because it has already been captured.", intent)
    if intent["status"] != "requires_capture":
        raise _wrong_status("This PaymentIntent could not be captured", intent, "captured", ("requires_capture",))
    charge = call.change.get("charge", intent["latest_charge"], "latest_charge")
    final = call.params.get("final_capture", True)
    amount = _amount_to_capture(call, intent, charge, final=final)
    form.copied(intent, call.params, ())
    previous = {"amount_capturable": intent["amount_capturable"]}
    take(call.change, charge, amount, final=final)
    intent["amount_received"] += amount
    intent["amount_capturable"] = 0 if final else intent["amount_capturable"] - amount
    call.change.put(intent)
    if multicapture(charge):
        call.change.emit("payment_intent.amount_capturable_updated", intent, previous)
    if final:
        intent["status"] = "succeeded"
        release(call.change, charge, as_refund=call.release_as_refund)
        call.change.emit("payment_intent.succeeded", intent)
    return intent


def _amount_to_capture(call: Call, intent: Json, charge: Json, *, final: bool) -> int:
    amount = call.whole("amount_to_capture", intent["amount_capturable"])
    closes = final and intent["amount_received"] > 0  # nothing more to take, release what is left
    if amount < 0 or (amount == 0 and not closes):
        check_positive(amount, "amount_to_capture")
    if amount > intent["amount_capturable"]:
        raise too_much("amount_to_capture")
    check_digits(amount, intent["currency"], "amount_to_capture")
    if not final and not multicapture(charge):
        raise invalid(
            "final_capture=false needs multicapture, which this payment does not have.", param="final_capture"
        )
    if not final and call.change.store.count("balance_transaction", "source", charge["id"]) >= MAX_CAPTURES:
        raise invalid(f"A PaymentIntent can be captured up to {MAX_CAPTURES} times.", param="final_capture")
    return amount


def cancel_intent(call: Call) -> Json:
    """What is reserved and not captured is released; what was captured stays captured."""
    intent = call.named("payment_intent", "intent")
    if intent["status"] not in CANCELABLE:
        raise _wrong_status("You cannot cancel this PaymentIntent", intent, "canceled", CANCELABLE)
    held = intent["status"] == "requires_capture"
    _close(call.change, intent, call.params.get("cancellation_reason"))
    if held:
        charge = call.change.get("charge", intent["latest_charge"], "latest_charge")
        if charge["amount_captured"]:
            take(call.change, charge, 0, final=True)
        release(call.change, charge, as_refund=call.release_as_refund)
    call.change.emit("payment_intent.canceled", intent)
    return intent


def _close(change: Change, intent: Json, reason: str | None) -> None:
    intent |= {
        "status": "canceled",
        "canceled_at": change.now,
        "cancellation_reason": reason,
        "amount_capturable": 0,
        "next_action": None,
    }
    change.put(intent)


def expire(change: Change, charge_id: str, *, as_refund: bool) -> None:
    """The authorization has run out: nothing captured -> canceled, part of it captured -> succeeded."""
    charge = change.get("charge", charge_id, "charge")
    due = capture_before(charge)
    if due is None or change.now < due:
        return
    intent = change.find("payment_intent", charge["payment_intent"]) if charge["payment_intent"] else None
    if intent is not None and intent["status"] != "requires_capture":
        return
    if intent is not None and intent["amount_received"]:
        take(change, charge, 0, final=True)
        change.put(intent).update(status="succeeded", amount_capturable=0)
        change.emit("payment_intent.succeeded", intent)
        return
    release(change, charge, as_refund=as_refund)
    change.emit("charge.expired", charge)
    if intent is not None:
        _close(change, intent, "automatic")
        change.emit("payment_intent.canceled", intent)


def _wrong_status(what: str, intent: Json, done: str, allowed: tuple[str, ...]) -> StripeError:
    return unexpected_state(
        f"{what} because it has a status of {intent['status']}. Only a PaymentIntent with one of the following"
        f" statuses may be {done}: {', '.join(allowed)}.",
        intent,
    )
