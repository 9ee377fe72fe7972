"""History once more: `payledger publish --from POSITION --topic NEW`."""

import signal

import pytest
from msgspec import json

from interface.kafka.standing import topic_of
from tests.brokers import producing, unique
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


@pytest.fixture
def new() -> str:
    return unique("replay")


def test_all_of_history_is_in_the_new_topic_once_and_in_order(side: PublisherSide, new: str) -> None:
    fill(side, 10)
    done = side.command("publish", "--from", "1", "--topic", new)
    assert (done.exit_code, done.stdout) == (0, f"{new} holds the facts from position 1 to {side.side.end}\n")
    side.assert_each_once_in_order(new)


def test_from_a_position_on_there_is_nothing_before_it(side: PublisherSide, new: str) -> None:
    fill(side, 5)
    assert side.command("publish", "--from", "7", "--topic", new).exit_code == 0
    read = [json.decode(record.value)["position"] for record in side.published(new)]
    assert sorted(read) == list(range(7, side.side.end + 1))


@pytest.mark.parametrize("moment", ["half sent", "acknowledged", "committed"])
def test_killed_and_run_again_it_goes_on(side: PublisherSide, new: str, moment: str) -> None:
    fill(side, 20)
    # The first transaction says that the replay has begun.
    with side.process("tests.dying_publisher", moment, "3", new) as dying:
        assert dying.wait(PATIENCE_S) == -signal.SIGKILL
    assert 0 < len(side.published(new)) < side.side.end
    assert side.command("publish", "--from", "1", "--topic", new).exit_code == 0
    side.assert_each_once_in_order(new)


def test_run_again_it_brings_what_came_meanwhile_and_a_publisher_goes_on_from_there(
    side: PublisherSide, new: str
) -> None:
    for _ in range(2):
        fill(side, 2)
        assert side.command("publish", "--from", "1", "--topic", new).exit_code == 0
    side.topic = new
    fill(side, 2)
    with publishing(side.publisher()):
        all_sent(side)
    side.assert_each_once_in_order()


def test_a_topic_with_records_of_others_is_refused(side: PublisherSide, new: str) -> None:
    with producing(side.kafka) as producer:
        producer.send(new, b"another's")
    refused = side.command("publish", "--from", "1", "--topic", new)
    assert (refused.exit_code, "has records already" in refused.stderr) == (1, True)
    assert len(side.published(new)) == 1


def test_another_beginning_than_the_first_time_is_refused(side: PublisherSide, new: str) -> None:
    fill(side, 2)
    side.command("publish", "--from", "1", "--topic", new)
    refused = side.command("publish", "--from", "2", "--topic", new)
    assert (refused.exit_code, "holds the facts from position 1 on" in refused.stderr) == (1, True)


def test_what_the_publisher_writes_to_is_refused(side: PublisherSide) -> None:
    for topic in (side.topic, side.cinema, side.ticketing, topic_of(side.topic)):
        refused = side.command("publish", "--from", "1", "--topic", topic)
        assert (refused.exit_code, "is what the publisher writes to" in refused.stderr) == (1, True)


@pytest.mark.parametrize("words", [("--from", "1"), ("--topic", "new"), ("--from", "1", "--topic", "a topic")])
def test_half_a_wish_is_none(side: PublisherSide, words: tuple[str, ...]) -> None:
    assert side.command("publish", *words).exit_code == 2


def test_without_a_broker_it_says_so_and_ends(side: PublisherSide, new: str) -> None:
    side.kafka = "127.0.0.1:1"
    failed = side.command("publish", "--from", "1", "--topic", new)
    assert (failed.exit_code, "run it again to go on" in failed.stderr) == (1, True)


def test_what_cannot_be_read_is_named_and_comes_when_it_can(side: PublisherSide, new: str) -> None:
    fill(side, 2)
    broken = side.side.append(*DECLINED)
    side.side.conn.execute(RENAME, ("Unheard", broken, 2))
    done = side.command("publish", "--from", "1", "--topic", new)
    assert (done.exit_code, f"the stream {broken} from position 10 on" in done.stdout) == (1, True)
    assert positions(side.published(new))[str(broken)] == side.log()[str(broken)][:1]
    assert side.side.parked() == []

    side.side.conn.execute(RENAME, ("Failed", broken, 2))
    assert side.command("publish", "--from", "1", "--topic", new).exit_code == 0
    side.assert_each_once_in_order(new)
