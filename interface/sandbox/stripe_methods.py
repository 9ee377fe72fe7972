"""Payment methods and tokens: which card is used, and whose it is. A number goes no further than this module."""

from dataclasses import replace

from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_cards import (
    TestCard,
    card_of_fingerprint,
    card_of_number,
    card_of_payment_method,
    card_of_token,
)
from interface.sandbox.stripe_errors import DeclinedError, Json, StripeError, invalid, missing, refused
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_lists import lister
from interface.sandbox.stripe_objects import copied, merged
from interface.sandbox.stripe_standings import ENDED, revise
from interface.sandbox.stripe_store import Change

_CARD_LASTS_YEARS = 100
_NEW_CARD_LASTS_YEARS = 8
_YEAR_S = 31_556_952
_NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
_LIST_METHODS = lister("payment_method", "customer", "type")


def create_payment_method(call: Call) -> Json:
    if call.params.get("type") != "card":
        raise refused("Missing required param: type.", code="parameter_missing", param="type")
    return call.change.put(method_of_data(call.change, call.params, "card"))


def retrieve_payment_method(call: Call) -> Json:
    """A static test card is shown under its own name; it becomes an object when something uses it."""
    wanted = call.ids[0]
    if (card := card_of_payment_method(wanted)) is not None:
        return payment_method(card, {}, call.now) | {"id": wanted}
    return call.named("payment_method", "payment_method")


def update_payment_method(call: Call) -> Json:
    method = call.named("payment_method", "payment_method")
    if given := call.params.get("card"):
        expiry = {name: given.get(name, method["card"][name]) for name in ("exp_month", "exp_year")}
        _check_expiry(expiry, call.now, "card")
        method["card"] |= expiry
    if billing := call.params.get("billing_details"):
        method["billing_details"] = method["billing_details"] | billing
    copied(method, call.params, ("allow_redisplay",))
    call.change.put(method)
    call.change.emit("payment_method.updated", method)
    return method


