"""Cancellations that came before what they follow: they wait here, durably, until it comes."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from domain.order import Cancel

# Of one order. Its announcer sends one cancellation; more than this is not told in good faith.
MAX_WAITING_EACH = 100

_KEEP = """
INSERT INTO waiting_cancellations (stream, version, order_id, correlation, causation, since)
SELECT stream, version, order_id, correlation, causation, %b
FROM unnest(%b::uuid[], %b::bigint[], %b::text[], %b::text[], %b::text[])
    AS row (stream, version, order_id, correlation, causation)
ON CONFLICT DO NOTHING
"""
_WAITING = """
SELECT stream, order_id, version, correlation, causation FROM waiting_cancellations WHERE stream = ANY(%b)
"""
_END = """
DELETE FROM waiting_cancellations AS held USING unnest(%b::uuid[], %b::bigint[]) AS gone (stream, version)
WHERE held.stream = gone.stream AND held.version = gone.version
"""


class Waiting(Struct, frozen=True):
    """A cancellation that waits for the change before it, and where it came from."""

    stream: UUID
    command: Cancel
    correlation: str
    causation: str


def waiting(conn: Connection[Any], streams: Sequence[UUID]) -> dict[UUID, dict[int, Waiting]]:
    """What waits for a change of these orders, by the version it is."""
    found = defaultdict[UUID, dict[int, Waiting]](dict)
    for stream, order, version, *whence in conn.execute(_WAITING, (streams,), prepare=True, binary=True):
        found[stream][version] = Waiting(stream, Cancel(order, version), *whence)
    return dict(found)


def keep(conn: Connection[Any], new: Sequence[Waiting], now: datetime) -> None:
    columns = (
        [one.stream for one in new],
        [one.command.version for one in new],
        [one.command.order for one in new],
        [one.correlation for one in new],
        [one.causation for one in new],
    )
    conn.execute(_KEEP, (now, *columns), prepare=True)


def end(conn: Connection[Any], ended: Sequence[tuple[UUID, int]]) -> None:
    """They wait no more."""
    conn.execute(_END, ([stream for stream, _ in ended], [version for _, version in ended]), prepare=True)
