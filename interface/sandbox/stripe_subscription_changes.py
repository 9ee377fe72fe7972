"""A subscription is changed: its items with or without prorations, its card, its trial, its end.

The anchor is kept, unless the interval changes, something begins to cost, or `billing_cycle_anchor=now` is asked for:
then a new period begins at once and is billed at once.
"""

from interface.sandbox.stripe_billing_objects import item_form, plan_of
from interface.sandbox.stripe_calendar import Cycle
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, StripeError, invalid
from interface.sandbox.stripe_invoice_objects import Sold
from interface.sandbox.stripe_objects import merged
from interface.sandbox.stripe_prorations import add_pending, credit, debit, full_price, period_line
from interface.sandbox.stripe_standings import ENDED, items_of, period_of, revise
from interface.sandbox.stripe_subscription_checks import (
    check_done,
    check_method,
    check_prices,
    check_quantity,
    check_total,
    check_trial_end,
    price_of_item,
)
from interface.sandbox.stripe_subscriptions import bill_now, planned_end, tell_of_trial_end

_OF_THE_ENDED = frozenset({"metadata", "cancellation_details", "expand"})
_OF_THE_INCOMPLETE = _OF_THE_ENDED | {"default_payment_method", "description", "payment_settings"}
_TEXTS = ("description",)


def update_subscription(call: Call) -> Json:
    params, subscription = call.params, call.named("subscription", "id")
    check_done(params)
    _check_status(subscription, params)
    new: Json = {name: params[name] for name in _TEXTS if name in params}
    if "metadata" in params:
        new["metadata"] = merged(subscription["metadata"], params["metadata"])
    if "default_payment_method" in params:
        wanted = params["default_payment_method"]
        new["default_payment_method"] = check_method(call.change, wanted, subscription["customer"])
    for name in ("payment_settings", "cancellation_details"):
        if given := params.get(name):
            new[name] = subscription[name] | given
    if given := (params.get("trial_settings") or {}).get("end_behavior"):
        new["trial_settings"] = {"end_behavior": subscription["trial_settings"]["end_behavior"] | given}
    error = _change_what_is_billed(call, subscription, new)
    if error is not None and params.get("payment_behavior") == "error_if_incomplete":
        raise StripeError(402, "card_error", str(error), **error.facts)
    return subscription


def _check_status(subscription: Json, params: Json) -> None:
    status = subscription["status"]
    allowed = _OF_THE_ENDED if status in ENDED else _OF_THE_INCOMPLETE if status == "incomplete" else None
    if allowed is None:
        return
    if beyond := sorted(set(params) - allowed):
        may = ", ".join(sorted(allowed - {"expand"}))
        raise invalid(f"The subscription is {status}: of it can be changed {may}.", param=beyond[0])


def _change_what_is_billed(call: Call, subscription: Json, new: Json) -> StripeError | None:
    params, change = call.params, call.change
    before = items_of(subscription)
    after = _items(call, subscription) if "items" in params else before
    trial_over = _trial(call, subscription, new, after)
    restarts = trial_over or (subscription["status"] != "trialing" and _restarts(call, before, after))
    sold: list[Sold] = []
    behavior = params.get("proration_behavior", "create_prorations")
    if subscription["status"] != "trialing" and behavior != "none":
        sold = _prorations(call, subscription, before, after, restarts=restarts)
    add_pending(change, subscription, sold)
    if restarts:
        after = _from_now_on(call, subscription, new, after)
    if after != before:
        new.setdefault("items", subscription["items"] | {"data": after})
    end_wanted: Json = {name: params[name] for name in ("cancel_at_period_end", "cancel_at") if name in params}
    if not end_wanted and "billing_cycle_anchor" in new and subscription["cancel_at_period_end"]:
        end_wanted = {"cancel_at_period_end": True}  # the period has moved, its end with it
    if end_wanted:
        new |= planned_end(subscription | new, end_wanted, call.now)
    if not restarts and (behavior != "always_invoice" or not sold):
        revise(change, subscription, **new)
        if "trial_end" in new:
            tell_of_trial_end(change, subscription)
        return None
    lines = [period_line(change, item) for item in after] if restarts else []
    return _billed_at_once(call, subscription, new, lines)


