"""What the provider tells of customers, handled as the inbox does; and payments of ours, which no customer has."""

import asyncio
import time
from uuid import UUID

from msgspec import convert

from application.billing_breaker import GuardedBilling
from application.billing_desk import Billing
from application.breaker import Breaker
from application.inbox import Entry, Event, Verdict
from application.inbox_handling import Inbox
from application.payment_stream import PaymentStreams
from application.payments import Answer, Payments
from application.settlement import Settlement
from application.stripe_billing import StripeBilling
from application.stripe_events import StripeEvent, event
from application.stripe_gateway import StripeGateway
from domain.payment_commands import Authorize
from tests.billing_desk_side import CALLER, STRIPE_KEY, BillingDesk, Life, MortalApi


def told(desk: BillingDesk, customer: str | None, *kinds: str) -> list[Entry]:
    """The provider's events that name its customer, if one is given, of these kinds (the beginning of their types) or
    of all.
    """
    events = [event(convert(raw, StripeEvent)) for raw in desk.shop.state()["events"]]
    named = [one for one in events if customer in {None, one.customer}]
    return [_entry(one) for one in named if one.type.startswith(kinds or ("",))]


def handle(desk: BillingDesk, *entries: Entry, life: Life | None = None) -> Verdict:
    """What becomes of entries that are handled together."""

    async def main() -> Verdict:
        gateway, api = StripeGateway(STRIPE_KEY, desk.shop.url), MortalApi(desk.shop.url, life or Life())
        breaker = Breaker(gateway, time.monotonic)
        streams = PaymentStreams(desk.ledger, desk.now, asyncio.to_thread)
        provider = GuardedBilling(StripeBilling(api), breaker)
        billing = Billing(desk.ledger, provider, desk.known, desk.now, asyncio.to_thread, desk.keys)
        settlement = Settlement(streams, breaker, desk.now)
        try:
            return await Inbox(streams, settlement, breaker, desk.now, billing.events.handle).handle(entries)
        finally:
            await gateway.close()
            await api.close()

    return asyncio.run(main())


def pay(desk: BillingDesk, stream: UUID, wish: Authorize) -> Answer:
    """A payment of ours."""

    async def main() -> Answer:
        gateway = StripeGateway(STRIPE_KEY, desk.shop.url)
        streams = PaymentStreams(desk.ledger, desk.now, asyncio.to_thread)
        payments = Payments(streams, Settlement(streams, gateway, desk.now), gateway, desk.now, desk.keys)
        try:
            return await payments.carry_out(stream, wish, CALLER)
        finally:
            await gateway.close()

    return asyncio.run(main())


def _entry(told: Event) -> Entry:
    """As the inbox hands it out."""
    return Entry(
        event_id=told.event_id,
        type=told.type,
        payment_intent=told.payment_intent,
        payment=told.payment,
        operation=told.operation,
        customer=told.customer,
        subscription=told.subscription,
        fence=1,
        attempts=1,
    )
