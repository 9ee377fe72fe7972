"""The Kafka stand-in: first what any Kafka broker does for its clients, then what only the stand-in promises.

The first two parts run against a real broker, too (`make test-peers`, tests/brokers.py): they show that the
stand-in and the real thing agree.
"""

import asyncio
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    CoordinatorLoadInProgressError,
    InvalidConfigurationError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    ProducerFencedError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.consumer import (
    ConsumerProtocolSubscription,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
)
from kafka.protocol.producer import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceRequest,
    ProduceResponse,
)
from kafka.record import MemoryRecordsBuilder

from interface.sandbox import broker as broker_module
from interface.sandbox.broker import Broker as StandInBroker
from interface.sandbox.broker_facts import TopicCreated
from interface.sandbox.broker_journal import CorruptJournalError, JournalInUseError
from interface.sandbox.broker_protocol import Code
from interface.sandbox.broker_state import JOURNAL, Store
from tests.brokers import (
    PARTITIONS,
    PATIENCE_S,
    Broker,
    StandIn,
    administering,
    closing,
    consuming,
    named_broker,
    new_topic,
    producing,
    read_all,
    started_broker,
    transacting,
    unique,
)

RETRY_S = 0.05
NOT_YET = {
    error.errno for error in (NotLeaderForPartitionError, UnknownTopicOrPartitionError, CoordinatorLoadInProgressError)
}
"""What clients are told to ask again for: of a topic that was just made, and of a broker that just started."""
NEWS = threading.Condition()
"""Told by every member of a group after each of its polls."""


# ── What any broker does ──────────────────────────────────────────────────────────────────────────────────


def test_messages_of_one_key_are_read_in_the_order_they_were_sent(kafka: str, topic: str) -> None:
    sent = [(b"key-%d" % (number % 7), b"%d" % number) for number in range(500)]
    with producing(kafka) as producer:
        for key, value in sent:
            producer.send(topic, key=key, value=value)

    read = read_all(kafka, topic)

    assert len({record.partition for record in read}) > 1
    for key in {key for key, _ in sent}:
        assert [r.value for r in read if r.key == key] == [value for k, value in sent if k == key]
        assert len({record.partition for record in read if record.key == key}) == 1


def test_headers_and_times_of_a_message_are_kept(kafka: str, topic: str) -> None:
    with producing(kafka) as producer:
        producer.send(topic, value=b"v", headers=[("ce_type", b"Captured")], timestamp_ms=1_700_000_000_000)

    (record,) = read_all(kafka, topic)

    assert (record.headers, record.timestamp) == ([("ce_type", b"Captured")], 1_700_000_000_000)


def test_an_offset_is_found_by_time(kafka: str, topic: str) -> None:
    with producing(kafka) as producer:
        for number in range(10):
            producer.send(topic, partition=0, value=b"v", timestamp_ms=1_700_000_000_000 + number)

    with consuming(kafka) as consumer:
        place = TopicPartition(topic, 0)
        found = consumer.offsets_for_times({place: 1_700_000_000_004})

    assert (found[place].offset, found[place].timestamp) == (4, 1_700_000_000_004)


def test_a_message_larger_than_the_topic_takes_is_refused(kafka: str, topic: str) -> None:
    with producing(kafka, max_request_size=4_000_000) as producer, pytest.raises(MessageSizeTooLargeError):
        producer.send(topic, value=b"x" * 1_100_000).get(PATIENCE_S)


def test_a_duplicate_batch_is_acknowledged_with_its_first_offset(kafka: str, topic: str) -> None:
    with Wire(kafka) as wire:
        producer_id, epoch = wire.producer_id()
        first = wire.produce(topic, producer_id, epoch, sequence=0, values=[b"a", b"b"])
        second = wire.produce(topic, producer_id, epoch, sequence=2, values=[b"c"])
        again = wire.produce(topic, producer_id, epoch, sequence=0, values=[b"a", b"b"])

    assert (first, second, again) == ((Code.NONE, 0), (Code.NONE, 2), (Code.NONE, 0))
    assert values(read_all(kafka, topic)) == [b"a", b"b", b"c"]


