"""History once more, to a topic of its own: for a consumer that wants to begin anew, or a topic that was created wrong.

A replay is a publisher that ends: its topic has a standing like every topic of facts, so a replay that was killed goes
on where it was, one that is run again later brings what came meanwhile, and a publisher that is given the topic by
KAFKA_TOPIC goes on from there.
"""

from collections.abc import Callable
from uuid import UUID

from msgspec import Struct

from application.event_store import Ledger
from interface.bootstrap import log_reader, stream_reader
from interface.kafka.outgoing import telling_facts
from interface.kafka.outlet import Outlet
from interface.kafka.publisher import check_same_log
from interface.kafka.sending import MAX_BATCH, Sending
from interface.kafka.standing import Standing, topic_of
from interface.settings import Settings
from projections.engine import connect


class Refused(Exception):  # noqa: N818  it says what happened
    """Nothing was sent. It says why, for people."""


class Outcome(Struct, frozen=True):
    """All facts from `since` to `position` are in the topic, but for those of the streams that are aside."""

    since: int
    position: int
    aside: dict[str, int]


def replay(
    settings: Settings, since: int, topic: str, told: Callable[[int, int], None], max_batch: int = MAX_BATCH
) -> Outcome:
    """Send all facts from a position on, up to the horizon as it is now; `told` hears how far it is, of how far.

    Raises Refused and AnotherLog, and whatever `Outlet` raises: then it is run again.
    """
    live = (settings.kafka_topic, settings.cinema_topic, settings.ticketing_topic)
    if topic in {*live, *map(topic_of, live)}:
        raise Refused(f"{topic} is what the publisher writes to")
    outlet = Outlet(settings.kafka_bootstrap_servers, topic)
    with Ledger(settings.database_url, pool_size=2) as ledger:
        sending = Sending(outlet, log_reader(ledger), telling_facts(topic), max_batch)
        try:
            sending.standing = _begun(outlet, topic, since)
            with connect(settings.database_url, "payledger replay") as conn:
                check_same_log(conn, sending.standing)
                end = ledger.recorder.horizon.advance(conn)
            return _through(sending, ledger, end, told)
        finally:
            sending.close()


def _begun(outlet: Outlet, topic: str, since: int) -> Standing:
    standing = outlet.take_over()
    if standing is None:
        if outlet.has_facts():
            raise Refused(f"{topic} has records already, and none of them is a replay's")
        # Before any fact, so that a replay that is killed is known as one.
        standing = Standing(since - 1, since=since)
        outlet.send([], standing)
    if standing.since != since:
        raise Refused(f"{topic} holds the facts from position {standing.since} on")
    return standing


def _through(sending: Sending, ledger: Ledger, end: int, told: Callable[[int, int], None]) -> Outcome:
    for stream in map(UUID, sending.standing.aside):
        sending.bring_back(stream, stream_reader(ledger)(stream))
    while sending.standing.position < end and sending.step().facts:
        told(sending.standing.position, end)
    standing = sending.standing
    return Outcome(standing.since, standing.position, standing.aside)
