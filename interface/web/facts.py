"""A fact as outsiders see it: in a payment's history, and as a line of the feed."""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from eventsourcing.persistence import Notification
from msgspec import Struct, json

from domain.envelope import Envelope
from domain.facts import FACTS, NAMES
from interface.kafka.messages import data as public_data
from interface.web.views import FactView


class UnreadableView(Struct, frozen=True):
    """A row of the log that this version cannot read, in its place: what is known of it without reading it."""

    position: int
    id: str
    type: str
    stream: UUID
    version: int
    data: dict[str, str]
    at: None = None
    actor: None = None
    correlation_id: None = None
    causation_id: None = None


class Line(NamedTuple):
    position: int
    type: str
    json: bytes


def fact_view(envelope: Envelope, *, personal: bool) -> FactView:
    """A stored fact as JSON; with `personal`, what somebody may have typed about somebody stands in its data."""
    return FactView(
        position=envelope.position or 0,
        id=envelope.id,
        type=NAMES[type(envelope.fact)],
        stream=envelope.stream,
        version=envelope.version,
        at=envelope.at,
        actor=envelope.actor,
        correlation_id=envelope.correlation,
        causation_id=envelope.causation,
        data=public_data(envelope.fact, personal=personal),
    )


def line(row: Notification, read: Callable[[Notification], Envelope]) -> Line:
    """A row of the log as a line of JSON. One that cannot be read has its line, too: it is never skipped."""
    view: FactView | UnreadableView
    try:
        view = fact_view(read(row), personal=False)
    except Exception:  # noqa: BLE001  whatever is wrong with a row, those after it must not be held up
        view = _unreadable(row)
    return Line(row.id, row.topic, json.encode(view))


def _unreadable(row: Notification) -> UnreadableView:
    # Not the decoder's own words: they may quote what stands there.
    why = "its form is not one of this type's" if row.topic in FACTS else "this version knows no such type"
    stream, version = row.originator_id, row.originator_version
    assert isinstance(stream, UUID)  # noqa: S101  our table's column type
    return UnreadableView(row.id, f"{stream}.{version}", row.topic, stream, version, {"unreadable": why})
