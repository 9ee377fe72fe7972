"""How a fact is written down: a chosen name, JSON, and the hash that chains it to the row before.

The `eventsourcing` library's mapper seam, so that the stored name of a fact is never a module path.
"""

from datetime import datetime
from hashlib import sha256
from struct import pack
from typing import Annotated, Any, Protocol
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, Mapper, Notification, StoredEvent
from msgspec import DecodeError, Meta, Raw, Struct, convert, defstruct, json
from msgspec.structs import replace

from application.upcasting import FORMS, upcast
from domain.envelope import NO_PREVIOUS, Envelope
from domain.errors import InvalidMoney
from domain.facts import FACTS, NAMES, Fact
from domain.personal import Sealed, joined, split


class Row(Struct, omit_defaults=True):
    """The `state` column: all of an envelope that has no column of its own. `previous` travels as hex.

    `form` numbers the forms that a fact's fields have had (application/upcasting.py).
    """

    at: Annotated[datetime, Meta(tz=True)]
    actor: str
    correlation: str
    fact: Raw
    form: int = 1
    operation: str | None = None
    causation: str | None = None
    fingerprint: str | None = None
    previous: Annotated[str, Meta(min_length=64, max_length=64)] = NO_PREVIOUS.hex()
    person: str | None = None
    sealed: bytes | None = None


class Vault(Protocol):
    """What seals and opens the personal fields of a fact (application/privacy.py)."""

    def seal(self, person: str, about: bytes, plain: bytes) -> bytes: ...
    def open(self, person: str, about: bytes, box: bytes) -> bytes | None: ...


class UnreadableFact(Exception):  # noqa: N818  it names what was found
    """A row whose name or form this version does not know. It is set aside, never skipped."""

    def __init__(self, position: int | None, name: str, reason: str) -> None:
        super().__init__(f"the fact {name!r} at position {position} cannot be read: {reason}")


