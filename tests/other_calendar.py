"""What time each invoice of a subscription pays for, by a calendar that counts otherwise than ours and the stand-in's:
month by month, by adding days.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]
Span = tuple[datetime, datetime]
A_DAY = timedelta(days=1)


def moment(told: int) -> datetime:
    return datetime.fromtimestamp(told, UTC)


def boundary(anchor: datetime, months: int) -> datetime:
    """So many months after the anchor, on its day or the last that there is: month by month, by adding days."""
    first = anchor.replace(day=1)
    for _ in range(months):
        first = (first + 31 * A_DAY).replace(day=1)
    last = (first + 31 * A_DAY).replace(day=1) - A_DAY
    return min(first + (anchor.day - 1) * A_DAY, last)


def number_of(anchor: datetime, months: int, at: datetime) -> int | None:
    """The number of the period that begins just then; None when none does."""
    number = 0
    while (begins := boundary(anchor, number * months)) < at:
        number += 1
    return number if begins == at else None


# --- One subscription at the stand-in -----------------------------------------------------------------------------


class There:
    """A subscription as the stand-in has it, with its invoices, the oldest first.

    Of these only what was done and when is taken over; what time each pays for is counted anew. `back`: how much of
    each went back.
    """

    def __init__(
        self, found: Json, invoices: list[Json], months: dict[str, int], back: dict[str, int], trial_days: int
    ) -> None:
        self.found = found
        self.invoices = invoices
        self.back = {one["id"]: back.get(one["id"], 0) for one in invoices}
        self._months = months
        self._anchor = moment(found["created"]) + trial_days * A_DAY
        self.spans: dict[str, Span] = {}
        self.odd: list[str] = []
        self._follow(trial=trial_days > 0)

    def _follow(self, *, trial: bool) -> None:
        """Each invoice's time, and that no period is left out."""
        due: datetime | None = None
        for invoice in self.invoices:
            begins = moment(invoice["created"])
            months = self._recurs(invoice)
            if months is None:  # the rest of what was changed, when it ends
                if any(line["amount"] > 0 for line in invoice["lines"]["data"]):
                    self.spans[invoice["id"]] = (begins - timedelta(microseconds=1), begins)
                continue
            match invoice["billing_reason"]:
                case "subscription_create" if trial:
                    span = (begins, self._anchor)
                case "subscription_create":
                    span = (begins, boundary(begins, months))
                case "subscription_update":
                    self._anchor = begins
                    span = (begins, boundary(begins, months))
                case _:
                    number = number_of(self._anchor, months, begins)
                    if number is None or begins != due:
                        self.odd.append(f"{invoice['id']} begins at {begins}, which is no boundary of {self._anchor}")
                        continue
                    span = (begins, boundary(self._anchor, (number + 1) * months))
            self.spans[invoice["id"]] = span
            due = span[1]
        self.due = due

    def _recurs(self, invoice: Json) -> int | None:
        """The months of the price that is billed for a whole period."""
        for line in invoice["lines"]["data"]:
            if not line["parent"]["subscription_item_details"]["proration"]:
                return self._months[line["pricing"]["price_details"]["price"]]
        return None

    @property
    def paid_until(self) -> datetime | None:
        kept = [one for one in self.invoices if one["amount_paid"] == 0 or self.back[one["id"]] < one["amount_paid"]]
        paid = [self.spans[one["id"]] for one in kept if one["status"] == "paid" and one["id"] in self.spans]
        return max(paid)[1] if paid else None
