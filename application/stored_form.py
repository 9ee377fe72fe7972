"""How a fact is written down: a chosen name, JSON, and the hash that chains it to the row before.

The `eventsourcing` library's mapper seam, so that the stored name of a fact is never a module path.
"""

from datetime import datetime
from hashlib import sha256
from struct import pack
from typing import Any, Generic, TypeVar
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, Mapper, Notification, StoredEvent
from msgspec import DecodeError, Struct, json

from domain.envelope import NO_PREVIOUS, Envelope
from domain.facts import FACTS, NAMES

F = TypeVar("F")


class Row(Struct, Generic[F], omit_defaults=True):
    """The `state` column: all of an envelope that has no column of its own. `previous` travels as hex."""

    at: datetime
    actor: str
    correlation: str
    fact: F
    operation: str | None = None
    causation: str | None = None
    fingerprint: str | None = None
    previous: str = NO_PREVIOUS.hex()


class UnreadableFact(Exception):  # noqa: N818  it names what was found
    """A row whose name or form this version does not know. It is set aside, never skipped."""

    def __init__(self, position: int | None, name: str, reason: str) -> None:
        super().__init__(f"the fact {name!r} at position {position} cannot be read: {reason}")


class FactMapper(Mapper[UUID]):
    """Envelopes to rows and back."""

    def __init__(self) -> None:
        super().__init__(transcoder=JSONTranscoder())
        self._encoder = json.Encoder()
        self._decoders = {name: json.Decoder(Row[fact]) for name, fact in FACTS.items()}  # type: ignore[valid-type]

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        assert isinstance(domain_event, Envelope)  # noqa: S101  the library's type is wider than ours
        row = Row(
            at=domain_event.at,
            actor=domain_event.actor,
            correlation=domain_event.correlation,
            fact=domain_event.fact,
            operation=domain_event.operation,
            causation=domain_event.causation,
            fingerprint=domain_event.fingerprint,
            previous=domain_event.previous.hex(),
        )
        return StoredEvent(
            originator_id=domain_event.stream,
            originator_version=domain_event.version,
            topic=NAMES[type(domain_event.fact)],
            state=self._encoder.encode(row),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Envelope:
        """The row as an envelope, with its position when the row came from the log. Raises UnreadableFact."""
        position = stored_event.id if isinstance(stored_event, Notification) else None
        row = self._decoded(stored_event, position)
        assert isinstance(stored_event.originator_id, UUID)  # noqa: S101  our table's column type
        return Envelope(
            stream=stored_event.originator_id,
            version=stored_event.originator_version,
            fact=row.fact,
            at=row.at,
            actor=row.actor,
            operation=row.operation,
            correlation=row.correlation,
            causation=row.causation,
            fingerprint=row.fingerprint,
            previous=bytes.fromhex(row.previous),
            position=position,
        )

    def _decoded(self, stored: StoredEvent, position: int | None) -> Row[Any]:
        try:
            return self._decoders[stored.topic].decode(stored.state)
        except KeyError:
            raise UnreadableFact(position, stored.topic, "this version knows no such name") from None
        except DecodeError as error:
            raise UnreadableFact(position, stored.topic, str(error)) from error


def row_hash(stored: StoredEvent) -> bytes:
    """SHA-256 of a row over bytes that can be read in one way only: fixed-width fields, and lengths before the rest.

    The position is left out: it is drawn when the row is inserted, after its bytes are made.
    """
    assert isinstance(stored.originator_id, UUID)  # noqa: S101  our table's column type
    name = stored.topic.encode()
    head = stored.originator_id.bytes + pack(">QI", stored.originator_version, len(name)) + name
    return sha256(head + pack(">Q", len(stored.state)) + stored.state).digest()