def test_a_batch_that_skips_a_sequence_number_is_refused(kafka: str, topic: str) -> None:
    with Wire(kafka) as wire:
        producer_id, epoch = wire.producer_id()
        wire.produce(topic, producer_id, epoch, sequence=0, values=[b"a"])
        code, _ = wire.produce(topic, producer_id, epoch, sequence=2, values=[b"c"])

    assert code == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert values(read_all(kafka, topic)) == [b"a"]


def test_a_damaged_batch_is_refused(kafka: str, topic: str) -> None:
    with Wire(kafka) as wire:
        code, _ = wire.produce(topic, -1, -1, sequence=-1, values=[b"a"], damage=True)

    assert code == Code.CORRUPT_MESSAGE
    assert read_all(kafka, topic) == []


def test_a_committed_transaction_is_read_and_an_aborted_one_is_not(kafka: str, topic: str) -> None:
    with transacting(kafka) as producer:
        for value, commits in ((b"kept", True), (b"dropped", False), (b"kept too", True)):
            producer.begin_transaction()
            for partition in range(PARTITIONS):
                producer.send(topic, partition=partition, value=value)
            producer.flush(PATIENCE_S)
            producer.commit_transaction() if commits else producer.abort_transaction()

    committed = read_all(kafka, topic, 2 * PARTITIONS, isolation_level="read_committed")
    everything = read_all(kafka, topic, isolation_level="read_uncommitted")

    for partition in range(PARTITIONS):
        assert [r.value for r in committed if r.partition == partition] == [b"kept", b"kept too"]
        assert [r.value for r in everything if r.partition == partition] == [b"kept", b"dropped", b"kept too"]


def test_an_open_transaction_holds_back_what_was_sent_after_it(kafka: str, topic: str) -> None:
    with transacting(kafka) as producer, producing(kafka) as other:
        producer.begin_transaction()
        producer.send(topic, partition=0, value=b"open").get(PATIENCE_S)
        other.send(topic, partition=0, value=b"later").get(PATIENCE_S)

        assert values(read_all(kafka, topic, isolation_level="read_committed")) == []
        assert values(read_all(kafka, topic)) == [b"open", b"later"]
        producer.commit_transaction()

    assert values(read_all(kafka, topic, 2, isolation_level="read_committed")) == [b"open", b"later"]


def test_a_newer_producer_of_a_transactional_id_fences_the_older(kafka: str, topic: str) -> None:
    name = unique("tx")
    with transacting(kafka, transactional_id=name) as older:
        older.begin_transaction()
        older.send(topic, partition=0, value=b"older").get(PATIENCE_S)
        with transacting(kafka, transactional_id=name) as newer:
            newer.begin_transaction()
            newer.send(topic, partition=0, value=b"newer").get(PATIENCE_S)
            newer.commit_transaction()
        with pytest.raises(ProducerFencedError):
            older.commit_transaction()

    assert values(read_all(kafka, topic, 1, isolation_level="read_committed")) == [b"newer"]


def test_offsets_are_committed_with_their_transaction_or_not_at_all(kafka: str, topic: str) -> None:
    group, place = unique("group"), TopicPartition(topic, 0)
    with transacting(kafka) as producer, consuming(kafka, group_id=group) as consumer:
        producer.begin_transaction()
        producer.send_offsets_to_transaction({place: OffsetAndMetadata(7, "dropped", -1)}, group)
        producer.abort_transaction()
        assert consumer.committed(place) is None

        producer.begin_transaction()
        producer.send_offsets_to_transaction({place: OffsetAndMetadata(9, "kept", -1)}, group)
        assert consumer.committed(place) is None
        producer.commit_transaction()
        await_that(lambda: consumer.committed(place) == 9)  # it is decided now, and told a moment later


def test_an_offset_that_is_about_to_change_is_not_told_to_who_reads_committed(kafka: str, topic: str) -> None:
    group, place = unique("group"), TopicPartition(topic, 0)
    with transacting(kafka) as producer, consuming(kafka, group_id=group, isolation_level="read_committed") as consumer:
        producer.begin_transaction()
        producer.send_offsets_to_transaction({place: OffsetAndMetadata(9, "", -1)}, group)
        with pytest.raises(KafkaTimeoutError):
            consumer.committed(place, timeout_ms=300)
        producer.commit_transaction()
        assert consumer.committed(place) == 9