def attach_payment_method(call: Call) -> Json:
    if "customer" not in call.params:
        raise refused("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = call.change.get("customer", call.params["customer"], "customer", status=400)
    return attach(call.change, method_for(call.change, call.ids[0], "payment_method", status=404), customer)


def list_methods(call: Call) -> Json:
    """`GET /v1/customers/{id}/payment_methods`: the general list, for this customer."""
    call.named("customer", "customer")
    return _LIST_METHODS(replace(call, params={**call.params, "customer": call.ids[0]}))


def detach_payment_method(call: Call) -> Json:
    method = call.named("payment_method", "payment_method")
    if method["customer"] is None:
        raise invalid(
            "The payment method you provided is not attached to a customer so detachment is impossible.",
            param="payment_method",
        )
    previous = {"customer": method["customer"]}
    method["customer"] = None
    call.change.put(method)
    call.change.emit("payment_method.detached", method, previous)
    _forget_default(call.change, method["id"], previous["customer"])
    return method


def _forget_default(change: Change, method: str, owner: str) -> None:
    """A card that is gone is nobody's default any more."""
    customer = change.find("customer", owner)
    if customer is not None and (customer.get("invoice_settings") or {}).get("default_payment_method") == method:
        previous = {"invoice_settings": dict(customer["invoice_settings"])}
        change.put(customer)["invoice_settings"]["default_payment_method"] = None
        change.emit("customer.updated", customer, previous)
    for subscription in list(change.related("subscription", "customer", owner)):
        if subscription["default_payment_method"] == method and subscription["status"] not in ENDED:
            revise(change, subscription, default_payment_method=None)


def attach(change: Change, method: Json, customer: Json) -> Json:
    """Make a card the customer's. A card that its issuer would decline is declined here too."""
    if method["customer"] not in (None, customer["id"]):
        raise invalid(
            "The payment method you provided has already been attached to a customer.", param="payment_method"
        )
    card = card_of_fingerprint(method["card"]["fingerprint"])
    if card.decline is not None and not card.attachable:
        raise DeclinedError(card.decline.message, code=card.decline.code, decline_code=card.decline.reason)
    method["customer"] = customer["id"]
    change.put(method)
    change.emit("payment_method.attached", method)
    return method


def not_attached(method: str, param: str) -> StripeError:
    return invalid(
        f"The customer does not have a payment method with the ID {method}. The payment method must be attached to"
        " the customer.",
        code="resource_missing",
        param=param,
    )


def method_for(change: Change, wanted: str, param: str, *, status: int = 400) -> Json:
    """The card named by `pm_…`, `pm_card_…` or a token; a static one becomes a new payment method."""
    card = card_of_payment_method(wanted)
    if card is None and wanted.startswith("tok_"):
        return change.put(payment_method(*_of_token(change, wanted, param), change.now))
    if card is not None:
        return change.put(payment_method(card, {}, change.now))
    return change.get("payment_method", wanted, param, status=status)


def method_of_data(change: Change, data: Json, param: str) -> Json:
    """A new payment method from `payment_method_data` or the parameters of `POST /v1/payment_methods`."""
    given = data.get("card")
    if not given or not ("token" in given or "number" in given):
        raise refused(f"Missing required param: {param}.", code="parameter_missing", param=param)
    if "token" in given:
        card, expiry = _of_token(change, given["token"], f"{param}[token]")
        return payment_method(card, {**data, **expiry}, change.now)
    _check_expiry(given, change.now, param)
    return payment_method(card_of_number(given["number"]), data, change.now)


def payment_method(card: TestCard, params: Json, now: int, customer: str | None = None) -> Json:
    """A card as Stripe shows it: brand, last four digits, fingerprint; the number is not among its members."""
    given = params.get("card") or {}
    billing = params.get("billing_details") or {}
    names = ("email", "name", "phone", "tax_id")
    return {
        "id": new_id("pm_"),
        "object": "payment_method",
        "allow_redisplay": params.get("allow_redisplay", "unspecified"),
        "billing_details": {
            "address": _NO_ADDRESS | (billing.get("address") or {}),
            **{name: billing.get(name) for name in names},
        },
        "card": _card_form(card, now, given),
        "created": now,
        "customer": customer,
        "livemode": False,
        "metadata": merged({}, params.get("metadata") or {}),
        "type": "card",
    }


def _card_form(card: TestCard, now: int, given: Json) -> Json:
    year = 1970 + now // _YEAR_S + _NEW_CARD_LASTS_YEARS
    check = {"cvc_check": "pass" if "cvc" in given or not given else None}
    return {
        "brand": card.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": None, **check},
        "country": card.country,
        "display_brand": card.brand,
        "exp_month": int(given.get("exp_month", 8)),
        "exp_year": int(given.get("exp_year", year)),
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


# Tokens


def create_token(call: Call) -> Json:
    given = call.params.get("card")
    if not isinstance(given, dict):
        raise refused("Missing required param: card.", code="parameter_missing", param="card")
    expiry = {name: _whole(given[name], f"card[{name}]") for name in ("exp_month", "exp_year")}
    _check_expiry(expiry, call.now, "card")
    method = payment_method(card_of_number(given["number"]), {"card": {**given, **expiry}}, call.now)
    return call.change.put(_token(method["card"], given.get("name"), new_id("tok_"), call.now))


def retrieve_token(call: Call) -> Json:
    wanted = call.ids[0]
    if (card := card_of_token(wanted)) is not None:
        return _token(payment_method(card, {}, call.now)["card"], None, wanted, call.now)
    return call.named("token", "token")


def _token(card: Json, name: str | None, wanted: str, now: int) -> Json:
    shown = ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4")
    form = {"id": new_id("card_"), "object": "card", "name": name, "metadata": {}, **{key: card[key] for key in shown}}
    rest = {"client_ip": None, "created": now, "livemode": False, "type": "card", "used": False}
    return {"id": wanted, "object": "token", "card": form, **rest}


def _of_token(change: Change, wanted: str, param: str) -> tuple[TestCard, Json]:
    """A static token's card, or that of a created one, which can be used once."""
    if (card := card_of_token(wanted)) is not None:
        return card, {}
    token = change.find("token", wanted)
    if token is None:
        raise missing("token", wanted, param, status=400)
    if token["used"]:
        raise invalid(
            f"You cannot use a Stripe token more than once: {wanted}.", code="token_already_used", param=param
        )
    change.put(token | {"used": True})
    shown = token["card"]
    expiry = {"card": {"exp_month": shown["exp_month"], "exp_year": shown["exp_year"], "cvc": ""}}
    return card_of_fingerprint(shown["fingerprint"]), expiry


def _whole(text: str, param: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len("2026")):
        raise refused("Invalid integer", code="parameter_invalid_integer", param=param)
    return int(text)


def _check_expiry(given: Json, now: int, param: str) -> None:
    month, year = given.get("exp_month"), given.get("exp_year")
    this_year = 1970 + now // _YEAR_S
    if month is None or not 1 <= month <= 12:
        raise DeclinedError(
            "Your card's expiration month is invalid.", code="invalid_expiry_month", param=f"{param}[exp_month]"
        )
    full = None if year is None else year + 2000 if year < 100 else year
    if full is None or not this_year <= full <= this_year + _CARD_LASTS_YEARS:
        raise DeclinedError(
            "Your card's expiration year is invalid.", code="invalid_expiry_year", param=f"{param}[exp_year]"
        )
    given["exp_year"] = full
