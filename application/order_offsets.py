"""How far each partition of the orders has been taken in: the one truth about it, and the fence.

Whoever takes messages in moves the offset in the same transaction, from where it has read on. One that another consumer
has overtaken finds it moved and stores nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import Connection


class Deposed(Exception):  # noqa: N818  it says what is so
    """Another consumer has moved the offset. Nothing was stored."""


class Move(Struct, frozen=True):
    """Of a partition all messages from offset `before` up to `after`, which is the next. `lag`: how many follow."""

    topic: str
    partition: int
    before: int
    after: int
    lag: int


class Standing(Struct, frozen=True):
    """Where a partition is taken up, and of which topic by that name the offsets are, as far as is known."""

    next_offset: int
    topic_id: UUID | None


class Halted(Struct, frozen=True):
    """A partition that is not gone on with. `next_offset`: None once somebody has had it begun anew."""

    topic: str
    partition: int
    next_offset: int | None
    reason: str


Counts = Counter[tuple[int, str]]

_BEGIN = """
INSERT INTO consumer_offsets AS held (topic, partition, next_offset, topic_id, seen_at)
SELECT %s, partition, oldest, %s, %s FROM unnest(%s::integer[], %s::bigint[]) AS begin (partition, oldest)
ORDER BY partition
ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset, topic_id = excluded.topic_id,
    halted = NULL WHERE held.next_offset IS NULL
"""
_STANDING = "SELECT partition, next_offset, topic_id FROM consumer_offsets WHERE topic = %s AND partition = ANY(%s)"
_HOLD = """
SELECT partition, next_offset FROM consumer_offsets WHERE topic = %s AND partition = ANY(%s)
ORDER BY partition FOR UPDATE
"""
_MOVE = """
UPDATE consumer_offsets AS held SET next_offset = moved.after, lag = moved.lag, applied = applied + moved.did,
    unchanged = unchanged + moved.nothing, passed_over = passed_over + moved.passed, halted = NULL, seen_at = %s
FROM unnest(%s::integer[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS moved (partition, after, lag, did, nothing, passed)
WHERE held.topic = %s AND held.partition = moved.partition
"""
_RESTART = """
WITH stood AS (
    SELECT * FROM consumer_offsets WHERE topic = %(topic)s AND partition = %(partition)s AND halted IS NOT NULL
        AND next_offset IS NOT NULL FOR UPDATE
), begun AS (
    UPDATE consumer_offsets AS held SET next_offset = NULL FROM stood
    WHERE held.topic = stood.topic AND held.partition = stood.partition
)
INSERT INTO discarded_orders (topic, partition, message_offset, reason, since, discarded_at, discarded_by, why)
SELECT topic, partition, next_offset, halted, seen_at, %(now)s, %(who)s, %(why)s FROM stood
"""


def begin(
    conn: Connection[Any], topic: str, topic_id: UUID | None, oldest: Mapping[int, int], now: datetime
) -> dict[int, Standing]:
    """Where these partitions are taken up; those that never were, at the oldest message there is."""
    partitions = sorted(oldest)
    conn.execute(_BEGIN, (topic, topic_id, now, partitions, [oldest[partition] for partition in partitions]))
    rows = conn.execute(_STANDING, (topic, partitions)).fetchall()
    return {partition: Standing(next_offset, known) for partition, next_offset, known in rows}


def hold(conn: Connection[Any], moves: Sequence[Move]) -> None:
    """Keep the offsets where they are until the caller's transaction ends. Raises Deposed."""
    if moves:
        partitions = [move.partition for move in moves]
        rows = conn.execute(_HOLD, (moves[0].topic, partitions), prepare=True).fetchall()
        if dict(rows) != {move.partition: move.before for move in moves}:
            raise Deposed


def advance(conn: Connection[Any], moves: Sequence[Move], counts: Counts, now: datetime) -> None:
    """Move the offsets that are held, and count what became of the messages."""
    if moves:
        columns = (
            [move.partition for move in moves],
            [move.after for move in moves],
            [move.lag for move in moves],
            *([counts[move.partition, what] for move in moves] for what in ("applied", "unchanged", "passed over")),
        )
        conn.execute(_MOVE, (now, *columns, moves[0].topic), prepare=True)


def report(conn: Connection[Any], topic: str, lags: Mapping[int, int], now: datetime) -> None:
    """Say that these partitions are followed, and how far behind."""
    conn.execute(
        "UPDATE consumer_offsets AS held SET lag = told.lag, seen_at = %s"
        " FROM unnest(%s::integer[], %s::bigint[]) AS told (partition, lag)"
        " WHERE held.topic = %s AND held.partition = told.partition AND halted IS NULL",
        (now, list(lags), list(lags.values()), topic),
    )


def stand(conn: Connection[Any], topic: str, worker: str, halts: Mapping[int, str | None]) -> None:
    """Say where everybody looks who has these partitions, and of each why it is not gone on with, if it is not."""
    conn.execute(
        "UPDATE consumer_offsets AS held SET worker = %s, halted = told.reason"
        " FROM unnest(%s::integer[], %s::text[]) AS told (partition, reason)"
        " WHERE held.topic = %s AND held.partition = told.partition",
        (worker, list(halts), list(halts.values()), topic),
    )


def halted(conn: Connection[Any]) -> list[Halted]:
    """The partitions that halt, of whatever topic."""
    query = "SELECT topic, partition, next_offset, halted FROM consumer_offsets WHERE halted IS NOT NULL ORDER BY 1, 2"
    return [Halted(*row) for row in conn.execute(query)]


def know(conn: Connection[Any], topic: str, topic_id: UUID, partitions: Sequence[int]) -> None:
    """Of partitions that were begun when the topic's id was not told: remember it."""
    conn.execute(
        "UPDATE consumer_offsets SET topic_id = %s WHERE topic = %s AND partition = ANY(%s) AND topic_id IS NULL",
        (topic_id, topic, list(partitions)),
    )


def restart(conn: Connection[Any], topic: str, partition: int, who: str, why: str, now: datetime) -> bool:
    """Have a halted partition begun anew at the oldest message there is, if it is halted; who decided so is kept.

    What is told again changes nothing; what is not there any more is not taken in.
    """
    values = {"topic": topic, "partition": partition, "who": who, "why": why, "now": now}
    return bool(conn.execute(_RESTART, values).rowcount)
