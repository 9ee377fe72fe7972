"""Verifies that the log is what was written: every row chained to the one before it in its stream, none missing.

The chain shows a row that was changed, removed from within a stream, or put in later. That the last rows of a stream
were cut off it cannot show.
"""

from collections.abc import Iterable, Iterator
from uuid import UUID

from eventsourcing.persistence import StoredEvent
from msgspec import DecodeError, Struct, json

from application.stored_form import row_hash
from domain.envelope import NO_PREVIOUS


class Link(Struct):
    """What chains a row, whatever else its state holds."""

    previous: str = NO_PREVIOUS.hex()


class Broken(Struct, frozen=True):
    """A row that does not follow from the one before it."""

    stream: UUID
    version: int
    reason: str


class Verified(Struct, frozen=True):
    """How much was looked at."""

    streams: int
    facts: int


_LINKS = json.Decoder(Link)


def verify(rows: Iterable[StoredEvent]) -> Iterator[Broken | Verified]:
    """Walk rows ordered by stream and version; yield what is broken as it is found, and at last the sums.

    A break is told once; the walk goes on from the row as it stands.
    """
    stream: UUID | None = None
    streams = facts = version = 0
    tail = NO_PREVIOUS
    for row in rows:
        assert isinstance(row.originator_id, UUID)  # noqa: S101  our table's column type
        if row.originator_id != stream:
            stream, version, tail = row.originator_id, 0, NO_PREVIOUS
            streams += 1
        reason = _broken(row, version + 1, tail)
        if reason:
            yield Broken(stream, row.originator_version, reason)
        version, tail = row.originator_version, row_hash(row)
        facts += 1
    yield Verified(streams, facts)


def _broken(row: StoredEvent, version: int, tail: bytes) -> str | None:
    if row.originator_version != version:
        return f"version {version} is missing"
    try:
        previous = _LINKS.decode(row.state).previous
    except DecodeError:
        return "the row is not in the stored form"
    return None if previous == tail.hex() else "the row before it is not the one it was chained to"
