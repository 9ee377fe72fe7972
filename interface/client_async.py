"""The client whose answers are awaited. What each call does is said in interface/client_sync.py."""

import asyncio
import random as chances
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar, Unpack
from uuid import UUID

import httpx

from domain.payment_facts import CaptureMethod
from interface import client_calls as calls
from interface.client_answers import Answer, Collected, Fact, Payment, PaymentPage, RefundedCharge
from interface.client_attempts import Attempt, Call, Lost, Patience, attempts
from interface.client_calls import MovementDetails, PaymentDetails, Wanted
from interface.client_http import answered, connection, request

T = TypeVar("T")


class AsyncPayledgerClient:
    """`PayledgerClient`, awaited. May be shared by the tasks of one event loop."""

    def __init__(
        self,
        url: str,
        token: str,
        patience: Patience = Patience(),  # noqa: B008  it is frozen
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = chances.random,
    ) -> None:
        self._http = httpx.AsyncClient(**connection(url, token))
        self._patience, self._clock, self._sleep, self._random = patience, clock, sleep, random

    async def authorize(
        self,
        amount: int,
        currency: str,
        payment_method: str,
        capture: CaptureMethod = "manual",
        **details: Unpack[PaymentDetails],
    ) -> Payment:
        return await self.send(calls.authorize(amount, currency, payment_method, capture, **details))

    async def capture(
        self, payment: UUID | str, amount: int | None = None, **details: Unpack[MovementDetails]
    ) -> Payment:
        return await self.send(calls.move(payment, "captures", amount, **details))

    async def refund(
        self, payment: UUID | str, amount: int | None = None, **details: Unpack[MovementDetails]
    ) -> Payment:
        return await self.send(calls.move(payment, "refunds", amount, **details))

    async def void(self, payment: UUID | str, **details: Unpack[MovementDetails]) -> Payment:
        return await self.send(calls.move(payment, "void", **details))

    async def payment(self, payment: UUID | str, *, after: int | None = None) -> Payment:
        return await self.send(calls.payment(payment, after))

    async def payments(self, **wanted: Unpack[Wanted]) -> PaymentPage:
        return await self.send(calls.payments(wanted))

    async def events(self, payment: UUID | str) -> list[Fact]:
        return await self.send(calls.events(payment))

    async def send(self, call: Call[T]) -> T:
        plan = attempts(call, self._patience, self._clock, self._random)
        try:
            attempt = next(plan)
            while True:
                if attempt.delay_s:
                    await self._sleep(attempt.delay_s)
                attempt = plan.send(await self._heard(call, attempt))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _heard(self, call: Call[Any], attempt: Attempt) -> Answer | Lost:
        try:
            return answered(await self._http.request(**request(call, attempt)))
        except httpx.RequestError as error:
            return Lost(type(error).__name__)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncBookings:
    """`Bookings`, awaited."""

    def __init__(self, ledger: AsyncPayledgerClient) -> None:
        self._ledger = ledger

    async def collect(self, charge_id: str, customer_id: str, booking_id: str) -> Collected:
        return await self._ledger.send(calls.collect(charge_id, customer_id, booking_id))

    async def refund(self, charge_id: str) -> RefundedCharge:
        return await self._ledger.send(calls.refund(charge_id))
