"""What a batch of facts becomes on its way out: records for every topic, and what is set aside because it cannot go."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import tuple_row

from application.stored_form import FactMapper, Vault
from domain.envelope import Envelope
from domain.facts import NAMES
from interface.kafka.cinema_events import INTENTS, cinema_messages
from interface.kafka.messages import message
from interface.kafka.outlet import MAX_REQUEST_BYTES, Record
from interface.kafka.ticketing_events import ticketing_messages
from projections.engine import PASSING, connect
from projections.parking import Failure, Unreadable, sorted_out

# The batch around a record, its key and its headers take some of a request, too.
MAX_VALUE_BYTES = MAX_REQUEST_BYTES - 64 * 1024
_INTENTS = """
SELECT originator_id, originator_version, topic, state FROM ledger_events
WHERE originator_id = ANY(%s) AND topic = ANY(%s)
"""

Tell = Callable[[Sequence[Envelope]], list[Record]]


class TooLarge(Exception):  # noqa: N818  it says what is so
    """A record that no broker takes."""


def telling_all(facts_topic: str, cinema_topic: str, ticketing_topic: str, intents: "Intents") -> Tell:
    """Every fact to its topic, and what the cinema and the ticket service hear of it to theirs."""

    def tell(envelopes: Sequence[Envelope]) -> list[Record]:
        records = [(facts_topic, message(envelope)) for envelope in envelopes]
        records += [(cinema_topic, told) for told in cinema_messages(envelopes, intents)]
        records += [(ticketing_topic, told) for told in ticketing_messages(envelopes)]
        return records

    return tell


def telling_facts(topic: str) -> Tell:
    """Every fact, and nothing else."""
    return lambda envelopes: [(topic, message(envelope)) for envelope in envelopes]


def outgoing(
    tell: Tell, rows: Iterable[Envelope | Unreadable], aside: frozenset[UUID]
) -> tuple[list[Record], list[Failure]]:
    """The records of all rows but those of streams that are or must be set aside, and which must be from now on.

    What passes by itself (a database that is away) is raised.
    """
    facts, failures = sorted_out(rows, aside)
    try:
        return _told(tell, facts), failures
    except PASSING:
        raise
    except Exception:  # noqa: BLE001  whatever it is, it must not hold up the other streams: it is looked for
        records, more = _one_by_one(tell, facts)
        return records, failures + more


def _told(tell: Tell, facts: Sequence[Envelope]) -> list[Record]:
    records = tell(facts)
    for topic, record in records:
        if len(record.value) > MAX_VALUE_BYTES:
            raise TooLarge(f"{len(record.value)} bytes for {topic}")
    return records


def _one_by_one(tell: Tell, facts: Sequence[Envelope]) -> tuple[list[Record], list[Failure]]:
    records: list[Record] = []
    failures: dict[UUID, Failure] = {}
    for fact in facts:
        if fact.stream in failures:
            continue
        try:
            records += _told(tell, [fact])
        except PASSING:
            raise
        except Exception as error:  # noqa: BLE001  as above
            failures[fact.stream] = Failure.at(fact, error)
    return records, list(failures.values())


class Intents:
    """Looks up what the cinema's events tell of a payment's beginning, through a connection of its own."""

    def __init__(self, database_url: str, worker: str, vault: Vault | None = None) -> None:
        """With `vault` they tell what somebody wrote."""
        self._database_url = database_url
        self._worker = worker
        self._mapper = FactMapper(vault)
        self._conn: Connection[Any] | None = None

    def __call__(self, streams: Sequence[UUID], /) -> Iterable[Envelope]:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._database_url, self._worker)
        with self._conn.cursor(row_factory=tuple_row) as cursor:
            names = [NAMES[fact] for fact in INTENTS]
            rows = cursor.execute(_INTENTS, [streams, names], prepare=True).fetchall()
        return [
            self._mapper.opened(self._mapper.envelope(stream, version, name, bytes(state), None))
            for stream, version, name, state in rows
        ]
