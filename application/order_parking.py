"""Messages about orders that could not be taken in, and those of the same order behind them; and who waits for what.

A lane is all that comes about one order, in order. When its first message cannot be taken in, the lane waits and all
others go on. What the messages say is kept under seal: it may be anything, and anybody's.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct, json
from psycopg import Connection
from psycopg.rows import class_row

from application.order_messages import Message
from application.privacy import NONCE_BYTES, Keys

# A consumer that would set more aside than this is itself at fault, or whoever sends is: it stops instead.
MAX_LANES = 1_000
MAX_PARKED = 10_000
BEHIND = "behind another message of its order"


class TooManyParked(Exception):  # noqa: N818  it says what is so
    """More messages fail than a few bad ones explain. Nothing of the batch was stored."""


class SealUnknown(Exception):  # noqa: N818  it says what is so
    """No key that we have opens it."""


class Parked(Struct, frozen=True):
    """A message that is aside since `since`; of those in a lane, in their order, the first was tried so often."""

    id: int
    lane: UUID
    topic: str
    partition: int
    message_offset: int
    order_id: str | None
    reason: str
    attempts: int
    since: datetime
    sealed: bytes

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.message_offset}"


class Aside(Struct, frozen=True):
    """A message that is to be parked, in which lane and why. `order`: the one it is about, where that can be told."""

    message: Message
    lane: UUID
    order: str | None
    reason: str


class Seal:
    """Closes and opens what messages said. The first of the deployment's keys closes; any of them opens."""

    def __init__(self, keys: Keys) -> None:
        self._keys = [AESGCM(sha256(b"payledger parked" + key).digest()) for key in keys.masters]
        self._chance = keys.chance

    def close(self, message: Message) -> bytes:
        nonce = self._chance(NONCE_BYTES)
        said = json.encode((message.key, message.value, message.headers))
        return nonce + self._keys[0].encrypt(nonce, said, message.place.encode())

    def open(self, parked: Parked) -> Message:
        """Raises SealUnknown."""
        nonce, box = parked.sealed[:NONCE_BYTES], parked.sealed[NONCE_BYTES:]
        for key in self._keys:
            try:
                said = key.decrypt(nonce, box, parked.place.encode())
            except InvalidTag:
                continue
            kind = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
            return Message(parked.topic, parked.partition, parked.message_offset, *json.decode(said, type=kind))
        raise SealUnknown


# --- The table ---------------------------------------------------------------------------------------------------

_PARK = """
INSERT INTO parked_orders (lane, topic, partition, message_offset, order_id, reason, since, sealed)
SELECT lane, topic, partition, message_offset, order_id, reason, %b, sealed
FROM unnest(%b::uuid[], %b::text[], %b::integer[], %b::bigint[], %b::text[], %b::text[], %b::bytea[])
    WITH ORDINALITY AS row (lane, topic, partition, message_offset, order_id, reason, sealed, place) ORDER BY place
"""
_DISCARD = """
WITH gone AS (DELETE FROM parked_orders WHERE id = %s RETURNING *)
INSERT INTO discarded_orders
    (topic, partition, message_offset, order_id, reason, since, discarded_at, discarded_by, why)
SELECT topic, partition, message_offset, order_id, reason, since, %s, %s, %s FROM gone
"""


def lanes(conn: Connection[Any]) -> set[UUID]:
    """The lanes that wait; there are never many."""
    return {lane for (lane,) in conn.execute("SELECT DISTINCT lane FROM parked_orders", prepare=True)}


def park(conn: Connection[Any], aside: Sequence[Aside], seal: Seal, now: datetime) -> None:
    """Set messages aside, in their order. Raises TooManyParked."""
    columns = (
        [one.lane for one in aside],
        [one.message.topic for one in aside],
        [one.message.partition for one in aside],
        [one.message.offset for one in aside],
        [one.order for one in aside],
        [one.reason for one in aside],
        [seal.close(one.message) for one in aside],
    )
    conn.execute(_PARK, (now, *columns))
    row = conn.execute("SELECT count(*), count(DISTINCT lane) FROM parked_orders").fetchone()
    if row and (row[0] > MAX_PARKED or row[1] > MAX_LANES):
        raise TooManyParked(f"more than {MAX_LANES:,} orders or {MAX_PARKED:,} messages would be parked")


def all_parked(conn: Connection[Any], limit: int) -> list[Parked]:
    """What is aside, lane by lane, those that have waited longest first."""
    with conn.cursor(row_factory=class_row(Parked)) as cursor:
        query = "SELECT * FROM parked_orders ORDER BY min(id) OVER (PARTITION BY lane), id LIMIT %s"
        return cursor.execute(query, (limit,)).fetchall()


def in_lane_of(conn: Connection[Any], parked_id: int) -> list[Parked]:
    """All that waits in the lane of that message, in order; nothing if the message is not parked."""
    with conn.cursor(row_factory=class_row(Parked)) as cursor:
        query = "SELECT * FROM parked_orders WHERE lane = (SELECT lane FROM parked_orders WHERE id = %s) ORDER BY id"
        return cursor.execute(query, (parked_id,)).fetchall()


def take_back(conn: Connection[Any], taken: Sequence[Parked]) -> None:
    """Of messages that have been taken in after all nothing is kept."""
    conn.execute("DELETE FROM parked_orders WHERE id = ANY(%s)", ([one.id for one in taken],))


def fail_again(conn: Connection[Any], first: Parked, reason: str) -> None:
    """The first of a lane was tried once more."""
    conn.execute("UPDATE parked_orders SET attempts = attempts + 1, reason = %s WHERE id = %s", (reason, first.id))


def discard(conn: Connection[Any], parked_id: int, who: str, why: str, now: datetime) -> None:
    """It is not taken in, ever; that it was not, who decided so and why, is kept."""
    conn.execute(_DISCARD, (parked_id, now, who, why))
