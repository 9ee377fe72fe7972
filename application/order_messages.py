"""What comes over the topic of orders: a message as it came, and what it was read as."""

from collections.abc import Callable
from uuid import UUID, uuid5

from msgspec import Struct

from application.orders import order_stream
from application.payments import NAMESPACE
from domain.order import Cancel, Place


class Message(Struct, frozen=True):
    """As it came. What it says may be anything, and anybody's: it is not logged, and kept under seal only."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def place(self) -> str:
        """Where it came from, which names it and nothing that it says."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def lane(self) -> UUID:
        """The stream of the order that its key names: what has the same key comes after it in the same order."""
        if self.key is None:
            return uuid5(NAMESPACE, f"orders message:{self.place}")
        try:
            return order_stream(self.key.decode())
        except UnicodeDecodeError:
            return uuid5(NAMESPACE, f"orders key:{self.key.hex()}")


class Announced(Struct, frozen=True):
    """Something happened to an order, whose stream is `lane`. `correlation`: the message's id, if it has one."""

    command: Place | Cancel
    lane: UUID
    correlation: str | None = None


class NotOurs(Struct, frozen=True):
    """It says something that we were never meant to know."""


class Unreadable(Struct, frozen=True):
    """`reason` names the field that is wrong, never what is in it. `order`: which it is about, if that can be told."""

    reason: str
    order: str | None = None


Reading = Announced | NotOurs | Unreadable
Read = Callable[[Message], Reading]