def _billed_at_once(call: Call, subscription: Json, new: Json, lines: list[Sold]) -> StripeError | None:
    previous = {name: subscription[name] for name in (*new, "latest_invoice")}
    call.change.put(subscription).update(new)
    error = bill_now(call, subscription, lines)
    call.change.emit("customer.subscription.updated", subscription, previous)
    return error


# Items


def _items(call: Call, subscription: Json) -> list[Json]:
    """The items as they are wanted: changed by id, deleted by id, or new."""
    items = {item["id"]: item for item in items_of(subscription)}
    for at, given in enumerate(call.params["items"]):
        path = f"items[{at}]"
        check_quantity(given, path)
        if "id" not in given:
            price = price_of_item(call, given, path)
            added = item_form(subscription["id"], price, given, period_of(subscription), call.now)
            items[added["id"]] = added
            continue
        if (item := items.get(given["id"])) is None:
            raise invalid(f"No such subscription item: '{given['id']}'", code="resource_missing", param=f"{path}[id]")
        if given.get("deleted"):
            del items[item["id"]]
            continue
        items[item["id"]] = _changed(call, item, given, path)
    if not items:
        raise invalid("A subscription needs an item; cancel it instead.", param="items")
    check_prices([item["price"] for item in items.values()], subscription["currency"])
    check_total(list(items.values()))
    return list(items.values())


def _changed(call: Call, item: Json, given: Json, path: str) -> Json:
    new = dict(item)
    if "price" in given and given["price"] != item["price"]["id"]:
        price = price_of_item(call, given, path)
        new |= {"price": price, "plan": plan_of(price), "quantity": given.get("quantity", 1)}
    if "quantity" in given:
        new["quantity"] = given["quantity"]
    if "metadata" in given:
        new["metadata"] = merged(item["metadata"], given["metadata"])
    return new


def _restarts(call: Call, before: list[Json], after: list[Json]) -> bool:
    def interval(item: Json) -> tuple[str, int]:
        return item["plan"]["interval"], item["plan"]["interval_count"]

    was_free = not any(full_price(item) for item in before)
    costs = any(full_price(item) for item in after)
    asked = call.params.get("billing_cycle_anchor") == "now"
    return asked or interval(before[0]) != interval(after[0]) or (was_free and costs)


def _prorations(call: Call, subscription: Json, before: list[Json], after: list[Json], *, restarts: bool) -> list[Sold]:
    at = _proration_date(call, subscription)
    old, new = ({item["id"]: item for item in items} for items in (before, after))
    touched = [wanted for wanted in {**old, **new} if restarts or _rate(old.get(wanted)) != _rate(new.get(wanted))]
    sold: list[Sold] = []
    for wanted in touched:
        if wanted in old and (back := credit(call.change, subscription, old[wanted], at)) is not None:
            sold.append(back)
        if wanted in new and not restarts:
            sold.append(debit(call.change, subscription, new[wanted], at))
    return sold


def _rate(item: Json | None) -> tuple[str, int] | None:
    return None if item is None else (item["price"]["id"], item["quantity"])


def _proration_date(call: Call, subscription: Json) -> int:
    start, end = period_of(subscription)
    at = call.whole("proration_date", call.now)
    if not start <= at <= end:
        raise invalid("The proration_date is outside of the current period.", param="proration_date")
    return at


# Trial and cycle


def _trial(call: Call, subscription: Json, new: Json, items: list[Json]) -> bool:
    """A trial that is moved moves the period with it; returns whether it ends now."""
    if "trial_end" not in call.params:
        return False
    if subscription["status"] != "trialing":
        if call.params["trial_end"] == "now":
            return False
        raise invalid("The stand-in changes a trial only while it lasts.", param="trial_end")
    until = check_trial_end(call.params["trial_end"], call.now)
    if until is None:
        new |= {"trial_end": call.now, "status": "active"}
        return True
    moved = [item | {"current_period_end": until} for item in items]
    new |= {"trial_end": until, "billing_cycle_anchor": until, "items": subscription["items"] | {"data": moved}}
    return False


def _from_now_on(call: Call, subscription: Json, new: Json, items: list[Json]) -> list[Json]:
    """A period that begins now, and the anchor with it."""
    plan = items[0]["plan"]
    stop = Cycle(call.now, plan["interval"], plan["interval_count"]).next_after(call.now)
    moved = [item | {"current_period_start": call.now, "current_period_end": stop} for item in items]
    new |= {"billing_cycle_anchor": call.now, "items": subscription["items"] | {"data": moved}}
    return moved
