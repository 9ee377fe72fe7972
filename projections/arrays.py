"""Columns of rows as PostgreSQL's binary arrays, for `unnest`: packed here, at a third of what the driver takes.

The driver looks at each element of each list anew. A parameter packed here says nothing of its type, so the statement
has to: `%b::uuid[]`. The format is `array_recv`'s: https://doxygen.postgresql.org/arrayfuncs_8c_source.html
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from struct import pack
from uuid import UUID

import psycopg
from psycopg.types.string import BytesBinaryDumper

_UUID, _BIGINT, _TIMESTAMPTZ, _TEXT, _BYTEA = 2950, 20, 1184, 25, 17
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_NULL = pack(">i", -1)


class Packed(bytes):
    """An array in binary form."""

    __slots__ = ()


class _PackedDumper(BytesBinaryDumper):
    oid = 0  # what the statement says


psycopg.adapters.register_dumper(Packed, _PackedDumper)


def uuids(values: Sequence[UUID]) -> Packed:
    return _sized(_UUID, [value.bytes for value in values])


def bigints(values: Sequence[int]) -> Packed:
    return _numbers(_BIGINT, values)


def moments(values: Iterable[datetime]) -> Packed:
    """As timestamptz: microseconds since the beginning of 2000."""
    since = [value - _EPOCH for value in values]
    return _numbers(_TIMESTAMPTZ, [(d.days * 86_400 + d.seconds) * 1_000_000 + d.microseconds for d in since])


def texts(values: Iterable[str | None]) -> Packed:
    return _sized(_TEXT, [None if value is None else value.encode() for value in values])


def blobs(values: Sequence[bytes]) -> Packed:
    return _sized(_BYTEA, values)


def _numbers(oid: int, values: Sequence[int]) -> Packed:
    cells = [part for value in values for part in (8, value)]
    return Packed(_head(oid, len(values), nulls=False) + pack(f">{'iq' * len(values)}", *cells))


def _sized(oid: int, values: Sequence[bytes | None]) -> Packed:
    parts = [_head(oid, len(values), nulls=None in values)]
    for value in values:
        parts += (_NULL,) if value is None else (len(value).to_bytes(4, "big"), value)
    return Packed(b"".join(parts))


def _head(oid: int, length: int, *, nulls: bool) -> bytes:
    """One dimension, counted from 1."""
    return pack(">iiiii", 1, nulls, oid, length, 1)
