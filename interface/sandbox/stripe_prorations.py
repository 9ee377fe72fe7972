"""Money for parts of a period, to the second: what was billed for the rest goes back, what comes instead is billed."""

from collections.abc import Iterator

from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_invoice_objects import Sold, pending_form
from interface.sandbox.stripe_invoices import waiting
from interface.sandbox.stripe_standings import period_of
from interface.sandbox.stripe_store import SUBSCRIPTION_OF_INVOICE, Change


def share(amount: int, part: int, whole: int) -> int:
    """Amount * part / whole for an amount that is not negative, rounded half up."""
    return (2 * amount * part + whole) // (2 * whole)


def full_price(item: Json) -> int:
    price: int = item["price"]["unit_amount"] * (item["quantity"] or 0)
    return price


def credit(change: Change, subscription: Json, item: Json, at: int) -> Sold | None:
    """What an item that goes away, or changes, gives back. In the classic mode by its price; in the flexible one by
    what was billed for it last, so that nothing goes back that was never asked for.
    """
    start, end = period_of(subscription)
    source = None
    if subscription["billing_mode"]["type"] == "classic":
        amount = share(full_price(item), end - at, end - start)
    else:
        source = next(_billed(change, subscription, item, at), None)
        if source is None or source["amount"] <= 0:
            return None
        billed = source["period"]
        amount = share(source["amount"], billed["end"] - at, billed["end"] - billed["start"])
    return Sold(item, -amount, (at, end), f"Unused time of {_named(change, item)}", source)


def debit(change: Change, subscription: Json, item: Json, at: int) -> Sold:
    """What an item costs until the end of the period that it comes into."""
    start, end = period_of(subscription)
    amount = share(full_price(item), end - at, end - start)
    return Sold(item, amount, (at, end), f"Remaining time of {_named(change, item)}")


def add_pending(change: Change, subscription: Json, sold: list[Sold]) -> None:
    """They wait for the next invoice."""
    for one in sold:
        pending = change.put(pending_form(subscription["customer"], one, change.now))
        change.emit("invoiceitem.created", pending)


def period_line(change: Change, item: Json) -> Sold:
    """An item for its whole current period."""
    period = (item["current_period_start"], item["current_period_end"])
    return Sold(item, full_price(item), period, _named(change, item))


def trial_line(change: Change, item: Json) -> Sold:
    """An item for a period that costs nothing."""
    period = (item["current_period_start"], item["current_period_end"])
    return Sold(item, 0, period, f"Trial of {_named(change, item)}")


def _billed(change: Change, subscription: Json, item: Json, at: int) -> Iterator[Json]:
    """The lines of an item, billed or waiting, that cover a moment; the newest first."""
    for line in _lines(change, subscription):
        if _item_of(line) == item["id"] and line["period"]["start"] <= at < line["period"]["end"]:
            yield line


def _lines(change: Change, subscription: Json) -> Iterator[Json]:
    yield from reversed(waiting(change, subscription))
    started, _ = period_of(subscription)
    for invoice in change.related("invoice", SUBSCRIPTION_OF_INVOICE, subscription["id"]):
        if invoice["created"] < started:
            return
        if invoice["status"] != "void":
            yield from reversed(invoice["lines"]["data"])


def _item_of(line: Json) -> str | None:
    parent = line["parent"]
    details = parent["subscription_details"] if line["object"] == "invoiceitem" else parent["subscription_item_details"]
    found: str | None = details["subscription_item"]
    return found


def _named(change: Change, item: Json) -> str:
    product = change.find("product", item["price"]["product"]) or {}
    return f"{item['quantity']} x {product.get('name', item['price']['product'])}"
