"""Customers and subscriptions as a process has them: on a log of their own, with the stand-in behind the SDK.

What a read model knows of them is read from the log itself, so that it never lags; `blind` knows nothing yet.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest.mock import patch
from uuid import UUID, uuid4

import stripe

from application import stripe_client
from application.billing_breaker import GuardedBilling
from application.billing_desk import Billing
from application.breaker import MAX_UNANSWERED, Breaker
from application.customers import Customers
from application.event_store import Ledger
from application.gateway import Unknown
from application.payment_stream import Context
from application.privacy import Keys
from application.streams import Done
from application.stripe_billing import StripeBilling
from application.stripe_client import StripeApi
from application.stripe_gateway import StripeGateway
from application.subscriptions import Wanted
from domain import subscription as subscriptions
from domain.customer import Customer
from domain.customer_facts import CustomerCreated
from domain.envelope import Envelope
from domain.subscription import Subscription
from domain.subscription_facts import SubscriptionRequested
from interface.sandbox.postgres import Postgres
from tests.recovery_side import migrated
from tests.test_stripe_billing_standin import Shop

T = TypeVar("T")

STRIPE_KEY = "sk_test_standin"
NAMES_KEY = b"k" * 32
PATIENCE_S = 60
CALLER = Context("app", "request-1")
VISA, MASTERCARD = "pm_card_visa", "pm_card_mastercard"
# More than anything is tried in a test.
EVERY_TRY = 100


class Gone(BaseException):
    """The process has ended here."""


class Life:
    """What a process does outside itself. It ends before step number `ends_before` (from 1), if there is one.

    `sent`: the requests that moved something at Stripe, or were meant to.
    """

    def __init__(self, ends_before: int | None = None) -> None:
        self.steps = 0
        self.sent: list[str] = []
        self._ends_before = ends_before

    def step(self) -> None:
        self.steps += 1
        if self._ends_before is not None and self.steps >= self._ends_before:
            raise Gone


class MortalApi(StripeApi):
    """The way to Stripe of a process that may end before each request."""

    def __init__(self, url: str, life: Life) -> None:
        super().__init__(STRIPE_KEY, url)
        self._life = life

    async def request(self, method: str, path: str, /, **params: object) -> stripe.StripeResponse:
        self._life.step()
        if method != "get":
            self._life.sent.append(f"{method} {path}")
        return await super().request(method, path, **params)


class LogKnows:
    """See KnownCustomers. Of what is after a position in the log: no test asks for what another did."""

    def __init__(self, ledger: Ledger, after: int, *, blind: bool = False) -> None:
        self._ledger = ledger
        self._after = after
        self._blind = blind

    async def customer_at(self, provider_customer: str) -> UUID | None:
        created = (one for one in self._log() if isinstance(one.fact, CustomerCreated))
        return next((one.stream for one in created if _created(one).provider_customer == provider_customer), None)

    async def subscriptions_of(self, customer: UUID) -> list[Subscription]:
        asked = (one for one in self._log() if isinstance(one.fact, SubscriptionRequested))
        streams = dict.fromkeys(one.stream for one in asked if _requested(one).customer == customer)
        return [self._folded(stream) for stream in streams]

    def _folded(self, stream: UUID) -> Subscription:
        facts: list[Any] = [envelope.fact for envelope in self._ledger.load(stream).envelopes]
        state = reduce(subscriptions.evolve, facts, None)
        assert state is not None
        return state

    def _log(self) -> list[Envelope]:
        return [] if self._blind else everything(self._ledger, self._after)


def _created(envelope: Envelope) -> CustomerCreated:
    assert isinstance(envelope.fact, CustomerCreated)
    return envelope.fact


def _requested(envelope: Envelope) -> SubscriptionRequested:
    assert isinstance(envelope.fact, SubscriptionRequested)
    return envelope.fact


def everything(ledger: Ledger, after: int = 0) -> list[Envelope]:
    """All facts of the log after a position, what is personal in them still sealed."""
    return [ledger.envelope(row) for row in ledger.read(after, 100_000)]


@contextmanager
def desk_on(postgres: Postgres, data: Path) -> Iterator["BillingDesk"]:
    """An empty log, and a stand-in of its own. The SDK does not try again: its pauses would be most of the time."""
    shop = Shop(data)
    once = patch.object(stripe_client, "MAX_NETWORK_RETRIES", 0)
    try:
        with once, migrated(postgres) as url, second_ledger(url) as ledger:
            yield BillingDesk(ledger, url, shop)
    finally:
        shop.kill()


class BillingDesk:
    """What one process does, whose clock is `ahead` of Stripe's. Each `run` is a process anew, with the same log."""

    def __init__(
        self,
        ledger: Ledger,
        url: str,
        shop: Shop,
        keys: tuple[bytes, ...] = (NAMES_KEY,),
        *,
        after: int = 0,
        blind: bool = False,
    ) -> None:
        self.ledger, self.url, self.shop, self.keys = ledger, url, shop, keys
        self.after = after
        self.known = LogKnows(ledger, after, blind=blind)
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.shop.now(), UTC) + self.ahead

    def run(self, work: Callable[[Billing], Awaitable[T]], life: Life | None = None, *, broken: bool = False) -> T:
        """`broken`: the provider has not answered for a while when the process begins its work."""
        return asyncio.run(self.running(work, life or Life(), broken=broken))

    async def running(self, work: Callable[[Billing], Awaitable[T]], life: Life, *, broken: bool = False) -> T:
        async def store(call: Callable[[], Any]) -> Any:
            life.step()
            return await asyncio.to_thread(call)

        api, payments = MortalApi(self.shop.url, life), StripeGateway(STRIPE_KEY, self.shop.url)
        breaker = Breaker(payments, time.monotonic)
        try:
            if broken:
                await _trip(breaker)
            gateway = GuardedBilling(StripeBilling(api), breaker)
            billing = Billing(self.ledger, gateway, self.known, self.now, store, self.keys)
            return await asyncio.wait_for(work(billing), PATIENCE_S)
        finally:
            await payments.close()
            await api.close()

    def beside(self, keys: tuple[bytes, ...] | None = None, *, blind: bool = False) -> "BillingDesk":
        """Another process's, on the same connections to the same log."""
        return BillingDesk(self.ledger, self.url, self.shop, keys or self.keys, after=self.after, blind=blind)

    @contextmanager
    def for_a_test(self) -> Iterator["BillingDesk"]:
        """One that begins where the log ends, and leaves no faults behind."""
        end = max((envelope.position or 0 for envelope in everything(self.ledger, self.after)), default=self.after)
        self.after = end
        yield self.beside()
        self.shop.control.delete("/faults")

    # --- Customers -----------------------------------------------------------------------------------------------

    def register(self, user: str | None = None, email: str | None = None) -> Done[Customer]:
        return self.run(lambda billing: billing.customers.register(user, email, CALLER))

    def customer(self, card: str | None = VISA) -> UUID:
        """Somebody new, with a card."""
        made = self.register(unique("user")).story
        if card is not None:
            assert self.card(made.stream, card).outcome == "done"
        return made.stream

    def card(self, customer: UUID, token: str, key: str | None = None) -> Done[Customer]:
        return self.run(lambda billing: billing.customers.update_card(customer, token, key, CALLER))

    def who(self, customer: UUID) -> Customer:
        return self.run(lambda billing: _state(billing.customers, customer))

    def at_stripe(self, customer: UUID) -> Any:
        """The provider's object, of which there is one."""
        [found] = [one for one in self.shop.state()["customers"] if one.get("metadata", {}).get(MARK) == str(customer)]
        return found

    # --- Subscriptions -------------------------------------------------------------------------------------------

    def begin(self, customer: UUID, wanted: Wanted, operation: str | None = None) -> Done[Subscription]:
        name = operation or unique("op")
        return self.run(lambda billing: billing.subscriptions.begin(customer, wanted, name, CALLER))

    def subscribed(self, customer: UUID | None = None, price: Any = None) -> Done[Subscription]:
        price = price or self.shop.price()
        done = self.begin(customer or self.customer(), Wanted(price.product))
        assert done.outcome == "done"
        return done

    def change(
        self, of: UUID, product: str | None = None, price: str | None = None, quantity: int | None = None, key: str = ""
    ) -> Done[Subscription]:
        name = key or unique("op")
        return self.run(lambda billing: billing.subscriptions.change(of, product, price, quantity, name, CALLER))

    def cancel(self, of: UUID, *, at_period_end: bool = False, key: str = "") -> Done[Subscription]:
        name = key or unique("op")
        return self.run(lambda billing: billing.subscriptions.cancel(of, name, CALLER, at_period_end=at_period_end))

    def resume(self, of: UUID, key: str = "") -> Done[Subscription]:
        name = key or unique("op")
        return self.run(lambda billing: billing.subscriptions.resume(of, name, CALLER))

    def subscription(self, subscription: UUID) -> Subscription:
        async def load(billing: Billing) -> Subscription:
            return (await billing.subscriptions.load(subscription)).known

        return self.run(load)

    def billed(self, customer: UUID) -> list[Any]:
        """The provider's subscriptions of a customer, the oldest first."""
        owner = {"customer": self.who(customer).provider_customer, "status": "all", "limit": 100}
        return list(self.shop.sdk.subscriptions.list(owner).data)[::-1]

    # --- What stays open -----------------------------------------------------------------------------------------

    def settle(self, aggregate: Literal["customer", "subscription"], stream: UUID, operation: str) -> str | None:
        return self.run(lambda billing: billing.settle(aggregate, stream, operation))

    def facts(self, stream: UUID) -> list[str]:
        return [type(envelope.fact).__name__ for envelope in self.ledger.load(stream).envelopes]


MARK = "payledger_stream"


async def _state(customers: Customers, customer: UUID) -> Customer:
    return (await customers.load(customer)).known


async def _trip(breaker: Breaker) -> None:
    async def nothing() -> Unknown:
        return Unknown("no answer")

    for _ in range(MAX_UNANSWERED):
        await breaker.guarded(nothing)
    assert breaker.is_open


def unique(word: str) -> str:
    return f"{word}-{uuid4().hex[:12]}"


def second_ledger(url: str) -> Ledger:
    """Another process's, on the same log."""
    return Ledger(url, Keys((bytes(32),), os.urandom))
