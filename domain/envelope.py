"""A fact as the log keeps it: what happened, where in which stream, when, by whose wish, and after what."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from domain.facts import Fact
from domain.personal import Sealed

# What stands as the previous hash of a stream's first row.
NO_PREVIOUS = bytes(32)


class Envelope(Struct, frozen=True, kw_only=True):
    """One row of the log.

    `version` counts from 1 within `stream`; `at` has a time zone; `operation` is the wish it belongs to and
    `fingerprint` the SHA-256 of that wish as asked; `correlation` follows a request through every service and
    `causation` names what directly led here. `previous` is the SHA-256 of the row before it in the stream.
    `position` is its place in the whole log, known once it is stored. `person` is whom its personal fields are about;
    in a fact read from the log without opening them they are in `sealed`, and blank in the fact itself.
    """

    stream: UUID
    version: int
    fact: Fact
    at: datetime
    actor: str
    operation: str | None
    correlation: str
    causation: str | None
    fingerprint: str | None
    previous: bytes = NO_PREVIOUS
    position: int | None = None
    person: str | None = None
    sealed: Sealed | None = None

    @property
    def id(self) -> str:
        """The fact's name for consumers: unique, and the same however often it is sent."""
        return f"{self.stream}.{self.version}"

    # The event store's library asks for stream and version by these names.

    @property
    def originator_id(self) -> UUID:
        return self.stream

    @property
    def originator_version(self) -> int:
        return self.version
