"""Looks at how a customer's subscriptions stand at the provider, and the recording of what they tell.

A look is taken once all that is known was loaded, and taken again when another writer was faster: so what it tells is
later than what is known, also in the second that Stripe tells for both. That it tells nothing new leaves no trace in
the store, by which a look of before could see that it is one: so inside a process the looks at one customer's
subscriptions take turns. Wishes do not wait for them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid5
from weakref import WeakValueDictionary

from application.billing import BillingGateway, SubscriptionSeen
from application.event_store import StoreUnavailable, StreamMoved
from application.gateway import Absent, Unknown
from application.payment_stream import Context
from application.settlement import MAX_CONFLICTS, Contended, NotLearned
from application.streams import Append, Story, Streams
from application.subscription_outcomes import learned
from domain.errors import OutcomeMismatch
from domain.subscription import Subscription
from domain.subscription_commands import SubscriptionLearned

Look = Callable[[Story[Subscription]], Awaitable[Sequence[SubscriptionLearned]]]


class SubscriptionLooks:
    """One a process."""

    def __init__(self, streams: Streams[Subscription], gateway: BillingGateway) -> None:
        self._streams = streams
        self._gateway = gateway
        self._turns = WeakValueDictionary[UUID, asyncio.Lock]()

    async def learn(self, customer: UUID, subscription: str, provider_customer: str, context: Context) -> None:
        """Record how a subscription stands at the provider and what became of its invoices; it is named as there.

        One that no wish of ours explains becomes the customer's. What the provider has not tells nothing.
        Raises NotLearned, OutcomeMismatch, Contended or StoreUnavailable.
        """
        async with self._turn(customer):
            seen = await self._seen(subscription, provider_customer)
            if seen is None:
                return

            async def look(story: Story[Subscription]) -> Sequence[SubscriptionLearned]:
                nonlocal seen
                if not _is_later(seen, story.state):
                    seen = await self._seen(subscription, provider_customer)
                return [] if seen is None else learned(story.state, customer, seen)

            # Only a look tells which stream it is.
            await self._record(seen.stream or uuid5(customer, seen.subscription), look, context)

    async def billed(self, story: Story[Subscription], context: Context) -> Story[Subscription]:
        """With what it cost so far, if that can be learned now: else the provider's events tell of it."""
        begun = story.known.provider_subscription

        async def look(now: Story[Subscription]) -> Sequence[SubscriptionLearned]:
            seen = await self._gateway.subscription(now.stream, begun, None)
            return seen.invoices if isinstance(seen, SubscriptionSeen) else ()

        try:
            return await self.record(story, look, context)
        except (OutcomeMismatch, StoreUnavailable, Contended):
            return story

    async def record(self, story: Story[Subscription], look: Look, context: Context) -> Story[Subscription]:
        """The story with what a look told. Raises what `look` does, a Refusal, Contended or StoreUnavailable."""
        async with self._turn(story.known.customer):
            return await self._record(story.stream, look, context)

    async def _record(self, stream: UUID, look: Look, context: Context) -> Story[Subscription]:
        for _ in range(MAX_CONFLICTS):
            story = await self._streams.load(stream)
            facts = self._streams.decided(story.state, await look(story))
            try:
                return await self._streams.append(Append(story, facts), context)
            except StreamMoved:
                continue
        raise Contended

    async def _seen(self, subscription: str, provider_customer: str) -> SubscriptionSeen | None:
        seen = await self._gateway.subscription(None, subscription, provider_customer)
        if isinstance(seen, Unknown):
            raise NotLearned(seen.reason)
        return None if isinstance(seen, Absent) else seen

    def _turn(self, customer: UUID) -> asyncio.Lock:
        return self._turns.setdefault(customer, asyncio.Lock())


def _is_later(seen: SubscriptionSeen | None, known: Subscription | None) -> bool:
    """Whether a look that may have been taken before was taken after all that is known, by the provider's clock."""
    latest = known.as_of if known else None
    return latest is None or (seen is not None and seen.as_of > latest)
