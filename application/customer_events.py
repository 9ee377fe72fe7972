"""What the provider tells of customers: their cards, their subscriptions, and the invoices of these.

As with payments, an event is only a hint: what is recorded is how the customer stands at the provider now.
"""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from application.billing import BillingGateway
from application.customers import CustomerNotFound, Customers
from application.gateway import Absent, Unknown
from application.inbox import Entry, Verdict
from application.payment_stream import Context
from application.settlement import Contradiction, NotLearned
from application.subscriptions import Subscriptions
from domain.errors import Refusal

ACTOR = "provider"
OF_CARDS = ("customer.updated", "customer.deleted", "payment_method.")
# A charge does not say what it was for.
OF_CHARGES = ("charge.", "payment_intent.", "refund.")
MAX_TOLD = 200

# Our customer by the provider's name for it, as far as a read model knows.
CustomerAt = Callable[[str], Awaitable[UUID | None]]


class CustomerEvents:
    """One a process."""

    def __init__(
        self, customers: Customers, subscriptions: Subscriptions, gateway: BillingGateway, customer_at: CustomerAt
    ) -> None:
        self._customers = customers
        self._subscriptions = subscriptions
        self._gateway = gateway
        self._customer_at = customer_at

    async def handle(self, entries: Sequence[Entry]) -> Verdict | None:
        """Bring up to date the customer that these entries are about; None when it is none of ours.

        Raises NotLearned, Contradiction, Contended or StoreUnavailable.
        """
        first = entries[0]
        named = first.customer or await self._customer_of(first.payment_intent)
        customer = await self._ours(named) if named is not None else None
        if named is None or customer is None:
            return None
        context = Context(ACTOR, first.event_id, first.event_id)
        try:
            await self._customers.load(customer)
            # First: a card that is being changed is waited for, which what was paid meanwhile does not have to be.
            for subscription in await self._moved(named, entries):
                await self._subscriptions.looks.learn(customer, subscription, named, context)
            if any(entry.type.startswith(OF_CARDS) for entry in entries):
                await self._customers.look(customer, context)
        except CustomerNotFound:
            return Verdict("unmatched", "is marked with a customer that is not in this ledger")
        except Refusal as refusal:
            raise Contradiction(repr(refusal)) from refusal
        return Verdict("done")

    async def _customer_of(self, payment: str | None) -> str | None:
        """A refund does not say whose it is; what was refunded does."""
        owner = await self._gateway.customer_of(payment) if payment is not None else None
        if isinstance(owner, Unknown):
            raise NotLearned(owner.reason)
        return None if isinstance(owner, Absent) else owner

    async def _ours(self, provider_customer: str) -> UUID | None:
        """The provider's object knows whose it is before a read model does."""
        if (known := await self._customer_at(provider_customer)) is not None:
            return known
        seen = await self._gateway.customer(None, provider_customer)
        if isinstance(seen, Unknown):
            raise NotLearned(seen.reason)
        return None if isinstance(seen, Absent) else seen.stream

    async def _moved(self, provider_customer: str, entries: Sequence[Entry]) -> Sequence[str]:
        """The subscriptions that may have moved, by the provider's names."""
        named = sorted({entry.subscription for entry in entries if entry.subscription is not None})
        if not named and any(entry.type.startswith(OF_CHARGES) for entry in entries):
            owned = await self._gateway.subscriptions_of(provider_customer)
            if isinstance(owned, Unknown):
                raise NotLearned(owned.reason)
            named = [] if isinstance(owned, Absent) else list(owned)
        return named[:MAX_TOLD]
