"""The use cases of a subscription: begin one, change what it is for, cancel it, resume it.

Intent, act, outcome, as with payments. Of one customer and product there is one subscription at a time, unless another
is asked for: their streams are numbered, so that of two who begin one at once the store lets only one through.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid5

from msgspec import Struct
from msgspec.structs import replace

from application.billing import BillingGateway
from application.catalog import Catalog
from application.customers import Customers
from application.event_store import StoreUnavailable
from application.gateway import Unknown
from application.payment_stream import Context
from application.payments import KeyReused, ProviderUnavailable
from application.settlement import KEY_LIFETIME, MAX_CONFLICTS, OVER_AFTER, Contended
from application.streams import Asked, Done, Story, Streams, fingerprints
from application.subscription_looks import SubscriptionLooks
from application.subscription_outcomes import instruction, is_to, outcomes, sold
from domain.errors import AlreadySubscribed, CustomerNotReady, OutcomeMismatch, TooManyChanges
from domain.subscription import Subscription
from domain.subscription_commands import Cancel, Change, Resume, Subscribe, SubscriptionLearned

log = logging.getLogger(__name__)

# Subscriptions that one customer may have had to one product.
MAX_OF_A_PRODUCT = 100

# The subscriptions of a customer that have not ended, as far as a read model knows.
SubscriptionsOf = Callable[[UUID], Awaitable[Sequence[Subscription]]]

FindOut = Callable[[Story[Subscription], str, str, Context], Awaitable[Story[Subscription]]]


class SubscriptionNotFound(Exception):  # noqa: N818  it says what is so
    """There is no such subscription."""


class Wanted(Struct, frozen=True):
    """What to subscribe to. `product`: its id or name; without `price` its default. `another`: beside one there is."""

    product: str
    price: str | None = None
    quantity: int = 1
    trial_days: int = 0
    another: bool = False


class Subscriptions:
    """One instance a process. `keys`: the one that wishes are fingerprinted with, then those it replaced."""

    def __init__(
        self,
        streams: Streams[Subscription],
        customers: Customers,
        gateway: BillingGateway,
        catalog: Catalog,
        keys: tuple[bytes, ...],
        subscriptions_of: SubscriptionsOf,
    ) -> None:
        self._streams = streams
        self._customers = customers
        self._gateway = gateway
        self._catalog = catalog
        self._keys = keys
        self._subscriptions_of = subscriptions_of
        self.looks = SubscriptionLooks(streams, gateway)

    async def load(self, subscription: UUID) -> Story[Subscription]:
        """Raises SubscriptionNotFound or StoreUnavailable."""
        story = await self._streams.load(subscription)
        if story.state is None:
            raise SubscriptionNotFound
        return story

    async def begin(self, customer: UUID, wanted: Wanted, operation: str, context: Context) -> Done[Subscription]:
        """Begin to bill a customer. The same operation asked again is answered again.

        Raises a SubscriptionRefusal, CustomerNotFound, CustomerNotReady, KeyReused, CatalogUnavailable,
        ProviderUnavailable, Contended or StoreUnavailable.
        """
        asked = fingerprints(("Subscribe", customer, wanted), self._keys)
        known = (await self._customers.load(customer)).known
        price = await self._catalog.price(wanted.product, wanted.price)
        wish = Subscribe(operation, customer, price.product, price.id, wanted.quantity, wanted.trial_days)
        for _ in range(MAX_CONFLICTS):
            stream, replayed = await self._place_for(customer, price.product, operation, another=wanted.another)
            if not replayed:
                if known.provider_customer is None:
                    raise CustomerNotReady(command="Subscribe", status=known.status)
                await self._no_other(customer, price.product, operation, another=wanted.another)
            try:
                done = await self._carry_out(stream, Asked(wish, operation, asked), context)
            except AlreadySubscribed:  # somebody was faster at this place
                if not wanted.another:
                    raise
            else:
                return await self._billed(done, context)
        raise Contended

    async def change(
        self,
        subscription: UUID,
        product: str | None,
        price: str | None,
        quantity: int | None,
        operation: str,
        context: Context,
    ) -> Done[Subscription]:
        """Have another product, price or quantity; what that costs at once is prorated by the provider.

        Raises a SubscriptionRefusal, SubscriptionNotFound, KeyReused, CatalogUnavailable, ProviderUnavailable,
        Contended or StoreUnavailable.
        """
        asked = fingerprints(("Change", product, price, quantity), self._keys)
        story, meant = await self.load(subscription), None
        if story.started(operation) is None and (product is not None or price is not None):
            meant = await self._catalog.price(product or sold(story.known)[0], price)
            if meant.product != sold(story.known)[0]:
                await self._place_for(story.known.customer, meant.product, operation, another=False)
                await self._no_other(story.known.customer, meant.product, operation, another=False)
        wanted = (meant.product, meant.id) if meant else None
        return await self._carry_out(
            subscription,
            Asked(lambda now: Change(operation, *(wanted or sold(now)), quantity), operation, asked),
            context,
        )

    async def cancel(
        self, subscription: UUID, operation: str, context: Context, *, at_period_end: bool
    ) -> Done[Subscription]:
        """End it, at once or when what was paid for has been used. Raises as `change` does."""
        asked = fingerprints(("Cancel", at_period_end), self._keys)
        await self.load(subscription)
        return await self._carry_out(subscription, Asked(Cancel(operation, at_period_end), operation, asked), context)

    async def resume(self, subscription: UUID, operation: str, context: Context) -> Done[Subscription]:
        """Keep it after all. Raises as `change` does."""
        asked = fingerprints(("Resume",), self._keys)
        await self.load(subscription)
        return await self._carry_out(
            subscription, Asked(Resume(operation, self._streams.now()), operation, asked), context
        )

    async def settle(self, subscription: UUID, operation: str, context: Context) -> Story[Subscription]:
        """Bring an open operation to its end, if that can be. Raises StoreUnavailable or SubscriptionNotFound."""
        story = await self._settled(await self.load(subscription), operation, context)
        # An answer that the provider keeps under a key may repeat for ever what tells nothing.
        return await self._recorded(story, operation, context, self._seen)

    # --- Where to begin ------------------------------------------------------------------------------------------

    async def _place_for(self, customer: UUID, product: str, operation: str, *, another: bool) -> tuple[UUID, bool]:
        """The stream of the wish, or of the next subscription; and whether the wish stands in it already."""
        free: UUID | None = None
        taken: Subscription | None = None
        for number in range(1, MAX_OF_A_PRODUCT + 1):
            stream = uuid5(customer, f"{product}:{number}")
            story = await self._streams.load(stream)
            if story.started(operation) is not None:
                return stream, True
            if story.state is None or story.state.status == "refused":
                free = free or stream
            elif is_to(story.state, product):
                taken = story.state
            if story.state is None:
                break
        if taken is not None and not another:
            raise AlreadySubscribed(product=product, status=taken.status)
        if free is None:
            raise TooManyChanges(limit=MAX_OF_A_PRODUCT)
        return free, False

    async def _no_other(self, customer: UUID, product: str, operation: str, *, another: bool) -> None:
        """One that was changed to it since it began, or was begun elsewhere; or another product's under this key."""
        for other in await self._subscriptions_of(customer):
            if operation in other.operations and other.product != product:
                raise KeyReused
            if not another and operation not in other.operations and is_to(other, product):
                raise AlreadySubscribed(product=product, status=other.status)

    # --- Operations ----------------------------------------------------------------------------------------------

    async def _carry_out(self, stream: UUID, asked: Asked, context: Context) -> Done[Subscription]:
        story, replayed = await self._streams.wish(stream, asked, context, self._ready)
        known = story.known.operations.get(asked.operation)
        if known is None:  # it was so already
            return Done(story, asked.operation, "done", replayed)
        story = await self._settled(story, asked.operation, context)
        return Done(story, asked.operation, story.known.operations[asked.operation].outcome, replayed)

    async def _billed(self, done: Done[Subscription], context: Context) -> Done[Subscription]:
        """With what it cost at once, so that whoever began it need not wait for the provider's event to see it paid."""
        if done.outcome != "done" or done.story.known.invoices:
            return done
        return replace(done, story=await self.looks.billed(done.story, context))

    def _ready(self) -> None:
        """What cannot be tried now is better not begun."""
        wait_s = self._gateway.unavailable_s()
        if wait_s is not None:
            raise ProviderUnavailable(wait_s)

    async def _settled(self, story: Story[Subscription], operation: str, context: Context) -> Story[Subscription]:
        """By carrying it out under its own key while that lives, else by looking. What is not known stays open."""
        lives = self._streams.age(story, operation) < KEY_LIFETIME
        find_out = self._performed if lives else self._seen
        return await self._streams.once(story, operation, lambda: self._recorded(story, operation, context, find_out))

    async def _performed(
        self, story: Story[Subscription], operation: str, provider_customer: str, context: Context
    ) -> Story[Subscription]:
        told = await self._gateway.perform_subscription(instruction(story, operation, provider_customer))
        return await self._streams.record(story, [] if isinstance(told, Unknown) else [told], context)

    async def _seen(
        self, story: Story[Subscription], operation: str, provider_customer: str, context: Context
    ) -> Story[Subscription]:
        over = self._streams.age(story, operation) >= OVER_AFTER

        async def look(now: Story[Subscription]) -> Sequence[SubscriptionLearned]:
            seen = await self._gateway.subscription(now.stream, now.known.provider_subscription, provider_customer)
            return outcomes(now.known, operation, seen, over=over)

        return await self.looks.record(story, look, context)

    async def _recorded(
        self, story: Story[Subscription], operation: str, context: Context, find_out: FindOut
    ) -> Story[Subscription]:
        """The story with what became of an operation, if it is open and that can be learned."""
        if story.known.operations[operation].outcome != "open":
            return story
        customer = (await self._customers.load(story.known.customer)).known.provider_customer
        assert customer is not None  # noqa: S101  whoever subscribes is one at the provider
        try:
            return await find_out(story, operation, customer, context)
        except OutcomeMismatch as mismatch:
            log.error("the provider's answer contradicts the intent: %r", mismatch)  # noqa: TRY400  no trace needed
        except (StoreUnavailable, Contended) as error:
            log.warning("operation left open: %s", type(error).__name__)
        return story