def test_a_group_of_two_shares_the_partitions_and_the_one_that_stays_takes_over(kafka: str, topic: str) -> None:
    group = unique("group")
    with Member(kafka, topic, group) as first:
        with Member(kafka, topic, group) as second:
            await_news(lambda: len(first.assigned) == len(second.assigned) == 2)
            assert first.assigned.isdisjoint(second.assigned)

        await_news(lambda: len(first.assigned) == PARTITIONS)


def test_a_group_resumes_at_its_committed_offset(kafka: str, topic: str) -> None:
    group, place = unique("group"), TopicPartition(topic, 0)
    with producing(kafka) as producer, consuming(kafka, group_id=group) as consumer:
        for number in range(10):
            producer.send(topic, partition=0, value=b"%d" % number)
        consumer.commit({place: OffsetAndMetadata(6, "six are done", -1)})

    with Member(kafka, topic, group) as member:
        await_news(lambda: len(member.read) >= 4)

    assert member.read == [b"6", b"7", b"8", b"9"]


def test_a_topic_is_created_with_its_partitions_and_configs(admin: Any) -> None:
    name = unique("topic")
    admin.create_topics({
        name: {"num_partitions": 3, "configs": {"cleanup.policy": "compact", "retention.ms": "1000"}}
    })  # fmt: skip

    (described,) = admin.describe_topics([name])
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    configs = admin.describe_configs([resource])["topic"][name]

    assert name in admin.list_topics()
    assert len(described["partitions"]) == 3
    assert configs["cleanup.policy"]["value"] == "compact"
    assert configs["retention.ms"]["value"] == "1000"


def test_a_topic_that_exists_is_not_created_again(admin: Any, topic: str) -> None:
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics({topic: {"num_partitions": 1}})


def test_a_deleted_topic_is_gone_with_its_messages(kafka: str, admin: Any, topic: str) -> None:
    with producing(kafka) as producer:
        producer.send(topic, value=b"gone").get(PATIENCE_S)

    admin.delete_topics([topic])
    assert topic not in admin.list_topics()
    admin.create_topics({topic: {"num_partitions": PARTITIONS}})

    assert read_all(kafka, topic) == []


@pytest.mark.parametrize("name", ["pay ments", "payments/eu", "zahlung-€", "..", "x" * 250])
def test_an_illegal_topic_name_is_refused(admin: Any, name: str) -> None:
    with pytest.raises(InvalidTopicError):
        admin.create_topics({name: {"num_partitions": 1}})

    assert name not in admin.list_topics()


def test_an_unknown_topic_config_is_refused(admin: Any) -> None:
    with pytest.raises(InvalidConfigurationError):
        admin.create_topics({unique("topic"): {"num_partitions": 1, "configs": {"clean.policy": "compact"}}})


# ── What it does when it is killed, or its clients are ────────────────────────────────────────────────────────


