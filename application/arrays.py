"""Rows of the log as four of PostgreSQL's binary arrays, for `unnest`: packed here, at half of what the driver takes.

The driver looks at each element of each list anew. A parameter packed here says nothing of its type, so the statement
has to: `$1::uuid[]`. The format is `array_recv`'s: https://doxygen.postgresql.org/arrayfuncs_8c_source.html
"""

from collections.abc import Sequence
from struct import pack
from typing import Any
from uuid import UUID
from weakref import WeakSet

from eventsourcing.persistence import StoredEvent
from psycopg import Connection
from psycopg.errors import InvalidSqlStatementName, OperationalError, error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

_UUID, _BIGINT, _TEXT, _BYTEA = 2950, 20, 25, 17


class Prepared:
    """A statement with binary parameters that answers with one binary column, sent past the driver's adaptation."""

    def __init__(self, name: bytes, statement: bytes) -> None:
        self._name = name
        self._statement = statement
        self._knowing = WeakSet[Connection[Any]]()

    def __call__(self, conn: Connection[Any], params: Sequence[bytes]) -> list[bytes]:
        """The column. Raises the driver's errors."""
        try:
            return self._prepared(conn, params)
        except InvalidSqlStatementName:  # after a rollback the driver has the session forget whatever was prepared
            self._knowing.discard(conn)
            return self._prepared(conn, params)

    def within(self, conn: Connection[Any], params: Sequence[bytes]) -> list[bytes]:
        """The column, in a transaction of the caller's, which could not go on after a statement was found forgotten."""
        formats = [Format.BINARY] * len(params)
        result = conn.pgconn.exec_params(self._statement, params, None, formats, Format.BINARY)
        return _column(_checked(conn.pgconn, result))

    def _prepared(self, conn: Connection[Any], params: Sequence[bytes]) -> list[bytes]:
        if conn not in self._knowing:
            _checked(conn.pgconn, conn.pgconn.prepare(self._name, self._statement))
            self._knowing.add(conn)
        formats = [Format.BINARY] * len(params)
        result = _checked(conn.pgconn, conn.pgconn.exec_prepared(self._name, params, formats, Format.BINARY))
        return _column(result)


def _column(result: PGresult) -> list[bytes]:
    return [result.get_value(row, 0) or b"" for row in range(result.ntuples)]


def _checked(conn: PGconn, result: PGresult) -> PGresult:
    if conn.status == ConnStatus.BAD:
        raise OperationalError("the connection broke during a statement")
    if result.status == ExecStatus.FATAL_ERROR:
        raise error_from_result(result)
    return result


def as_arrays(rows: Sequence[StoredEvent]) -> tuple[bytes, bytes, bytes, bytes]:
    """Streams, versions, names and states."""
    streams = []
    for row in rows:
        assert isinstance(row.originator_id, UUID)  # noqa: S101  our table's column type
        streams.append(row.originator_id.bytes)
    return (
        _array(_UUID, streams),
        _array(_BIGINT, [pack(">q", row.originator_version) for row in rows]),
        _array(_TEXT, [row.topic.encode() for row in rows]),
        _array(_BYTEA, [row.state for row in rows]),
    )


def _array(oid: int, cells: Sequence[bytes]) -> bytes:
    """One dimension, counted from 1, without nulls."""
    parts = [pack(">iiiii", 1, 0, oid, len(cells), 1)]
    for cell in cells:
        parts += len(cell).to_bytes(4, "big"), cell
    return b"".join(parts)
