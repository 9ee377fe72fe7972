"""The shapes of Stripe's objects when they are new. Rules live elsewhere; here is only form."""

from typing import Any

from interface.sandbox.stripe_cards import Decline
from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_ids import new_id, random_text

AUTHORIZATION_S = 7 * 24 * 3600
PENDING_S = 2 * 24 * 3600


def payment_intent(params: Json, now: int) -> Json:
    """A PaymentIntent that nobody has confirmed."""
    wanted = new_id("pi_")
    allowed = params.get("allowed_payment_method_types")
    automatic = params.get("automatic_payment_methods") or (None if allowed else {"enabled": True})
    return {
        "id": wanted,
        "object": "payment_intent",
        "allowed_payment_method_types": allowed,
        "amount": params["amount"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": params.get("application_fee_amount"),
        "automatic_payment_methods": automatic and {"allow_redirects": "always", **automatic},
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": params.get("capture_method", "automatic_async"),
        "client_secret": f"{wanted}_secret_{random_text(25)}",
        "confirmation_method": params.get("confirmation_method", "automatic"),
        "created": now,
        "currency": params["currency"],
        "customer": params.get("customer"),
        "description": params.get("description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": merged({}, params.get("metadata", {})),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": _options(params.get("payment_method_options") or {}),
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": params.get("receipt_email"),
        "review": None,
        "setup_future_usage": params.get("setup_future_usage"),
        "shipping": params.get("shipping"),
        "source": None,
        "statement_descriptor": params.get("statement_descriptor"),
        "statement_descriptor_suffix": params.get("statement_descriptor_suffix"),
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": params.get("transfer_group"),
    }


def _options(options: Json) -> Json:
    card = {"installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
    return {**options, "card": card | (options.get("card") or {})}


def charge(of: Json, method: Json, now: int, *, multicapture: bool = False) -> Json:
    """An approved, uncaptured charge. `of` is its PaymentIntent, or the parameters of a charge without one."""
    wanted = new_id("ch_")
    intent = of["id"] if of.get("object") == "payment_intent" else None
    return {
        "id": wanted,
        "object": "charge",
        "amount": of["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "SANDBOX",
        "captured": False,
        "created": now,
        "currency": of["currency"],
        "customer": of.get("customer"),
        "description": of.get("description"),
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(of.get("metadata") or {}),
        "on_behalf_of": None,
        "outcome": outcome(None),
        "paid": True,
        "payment_intent": intent,
        "payment_method": method["id"],
        "payment_method_details": {
            "card": _card_details(method["card"], now + AUTHORIZATION_S, of["amount"], multicapture=multicapture),
            "type": "card",
        },
        "receipt_email": of.get("receipt_email"),
        "receipt_number": None,
        "receipt_url": f"https://pay.stripe.com/receipts/payment/{wanted}",
        "refunded": False,
        "review": None,
        "shipping": of.get("shipping"),
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "succeeded",
        "transfer_data": None,
        "transfer_group": of.get("transfer_group"),
    }


def _card_details(card: Json, capture_before: int, amount: int, *, multicapture: bool) -> Json:
    copied = {name: card[name] for name in ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding")}
    return {
        "amount_authorized": amount,
        "authorization_code": None,
        **copied,
        "capture_before": capture_before,
        "checks": card["checks"],
        "extended_authorization": {"status": "disabled"},
        "incremental_authorization": {"status": "unavailable"},
        "installments": None,
        "last4": card["last4"],
        "mandate": None,
        "multicapture": {"status": "available" if multicapture else "unavailable"},
        "network": card["brand"],
        "network_token": {"used": False},
        "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"},
        "three_d_secure": None,
        "wallet": None,
    }


def outcome(decline: Decline | None) -> Json:
    """What the network said."""
    return {
        "advice_code": None if decline is None else "try_again_later",
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network" if decline is None else "declined_by_network",
        "reason": None if decline is None else decline.reason or decline.code,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": "Payment complete." if decline is None else "The bank did not return any further details.",
        "type": "authorized" if decline is None else "issuer_declined",
    }


def refund(of: Json, amount: int, params: Json, now: int) -> Json:
    return {
        "id": new_id("re_"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": of["id"],
        "created": now,
        "currency": of["currency"],
        "destination_details": {"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
        "metadata": merged({}, params.get("metadata") or {}),
        "payment_intent": of["payment_intent"],
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def balance_transaction(of: Json, amount: int, fee: int, now: int) -> Json:
    """A movement of the account's balance: `amount` is signed, `net = amount - fee`."""
    details = {"amount": fee, "application": None, "currency": of["currency"], "description": "Stripe processing fees"}
    return {
        "id": new_id("txn_"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": now + PENDING_S,
        "balance_type": "payments",
        "created": now,
        "currency": of["currency"],
        "description": of.get("description"),
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [details | {"type": "stripe_fee"}] if fee else [],
        "net": amount - fee,
        "reporting_category": of["object"],
        "source": of["id"],
        "status": "pending",
        "type": of["object"],
    }


def merged(metadata: dict[str, str], given: dict[str, str] | None) -> dict[str, str]:
    """Stripe's rule: keys are merged, an empty value removes its key, `None` (sent as '') removes all."""
    if given is None:
        return {}
    return {name: text for name, text in {**metadata, **given}.items() if text != ""}


def copied(found: Json, params: Json, names: tuple[str, ...]) -> None:
    """Take over those parameters that were given, metadata by its own rule."""
    for name in names:
        if name in params:
            found[name] = params[name]
    if "metadata" in params:
        found["metadata"] = merged(found["metadata"], params["metadata"])


def listed(data: list[Any], url: str, *, more: bool) -> Json:
    return {"object": "list", "data": data, "has_more": more, "url": url}
