"""Charges: approval and decline by the issuer, capture, release, expiry; and the old charges without an intent."""

from typing import NoReturn

from interface.sandbox import stripe_objects as form
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_cards import AUTHENTICATION, Decline, card_of_fingerprint, decline_of
from interface.sandbox.stripe_disputes import contest
from interface.sandbox.stripe_errors import DOCS, DeclinedError, Json, StripeError, invalid, refused
from interface.sandbox.stripe_methods import method_for
from interface.sandbox.stripe_money import check_amount, check_currency, check_digits, check_positive, fee_of
from interface.sandbox.stripe_store import Change

# Stripe's reason for the refund that ends a charge which nobody captured in time.
RAN_OUT = "expired_uncaptured_charge"

# The issuer's answer


def approve(change: Change, of: Json, method: Json, *, multicapture: bool = False) -> Json:
    """Reserve the amount: an uncaptured charge, good until `capture_before`."""
    available = multicapture and card_of_fingerprint(method["card"]["fingerprint"]).multicapture
    return change.put(form.charge(of, method, change.now, multicapture=available))


def fail(change: Change, of: Json, method: Json, decline: Decline) -> Json:
    """A charge that the issuer declined."""
    charge = approve(change, of, method)
    charge |= {
        "paid": False,
        "status": "failed",
        "failure_code": decline.code,
        "failure_message": decline.message,
        "outcome": form.outcome(decline),
    }
    del charge["payment_method_details"]["card"]["capture_before"]
    change.emit("charge.failed", charge)
    return charge


def decline_facts(decline: Decline, charge: Json) -> Json:
    """The members that a card error and an intent's `last_payment_error` share."""
    facts = {"charge": charge["id"], "code": decline.code, "decline_code": decline.reason}
    return {name: value for name, value in facts.items() if value is not None}


# Capture and release


def take(change: Change, charge: Json, amount: int, *, final: bool) -> None:
    """Move part of the reserve. Every movement has its own balance transaction; the charge shows the first."""
    assert 0 <= amount <= charge["amount"] - charge["amount_captured"], "captured more than reserved"  # noqa: S101
    previous = {"captured": charge["captured"], "balance_transaction": charge["balance_transaction"]}
    if amount:
        moved = change.put(form.balance_transaction(charge, amount, fee_of(amount), change.now))
        charge["balance_transaction"] = charge["balance_transaction"] or moved["id"]
        charge["amount_captured"] += amount
    change.put(charge)
    if multicapture(charge):
        change.emit("charge.updated", charge, previous)
    if final:
        charge["captured"] = True
        change.emit("charge.captured", charge, previous)
        contest(change, charge)


def release(change: Change, charge: Json, *, as_refund: bool) -> None:
    """Give the rest of the reserve back; nothing moves. Stripe shows this as a refund without a balance transaction,
    with a `charge.refunded` event, which is easily taken for money: only on request here (`--release-as-refund`).
    A charge without an intent that runs out has nothing else to show it, so there it is always such a refund.
    """
    rest = charge["amount"] - charge["amount_captured"]
    ran_out = not charge["captured"] and charge["payment_intent"] is None
    if not charge["captured"]:
        del charge["payment_method_details"]["card"]["capture_before"]  # nothing is left that could be captured
    change.put(charge)
    if not (as_refund or ran_out) or rest == 0 or multicapture(charge):
        return
    charge["amount_refunded"] += rest
    charge["refunded"] = charge["amount_captured"] == 0
    returned = reversal(charge, rest, {"reason": RAN_OUT} if ran_out else {}, change.now)
    change.emit("refund.created", change.put(returned))
    change.emit("charge.refunded", charge)


def reversal(charge: Json, amount: int, params: Json, now: int) -> Json:
    """A refund of what was only reserved: no money moves."""
    return form.refund(charge, amount, params, now) | {
        "destination_details": {"card": {"type": "reversal"}, "type": "card"}
    }


def multicapture(charge: Json) -> bool:
    found: bool = charge["payment_method_details"]["card"]["multicapture"]["status"] == "available"
    return found


