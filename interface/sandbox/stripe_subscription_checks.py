"""What a subscription may be made of: prices that fit each other, a card that is the customer's, dates that come."""

from typing import Any

from interface.sandbox.stripe_calendar import DAY_S, Cycle
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, invalid, refused
from interface.sandbox.stripe_methods import not_attached
from interface.sandbox.stripe_money import MAX_AMOUNT_MINOR, display
from interface.sandbox.stripe_standings import ENDED, items_of
from interface.sandbox.stripe_store import Change

MAX_ITEMS = 20
MAX_TRIAL_DAYS = 730
MAX_QUANTITY = 1_000_000

_NOT_DONE = frozenset(
    (
        "add_invoice_items", "application_fee_percent", "backdate_start_date", "billing_cycle_anchor_config",
        "billing_schedules", "billing_thresholds", "customer_account", "days_until_due", "default_source",
        "default_tax_rates", "discounts", "invoice_settings", "on_behalf_of", "pause_collection",
        "pending_invoice_item_interval", "transfer_data",
    )
)  # fmt: skip
_NOT_DONE_OF_ITEMS = frozenset(
    ("billing_thresholds", "clear_usage", "current_trial", "discounts", "plan", "price_data", "tax_rates")
)


def check_done(params: Json) -> None:
    """What would change the money, and is not modelled, is refused rather than overlooked."""
    behavior = (params.get("trial_settings") or {}).get("end_behavior") or {}
    beyond = [name for name in params if name in _NOT_DONE and params[name]]
    beyond += ["collection_method"] if params.get("collection_method") == "send_invoice" else []
    beyond += ["automatic_tax"] if (params.get("automatic_tax") or {}).get("enabled") else []
    beyond += ["payment_behavior"] if params.get("payment_behavior") == "pending_if_incomplete" else []
    if behavior.get("missing_payment_method") == "pause" or behavior.get("billing_cycle_anchor"):
        beyond.append("trial_settings[end_behavior]")
    for at, item in enumerate(params.get("items") or []):
        beyond += [f"items[{at}][{name}]" for name in item if name in _NOT_DONE_OF_ITEMS and item[name]]
    if beyond:
        raise invalid(f"The stand-in does not do {beyond[0]} this way.", param=beyond[0])


def price_of_item(call: Call, given: Json, path: str) -> Json:
    """The price that an item names: there, active and recurring."""
    if "price" not in given:
        raise refused(f"Missing required param: {path}[price].", code="parameter_missing", param=f"{path}[price]")
    price = call.change.get("price", given["price"], f"{path}[price]", status=400)
    if not price["active"]:
        raise invalid(f"The price {price['id']} is inactive: it is not for new purchases.", param=f"{path}[price]")
    if price["recurring"] is None:
        raise invalid(f"The price {price['id']} is one_time, but a recurring one is needed.", param=f"{path}[price]")
    return price


def check_quantity(given: Json, path: str) -> None:
    if not 0 <= given.get("quantity", 1) <= MAX_QUANTITY:
        raise invalid(f"A quantity is from 0 to {MAX_QUANTITY}.", param=f"{path}[quantity]")


def check_prices(prices: list[Json], currency: str | None) -> str:
    """One currency, one interval, and no price twice; returns the currency."""
    if not 1 <= len(prices) <= MAX_ITEMS:
        raise invalid(f"A subscription has from 1 to {MAX_ITEMS} items.", param="items")
    expected: str = currency or prices[0]["currency"]
    for at, price in enumerate(prices):
        if price["currency"] != expected:
            raise invalid(
                f"The price {price['id']} is in {price['currency']}, but {expected} is expected here.",
                param=f"items[{at}][price]",
            )
        if _interval(price) != _interval(prices[0]):
            raise invalid("All prices of a subscription recur at the same interval.", param=f"items[{at}][price]")
    if len({price["id"] for price in prices}) < len(prices):
        raise invalid("A price can be on a subscription once; use a quantity.", param="items")
    return expected


def _interval(price: Json) -> tuple[str, int]:
    return price["recurring"]["interval"], price["recurring"]["interval_count"]


def check_total(items: list[Json]) -> None:
    """What a period costs can be charged at once."""
    currency = items[0]["price"]["currency"]
    if sum(item["price"]["unit_amount"] * (item["quantity"] or 0) for item in items) > MAX_AMOUNT_MINOR:
        most = display(MAX_AMOUNT_MINOR, currency)
        raise invalid(f"A period may cost {most} at most.", code="amount_too_large", param="items")


def cycle_of(subscription: Json) -> Cycle:
    return Cycle(subscription["billing_cycle_anchor"], *_interval(items_of(subscription)[0]["price"]))


def check_method(change: Change, wanted: str | None, customer: str) -> str | None:
    """A default payment method has to be attached to the customer."""
    if wanted is not None:
        method = change.get("payment_method", wanted, "default_payment_method", status=400)
        if method["customer"] != customer:
            raise not_attached(wanted, "default_payment_method")
    return wanted


def check_customer_currency(change: Change, customer: Json, currency: str) -> None:
    """A customer is billed in one currency at a time."""
    if customer["currency"] == currency:
        return
    running = (s for s in change.related("subscription", "customer", customer["id"]) if s["status"] not in ENDED)
    if next(running, None) is not None:
        raise invalid(
            f"This customer has a subscription in {customer['currency']} and cannot be billed in {currency}, too.",
            param="currency",
        )
    previous = {"currency": customer["currency"]}
    change.put(customer)["currency"] = currency
    change.emit("customer.updated", customer, previous)


def trial_end_of(params: Json, prices: list[Json], now: int) -> int | None:
    """When the trial ends that is asked for, None where none is."""
    if "trial_end" in params and "trial_period_days" in params:
        raise invalid("Give trial_end or trial_period_days, not both.", param="trial_end")
    if "trial_end" in params:
        return check_trial_end(params["trial_end"], now)
    days = params.get("trial_period_days")
    if days is None and params.get("trial_from_plan"):
        days = max((price["recurring"]["trial_period_days"] or 0 for price in prices), default=0)
    if days is None:
        return None
    if not 0 <= days <= MAX_TRIAL_DAYS:
        raise invalid(f"A trial has from 0 to {MAX_TRIAL_DAYS} days.", param="trial_period_days")
    return now + days * DAY_S if days else None


def check_trial_end(given: Any, now: int) -> int | None:
    if given == "now":
        return None
    at = moment(given, "trial_end")
    if not now < at <= now + MAX_TRIAL_DAYS * DAY_S:
        raise invalid(f"A trial ends in the future, in {MAX_TRIAL_DAYS} days at the latest.", param="trial_end")
    return at


def moment(given: Any, param: str) -> int:
    """A time in Unix seconds, from a parameter that may also be a word."""
    text = str(given)
    if not text.isdecimal() or len(text) > len("9999999999"):
        raise refused(f"Invalid timestamp: {text[:40]}", code="parameter_invalid_integer", param=param)
    return int(text)