def test_a_killed_broker_loses_and_doubles_nothing_that_it_acknowledged(mortal: Broker) -> None:
    name, count = unique("topic"), 4_000
    acknowledged: list[Any] = []
    with producing(mortal.address, batch_size=2_000, linger_ms=1) as producer:
        for number in range(count):
            acknowledged.append(producer.send(name, key=b"%d" % (number % 11), value=b"%d" % number))
            if number in {1_000, 2_000, 3_000}:
                acknowledged[number // 2].get(PATIENCE_S)
                mortal.kill()
                mortal.start()
        places = [future.get(PATIENCE_S) for future in acknowledged]

    read = read_all(mortal.address, name)

    assert {(r.partition, r.offset): r.value for r in read} == {
        (place.partition, place.offset): b"%d" % number for number, place in enumerate(places)
    }
    assert len(read) == count
    for partition in range(PARTITIONS):
        numbers = [int(record.value) for record in read if record.partition == partition]
        assert numbers == sorted(numbers)


def test_a_killed_broker_still_knows_what_a_producer_sent_last(mortal: Broker) -> None:
    name = new_topic(mortal.address)
    with Wire(mortal.address) as wire:
        producer_id, epoch = wire.producer_id()
        for sequence in range(4):
            wire.produce(name, producer_id, epoch, sequence=sequence, values=[b"%d" % sequence])

    mortal.kill()
    mortal.start()

    with Wire(mortal.address) as wire:
        assert wire.producer_id()[0] > producer_id
        again = wire.produce(name, producer_id, epoch, sequence=3, values=[b"3"])
        earlier = wire.produce(name, producer_id, epoch, sequence=2, values=[b"2"])
        skipped = wire.produce(name, producer_id, epoch, sequence=5, values=[b"5"])
        following = wire.produce(name, producer_id, epoch, sequence=4, values=[b"4"])
    assert again == (Code.NONE, 3)
    assert earlier[0] == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert skipped[0] == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert following == (Code.NONE, 4)


def test_a_transaction_stays_open_while_the_broker_is_killed_and_can_be_committed(
    mortal: Broker,
) -> None:
    name, group = new_topic(mortal.address), unique("group")
    with transacting(mortal.address) as producer:
        producer.begin_transaction()
        producer.send(name, partition=0, value=b"before").get(PATIENCE_S)
        offsets = {TopicPartition(name, 1): OffsetAndMetadata(5, "", -1)}
        producer.send_offsets_to_transaction(offsets, group)

        mortal.kill()
        mortal.start()

        assert read_all(mortal.address, name, isolation_level="read_committed") == []
        producer.send(name, partition=2, value=b"after").get(PATIENCE_S)
        producer.commit_transaction()

    mortal.kill()
    mortal.start()

    read = read_all(mortal.address, name, 2, isolation_level="read_committed")
    assert sorted(values(read)) == [b"after", b"before"]
    with consuming(mortal.address, group_id=group) as consumer:
        await_that(lambda: consumer.committed(TopicPartition(name, 1)) == 5)


def test_a_killed_broker_still_fences_and_still_hides_what_was_aborted(mortal: Broker) -> None:
    name, transactional_id = new_topic(mortal.address), unique("tx")
    with transacting(mortal.address, transactional_id=transactional_id) as older:
        older.begin_transaction()
        older.send(name, partition=0, value=b"aborted").get(PATIENCE_S)
        with transacting(mortal.address, transactional_id=transactional_id):
            mortal.kill()
            mortal.start()
        with pytest.raises(KafkaError):
            older.commit_transaction()

    assert read_all(mortal.address, name, isolation_level="read_committed") == []
    assert values(read_all(mortal.address, name)) == [b"aborted"]


def test_a_killed_broker_still_has_its_topics_configs_and_committed_offsets(mortal: Broker) -> None:
    name = new_topic(mortal.address, partitions=2, configs={"cleanup.policy": "compact"})
    gone, group = new_topic(mortal.address), unique("group")
    place = TopicPartition(name, 1)
    with administering(mortal.address) as admin, consuming(mortal.address, group_id=group) as consumer:
        admin.delete_topics([gone])
        consumer.assign([place])
        consumer.commit({place: OffsetAndMetadata(3, "a note", -1)})

    mortal.kill()
    mortal.start()

    with administering(mortal.address) as admin, consuming(mortal.address, group_id=group) as consumer:
        (described,) = admin.describe_topics([name])
        configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        assert gone not in admin.list_topics()
        assert len(described["partitions"]) == 2
        assert configs["topic"][name]["cleanup.policy"]["value"] == "compact"
        assert consumer.committed(place, metadata=True)[:2] == (3, "a note")


def test_a_transaction_whose_producer_is_gone_is_aborted_when_its_time_is_over(mortal: Broker) -> None:
    name = new_topic(mortal.address)
    with transacting(mortal.address, transaction_timeout_ms=300) as producer:
        producer.begin_transaction()
        producer.send(name, partition=0, value=b"abandoned").get(PATIENCE_S)
        with producing(mortal.address) as other:
            other.send(name, partition=0, value=b"waiting").get(PATIENCE_S)
        with consuming(mortal.address, isolation_level="read_committed") as consumer:
            consumer.assign([TopicPartition(name, 0)])
            seen: list[bytes] = []
            await_that(lambda: bool(seen), consumer, into=seen)
        with pytest.raises(KafkaError):
            producer.commit_transaction()

    assert seen == [b"waiting"]
    assert values(read_all(mortal.address, name, isolation_level="read_committed")) == [b"waiting"]


def test_a_transaction_that_was_open_when_the_broker_was_killed_runs_out_of_time(mortal: Broker) -> None:
    name = new_topic(mortal.address)
    with transacting(mortal.address, transaction_timeout_ms=1_000) as producer:
        producer.begin_transaction()
        producer.send(name, partition=0, value=b"abandoned").get(PATIENCE_S)
        mortal.kill()
        mortal.start()
        with consuming(mortal.address, isolation_level="read_committed") as consumer:
            place = TopicPartition(name, 0)
            await_that(lambda: consumer.end_offsets([place]) == {place: 2}, consumer)
        with pytest.raises(KafkaError):
            producer.commit_transaction()


def test_a_member_that_falls_silent_loses_its_partitions(mortal: Broker) -> None:
    name, group = new_topic(mortal.address), unique("group")
    with Member(mortal.address, name, group) as member, Wire(mortal.address) as wire:
        await_news(lambda: len(member.assigned) == PARTITIONS)
        silent = wire.join(group, member.subscription, session_ms=400)
        assert silent.error_code == Code.NONE
        await_news(lambda: member.generation > silent.generation_id and len(member.assigned) == PARTITIONS)

        assert wire.heartbeat(group, silent.member_id, silent.generation_id) == Code.UNKNOWN_MEMBER_ID


def test_a_group_goes_on_after_the_broker_was_killed(mortal: Broker) -> None:
    name, group = new_topic(mortal.address), unique("group")
    with producing(mortal.address) as producer, Member(mortal.address, name, group) as member:
        producer.send(name, partition=0, value=b"before").get(PATIENCE_S)
        await_news(lambda: member.read == [b"before"])

        mortal.kill()
        mortal.start()

        producer.send(name, partition=0, value=b"after").get(PATIENCE_S)
        await_news(lambda: member.read == [b"before", b"after"])


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n", id="another protocol"),
        pytest.param(struct.pack(">i", -1), id="a negative length"),
        pytest.param(struct.pack(">i", 17 * 1024 * 1024), id="more than a request may have"),
        pytest.param(struct.pack(">ih", 2, 0), id="half a header"),
        pytest.param(struct.pack(">ihhi", 8, 999, 0, 1), id="an unknown request"),
        pytest.param(struct.pack(">ihhi", 8, 0, 99, 1), id="an unknown version"),
        pytest.param(struct.pack(">ihhih", 200, 0, 9, 1, -1) + b"\xff" * 190, id="a request of garbage"),
        pytest.param(struct.pack(">ihhihi", 14, 3, 1, 1, -1, 2**31 - 1), id="a list with no end"),
    ],
)
def test_garbage_closes_its_own_connection_and_hurts_nobody_else(mortal: Broker, garbage: bytes) -> None:
    name = new_topic(mortal.address)
    with producing(mortal.address) as producer:
        producer.send(name, partition=0, value=b"before").get(PATIENCE_S)
        with socket.create_connection(("127.0.0.1", mortal.port), PATIENCE_S) as stranger:
            stranger.sendall(garbage)
            assert stranger.recv(1) == b""
        producer.send(name, partition=0, value=b"after").get(PATIENCE_S)

    assert values(read_all(mortal.address, name)) == [b"before", b"after"]


