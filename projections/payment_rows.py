"""Rows that hold a payment's whole state: folding a batch of facts into them, with the domain's own `evolve`."""

from collections.abc import Sequence
from functools import cache
from typing import Any
from uuid import UUID

from msgspec import Struct, json
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from domain.envelope import Envelope
from domain.facts import is_of_payment, of_payment
from domain.payment import Payment, PaymentAt, evolve
from domain.payment_facts import AuthorizationStarted
from domain.personal import Sealed
from projections.arrays import uuids
from projections.parking import Failure


class Kept(Struct, frozen=True, omit_defaults=True):
    """The `state` column: the payment as folded, and what is personal in it, still sealed."""

    payment: Payment
    sealed: Sealed | None = None


_ENCODER = json.Encoder()
_DECODER = json.Decoder(Kept)


def fold(
    conn: Connection[Any], table: str, envelopes: Sequence[Envelope], *, every_payment: bool = True
) -> tuple[list[PaymentAt], list[Failure]]:
    """The payments that a batch of facts changes, as they stand after it, and the streams that cannot be folded on.

    Facts applied before change nothing. A stream that fails stands as it was before the fact that does not fit.
    `every_payment`: the table has a row for each payment; otherwise later facts of one without a row are not for it.
    """
    by_stream: dict[int, list[Envelope]] = {}
    for envelope in envelopes:  # in order, so a stream's facts are, too
        if is_of_payment(envelope.fact):
            by_stream.setdefault(envelope.stream.int, []).append(envelope)
    known = [facts[0].stream for facts in by_stream.values() if facts[0].version > 1]
    stored = _stored(conn, table, known) if known else {}
    changed, failures = [], []
    for stream, facts in by_stream.items():
        before = stored.get(stream)
        if not (before or every_payment or facts[0].version == 1):
            continue
        after, failure = _folded(before, facts)
        if after is not None and after is not before:
            changed.append(after)
        if failure is not None:
            failures.append(failure)
    return changed, failures


def _folded(before: PaymentAt | None, facts: Sequence[Envelope]) -> tuple[PaymentAt | None, Failure | None]:
    payment, sealed = (before.payment, before.sealed) if before else (None, None)
    version = before.version if before else 0
    last: Envelope | None = None
    failure: Failure | None = None
    for envelope in facts:
        if envelope.version <= version:
            continue
        try:
            assert envelope.version == version + 1, f"version {version + 1} is missing"  # noqa: S101  corruption
            payment = evolve(payment, of_payment(envelope.fact))
        except Exception as error:  # noqa: BLE001  whatever it is, the other streams are not to wait for it
            failure = Failure.at(envelope, error)
            break
        if isinstance(envelope.fact, AuthorizationStarted):
            # What describes a payment stands in the fact that began its latest attempt.
            sealed = envelope.sealed
        version, last = envelope.version, envelope
    if last is None or payment is None:
        return before, failure
    assert last.position is not None  # noqa: S101  it was read from the log
    created_at = before.created_at if before else facts[0].at
    return PaymentAt(last.stream, payment, version, last.position, created_at, last.at, sealed), failure


def _stored(conn: Connection[Any], table: str, streams: list[UUID]) -> dict[int, PaymentAt]:
    with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        return {row[0].int: read_row(row) for row in cursor.execute(_select(table), (uuids(streams),), prepare=True)}


@cache
def _select(table: str) -> bytes:
    query = "SELECT id, state, version, position, created_at, updated_at FROM {} WHERE id = ANY(%b::uuid[])"
    return SQL(query).format(Identifier(table)).as_bytes()


def read_row(row: tuple[Any, ...]) -> PaymentAt:
    """A row of (id, state, version, position, created_at, updated_at)."""
    kept = _DECODER.decode(row[1])
    return PaymentAt(row[0], kept.payment, row[2], row[3], row[4], row[5], kept.sealed)


def state_of(at: PaymentAt) -> bytes:
    """The payment as its row keeps it."""
    return _ENCODER.encode(Kept(at.payment, at.sealed))