def capture_before(charge: Json) -> int | None:
    """When the reserve runs out, for a charge that is still open; Unix seconds."""
    open_ = charge["status"] == "succeeded" and not charge["captured"] and not charge["refunded"]
    found: int | None = charge["payment_method_details"]["card"].get("capture_before")
    return found if open_ else None


# Charges without an intent


def create_charge(call: Call) -> Json:
    params = call.params
    for name in ("amount", "currency"):
        if name not in params:
            raise refused(f"Missing required param: {name}.", code="parameter_missing", param=name)
    currency = check_currency(params["currency"])
    check_amount(params["amount"], currency)
    method = _source(call)
    of = {**params, "currency": currency, "metadata": form.merged({}, params.get("metadata") or {})}
    card = card_of_fingerprint(method["card"]["fingerprint"])
    decline = AUTHENTICATION if card.challenge == "required" else decline_of(method, call.now)
    if decline is not None:
        _declined(call.change, of, method, decline)
    charge = approve(call.change, of, method)
    if params.get("capture", True):
        take(call.change, charge, charge["amount"], final=True)
    call.change.emit("charge.succeeded", charge)
    return charge


def _declined(change: Change, of: Json, method: Json, decline: Decline) -> NoReturn:
    raise DeclinedError(decline.message, **decline_facts(decline, fail(change, of, method, decline)))


def _source(call: Call) -> Json:
    if (source := call.params.get("source")) is not None:
        return method_for(call.change, source, "source")
    if (wanted := call.params.get("customer")) is None:
        raise refused("Must provide source or customer.", code="parameter_missing")
    customer = call.change.get("customer", wanted, "customer", status=400)
    default = customer["invoice_settings"]["default_payment_method"]
    attached = (
        [default]
        if default
        else [m["id"] for m in call.change.store.newest_first("payment_method", {"customer": wanted})]
    )
    if not attached:
        raise StripeError(
            402, "card_error", "Cannot charge a customer that has no active card", code="missing", param="card"
        )
    return call.change.get("payment_method", attached[0], "source", status=400)


def capture_charge(call: Call) -> Json:
    charge = call.named("charge", "charge")
    _check_capturable(call, charge)
    amount = call.whole("amount", charge["amount"])
    check_positive(amount, "amount")
    if amount > charge["amount"]:
        raise too_much("amount")
    check_digits(amount, charge["currency"], "amount")
    form.copied(charge, call.params, ("receipt_email",))
    take(call.change, charge, amount, final=True)
    release(call.change, charge, as_refund=call.release_as_refund)
    return charge


def _check_capturable(call: Call, charge: Json) -> None:
    wanted = charge["id"]
    ran_out = any(one["reason"] == RAN_OUT for one in call.change.related("refund", "charge", wanted))
    if charge["payment_intent"] is not None:
        raise invalid(
            f"This Charge was created by a PaymentIntent ({charge['payment_intent']}). You must capture the"
            " PaymentIntent instead of capturing the Charge directly.",
            param="charge",
        )
    if charge["status"] != "succeeded":
        raise invalid(f"Charge {wanted} has failed and cannot be captured.", param="charge")
    if charge["refunded"] and not ran_out:
        raise invalid(f"Charge {wanted} has already been refunded.", code="charge_already_refunded")
    if charge["captured"]:
        raise invalid(f"Charge {wanted} has already been captured.", code="charge_already_captured")
    due = capture_before(charge)
    if due is None or call.now >= due:
        raise invalid(
            f"Charge {wanted} cannot be captured because the charge has expired.", code="charge_expired_for_capture"
        )


def too_much(param: str) -> StripeError:
    return invalid(
        "The payment could not be captured because the requested capture amount is greater than the amount you can"
        " capture for this charge.",
        code="amount_too_large",
        param=param,
    )


def update_charge(call: Call) -> Json:
    charge = call.named("charge", "charge")
    form.copied(charge, call.params, ("customer", "description", "receipt_email", "shipping", "transfer_group"))
    call.change.put(charge)
    call.change.emit("charge.updated", charge)
    return charge


def retrieve_charge(call: Call) -> Json:
    return call.named("charge", "charge")


def doc_url(code: str) -> str:
    return DOCS + code.replace("_", "-")
