"""Messages about orders as their announcer sends them, what takes them in, and what should come of it."""

import secrets
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from application.event_store import Ledger
from application.log_transaction import log_transaction
from application.order_intake import OrderIntake
from application.order_messages import Message
from application.order_offsets import Counts, Move, begin
from application.order_parking import MAX_PARKED, Parked, all_parked
from application.orders import order_stream
from application.privacy import Keys
from domain.order import Order, evolve
from domain.order_facts import OrderFact
from interface.kafka.order_reading import reader

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = bytes(32)
Headers = tuple[tuple[str, bytes], ...]


class Sent(NamedTuple):
    """A message before it has a place."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def created(order: str, version: int = 0, *, price: str = "20", user: str = "user_42", **changed: Any) -> Sent:
    """`order:created`. `price` as it stands in the JSON; fields that are changed to None are left out."""
    ticket = {"id": "tkt_7", "price": msgspec.Raw(price.encode())}
    body = {"id": order, "version": version, "status": "created", "userId": user, "ticket": ticket}
    body |= {"expiresAt": "2026-11-20T12:15:00Z"} | changed
    return _sent("order:created", order, {name: value for name, value in body.items() if value is not None})


def cancelled(order: str, version: int = 1) -> Sent:
    return _sent("order:cancelled", order, {"id": order, "version": version, "ticket": {"id": "tkt_7"}})


def garbage(order: str) -> Sent:
    """What nobody can read, under the key of an order."""
    return Sent(order.encode(), b"not JSON", (("event-type", b"order:created"),))


def _sent(event: str, order: str, body: dict[str, Any]) -> Sent:
    return Sent(order.encode(), msgspec.json.encode(body), (("event-type", event.encode()),))


class OrderSide:
    """A topic of its own in a database, taken in without a broker."""

    def __init__(self, ledger: Ledger, *keys: bytes) -> None:
        self.ledger = ledger
        self.topic = f"orders-{uuid4().hex[:8]}"
        self.intake = OrderIntake(ledger, Keys(keys or (KEY,), secrets.token_bytes), reader("usd"))
        self.next: Counter[int] = Counter()

    def take(self, *sent: Sent, partition: int = 0) -> Counts:
        """The next messages of a partition, as one batch."""
        messages = self.placed(sent, partition)
        move = Move(self.topic, partition, self.next[partition], self.next[partition] + len(messages), 0)
        counts = self.intake.take(messages, [move], NOON)
        self.next[partition] = move.after
        return counts

    def became(self, *sent: Sent) -> dict[str, int]:
        """How many of the next messages became what."""
        return {what: count for (_, what), count in self.take(*sent).items()}

    def placed(self, sent: Iterable[Sent], partition: int = 0) -> list[Message]:
        """They are placed where the partition goes on, which is begun if it is new."""
        if partition not in self.next:
            with log_transaction(self.ledger) as log:
                begin(log.conn, self.topic, None, {partition: 0}, NOON)
        numbered = enumerate(sent, self.next[partition])
        return [Message(self.topic, partition, offset, *one) for offset, one in numbered]

    # What came of it

    def order(self, order: str) -> Order | None:
        return read_order(self.ledger, order)

    def facts(self, order: str) -> list[str]:
        return [type(envelope.fact).__name__ for envelope in self.ledger.load(order_stream(order)).envelopes]

    def parked(self) -> list[Parked]:
        with log_transaction(self.ledger) as log:
            return [one for one in all_parked(log.conn, MAX_PARKED) if one.topic == self.topic]

    def reasons(self) -> list[str]:
        return [one.reason for one in self.parked()]

    def waiting(self) -> int:
        return int(self.one("SELECT count(*) FROM waiting_cancellations WHERE causation LIKE %s", f"{self.topic}/%"))

    def offset(self, partition: int = 0) -> int:
        query = "SELECT next_offset FROM consumer_offsets WHERE topic = %s AND partition = %s"
        return int(self.one(query, self.topic, partition))

    def one(self, query: str, *values: object) -> Any:
        with log_transaction(self.ledger) as log:
            row = log.conn.execute(query.encode(), values or None).fetchone()
        return row[0] if row else None

    def run(self, statement: str) -> None:
        with log_transaction(self.ledger) as log:
            log.conn.execute(statement.encode())


def read_order(ledger: Ledger, order: str) -> Order | None:
    """Folded from its stream."""
    state: Order | None = None
    for envelope in ledger.load(order_stream(order)).envelopes:
        assert isinstance(envelope.fact, OrderFact)
        state = evolve(state, envelope.fact)
    return state


# --- What should come of it, by other means ----------------------------------------------------------------------

# Of an order: its version, whether it is cancelled, and how many cancellations wait.
Outcome = tuple[int, bool, int]


def outcome(first: int | None, cancellations: Iterable[int]) -> Outcome | int:
    """Of an order created as its change `first`, and of cancellations in any order and number; not by folding.

    The cancellations that follow each other from the creation on count, those before never do, the others wait. For an
    order that was never created: how many wait.
    """
    told = set(cancellations)
    if first is None:
        return len(told)
    end = first
    while end + 1 in told:
        end += 1
    return end, end > first, len({version for version in told if version > end})
