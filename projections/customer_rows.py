"""Rows that hold the whole state of a customer or a subscription: folding a batch of facts into them.

What payment_rows.py is for payments, for aggregates that are folded alike.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypeVar, get_args
from uuid import UUID

from msgspec import Struct, json
from msgspec.structs import replace
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from domain import customer, subscription
from domain.customer import Customer
from domain.customer_facts import CustomerFact
from domain.envelope import Envelope
from domain.facts import Fact
from domain.personal import Sealed
from domain.subscription import Subscription
from domain.subscription_facts import SubscriptionFact
from projections.arrays import uuids
from projections.parking import Failure

State = TypeVar("State")


class At(Struct, Generic[State], frozen=True):
    """An aggregate as it stood after `version` facts, the last of them at `position` in the log.

    What is personal was not opened: it is in `sealed`, a box for each fact that holds something, the latest last.
    """

    id: UUID
    state: State
    version: int
    position: int
    created_at: datetime
    updated_at: datetime
    sealed: tuple[Sealed, ...] = ()


CustomerAt = At[Customer]
SubscriptionAt = At[Subscription]


class Kept(Struct, Generic[State], frozen=True, omit_defaults=True):
    """The `state` column: the aggregate as folded, and what is personal in it, still sealed."""

    state: State
    sealed: tuple[Sealed, ...] = ()


class Kind(Struct, Generic[State], frozen=True):
    """An aggregate that has rows: which facts are its own, how they fold, and how a row is read."""

    facts: frozenset[type[Fact]]
    evolve: Callable[[State | None, Any], State]
    kept: json.Decoder[Kept[State]]


CUSTOMER = Kind(frozenset(get_args(CustomerFact)), customer.evolve, json.Decoder(Kept[Customer]))
SUBSCRIPTION = Kind(frozenset(get_args(SubscriptionFact)), subscription.evolve, json.Decoder(Kept[Subscription]))

_ENCODER = json.Encoder()

# --- Fold --------------------------------------------------------------------------------------------------------


def fold(
    conn: Connection[Any], table: str, kind: Kind[State], envelopes: Sequence[Envelope]
) -> tuple[list[At[State]], list[Failure]]:
    """The aggregates that these facts change, as they stand after them, and the streams that cannot be folded on.

    Facts of other kinds are passed over, and those applied before change nothing. A stream that fails stands as it was
    before the fact that does not fit.
    """
    by_stream: dict[int, list[Envelope]] = {}
    for envelope in envelopes:  # in order, so a stream's facts are, too
        if type(envelope.fact) in kind.facts:
            by_stream.setdefault(envelope.stream.int, []).append(envelope)
    known = [facts[0].stream for facts in by_stream.values() if facts[0].version > 1]
    stored = _stored(conn, table, kind, known) if known else {}
    changed, failures = [], []
    for stream, facts in by_stream.items():
        before = stored.get(stream)
        after, failure = _folded(kind, before, facts)
        if after is not None and after is not before:
            changed.append(after)
        if failure is not None:
            failures.append(failure)
    return changed, failures


def _folded(
    kind: Kind[State], before: At[State] | None, facts: Sequence[Envelope]
) -> tuple[At[State] | None, Failure | None]:
    after, failure = before, None
    for envelope in facts:
        if after is not None and envelope.version <= after.version:
            continue
        try:
            after = _after(kind, after, envelope)
        except Exception as error:  # noqa: BLE001  whatever it is, the other streams are not to wait for it
            failure = Failure.at(envelope, error)
            break
    return after, failure


def _after(kind: Kind[State], before: At[State] | None, envelope: Envelope) -> At[State]:
    version = before.version + 1 if before else 1
    assert envelope.version == version, f"version {version} is missing"  # noqa: S101  corruption
    assert envelope.position is not None  # noqa: S101  it was read from the log
    return At(
        id=envelope.stream,
        state=kind.evolve(before.state if before else None, envelope.fact),
        version=version,
        position=envelope.position,
        created_at=before.created_at if before else envelope.at,
        updated_at=envelope.at,
        sealed=(*(before.sealed if before else ()), *((envelope.sealed,) if envelope.sealed else ())),
    )


# --- Rows --------------------------------------------------------------------------------------------------------


def _stored(conn: Connection[Any], table: str, kind: Kind[State], streams: list[UUID]) -> dict[int, At[State]]:
    with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        found = cursor.execute(_select(table), (uuids(streams),), prepare=True)
        return {row[0].int: read_row(kind, row) for row in found}


@cache
def _select(table: str) -> bytes:
    query = "SELECT id, state, version, position, created_at, updated_at FROM {} WHERE id = ANY(%b::uuid[])"
    return SQL(query).format(Identifier(table)).as_bytes()


def read_row(kind: Kind[State], row: Sequence[Any]) -> At[State]:
    """A row of (id, state, version, position, created_at, updated_at)."""
    kept = kind.kept.decode(row[1])
    return At(row[0], kept.state, row[2], row[3], row[4], row[5], kept.sealed)


def state_of(at: At[State]) -> bytes:
    """The aggregate as its row keeps it."""
    return _ENCODER.encode(Kept(at.state, at.sealed))


def opened(at: CustomerAt, personal: Callable[[UUID, Sealed], Mapping[str, Any]]) -> CustomerAt:
    """With the e-mails that it is known by. `personal` opens a box of this stream; nothing is in it once erased."""
    emails: dict[str, None] = {}
    for box in at.sealed:
        if email := personal(at.id, box).get("email"):
            emails.pop(email, None)  # the one that was learned last is the last
            emails[email] = None
    return replace(at, state=replace(at.state, emails=tuple(emails)), sealed=())
