"""How a subscription stands: its status, what changes it, and its end.

incomplete -> active | incomplete_expired    trialing -> active    active <-> past_due -> canceled | unpaid -> active
The latest finalized invoice decides between active and past_due. Canceled and incomplete_expired are final.
"""

from typing import Any

from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_store import SUBSCRIPTION_OF_INVOICE, Change

ENDED = ("canceled", "incomplete_expired")
_OWING = ("incomplete", "past_due", "unpaid")


def revise(change: Change, subscription: Json, **members: Any) -> None:
    """Take over what is different, and tell of it with what was before; nothing when nothing is different."""
    previous = {name: subscription[name] for name, value in members.items() if subscription[name] != value}
    if previous:
        subscription |= members
        change.put(subscription)
        change.emit("customer.subscription.updated", subscription, previous)


def end(change: Change, subscription: Json, reason: str | None, status: str = "canceled") -> None:
    """It is over now. What it still owes is not collected by itself any more."""
    previous = {"status": subscription["status"]}
    subscription |= {
        "status": status,
        "canceled_at": subscription["canceled_at"] or (change.now if status == "canceled" else None),
        "ended_at": change.now,
    }
    if reason is not None:
        subscription["cancellation_details"] = subscription["cancellation_details"] | {"reason": reason}
    change.put(subscription)
    _stop_collecting(change, subscription)
    if status == "canceled":
        change.emit("customer.subscription.deleted", subscription)
    else:
        change.emit("customer.subscription.updated", subscription, previous)


def _stop_collecting(change: Change, subscription: Json) -> None:
    for invoice in change.related("invoice", SUBSCRIPTION_OF_INVOICE, subscription["id"]):
        if invoice["status"] in ("draft", "open") and invoice["auto_advance"]:
            invoice |= {"auto_advance": False, "automatically_finalizes_at": None, "next_payment_attempt": None}
            change.put(invoice)
            change.emit("invoice.updated", invoice)


def subscription_of(change: Change, invoice: Json) -> Json:
    details = invoice["parent"]["subscription_details"]
    return change.get("subscription", details["subscription"], "subscription")


def items_of(subscription: Json) -> list[Json]:
    found: list[Json] = subscription["items"]["data"]
    return found


def period_of(subscription: Json) -> tuple[int, int]:
    """All items of a subscription have one period here."""
    first = items_of(subscription)[0]
    return first["current_period_start"], first["current_period_end"]


def in_good_standing_again(change: Change, invoice: Json) -> None:
    """The invoice was paid or forgiven: the subscription is active, if none that was finalized later is owed."""
    subscription = subscription_of(change, invoice)
    if subscription["status"] in _OWING and is_latest(change, invoice):
        revise(change, subscription, status="active")


def fallen_behind(change: Change, invoice: Json) -> None:
    """The invoice could not be paid: the subscription is past due, unless it never began or is over."""
    subscription = subscription_of(change, invoice)
    if subscription["status"] in ("active", "trialing") and is_latest(change, invoice):
        revise(change, subscription, status="past_due")


def is_latest(change: Change, invoice: Json) -> bool:
    """Whether none of the subscription's finalized invoices is newer."""
    owner = invoice["parent"]["subscription_details"]["subscription"]
    finalized = (i for i in change.related("invoice", SUBSCRIPTION_OF_INVOICE, owner) if i["status"] != "draft")
    newest = next(finalized, invoice)
    return bool(newest["created"] <= invoice["created"])
