"""How far a publisher is, as Kafka knows it: its last word in a compacted topic, written with the facts it speaks of.

Facts and word are one transaction, so they cannot disagree, and no other store has to be asked.
"""

import time
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from msgspec import Struct, json

from interface.kafka.brokers import reach
from interface.kafka.messages import Message

KEY = b"publisher"
TIMEOUT_S = 20
TIMEOUT_MS = 10_000
# A poll shorter than this may come back with nothing although there is something.
POLL_MS = 500
# The last word is looked for among so many of the last records, and then among ever more: most of a topic that has not
# been compacted yet is of no use.
FIRST_LOOK = 50
FURTHER = 20


class Standing(Struct, frozen=True, omit_defaults=True):
    """All facts up to `position` have been sent, but for the streams that are set aside.

    `fact` is the id of the one at that position. `aside` names, by stream, the first position that was not sent.
    `since` is where a replay began.
    """

    position: int = 0
    fact: str = ""
    aside: dict[str, int] = {}
    since: int = 1


_DECODER = json.Decoder(Standing)


def topic_of(facts_topic: str) -> str:
    """The topic beside a topic of facts that tells how far it is."""
    return f"{facts_topic}.position"


def word(standing: Standing) -> Message:
    """The record that says so."""
    return Message(KEY, json.encode(standing), [("content-type", b"application/json")], time.time_ns() // 1_000_000)


def last_word(bootstrap_servers: str, topic: str) -> Standing | None:
    """What was last committed; None when nothing ever was. Raises KafkaError.

    Ask after `init_transactions`, which waits until every transaction before it has ended.
    """
    place = TopicPartition(topic, 0)
    with closing(_consumer(bootstrap_servers)) as consumer:
        consumer.assign([place])
        begin, end = consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
        look = FIRST_LOOK
        while begin < end:
            since = max(begin, end - look)
            said = _last_in(consumer, place, since, end)
            if said is not None:
                return _DECODER.decode(said)
            if since == begin:
                break
            look *= FURTHER
    return None


def has_records(bootstrap_servers: str, topic: str) -> bool:
    """Whether anything was ever written there, however it ended. Raises KafkaError."""
    with closing(_consumer(bootstrap_servers)) as consumer:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        return any(consumer.end_offsets(places).values()) if places else False


def _last_in(consumer: Any, place: TopicPartition, since: int, end: int) -> bytes | None:
    consumer.seek(place, since)
    said = None
    # Markers and what was aborted are passed over, so the place is what tells the end.
    for _ in range(int(TIMEOUT_S * 1000 / POLL_MS)):
        if consumer.position(place) >= end:
            return said
        for record in consumer.poll(timeout_ms=POLL_MS).get(place, ()):
            if record.key == KEY:
                said = record.value
    raise KafkaTimeoutError(f"{place.topic} could not be read to its end")


def _consumer(bootstrap_servers: str) -> Any:
    reach(bootstrap_servers)
    return KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        request_timeout_ms=TIMEOUT_MS,
        bootstrap_timeout_ms=TIMEOUT_MS,
    )
