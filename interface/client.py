"""A typed client of the ledger, with two faces: one that waits, one that is awaited.

    with PayledgerClient("https://ledger.example", token) as ledger:
        payment = ledger.authorize(100_99, "usd", "pm_card_visa", order="order-1")
        ledger.capture(payment.id, 60_00)

    async with AsyncPayledgerClient("https://ledger.example", token) as ledger:
        collected = await AsyncBookings(ledger).collect("ch_…", customer_id="c-1", booking_id="b-1")

Amounts are whole minor units. Every command goes under one idempotency key, its own unless given, and is sent again
under it while its `Patience` lasts: when no answer came, and after 429, 502, 503, 504 and a 409 that says another
operation is in flight. So it is done once, however often it is sent.

An outcome that nobody knows yet (202) is no error: the payment is answered as it stands, with `outcome_known` false,
or asked for again with `wait=True` until it is known. What can go wrong:

    PayledgerError
    ├── Refused              the ledger said no, and would again: status, type, title, detail, errors
    │   ├── Declined         402: the provider said no; `payment` is what became of it
    │   ├── Unauthorized     401: no valid token
    │   ├── Forbidden        403: the token lacks a scope
    │   ├── NotFound         404: there is no such thing
    │   └── Conflict         409, 412: not now, not in this state, or not at this version
    ├── Unavailable          no answer that tells what became of it; its `key` may be used to ask again
    ├── Unreadable           an answer that is none of the ledger's; likewise
    └── InvalidChargeID      no charge was named; nothing was sent
"""

from interface.client_answers import (
    Collected,
    Fact,
    FieldError,
    Payment,
    PaymentPage,
    RefundedCharge,
)
from interface.client_async import AsyncBookings, AsyncPayledgerClient
from interface.client_attempts import Patience
from interface.client_errors import (
    Conflict,
    Declined,
    Forbidden,
    InvalidChargeID,
    NotFound,
    PayledgerError,
    Refused,
    Unauthorized,
    Unavailable,
    Unreadable,
)
from interface.client_sync import Bookings, PayledgerClient

__all__ = [
    "AsyncBookings",
    "AsyncPayledgerClient",
    "Bookings",
    "Collected",
    "Conflict",
    "Declined",
    "Fact",
    "FieldError",
    "Forbidden",
    "InvalidChargeID",
    "NotFound",
    "Patience",
    "PayledgerClient",
    "PayledgerError",
    "Payment",
    "PaymentPage",
    "RefundedCharge",
    "Refused",
    "Unauthorized",
    "Unavailable",
    "Unreadable",
]
