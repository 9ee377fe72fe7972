"""A circuit breaker around the provider: when it does not answer, callers hear so at once instead of waiting in line.

Open after some unanswered calls in a row; after a pause one call at a time is let through, and the first that is
answered closes it. A no is an answer.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from application.gateway import Absent, AnyInstruction, PaymentGateway, Standing, Unknown
from domain.payment_commands import Outcome

MAX_UNANSWERED = 10
PAUSE_S = 2.0
# Calls to the provider at once. Each holds a caller, and the memory of a request.
MAX_CALLS = 600
BUSY_RETRY_S = 1.0

T = TypeVar("T")


class Breaker(PaymentGateway):
    """`monotonic` gives seconds. One a process, in one event loop."""

    def __init__(self, gateway: PaymentGateway, monotonic: Callable[[], float]) -> None:
        self._gateway = gateway
        self._monotonic = monotonic
        self._unanswered = 0
        self._calls = 0
        self._opened_s = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._unanswered >= MAX_UNANSWERED

    def unavailable_s(self) -> float | None:
        if self._calls >= MAX_CALLS:
            return BUSY_RETRY_S
        if not self.is_open:
            return None
        left_s = self._opened_s + PAUSE_S - self._monotonic()
        if left_s <= 0 and not self._probing:
            return None
        return max(left_s, BUSY_RETRY_S)

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        return await self.guarded(lambda: self._gateway.perform(instruction))

    async def standing(
        self, payment: UUID, authorization: str, payment_intent: str | None
    ) -> Standing | Absent | Unknown:
        return await self.guarded(lambda: self._gateway.standing(payment, authorization, payment_intent))

    async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
        return await self.guarded(lambda: self._gateway.payment_of(payment_intent))

    async def verify(self) -> None:
        await self._gateway.verify()

    async def guarded(self, call: Callable[[], Awaitable[T | Unknown]]) -> T | Unknown:
        """The answer to a call, which is not made while the provider does not answer."""
        if self.unavailable_s() is not None:
            return Unknown("breaker open" if self.is_open else "too many calls")
        probe = self.is_open
        self._probing = probe
        self._calls += 1
        try:
            answer = await call()
        except BaseException:
            self._opened_s = self._monotonic()  # a caller that goes away has not learned whether it answers
            raise
        else:
            if isinstance(answer, Unknown):
                self._unanswered += 1
                self._opened_s = self._monotonic()
            else:
                self._unanswered = 0
            return answer
        finally:
            self._calls -= 1
            if probe:  # a call that began before it opened may still end meanwhile
                self._probing = False
