"""The client that waits for each answer."""

import random as chances
import time
from collections.abc import Callable
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


class PayledgerClient:
    """May be shared by threads. A payment is named by its id; an id that is none is a ValueError.

    `clock` in seconds, `sleep` takes seconds, `random` gives 0 to 1. Raises ValueError for an address or a token that
    cannot be one.
    """

    def __init__(
        self,
        url: str,
        token: str,
        patience: Patience = Patience(),  # noqa: B008  it is frozen
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = chances.random,
    ) -> None:
        self._http = httpx.Client(**connection(url, token))
        self._patience, self._clock, self._sleep, self._random = patience, clock, sleep, random

    def authorize(
        self,
        amount: int,
        currency: str,
        payment_method: str,
        capture: CaptureMethod = "manual",
        **details: Unpack[PaymentDetails],
    ) -> Payment:
        """Hold `amount` on a payment method, and with `automatic` take it at once. Raises Declined, too."""
        return self.send(calls.authorize(amount, currency, payment_method, capture, **details))

    def capture(self, payment: UUID | str, amount: int | None = None, **details: Unpack[MovementDetails]) -> Payment:
        """Take `amount`, or all that is held."""
        return self.send(calls.move(payment, "captures", amount, **details))

    def refund(self, payment: UUID | str, amount: int | None = None, **details: Unpack[MovementDetails]) -> Payment:
        """Give `amount` back, or all that was taken."""
        return self.send(calls.move(payment, "refunds", amount, **details))

    def void(self, payment: UUID | str, **details: Unpack[MovementDetails]) -> Payment:
        """Release what is left of the reserve."""
        return self.send(calls.move(payment, "void", **details))

    def payment(self, payment: UUID | str, *, after: int | None = None) -> Payment:
        """The payment, as of the position `after` at least."""
        return self.send(calls.payment(payment, after))

    def payments(self, **wanted: Unpack[Wanted]) -> PaymentPage:
        """A page of payments, newest first."""
        return self.send(calls.payments(wanted))

    def events(self, payment: UUID | str) -> list[Fact]:
        """Every fact of a payment, oldest first."""
        return self.send(calls.events(payment))

    def send(self, call: Call[T]) -> T:
        """Attempt a call until it is answered or given up."""
        plan = attempts(call, self._patience, self._clock, self._random)
        try:
            attempt = next(plan)
            while True:
                if attempt.delay_s:
                    self._sleep(attempt.delay_s)
                attempt = plan.send(self._heard(call, attempt))
        except StopIteration as end:
            result: T = end.value
            return result

    def _heard(self, call: Call[Any], attempt: Attempt) -> Answer | Lost:
        try:
            return answered(self._http.request(**request(call, attempt)))
        except httpx.RequestError as error:
            return Lost(type(error).__name__)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bookings:
    """The airline's booking workflow. Asked again, each is done once: what is done follows from the charge."""

    def __init__(self, ledger: PayledgerClient) -> None:
        self._ledger = ledger

    def collect(self, charge_id: str, customer_id: str, booking_id: str) -> Collected:
        """Take the whole of a pre-authorised charge. Raises InvalidChargeID, too, before anything is sent."""
        return self._ledger.send(calls.collect(charge_id, customer_id, booking_id))

    def refund(self, charge_id: str) -> RefundedCharge:
        """Give back all that is left of a charge, or release it. Raises InvalidChargeID, too, as above."""
        return self._ledger.send(calls.refund(charge_id))
