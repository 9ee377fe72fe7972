"""Subscriptions: begun, with or without a trial, shown, and canceled. Changes are in `stripe_subscription_changes`."""

from dataclasses import replace

from interface.sandbox.stripe_agenda import TRIAL_NOTICE_S
from interface.sandbox.stripe_billing_objects import item_form, subscription_form
from interface.sandbox.stripe_calendar import Cycle
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_collection import default_method, finalize_and_collect, no_method
from interface.sandbox.stripe_errors import Json, StripeError, invalid, missing, refused
from interface.sandbox.stripe_invoice_objects import Sold
from interface.sandbox.stripe_invoices import draft, finalize, waiting
from interface.sandbox.stripe_lists import lister
from interface.sandbox.stripe_prorations import add_pending, credit, period_line, share, trial_line
from interface.sandbox.stripe_standings import ENDED, end, items_of
from interface.sandbox.stripe_store import Change
from interface.sandbox.stripe_subscription_checks import (
    check_customer_currency,
    check_done,
    check_method,
    check_prices,
    check_quantity,
    check_total,
    cycle_of,
    moment,
    price_of_item,
    trial_end_of,
)


def create_subscription(call: Call) -> Json:
    params, change = call.params, call.change
    check_done(params)
    for name in ("customer", "items"):
        if not params.get(name):
            raise refused(f"Missing required param: {name}.", code="parameter_missing", param=name)
    customer = change.get("customer", params["customer"], "customer", status=400)
    prices = [price_of_item(call, item, f"items[{at}]") for at, item in enumerate(params["items"])]
    currency = check_prices(prices, params.get("currency"))
    check_customer_currency(change, customer, currency)
    subscription = change.put(subscription_form(params, customer["id"], currency, call.now))
    subscription["default_payment_method"] = check_method(change, params.get("default_payment_method"), customer["id"])
    first_period = _begin(call, subscription, prices)
    if params.get("cancel_at_period_end") or "cancel_at" in params:
        subscription |= planned_end(subscription, params, call.now)
    invoice = draft(change, subscription, "subscription_create", (call.now, call.now), first_period, later=False)
    subscription["latest_invoice"] = invoice["id"]
    change.emit("customer.subscription.created", subscription)
    _pay_first(call, subscription, invoice)
    tell_of_trial_end(change, subscription)
    return subscription


def tell_of_trial_end(change: Change, subscription: Json) -> None:
    """At once, where there are less than three days left."""
    if subscription["status"] == "trialing" and subscription["trial_end"] - change.now <= TRIAL_NOTICE_S:
        change.emit("customer.subscription.trial_will_end", subscription)


def _begin(call: Call, subscription: Json, prices: list[Json]) -> list[Sold]:
    """The items and their first period; returns what it costs."""
    params, now, change = call.params, call.now, call.change
    recurring = prices[0]["recurring"]
    trial_end = trial_end_of(params, prices, now)
    anchor = trial_end or moment(params.get("billing_cycle_anchor", now), "billing_cycle_anchor")
    cycle = Cycle(anchor, recurring["interval"], recurring["interval_count"])
    stop = cycle.next_after(now)
    if anchor < now or (anchor > stop and not trial_end):
        raise invalid(
            "The first billing cycle begins now or later, and within one interval.", param="billing_cycle_anchor"
        )
    stop = trial_end or stop
    subscription["billing_cycle_anchor"] = anchor
    for at, (price, item) in enumerate(zip(prices, params["items"], strict=True)):
        check_quantity(item, f"items[{at}]")
        form = item_form(subscription["id"], price, item, (now, stop), now)
        subscription["items"]["data"].append(form)
    check_total(items_of(subscription))
    if trial_end:
        subscription |= {"trial_start": now, "trial_end": trial_end, "status": "trialing"}
        return [trial_line(change, item) for item in items_of(subscription)]
    lines = [period_line(change, item) for item in items_of(subscription)]
    if stop != cycle.anchor or anchor == now:
        return lines
    # The time before the first cycle is a part of a period, or a present.
    part = 0 if params.get("proration_behavior") == "none" else stop - now
    return [line._replace(amount=share(line.amount, part, stop - cycle.last_before(stop))) for line in lines]