# ── What the stand-in promises besides ────────────────────────────────────────────────────────────────────


def test_a_topic_that_is_written_to_is_created_with_four_partitions(shared: StandIn) -> None:
    name = unique("topic")
    with producing(shared.address) as producer:
        producer.send(name, value=b"v").get(PATIENCE_S)

    with consuming(shared.address) as consumer:
        assert consumer.partitions_for_topic(name) == {0, 1, 2, 3}


def test_the_time_that_a_broker_is_away_is_time_of_its_transactions(stand_in: StandIn) -> None:
    name, timeout_ms = new_topic(stand_in.address), 200
    with transacting(stand_in.address, transaction_timeout_ms=timeout_ms) as producer:
        producer.begin_transaction()
        producer.send(name, partition=0, value=b"abandoned").get(PATIENCE_S)
        stand_in.kill()
        time.sleep(timeout_ms / 1000)
        stand_in.start()
        with consuming(stand_in.address, isolation_level="read_committed") as consumer:
            place = TopicPartition(name, 0)
            assert consumer.end_offsets([place]) == {place: 2}


@pytest.mark.parametrize("lost_bytes", [1, 80])
def test_a_torn_last_journal_record_is_cut_off(stand_in: StandIn, lost_bytes: int) -> None:
    name = new_topic(stand_in.address)
    with Wire(stand_in.address) as wire:
        producer_id, epoch = wire.producer_id()
        wire.produce(name, producer_id, epoch, sequence=0, values=[b"whole"])
        stored = stand_in.journal.stat().st_size
        wire.produce(name, producer_id, epoch, sequence=1, values=[b"torn"])
    stand_in.kill()
    os.truncate(stand_in.journal, stand_in.journal.stat().st_size - lost_bytes)

    stand_in.start()

    assert stand_in.journal.stat().st_size == stored
    with Wire(stand_in.address) as wire:
        again = wire.produce(name, producer_id, epoch, sequence=1, values=[b"torn"])
    assert again == (Code.NONE, 1)
    assert values(read_all(stand_in.address, name)) == [b"whole", b"torn"]


