"""What will happen by itself, and when: a heap of moments that every stored object adds its own to.

An object that has changed adds its moments anew and the old ones stay, so a moment that comes up is asked for again:
it counts only if the object, as it is then, still has it. Nothing of this is stored; a restart reads it from the
journal's objects. Notices change no object, so the event that told of one is what shows that it was given.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from interface.sandbox.stripe_calendar import DAY_S, month_of
from interface.sandbox.stripe_charges import capture_before
from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_refunds import UNAVAILABLE
from interface.sandbox.stripe_standings import period_of

TRIAL_NOTICE_S = 3 * DAY_S
INCOMPLETE_EXPIRES_S = 23 * 3600
REFUND_FAILS_S = DAY_S

NOTICES = {"customer.subscription.trial_will_end": "trial_notice", "customer.source.expiring": "card_notice"}


class Due(NamedTuple):
    """At a moment, in Unix seconds, something happens to an object."""

    at: int
    number: int
    what: str
    wanted: str


class Agenda:
    """Due moments, the earliest first; of equal ones, what was planned first."""

    def __init__(self) -> None:
        self._heap: list[Due] = []
        self._planned = 0
        self._told: set[tuple[str, str, int]] = set()

    def learn(self, found: Json) -> None:
        """An object was stored, new or changed."""
        if found["object"] == "event":
            if (what := NOTICES.get(found["type"])) is not None:
                self._told.add(_notice(what, found["data"]["object"]))
            return
        for at, what in moments(found):
            if what not in NOTICES.values() or _notice(what, found) not in self._told:
                self._planned += 1
                heapq.heappush(self._heap, Due(at, self._planned, what, found["id"]))

    def first(self) -> Due | None:
        return self._heap[0] if self._heap else None

    def take(self) -> Due:
        return heapq.heappop(self._heap)

    def put_back(self, due: Due) -> None:
        heapq.heappush(self._heap, due)

    def still(self, due: Due, found: Json) -> bool:
        """Whether the object, as it is now, has this moment."""
        if (due.at, due.what) not in moments(found):
            return False
        return due.what not in NOTICES.values() or _notice(due.what, found) not in self._told


def moments(found: Json) -> list[tuple[int, str]]:
    """When something happens to an object by itself, and what."""
    match found["object"]:
        case "charge":
            return [(at, "capture_before")] if (at := capture_before(found)) is not None else []
        case "refund":
            sent_back = found["status"] == "succeeded" and _reference(found) == UNAVAILABLE
            return [(found["created"] + REFUND_FAILS_S, "refund_fails")] if sent_back else []
        case "subscription":
            return list(_of_subscription(found))
        case "invoice":
            return list(_of_invoice(found))
        case "payment_method":
            return list(_of_method(found))
        case _:
            return []


def kind_of(what: str) -> str:
    """The kind of object that something happens to."""
    return _KINDS[what]


_KINDS = {
    "capture_before": "charge",
    "refund_fails": "refund",
    "incomplete_expires": "subscription",
    "trial_notice": "subscription",
    "period_ends": "subscription",
    "cancel_at": "subscription",
    "finalizes": "invoice",
    "retry": "invoice",
    "card_notice": "payment_method",
}


def _reference(refund: Json) -> str | None:
    found: str | None = refund["destination_details"]["card"].get("reference_status")
    return found


def _of_subscription(found: Json) -> Iterator[tuple[int, str]]:
    match found["status"]:
        case "incomplete":
            yield found["created"] + INCOMPLETE_EXPIRES_S, "incomplete_expires"
        case "trialing" | "active" | "past_due" | "unpaid":
            yield period_of(found)[1], "period_ends"
            if found["status"] == "trialing":
                yield found["trial_end"] - TRIAL_NOTICE_S, "trial_notice"
            if found["cancel_at"] is not None:
                yield found["cancel_at"], "cancel_at"
        case _:
            pass


def _of_invoice(found: Json) -> Iterator[tuple[int, str]]:
    if found["status"] == "draft" and found["automatically_finalizes_at"] is not None:
        yield found["automatically_finalizes_at"], "finalizes"
    if found["status"] == "open" and found["next_payment_attempt"] is not None:
        yield found["next_payment_attempt"], "retry"


def _of_method(found: Json) -> Iterator[tuple[int, str]]:
    """A customer's card is about to expire from the first day of its last month on."""
    card = found["card"]
    if found["customer"] is not None and 1 <= card["exp_month"] <= 12:
        begins = month_of(card["exp_year"], card["exp_month"])
        if begins > found["created"]:
            yield begins, "card_notice"


def _notice(what: str, found: Json) -> tuple[str, str, int]:
    """What tells one notice about an object from another one."""
    if what == "trial_notice":
        return what, found["id"], found["trial_end"]
    card = found.get("card") or found
    return what, found["id"], card["exp_year"] * 12 + card["exp_month"]
