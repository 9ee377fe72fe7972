"""The provider's billing, with calls to it that are cut short: our process is killed, or the answer does not come."""

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from application.billing import (
    CancelSubscription,
    CreateCustomer,
    CustomerInstruction,
    SetCard,
    StartSubscription,
    SubscriptionInstruction,
)
from application.billing_breaker import GuardedBilling
from application.breaker import Breaker
from application.gateway import Unknown
from application.stripe_billing import StripeBilling
from application.stripe_gateway import StripeGateway
from domain.customer_commands import CustomerOutcome
from domain.subscription_commands import SubscriptionOutcome
from tests.test_stripe_billing_standin import Shop

T = TypeVar("T")
Fate = Literal["killed before", "killed after", "reply lost", "refused", "500 after"]

FATES: tuple[Fate, ...] = ("killed before", "killed after", "reply lost", "refused", "500 after")
# The SDK sends a request three times: what strikes less often is healed within the call.
ALL_TRIES = 3


class Killed(BaseException):
    """The process is no more."""


class Severed(GuardedBilling):
    """What befalls the next call to the provider, if anything, is its `fate`."""

    def __init__(self, gateway: StripeGateway, monotonic: Callable[[], float], shop: Shop) -> None:
        super().__init__(StripeBilling(gateway.api), Breaker(gateway, monotonic))
        self._shop = shop
        self.fate: Fate | None = None

    async def perform_customer(self, instruction: CustomerInstruction) -> CustomerOutcome | Unknown:
        perform = super().perform_customer
        return await self._struck(_customer_call(instruction), lambda: perform(instruction))

    async def perform_subscription(self, instruction: SubscriptionInstruction) -> SubscriptionOutcome | Unknown:
        perform = super().perform_subscription
        return await self._struck(_subscription_call(instruction), lambda: perform(instruction))

    async def _struck(self, match: str, call: Callable[[], Awaitable[T]]) -> T:
        fate, self.fate = self.fate, None
        match fate:
            case None:
                return await call()
            case "killed before":
                raise Killed
            case "killed after":
                await call()
                raise Killed
            case "500 after":
                self._shop.fault(match, "error", status=500, when="after", times=ALL_TRIES)
            case _:
                self._shop.fault(match, fate.replace(" ", "_"), times=ALL_TRIES)
        try:
            return await call()
        finally:
            self._shop.control.delete("/faults")


def _customer_call(instruction: CustomerInstruction) -> str:
    match instruction:
        case CreateCustomer():
            return "POST /v1/customers"
        case SetCard():
            return "POST /v1/customers/*"


def _subscription_call(instruction: SubscriptionInstruction) -> str:
    match instruction:
        case StartSubscription():
            return "POST /v1/subscriptions"
        case CancelSubscription(at_period_end=False):
            return "DELETE /v1/subscriptions/*"
        case _:
            return "POST /v1/subscriptions/*"