def test_a_journal_damaged_before_its_end_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(3):
        store.record(TopicCreated(f"topic-{number}", 1, {}))
    store.close()
    journal = tmp_path / JOURNAL
    stored = bytearray(journal.read_bytes())
    stored[stored.index(b"topic-1")] ^= 1
    journal.write_bytes(stored)

    with pytest.raises(CorruptJournalError):
        Store(tmp_path)
    with pytest.raises(CorruptJournalError):  # and it can be tried again: nothing is held
        Store(tmp_path)


def test_two_brokers_never_share_a_journal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(JournalInUseError):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_broker_that_is_asked_to_stop_does_so_cleanly(stand_in: StandIn, number: signal.Signals) -> None:
    with producing(stand_in.address) as producer:
        producer.send(unique("topic"), value=b"v").get(PATIENCE_S)
        stand_in.process.send_signal(number)

        assert stand_in.process.wait(PATIENCE_S) == 0


def test_a_broker_stops_when_its_parent_is_gone(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    stand_in = StandIn(tmp_path, alive_fd=ours)
    os.close(ours)
    assert stand_in.process.poll() is None

    os.close(theirs)

    assert stand_in.process.wait(PATIENCE_S) == 0
    stand_in.kill()


def test_a_broker_runs_in_an_event_loop_and_refuses_more_connections_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_CONNECTIONS", 1)

    async def scenario() -> tuple[bytes, bytes]:
        broker = StandInBroker()
        port = await broker.start("127.0.0.1", 0, tmp_path)
        streams = [await asyncio.open_connection("127.0.0.1", port)]
        streams[0][1].write(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        answer = await streams[0][0].readexactly(4)
        streams.append(await asyncio.open_connection("127.0.0.1", port))
        refused = await streams[1][0].read()
        await broker.stop()
        for _, writer in streams:
            writer.close()
        return answer, refused

    answer, refused = asyncio.run(scenario())
    assert int.from_bytes(answer, "big") > 0
    assert refused == b""


# ── Clients and brokers ───────────────────────────────────────────────────────────────────────────────────


class Wire:
    """A connection that says exactly what the test wants said."""

    def __init__(self, address: str) -> None:
        host, port = address.split(",", maxsplit=1)[0].rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, request: Any, version: int) -> None:
        request.API_VERSION = version
        request.with_header(correlation_id=1, client_id="wire")
        self._socket.sendall(request.encode(header=True, framed=True))

    def receive(self, response: Any, version: int) -> Any:
        with self._socket.makefile("rb") as stream:
            length = int.from_bytes(stream.read(4), "big")
            return response.decode(stream.read(length), version=version, header=True)

    def producer_id(self) -> tuple[int, int]:
        while True:
            self.send(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=0), 2)
            answer = self.receive(InitProducerIdResponse, 2)
            if answer.error_code not in NOT_YET:
                return answer.producer_id, answer.producer_epoch
            time.sleep(RETRY_S)

    def produce(  # each is a field of the batch
        self, topic: str, producer_id: int, epoch: int, *, sequence: int, values: list[bytes], damage: bool = False
    ) -> tuple[int, int]:
        """Error code and offset of one batch sent to partition 0."""
        identity = {"producer_id": producer_id, "producer_epoch": epoch, "base_sequence": sequence}
        builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=100_000, **identity)
        for value in values:
            builder.append(time.time_ns() // 1_000_000, None, value)
        builder.close()
        records = bytearray(builder.buffer())
        records[-2] ^= int(damage)
        data = ProduceRequest.TopicProduceData
        partition = data.PartitionProduceData(index=0, records=bytes(records))
        request = ProduceRequest(
            transactional_id=None,
            acks=-1,
            timeout_ms=10_000,
            topic_data=[data(name=topic, partition_data=[partition])],
        )
        while True:
            self.send(request, 8)
            (answer,) = self.receive(ProduceResponse, 8).responses[0].partition_responses
            if answer.error_code not in NOT_YET:
                return answer.error_code, answer.base_offset
            time.sleep(RETRY_S)

    def join(self, group: str, subscription: bytes, *, session_ms: int) -> Any:
        protocol = JoinGroupRequest.JoinGroupRequestProtocol
        self.send(
            JoinGroupRequest(
                group_id=group,
                session_timeout_ms=session_ms,
                rebalance_timeout_ms=10_000,
                member_id="",
                protocol_type="consumer",
                protocols=[protocol(name="range", metadata=subscription)],
            ),
            2,
        )
        return self.receive(JoinGroupResponse, 2)

    def heartbeat(self, group: str, member_id: str, generation: int) -> int:
        self.send(HeartbeatRequest(group_id=group, member_id=member_id, generation_id=generation), 0)
        return int(self.receive(HeartbeatResponse, 0).error_code)


class Member:
    """A consumer in a group, polling in a thread of its own: what it was assigned, and the values it read.

    One thread for several, or short polls, would not do: kafka-python 3.0.12 joins anew, or forgets what it
    was assigned, when a join is answered between two polls.
    """

    def __init__(self, kafka: str, topic: str, group: str) -> None:
        self.assigned: set[Any] = set()
        self.read: list[bytes] = []
        self.generation = -1
        self._config = {"bootstrap_servers": kafka, "group_id": group, "heartbeat_interval_ms": 100}
        self._config |= {"reconnect_backoff_max_ms": 100}
        self._topic = topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    @property
    def subscription(self) -> bytes:
        """What it says of itself when it joins."""
        return bytes(ConsumerProtocolSubscription(version=0, topics=[self._topic], user_data=b"").encode())

    def _run(self) -> None:
        settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 50}
        with closing(KafkaConsumer(self._topic, **settings, **self._config)) as consumer:
            while not self._over.is_set():
                try:
                    polled = consumer.poll(timeout_ms=500)
                except KafkaConnectionError:  # the broker is being restarted
                    self._over.wait(RETRY_S)
                    continue
                with NEWS:
                    self.assigned = set(consumer.assignment())
                    self.generation = consumer._coordinator._generation.generation_id
                    self.read += [record.value for records in polled.values() for record in records]
                    NEWS.notify_all()


