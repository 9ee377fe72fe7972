"""Questions to Stripe. None of them moves anything, and none raises: what could not be learned is Unknown."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

import stripe

from application import stripe_bare_charges as bare
from application.gateway import Absent, ChargeSeen, Standing, Unknown
from application.inbox import EventPage
from application.stripe_answers import Charge, Dispute, Found, Intent, Marked, Page, Refund, evidence, read
from application.stripe_client import looked
from application.stripe_events import StripeEvent, event
from application.stripe_standing import OPERATION, PAYMENT, is_disputed, payment_named, standing
from domain.money import from_stripe

PAGE = 100
# A payment has at most 200 operations of ours; whoever makes more refunds by hand is asked for no further.
MAX_PAGES = 10

Listed = TypeVar("Listed", Refund, Dispute)


class Get(Protocol):
    """A GET below `/v1/`."""

    def __call__(self, path: str, /, **params: object) -> Awaitable[stripe.StripeResponse]: ...


class StripeLookups:
    def __init__(self, get: Get) -> None:
        self._get = get

    async def standing(
        self, payment: UUID, authorization: str, payment_intent: str | None
    ) -> Standing | Absent | Unknown:
        """How the payment stands. Without its PaymentIntent it is searched for by the marks that we gave it.

        Stripe's search shows an object within a minute (https://docs.stripe.com/search#data-freshness): by the time
        that the key of an authorization is too old to be sent again, a search that finds nothing is evidence.
        """

        async def ask() -> Standing | Absent | Unknown:
            name = payment_intent
            if name is None:
                query = f"metadata['{PAYMENT}']:'{payment}' AND metadata['{OPERATION}']:'{authorization}'"
                response = await self._get("payment_intents/search", query=query)
                found = read(response, Page[Found]).data
                if not found:
                    return Absent(evidence(response, "search"))
                name = found[0].id
            if bare.is_bare(name):
                return await self._bare(authorization, name)
            response = await self._get(f"payment_intents/{name}", expand=["latest_charge"])
            intent = read(response, Intent)
            refunds = await self._all("refunds", name, Page[Refund]) if intent.amount_received else []
            disputes = await self._all("disputes", name, Page[Dispute]) if is_disputed(intent) else []
            return standing(authorization, response, refunds, disputes)

        return await looked(ask)

    async def _bare(self, authorization: str, name: str) -> Standing:
        response = await self._get(f"charges/{name}")
        charge = read(response, Charge)
        refunds = await self._all("refunds", name, Page[Refund]) if charge.captured or charge.refunded else []
        disputes = await self._all("disputes", name, Page[Dispute]) if charge.disputed else []
        return bare.standing(authorization, response, refunds, disputes)

    async def charge(self, charge: str) -> ChargeSeen | Absent | Unknown:
        """A charge; one that was made for a PaymentIntent is marked as that is."""

        async def ask() -> ChargeSeen | Absent | Unknown:
            found = read(await self._get(f"charges/{charge}"), Charge)
            payment = payment_named(found.metadata)
            if payment is None and found.payment_intent is not None:
                intent = read(await self._get(f"payment_intents/{found.payment_intent}"), Intent)
                payment = payment_named(intent.metadata)
            currency = found.currency
            return ChargeSeen(
                id=found.id,
                payment=payment,
                payment_intent=found.payment_intent,
                amount=from_stripe(found.amount, currency),
                captured=from_stripe(found.amount_captured, currency),
                refunded=from_stripe(found.amount_refunded, currency),
                receipt_url=found.receipt_url,
            )

        return await looked(ask)

    async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
        """The payment of ours that a PaymentIntent, or a charge without one, is marked with."""

        async def ask() -> UUID | Absent | Unknown:
            kind = "charges" if bare.is_bare(payment_intent) else "payment_intents"
            response = await self._get(f"{kind}/{payment_intent}")
            return payment_named(read(response, Marked).metadata) or Absent(evidence(response, payment_intent))

        return await looked(ask)

    async def events(self, since: datetime, after: str | None) -> EventPage | Unknown:
        """A page of what happened at or after `since`, newest first; `after` is the last id of the page before."""

        async def ask() -> EventPage | Absent | Unknown:
            more: dict[str, object] = {"starting_after": after} if after else {}
            created = {"gte": int(since.timestamp())}
            page = read(await self._get("events", created=created, limit=PAGE, **more), Page[StripeEvent])
            events = tuple(event(told) for told in page.data)
            return EventPage(events, events[-1].event_id if page.has_more and events else None)

        found = await looked(ask)
        return Unknown("the cursor is gone") if isinstance(found, Absent) else found

    async def _all(self, kind: str, name: str, page: type[Page[Listed]]) -> list[Listed]:
        found: list[Listed] = []
        after: dict[str, object] = {}
        for _ in range(MAX_PAGES):
            response = await self._get(kind, **bare.named(name), limit=PAGE, **after)
            listed = read(response, page)
            found += listed.data
            if not listed.has_more or not listed.data:
                break
            after = {"starting_after": listed.data[-1].id}
        return found