def _pay_first(call: Call, subscription: Json, invoice: Json) -> None:
    change, behavior = call.change, call.params.get("payment_behavior", "allow_incomplete")
    if behavior == "default_incomplete":
        finalize(change, invoice)
        return
    if invoice["total"] > 0 and default_method(change, subscription) is None:
        raise no_method()
    error = finalize_and_collect(call, invoice, off_session=bool(call.params.get("off_session")))
    if error is not None and behavior == "error_if_incomplete":
        raise StripeError(402, "card_error", str(error), **error.facts)


def planned_end(subscription: Json, params: Json, now: int) -> Json:
    """The members that say when it will end, or that it will not, by `cancel_at_period_end` or `cancel_at`."""
    stop = items_of(subscription)[0]["current_period_end"]
    at_period_end = bool(params.get("cancel_at_period_end"))
    given = params.get("cancel_at")
    named = given in ("min_period_end", "max_period_end")
    when = stop if at_period_end or named else None if given is None else moment(given, "cancel_at")
    if when is not None and when <= now:
        raise invalid("A subscription can be canceled at a time in the future.", param="cancel_at")
    reason = None if when is None else "cancellation_requested"
    return {
        "cancel_at": when,
        "cancel_at_period_end": at_period_end,
        "canceled_at": None if when is None else now,
        "cancellation_details": subscription["cancellation_details"] | {"reason": reason},
    }


def retrieve_subscription(call: Call) -> Json:
    return call.named("subscription", "id")


# The end


def cancel_subscription(call: Call) -> Json:
    """At once. `prorate` gives the unused time back, `invoice_now` bills what is waiting."""
    change, params = call.change, call.params
    subscription = call.named("subscription", "id")
    if subscription["status"] in ENDED:
        raise missing("subscription", subscription["id"], "id")
    subscription["cancellation_details"] |= params.get("cancellation_details") or {}
    if params.get("prorate"):
        credits_ = [credit(change, subscription, item, call.now) for item in items_of(subscription)]
        add_pending(change, subscription, [one for one in credits_ if one is not None])
    elif not params.get("invoice_now"):
        for pending in waiting(change, subscription):
            change.put(pending | {"deleted": True})
    cancel(change, subscription)
    if params.get("invoice_now") and waiting(change, subscription):
        bill_now(replace(call, params={}), subscription, [])
    return subscription


def cancel(change: Change, subscription: Json) -> None:
    subscription["canceled_at"] = change.now
    end(change, subscription, "cancellation_requested")


def cancel_all_of(change: Change, customer: str) -> None:
    """A customer who is deleted has no subscriptions any more."""
    for subscription in list(change.related("subscription", "customer", customer)):
        if subscription["status"] not in ENDED:
            cancel(change, subscription)


def bill_now(call: Call, subscription: Json, sold: list[Sold]) -> StripeError | None:
    """An invoice of its own, in the middle of a period; the error is the reason why it was not paid."""
    period = (cycle_of(subscription).last_before(call.now), call.now)
    invoice = draft(call.change, subscription, "subscription_update", period, sold, later=False)
    call.change.put(subscription)["latest_invoice"] = invoice["id"]
    return finalize_and_collect(call, invoice, off_session=bool(call.params.get("off_session")))


# Lists


def _listed(call: Call, subscription: Json) -> bool:
    params, status = call.params, subscription["status"]
    wanted = params.get("status")
    fits = {None: status != "canceled", "all": True, "ended": status in ENDED}.get(wanted, status == wanted)
    prices = {item["price"]["id"] for item in items_of(subscription)}
    return fits and ("price" not in params or params["price"] in prices)


_LIST = lister("subscription", "customer", where=_listed)
_NO_FILTERS = frozenset(
    ("automatic_tax", "collection_method", "current_period_end", "current_period_start", "customer_account", "plan")
)


def list_subscriptions(call: Call) -> Json:
    """Without a status: all that are not canceled."""
    if beyond := sorted(_NO_FILTERS.intersection(call.params)):
        raise invalid(f"The stand-in does not filter by {beyond[0]}.", param=beyond[0])
    return _LIST(call)