def await_that(condition: Callable[[], bool], *consumers: Any, into: list[bytes] | None = None) -> None:
    """Poll the consumers until it is true; what they read is kept in `into`."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        for consumer in consumers:
            for records in consumer.poll(timeout_ms=50).values():
                if into is not None:
                    into += [record.value for record in records]


def await_news(condition: Callable[[], bool]) -> None:
    """Wait until the members of the groups have made it true."""
    with NEWS:
        assert NEWS.wait_for(condition, PATIENCE_S)


def values(records: list[Any]) -> list[bytes]:
    return [record.value for record in records]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A stand-in that no test harms."""
    stand_in = StandIn(tmp_path_factory.mktemp("broker"))
    yield stand_in
    stand_in.kill()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in of one's own, to kill."""
    stand_in = StandIn(tmp_path)
    yield stand_in
    stand_in.kill()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of the kind under test, to kill; the next test finds it alive again."""
    with started_broker(tmp_path_factory.mktemp("mortal")) as broker:
        yield broker


@pytest.fixture(scope="module")
def kafka(request: pytest.FixtureRequest) -> str:
    """The broker under test."""
    return named_broker() or str(request.getfixturevalue("shared").address)


@pytest.fixture(scope="module")
def admin(kafka: str) -> Iterator[Any]:
    with administering(kafka) as client:
        yield client


@pytest.fixture
def topic(admin: Any) -> str:
    name = unique("topic")
    admin.create_topics({name: {"num_partitions": PARTITIONS}}, wait_for_metadata=True)
    return name
