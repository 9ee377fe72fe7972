"""What happens by itself when its moment has come; the change's clock stands at that moment, however late it is played.

A period ends -> the next one begins with a draft -> an hour later it is finalized and charged -> what fails is retried.
"""

from interface.sandbox.stripe_agenda import Due
from interface.sandbox.stripe_calendar import month_after
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_collection import collect, default_method, finalize_and_collect
from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_invoices import draft, give_up, waiting
from interface.sandbox.stripe_payments import expire
from interface.sandbox.stripe_prorations import period_line
from interface.sandbox.stripe_refunds import fail_refund
from interface.sandbox.stripe_standings import end, items_of, period_of, revise
from interface.sandbox.stripe_subscription_checks import cycle_of


def play(call: Call, due: Due, found: Json) -> None:
    """One moment of one object, that was found to be due."""
    change = call.change
    match due.what:
        case "capture_before":
            expire(change, due.wanted, as_refund=call.release_as_refund)
        case "refund_fails":
            fail_refund(change, found)
        case "incomplete_expires":
            _expire(call, found)
        case "trial_notice":
            change.emit("customer.subscription.trial_will_end", found)
        case "card_notice":
            card = found["card"]
            if month_after(card["exp_year"], card["exp_month"]) > call.now:
                change.emit("customer.source.expiring", _card(found))
        case "cancel_at":
            end(change, found, None)
        case "period_ends":
            _period_ends(call, found)
        case "finalizes":
            finalize_and_collect(call, found, off_session=True)
        case "retry":
            collect(call, found, off_session=True)
        case _:
            raise AssertionError(due.what)


def _period_ends(call: Call, subscription: Json) -> None:
    change = call.change
    if subscription["cancel_at"] is not None and subscription["cancel_at"] <= call.now:
        _last_invoice(call, subscription)
        end(change, subscription, None)
        return
    unwanted = subscription["trial_settings"]["end_behavior"]["missing_payment_method"] == "cancel"
    trial = subscription["status"] == "trialing"
    if trial and unwanted and default_method(change, subscription) is None:
        end(change, subscription, None)
        return
    before = period_of(subscription)
    after = (before[1], cycle_of(subscription).next_after(before[1]))
    span = {"current_period_start": after[0], "current_period_end": after[1]}
    items = [item | span for item in items_of(subscription)]
    unpaid = subscription["status"] == "unpaid"
    lines = [period_line(change, item) for item in items]
    invoice = draft(change, subscription, "subscription_cycle", before, lines, later=not unpaid)
    if unpaid:
        invoice["auto_advance"] = False
    status = "active" if trial else subscription["status"]
    fresh = subscription["items"] | {"data": items}
    revise(change, subscription, items=fresh, latest_invoice=invoice["id"], status=status)


def _last_invoice(call: Call, subscription: Json) -> None:
    """What was prorated and not billed yet is collected at the end."""
    if waiting(call.change, subscription):
        before = period_of(subscription)
        invoice = draft(call.change, subscription, "subscription_cycle", before, [], later=False)
        subscription["latest_invoice"] = invoice["id"]
        finalize_and_collect(call, invoice, off_session=True)


def _expire(call: Call, subscription: Json) -> None:
    """Nobody paid for it to begin."""
    end(call.change, subscription, None, "incomplete_expired")
    invoice = call.change.get("invoice", subscription["latest_invoice"], "invoice")
    if invoice["status"] == "open":
        give_up(call.change, invoice, "void", "invoice.voided")


def _card(method: Json) -> Json:
    """The card of a payment method in the older form that this event tells of."""
    names = ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4")
    card = {name: method["card"][name] for name in names}
    return {"id": method["id"], "object": "card", "customer": method["customer"], "metadata": {}, **card}
