"""The facts of an order that was announced to us. Their names and fields are the storage format, as the payment's are.

What the order is about and until when it may be paid is not kept: others know that better. `version` is the announcer's
count of the order's changes, not the stream's.
"""

from typing import Literal
from uuid import UUID

from msgspec import Struct

from domain.money import Money

OrderStatus = Literal["created", "awaiting:payment", "cancelled", "complete"]


class OrderPlaced(Struct, frozen=True):
    """`user` ordered something for `price` and may pay for it as long as `status` lets them."""

    order: str
    version: int
    user: str
    price: Money
    status: OrderStatus


class OrderCancelled(Struct, frozen=True):
    """The order is off: nothing may be paid for it any more, and what was paid goes back."""

    order: str
    version: int


class OrderPaid(Struct, frozen=True):
    """The whole price was taken, by this payment. `charge` is the provider's id of the movement."""

    order: str
    payment: UUID
    amount: Money
    charge: str | None


class KeyClaimed(Struct, frozen=True):
    """A caller's idempotency key names a payment of this order, and can name no other payment any more.

    It stands alone in the stream that a payment under the key would have.
    """

    order: str


OrderFact = OrderPlaced | OrderCancelled | OrderPaid
