"""The billing side of a process put together: customers, subscriptions, what is sold, and what is told of them."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Literal, Protocol, get_args
from uuid import UUID

from application.billing import BillingGateway
from application.catalog import Catalog
from application.customer_events import CustomerEvents
from application.customers import CustomerNotFound, Customers
from application.event_store import Ledger, StoreUnavailable
from application.payment_stream import Context, RunBlocking
from application.streams import Streams
from application.subscriptions import SubscriptionNotFound, Subscriptions
from domain import customer, customer_decisions, subscription, subscription_decisions
from domain.customer_facts import CustomerFact, NameClaimed
from domain.subscription import Subscription
from domain.subscription_facts import SubscriptionFact

log = logging.getLogger(__name__)

ACTOR = "recovery"


class KnownCustomers(Protocol):
    """What a read model knows: it may lag a little behind."""

    async def customer_at(self, provider_customer: str) -> UUID | None:
        """Our customer by the provider's name for it."""
        ...

    async def subscriptions_of(self, customer: UUID) -> list[Subscription]:
        """Those of a customer."""
        ...


class Billing:
    """One a process. `keys`: fingerprints' and e-mails' names, the one in force first."""

    def __init__(
        self,
        ledger: Ledger,
        gateway: BillingGateway,
        known: KnownCustomers,
        clock: Callable[[], datetime],
        run: RunBlocking,
        keys: tuple[bytes, ...],
    ) -> None:
        people = Streams(ledger, customer.evolve, customer_decisions.decide, clock, run, get_args(CustomerFact))
        names = Streams(ledger, customer.evolve_name, _nothing_to_decide, clock, run, (NameClaimed,))
        begun = Streams(
            ledger, subscription.evolve, subscription_decisions.decide, clock, run, get_args(SubscriptionFact)
        )
        self.catalog = Catalog(gateway, clock)
        self.customers = Customers(people, names, gateway, keys)
        self.subscriptions = Subscriptions(begun, self.customers, gateway, self.catalog, keys, known.subscriptions_of)
        self.events = CustomerEvents(self.customers, self.subscriptions, gateway, known.customer_at)

    async def settle(self, aggregate: Literal["customer", "subscription"], stream: UUID, operation: str) -> str | None:
        """Bring an operation to its end. None when it has ended; otherwise why it has not. Raises nothing."""
        context = Context(ACTOR, operation)
        settle = self.customers.settle if aggregate == "customer" else self.subscriptions.settle
        try:
            story = await settle(stream, operation, context)
        except (CustomerNotFound, SubscriptionNotFound, StoreUnavailable) as error:
            return type(error).__name__
        except Exception as error:  # what cannot even be read must not hold up the others
            log.exception("an operation could not be settled", extra={"stream": str(stream)})
            return type(error).__name__
        return "the provider has not told" if story.known.operations[operation].outcome == "open" else None


def _nothing_to_decide(_state: UUID | None, _command: object) -> tuple[()]:
    """Whose a name is is decided together with its customer."""
    return ()
