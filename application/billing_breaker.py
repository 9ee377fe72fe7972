"""The provider's billing behind the circuit breaker that its payments are behind: it is one provider."""

from collections.abc import Awaitable
from typing import Protocol, TypeVar
from uuid import UUID

from application.billing import (
    BillingGateway,
    CustomerInstruction,
    CustomerSeen,
    Product,
    SubscriptionInstruction,
    SubscriptionSeen,
)
from application.breaker import Breaker
from application.gateway import Absent, Unknown
from domain.customer_commands import CustomerOutcome
from domain.subscription_commands import SubscriptionOutcome

T = TypeVar("T")


class Watch(Protocol):
    """Sees a call through: how long it took and what it came to."""

    def __call__(self, kind: str, call: Awaitable[T], /) -> Awaitable[T]: ...


def unwatched(_: str, call: Awaitable[T]) -> Awaitable[T]:
    return call


class GuardedBilling(BillingGateway):
    """One a process, in one event loop."""

    def __init__(self, gateway: BillingGateway, breaker: Breaker, watch: Watch = unwatched) -> None:
        self._gateway = gateway
        self._breaker = breaker
        self._watch = watch

    def unavailable_s(self) -> float | None:
        return self._breaker.unavailable_s()

    async def perform_customer(self, instruction: CustomerInstruction) -> CustomerOutcome | Unknown:
        return await self._breaker.guarded(lambda: self._watch("customer", self._gateway.perform_customer(instruction)))

    async def perform_subscription(self, instruction: SubscriptionInstruction) -> SubscriptionOutcome | Unknown:
        return await self._breaker.guarded(
            lambda: self._watch("subscription", self._gateway.perform_subscription(instruction))
        )

    async def customer(self, stream: UUID | None, provider_customer: str | None) -> CustomerSeen | Absent | Unknown:
        return await self._breaker.guarded(
            lambda: self._watch("standing", self._gateway.customer(stream, provider_customer))
        )

    async def subscription(
        self, stream: UUID | None, subscription: str | None, provider_customer: str | None
    ) -> SubscriptionSeen | Absent | Unknown:
        return await self._breaker.guarded(
            lambda: self._watch("standing", self._gateway.subscription(stream, subscription, provider_customer))
        )

    async def subscriptions_of(self, provider_customer: str) -> tuple[str, ...] | Absent | Unknown:
        return await self._breaker.guarded(
            lambda: self._watch("standing", self._gateway.subscriptions_of(provider_customer))
        )

    async def customer_of(self, payment: str) -> str | Absent | Unknown:
        return await self._breaker.guarded(lambda: self._watch("standing", self._gateway.customer_of(payment)))

    async def catalog(self) -> tuple[Product, ...] | Unknown:
        return await self._breaker.guarded(lambda: self._watch("catalog", self._gateway.catalog()))
