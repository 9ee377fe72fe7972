"""The shapes of what is billed when it is new: products and prices, subscriptions, invoices and their lines."""

from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_objects import listed, merged


def product_form(params: Json, now: int) -> Json:
    return {
        "id": params.get("id") or new_id("prod_"),
        "object": "product",
        "active": params.get("active", True),
        "created": now,
        "default_price": None,
        "description": params.get("description"),
        "images": params.get("images", []),
        "livemode": False,
        "marketing_features": params.get("marketing_features", []),
        "metadata": merged({}, params.get("metadata") or {}),
        "name": params["name"],
        "package_dimensions": params.get("package_dimensions"),
        "shippable": params.get("shippable"),
        "statement_descriptor": params.get("statement_descriptor"),
        "tax_code": params.get("tax_code"),
        "type": params.get("type", "service"),
        "unit_label": params.get("unit_label"),
        "updated": now,
        "url": params.get("url"),
    }


def price_form(params: Json, product: str, unit_amount: int, now: int) -> Json:
    recurring = params.get("recurring")
    return {
        "id": new_id("price_"),
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": "per_unit",
        "created": now,
        "currency": params["currency"],
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": merged({}, params.get("metadata") or {}),
        "nickname": params.get("nickname"),
        "product": product,
        "recurring": recurring
        and {
            "interval": recurring["interval"],
            "interval_count": recurring.get("interval_count", 1),
            "meter": None,
            "trial_period_days": recurring.get("trial_period_days"),
            "usage_type": "licensed",
        },
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if recurring else "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": str(unit_amount),
    }


def plan_of(price: Json) -> Json:
    """The older view of a recurring price, which items still carry."""
    recurring = price["recurring"]
    shared = ("active", "billing_scheme", "created", "currency", "livemode", "metadata", "nickname", "product")
    return {
        "id": price["id"],
        "object": "plan",
        **{name: price[name] for name in shared},
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "meter": None,
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": recurring["trial_period_days"],
        "usage_type": "licensed",
    }


_NOTHING = (
    "application", "application_fee_percent", "billing_cycle_anchor_config", "billing_thresholds", "cancel_at",
    "canceled_at", "customer_account", "days_until_due", "default_payment_method", "default_source", "ended_at",
    "latest_invoice", "managed_payments", "next_pending_invoice_item_invoice", "on_behalf_of", "pause_collection",
    "pending_invoice_item_interval", "pending_setup_intent", "pending_update", "schedule", "status_details",
    "test_clock", "transfer_data", "trial_end", "trial_start",
)  # fmt: skip


def subscription_form(params: Json, customer: str, currency: str, now: int) -> Json:
    """A subscription that nobody has paid for, without its items."""
    wanted = new_id("sub_")
    return {
        "id": wanted,
        "object": "subscription",
        **dict.fromkeys(_NOTHING),
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_mode": _billing_mode(params.get("billing_mode") or {}),
        "billing_schedules": [],
        "cancel_at_period_end": False,
        "cancellation_details": {"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "customer": customer,
        "default_tax_rates": [],
        "description": params.get("description"),
        "discounts": [],
        "items": listed([], f"/v1/subscription_items?subscription={wanted}", more=False),
        "livemode": False,
        "metadata": merged({}, params.get("metadata") or {}),
        "start_date": now,
        "status": "incomplete",
        **_settings(params),
    }


def _settings(params: Json) -> Json:
    save = (params.get("payment_settings") or {}).get("save_default_payment_method", "off")
    payment = {"payment_method_options": None, "payment_method_types": None, "save_default_payment_method": save}
    no_invoice_settings = dict.fromkeys(("account_tax_ids", "custom_fields", "description", "footer"))
    ending = {"billing_cycle_anchor": None, "missing_payment_method": "create_invoice"}
    return {
        "invoice_settings": no_invoice_settings | {"issuer": {"type": "self"}},
        "payment_settings": payment,
        "trial_settings": {"end_behavior": ending | (params.get("trial_settings") or {}).get("end_behavior", {})},
    }


def _billing_mode(given: Json) -> Json:
    if given.get("type") == "classic":
        return {"flexible": None, "type": "classic", "updated_at": None}
    chosen = {"proration_discounts": "included"} | (given.get("flexible") or {})
    return {"flexible": chosen, "type": "flexible", "updated_at": None}


def item_form(subscription: str, price: Json, params: Json, period: tuple[int, int], now: int) -> Json:
    return {
        "id": new_id("si_"),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": now,
        "current_period_end": period[1],
        "current_period_start": period[0],
        "current_trial": None,
        "discounts": [],
        "metadata": merged({}, params.get("metadata") or {}),
        "plan": plan_of(price),
        "price": price,
        "quantity": params.get("quantity", 1),
        "subscription": subscription,
        "tax_rates": [],
    }
