"""The use cases of a customer: become one, be known by another name, pay with another card.

A customer is found by any of its names. A name's own stream holds whose it is, and is appended to together with the
customer's, so that of two who claim one name the store lets only one through. An e-mail's stream is named by a keyed
fingerprint: nobody who reads the log can try out whose e-mail is in it.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import UUID, uuid5

from application.billing import BillingGateway
from application.customer_outcomes import card_operation, instruction, news, outcomes
from application.event_store import StoreUnavailable, StreamMoved
from application.gateway import Unknown
from application.payment_stream import Context
from application.payments import NAMESPACE, KeyReused, ProviderUnavailable
from application.settlement import KEY_LIFETIME, MAX_CONFLICTS, OVER_AFTER, Contended, NotLearned
from application.streams import Append, Asked, Done, Story, Streams, fingerprints
from domain.customer import Customer, Name, email_name, name_of, user_name
from domain.customer_commands import (
    AddName,
    CustomerOutcome,
    Register,
    UpdateCard,
)
from domain.customer_decisions import claim
from domain.customer_facts import CustomerRegistered
from domain.envelope import Envelope
from domain.errors import InvalidName, NameTaken, OutcomeMismatch

log = logging.getLogger(__name__)

FindOut = Callable[[Story[Customer], str], Awaitable[Sequence[CustomerOutcome]]]


class CustomerNotFound(Exception):  # noqa: N818  it says what is so
    """Nobody is known by that name."""


class Customers:
    """One instance a process. `keys`: the one that e-mails' streams are named under, then those it replaced."""

    def __init__(
        self,
        streams: Streams[Customer],
        names: Streams[UUID],
        gateway: BillingGateway,
        keys: tuple[bytes, ...],
    ) -> None:
        self._streams = streams
        self._names = names
        self._gateway = gateway
        self._keys = keys

    async def find(self, name: str) -> Story[Customer]:
        """Who is known by a user's id or an e-mail. Raises CustomerNotFound, InvalidName or StoreUnavailable."""
        holder = await self._holder(name_of(name))
        if holder is None:
            raise CustomerNotFound
        return await self.load(holder)

    async def load(self, customer: UUID) -> Story[Customer]:
        """Raises CustomerNotFound or StoreUnavailable."""
        story = await self._streams.load(customer)
        if story.state is None:
            raise CustomerNotFound
        return story

    def name_streams(self, name: str) -> list[UUID]:
        """Where it stands whose name this is: under the key in force, then under those it replaced.

        Raises InvalidName.
        """
        return self._streams_of(name_of(name))

    async def register(self, user: str | None, email: str | None, context: Context) -> Done[Customer]:
        """The customer that these names name, registered if there is none; a name that is new is added.

        Raises a CustomerRefusal (NameTaken when the two name different customers), ProviderUnavailable, Contended or
        StoreUnavailable.
        """
        names = _names(user, email)
        for _ in range(MAX_CONFLICTS):
            held = await self._held(names)
            known = {holder for holder in held.values() if holder is not None}
            if len(known) > 1:
                raise NameTaken
            customer = known.pop() if known else uuid5(NAMESPACE, f"customer:{self._streams_of(names[0])[0]}")
            story = await self._streams.load(customer)
            append = Append(story, self._streams.decided(story.state, self._wishes(story, names)))
            if any(isinstance(fact, CustomerRegistered) for fact in append.facts):
                self._ready()
            claims = self._claims((stream for stream, holder in held.items() if holder is None), customer, context)
            try:
                begun = await self._streams.append(append, context, *claims)
            except StreamMoved:
                continue
            operation = next(name for name, one in reversed(begun.known.operations.items()) if one.kind == "register")
            settled = await self._settled(begun, operation, context)
            return Done(settled, operation, settled.known.operations[operation].outcome, replayed=not append.facts)
        raise Contended

    async def update_card(self, customer: UUID, token: str, key: str | None, context: Context) -> Done[Customer]:
        """Pay with this token or payment method from now on. `key` names the wish; without one, the token that was
        tried last is the same wish again, as long as asking again would come to the same.

        Raises a CustomerRefusal, CustomerNotFound, KeyReused, ProviderUnavailable, Contended or StoreUnavailable.
        """
        for _ in range(MAX_CONFLICTS):
            operation = key or card_operation(await self.load(customer), token)
            asked = Asked(UpdateCard(operation, token), operation, fingerprints(("UpdateCard", token), self._keys))
            try:
                story, replayed = await self._streams.wish(customer, asked, context, self._ready)
            except KeyReused:
                if key is None:  # another card was faster
                    continue
                raise
            story = await self._settled(story, operation, context)
            return Done(story, operation, story.known.operations[operation].outcome, replayed)
        raise Contended

    async def settle(self, customer: UUID, operation: str, context: Context) -> Story[Customer]:
        """Bring an open operation to its end, if that can be. Raises StoreUnavailable or CustomerNotFound."""
        story = await self._settled(await self.load(customer), operation, context)
        # An answer that the provider keeps under a key may repeat for ever what tells nothing.
        return await self._recorded(story, operation, context, self._seen)

    async def look(self, customer: UUID, context: Context) -> Story[Customer]:
        """Record how the customer stands at the provider, where that is news.

        Raises CustomerNotReady, Contended, StoreUnavailable, CustomerNotFound or NotLearned.
        """
        for _ in range(MAX_CONFLICTS):
            # In this order: what the provider answers is then at least as new as the story it is compared with.
            story = await self.load(customer)
            if story.known.in_flight():  # what is seen may be its outcome, which its own answer tells
                raise NotLearned("an operation is under way")
            seen = await self._gateway.customer(customer, story.known.provider_customer)
            if isinstance(seen, Unknown):
                raise NotLearned(seen.reason)
            try:
                return await self._streams.append(
                    Append(story, self._streams.decided(story.state, news(seen))), context
                )
            except StreamMoved:
                continue
        raise Contended

    def _ready(self) -> None:
        """What cannot be tried now is better not begun."""
        wait_s = self._gateway.unavailable_s()
        if wait_s is not None:
            raise ProviderUnavailable(wait_s)

    # --- Operations ----------------------------------------------------------------------------------------------

    async def _settled(self, story: Story[Customer], operation: str, context: Context) -> Story[Customer]:
        """By carrying it out under its own key while that lives, else by looking. What is not known stays open."""
        lives = self._streams.age(story, operation) < KEY_LIFETIME
        find_out = self._performed if lives else self._seen
        return await self._streams.once(story, operation, lambda: self._recorded(story, operation, context, find_out))

    async def _performed(self, story: Story[Customer], operation: str) -> Sequence[CustomerOutcome]:
        told = await self._gateway.perform_customer(instruction(story, operation))
        return [] if isinstance(told, Unknown) else [told]

    async def _seen(self, story: Story[Customer], operation: str) -> Sequence[CustomerOutcome]:
        seen = await self._gateway.customer(story.stream, story.known.provider_customer)
        return outcomes(story.known, operation, seen, over=self._streams.age(story, operation) >= OVER_AFTER)

    async def _recorded(
        self, story: Story[Customer], operation: str, context: Context, find_out: FindOut
    ) -> Story[Customer]:
        """The story with what became of an operation, if it is open and that can be learned."""
        if story.known.operations[operation].outcome != "open":
            return story
        try:
            return await self._streams.record(story, await find_out(story, operation), context)
        except OutcomeMismatch as mismatch:
            log.error("the provider's answer contradicts the intent: %r", mismatch)  # noqa: TRY400  no trace needed
        except (StoreUnavailable, Contended) as error:
            log.warning("operation left open: %s", type(error).__name__)
        return story

    # --- Names ---------------------------------------------------------------------------------------------------

    def _streams_of(self, name: Name) -> list[UUID]:
        return [name_stream(name, key) for key in (self._keys if name.kind == "email" else self._keys[:1])]

    async def _holder(self, name: Name) -> UUID | None:
        for stream in self._streams_of(name):
            holder = (await self._names.load(stream)).state
            if holder is not None:
                return holder
        return None

    async def _held(self, names: Sequence[Name]) -> dict[UUID, UUID | None]:
        """Whose each of these names is. An e-mail is claimed under all keys, as long as there are several: processes
        that have them in another order, as while they are being replaced, would let one through each.
        """
        streams = [stream for name in names for stream in self._streams_of(name)]
        return {stream: (await self._names.load(stream)).state for stream in streams}

    def _wishes(self, story: Story[Customer], names: Sequence[Name]) -> list[Register | AddName]:
        customer = story.state
        if customer is None or customer.status == "refused":
            known = {name.kind: name.value for name in names}
            attempt = len(customer.operations) + 1 if customer else 1
            operation = str(uuid5(story.stream, f"register:{attempt}"))
            user, email = (customer.user, customer.email) if customer else (None, None)
            return [Register(operation, known.get("user", user), known.get("email", email))]
        return [AddName(str(uuid5(story.stream, str(self._streams_of(name)[0]))), name.value) for name in names]

    def _claims(self, streams: Iterable[UUID], customer: UUID, context: Context) -> list[list[Envelope]]:
        stories = (Story[UUID](stream) for stream in streams)
        return [self._names.envelopes(Append(story, claim(None, customer)), context) for story in stories]


def name_stream(name: Name, key: bytes) -> UUID:
    """The stream of a name. An e-mail is in it only as a keyed fingerprint."""
    told = name.value if name.kind == "user" else hmac.digest(key, name.value.encode(), "sha256").hex()
    return uuid5(NAMESPACE, f"name:{name.kind}:{told}")


def _names(user: str | None, email: str | None) -> list[Name]:
    names = [user_name(user)] if user is not None else []
    names += [email_name(email)] if email is not None else []
    if not names:
        raise InvalidName(kind="user", reason="a customer is known by a user's id or an e-mail")
    return names