class FactMapper(Mapper[UUID]):
    """Envelopes to rows and back. What is personal is sealed on the way in, and opened only on request."""

    def __init__(self, vault: Vault | None = None) -> None:
        super().__init__(transcoder=JSONTranscoder())
        self._vault = vault
        self._encoder = json.Encoder()
        self._row = json.Decoder(Row)
        self._facts = {name: json.Decoder(fact) for name, fact in FACTS.items()}
        # A fact that has had one form only is read together with its row, in one pass; that takes half the time.
        self._whole = {name: json.Decoder(_row_of(fact)) for name, fact in FACTS.items() if name not in FORMS}

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        assert isinstance(domain_event, Envelope)  # noqa: S101  the library's type is wider than ours
        return self.row(self.sealed(domain_event), domain_event.previous)

    def sealed(self, envelope: Envelope) -> Envelope:
        """The envelope with its personal fields in a box. It may ask the database for the person's key."""
        fact, personal = split(envelope.fact)
        if not personal:
            return envelope
        assert envelope.person is not None, "personal fields belong to a person"  # noqa: S101
        assert self._vault is not None, "without keys nothing personal is written"  # noqa: S101
        about = _about(envelope.stream, envelope.version)
        box = self._vault.seal(envelope.person, about, json.encode(personal))
        return replace(envelope, fact=fact, sealed=Sealed(envelope.person, envelope.version, box))

    def row(self, envelope: Envelope, previous: bytes) -> StoredEvent:
        """A sealed envelope as it is stored, after the row whose hash is `previous`."""
        name, box = NAMES[type(envelope.fact)], envelope.sealed
        row = Row(
            at=envelope.at,
            actor=envelope.actor,
            correlation=envelope.correlation,
            fact=Raw(self._encoder.encode(envelope.fact)),
            form=FORMS.get(name, 1),
            operation=envelope.operation,
            causation=envelope.causation,
            fingerprint=envelope.fingerprint,
            previous=previous.hex(),
            person=box.person if box else None,
            sealed=box.box if box else None,
        )
        return StoredEvent(envelope.stream, envelope.version, name, self._encoder.encode(row))

    def to_domain_event(self, stored_event: StoredEvent) -> Envelope:
        """The row as an envelope, with its position when the row came from the log. Raises UnreadableFact."""
        position = stored_event.id if isinstance(stored_event, Notification) else None
        assert isinstance(stored_event.originator_id, UUID)  # noqa: S101  our table's column type
        return self.envelope(
            stored_event.originator_id,
            stored_event.originator_version,
            stored_event.topic,
            stored_event.state,
            position,
        )

    def envelope(self, stream: UUID, version: int, name: str, state: bytes, position: int | None) -> Envelope:
        """The columns of a row as an envelope. Raises UnreadableFact."""
        try:
            row = self._read(name, state)
            previous = bytes.fromhex(row.previous)
            if len(previous) != len(NO_PREVIOUS):
                raise ValueError("a hash has 32 bytes")  # noqa: TRY301  told like all that cannot be read
        except KeyError:
            raise UnreadableFact(position, name, "this version knows no such name or form") from None
        # An upcaster meets garbage, too.
        except (DecodeError, ValueError, TypeError, AttributeError, InvalidMoney) as error:
            raise UnreadableFact(position, name, str(error)) from error
        return Envelope(
            stream=stream,
            version=version,
            fact=row.fact,
            at=row.at,
            actor=row.actor,
            operation=row.operation,
            correlation=row.correlation,
            causation=row.causation,
            fingerprint=row.fingerprint,
            previous=previous,
            position=position,
            person=row.person,
            sealed=Sealed(row.person, version, row.sealed) if row.person and row.sealed else None,
        )

    def opened(self, envelope: Envelope) -> Envelope:
        """With its personal fields, or without if the person's key is gone: that reads as erased."""
        if envelope.sealed is None:
            return envelope
        fact: Fact = joined(envelope.fact, self.personal(envelope.stream, envelope.sealed))
        return replace(envelope, fact=fact, sealed=None)

    def personal(self, stream: UUID, sealed: Sealed) -> dict[str, Any]:
        """The personal fields that were sealed; none if the person's key is gone, or we have no keys."""
        if self._vault is None:
            return {}
        plain = self._vault.open(sealed.person, _about(stream, sealed.version), sealed.box)
        return json.decode(plain, type=dict[str, Any]) if plain is not None else {}

    def _read(self, name: str, state: bytes) -> Any:
        """The row, its fact decoded. Raises KeyError for what this version does not know, and much for garbage."""
        whole = self._whole.get(name)
        if whole is not None:
            row = whole.decode(state)
            if row.form != 1:
                raise KeyError(row.form)
            return row
        # The form tells how the fact is to be read, so the row comes first.
        row = self._row.decode(state)
        if row.form == FORMS.get(name, 1):
            return replace(row, fact=self._facts[name].decode(row.fact))
        older = upcast(name, row.form, json.decode(row.fact, type=dict[str, Any]))
        return replace(row, fact=convert(older, FACTS[name]))


def _row_of(fact: type[Fact]) -> Any:
    """A row whose fact is known to be of that type: not bytes to be decoded once more, but the fact itself."""
    return defstruct(f"{fact.__name__}Row", [("fact", fact)], bases=(Row,), kw_only=True)


def _about(stream: UUID, version: int) -> bytes:
    """Binds what is sealed to its place: it opens nowhere else."""
    return stream.bytes + pack(">Q", version)


def row_hash(stored: StoredEvent) -> bytes:
    """SHA-256 of a row over bytes that can be read in one way only: fixed-width fields, and lengths before the rest.

    The position is left out: it is drawn when the row is inserted, after its bytes are made.
    """
    assert isinstance(stored.originator_id, UUID)  # noqa: S101  our table's column type
    name = stored.topic.encode()
    head = stored.originator_id.bytes + pack(">QI", stored.originator_version, len(name)) + name
    return sha256(head + pack(">Q", len(stored.state)) + stored.state).digest()
