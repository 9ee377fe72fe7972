"""A fact that cannot be published sets its stream aside, in order, and holds nobody else up."""

import signal
from collections.abc import Sequence

from domain.envelope import Envelope
from interface.kafka import PUBLISHER
from interface.kafka.messages import message
from interface.kafka.outlet import Record
from tests.given import DECLINED
from tests.publisher_side import (  # noqa: F401  # fixtures
    PATIENCE_S,
    RENAME,
    PublisherSide,
    all_sent,
    fill,
    positions,
    publisher_side,
    publishing,
    shared_kafka,
)


def test_a_fact_that_cannot_be_read_sets_its_stream_aside_and_holds_nobody_up(side: PublisherSide) -> None:
    broken = side.side.captured()
    side.side.conn.execute(RENAME, ("Unheard", broken, 3))
    fill(side, 5)
    with publishing(side.publisher(max_batch=7)):
        all_sent(side)
        side.side.conn.execute(RENAME, ("CaptureStarted", broken, 3))
        side.side.append(*DECLINED, stream=broken)
        all_sent(side)
    read = of_streams(side)
    assert read.pop(str(broken)) == side.log()[str(broken)][:2]
    assert read == {stream: facts for stream, facts in side.log().items() if stream != str(broken)}
    (parked,) = side.side.parked()
    assert (parked.projection, parked.stream) == (PUBLISHER, broken)
    side.side.conn.execute(RENAME, ("Unheard", broken, 3))
    assert not side.retry(broken)

    side.side.conn.execute(RENAME, ("CaptureStarted", broken, 3))
    with publishing(side.publisher()):
        fill(side, 1)
        all_sent(side)
        assert side.retry(broken)
        side.side.append(*DECLINED, stream=broken)
        all_sent(side)
    side.assert_each_once_in_order()
    assert side.side.parked() == []


def test_a_fact_that_cannot_be_told_sets_its_stream_aside_too(side: PublisherSide) -> None:
    fill(side, 3)
    broken = side.side.captured()
    fill(side, 3)

    def tell(envelopes: Sequence[Envelope]) -> list[Record]:
        for envelope in envelopes:
            if (envelope.stream, envelope.version) == (broken, 2):
                raise ZeroDivisionError
        return [(side.topic, message(envelope)) for envelope in envelopes]

    with publishing(side.publisher(tell)):
        all_sent(side)
    assert of_streams(side)[str(broken)] == side.log()[str(broken)][:1]
    assert [one.stream for one in side.side.parked()] == [broken]
    assert side.retry(broken)
    side.assert_each_once_in_order()


def test_what_is_aside_stays_so_although_the_database_was_not_told(
    side: PublisherSide,
) -> None:
    broken = side.side.captured()
    side.side.conn.execute(RENAME, ("Unheard", broken, 2))
    with side.process("tests.dying_publisher", "committed", "1") as dying:
        assert dying.wait(PATIENCE_S) == -signal.SIGKILL
    assert side.side.parked() == []
    side.side.conn.execute(RENAME, ("Authorized", broken, 2))
    fill(side, 1)
    with publishing(side.publisher()):
        all_sent(side)
    assert [one.stream for one in side.side.parked()] == [broken]
    assert of_streams(side)[str(broken)] == side.log()[str(broken)][:1]
    assert side.retry(broken)
    side.assert_each_once_in_order()


def test_the_command_brings_a_parked_stream_back(side: PublisherSide) -> None:
    broken = side.side.captured()
    side.side.conn.execute(RENAME, ("Unheard", broken, 3))
    with publishing(side.publisher()):
        all_sent(side)
    refused = side.command("projections", "retry", PUBLISHER)
    assert (refused.exit_code, "fails again" in refused.stdout) == (1, True)
    side.side.conn.execute(RENAME, ("CaptureStarted", broken, 3))
    assert side.command("projections", "retry", PUBLISHER).exit_code == 0
    side.assert_each_once_in_order()
    assert side.side.parked() == []


def of_streams(side: PublisherSide) -> dict[str, list[int]]:
    return positions(side.published())
