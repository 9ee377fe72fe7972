"""Rows that hold a payment's whole state: folding a batch of facts into them, with the domain's own `evolve`."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from msgspec import json
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from domain.envelope import Envelope
from domain.payment import Payment, PaymentAt, evolve

ENCODER = json.Encoder()
DECODER = json.Decoder(Payment)


class StreamFailed(Exception):  # noqa: N818  it says what happened
    """One stream's facts cannot be applied; the others can."""

    def __init__(self, stream: UUID, position: int, reason: str) -> None:
        super().__init__(reason)
        self.stream = stream
        self.position = position
        self.reason = reason


def fold(
    conn: Connection[Any], table: str, envelopes: Sequence[Envelope], *, every_payment: bool = True
) -> list[PaymentAt]:
    """The payments that a batch of facts changes, as they stand after it. Facts applied before change nothing.

    `every_payment`: the table has a row for each payment; otherwise later facts of one without a row are not for it.
    Raises StreamFailed for a stream whose next fact is missing or does not fit its state.
    """
    by_stream = sorted(envelopes, key=lambda envelope: (envelope.stream, envelope.version))
    streams = {envelope.stream for envelope in envelopes if envelope.version > 1}
    stored = _stored(conn, table, streams) if streams else {}
    changed = []
    begun = {envelope.stream for envelope in envelopes if envelope.version == 1}
    for stream, facts in groupby(by_stream, key=lambda envelope: envelope.stream):
        before = stored.get(stream)
        if not (before or stream in begun or every_payment):
            continue
        after = _folded(before, facts)
        if after is not None and after is not before:
            changed.append(after)
    return changed


def _folded(at: PaymentAt | None, envelopes: Iterable[Envelope]) -> PaymentAt | None:
    for envelope in envelopes:
        assert envelope.position is not None  # noqa: S101  it was read from the log
        version = at.version if at else 0
        if envelope.version <= version:
            continue
        if envelope.version != version + 1:
            raise StreamFailed(envelope.stream, envelope.position, f"version {version + 1} is missing")
        try:
            payment = evolve(at.payment if at else None, envelope.fact)
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            raise StreamFailed(envelope.stream, envelope.position, repr(error)) from error
        created_at = at.created_at if at else envelope.at
        at = PaymentAt(envelope.stream, payment, envelope.version, envelope.position, created_at, envelope.at)
    return at


def _stored(conn: Connection[Any], table: str, streams: set[UUID]) -> dict[UUID, PaymentAt]:
    statement = SQL("SELECT id, state, version, position, created_at, updated_at FROM {} WHERE id = ANY(%s)").format(
        Identifier(table)
    )
    with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        return {row[0]: read_row(row) for row in cursor.execute(statement, [list(streams)], prepare=True)}


def read_row(row: tuple[Any, ...]) -> PaymentAt:
    """A row of (id, state, version, position, created_at, updated_at)."""
    return PaymentAt(row[0], DECODER.decode(row[1]), row[2], row[3], row[4], row[5])
