"""Where a publisher begins, and the topics that it begins with."""

from uuid import uuid4

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from domain.envelope import Envelope
from interface.kafka import PUBLISHER
from interface.kafka.messages import message
from interface.kafka.standing import Standing, topic_of
from interface.kafka.topics import PARTITIONS
from projections.engine import connect, take_over
from tests.brokers import administering, producing
from tests.processes import eventually
from tests.publisher_side import PATIENCE_S, PublisherSide, all_sent, fill, publisher_side, publishing, shared_kafka  # noqa: F401  # fixtures

# --- Where ---------------------------------------------------------------------------------------------------------


def test_where_an_older_version_left_off_is_gone_on_from_there_once(side: PublisherSide) -> None:
    fill(side, 5)
    old = side.side.read(0, 11)
    with producing(side.kafka) as producer:
        for row in old:
            assert isinstance(row, Envelope)
            record = message(row)
            producer.send(side.topic, record.value, record.key, record.headers)
    with connect(side.side.url, "payledger test") as conn:
        take_over(conn, PUBLISHER)
        conn.execute("UPDATE checkpoints SET position = 11 WHERE projection = %s", (PUBLISHER,))
    with publishing(side.publisher()):
        all_sent(side)
    side.assert_each_once_in_order()

    side.side.conn.execute("UPDATE checkpoints SET position = 2 WHERE projection = %s", (PUBLISHER,))
    fill(side, 1)
    with publishing(side.publisher()):
        all_sent(side)
    side.assert_each_once_in_order()


def test_a_new_kafka_gets_the_whole_history_whatever_the_database_says(side: PublisherSide) -> None:
    fill(side, 3)
    with connect(side.side.url, "payledger test") as conn:
        take_over(conn, PUBLISHER)
        conn.execute("UPDATE checkpoints SET position = 5 WHERE projection = %s", (PUBLISHER,))
    with publishing(side.publisher()):
        eventually(lambda: side.side.checkpoint(PUBLISHER) == side.side.end, PATIENCE_S)
    side.assert_each_once_in_order()


def test_kafka_that_holds_another_logs_facts_is_left_alone_and_people_are_told(side: PublisherSide) -> None:
    outlet = side.outlet
    outlet.take_over()
    outlet.send([], Standing(3, f"{uuid4()}.1"))
    outlet.close()
    fill(side, 3)
    with publishing(side.publisher()):
        eventually(lambda: bool(side.side.one("SELECT stopped FROM checkpoints WHERE projection = %s", PUBLISHER)), 30)
    assert side.published() == []
    assert "the log does not" in side.side.one("SELECT stopped FROM checkpoints WHERE projection = %s", PUBLISHER)


# --- Its topics --------------------------------------------------------------------------------------------------


def test_topics_that_are_missing_are_created_so_that_nothing_is_forgotten(side: PublisherSide) -> None:
    outlet = side.outlet
    outlet.take_over()
    outlet.close()
    created = settings_of(side, side.topic)
    assert (created["cleanup.policy"], created["retention.ms"]) == ("delete", "-1")
    assert settings_of(side, topic_of(side.topic))["cleanup.policy"] == "compact"
    with administering(side.kafka) as admin:
        found = admin.describe_topics([side.topic, topic_of(side.topic), side.cinema, side.ticketing])
    assert {topic["name"]: len(topic["partitions"]) for topic in found} == {
        side.topic: PARTITIONS,
        topic_of(side.topic): 1,
        side.cinema: PARTITIONS,
        side.ticketing: PARTITIONS,
    }


def test_a_topic_that_is_there_is_left_as_it_is_and_what_is_wrong_with_it_is_said(
    side: PublisherSide, caplog: pytest.LogCaptureFixture
) -> None:
    with administering(side.kafka) as admin:
        admin.create_topics({side.topic: {"num_partitions": 3, "configs": {"retention.ms": "1000"}}})
    outlet = side.outlet
    outlet.take_over()
    outlet.close()
    assert settings_of(side, side.topic)["retention.ms"] == "1000"
    (said,) = [record.message for record in caplog.records if record.name == "interface.kafka.topics"]
    assert (side.topic in said, "retention.ms is 1000, not -1" in said) == (True, True)


def settings_of(side: PublisherSide, topic: str) -> dict[str, str]:
    with administering(side.kafka) as admin:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return {name: setting["value"] for name, setting in found["topic"][topic].items()}
