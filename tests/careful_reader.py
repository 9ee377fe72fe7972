"""A consumer of committed facts that may be killed at any moment: `python -m tests.careful_reader KAFKA TOPIC FILE`.

What it has read and how far it is are one: a line of the file for each record. After a death it goes on behind the last
whole line.
"""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import json

POLL_MS = 500


class Line(NamedTuple):
    """One record: where it was, and which fact it brought."""

    partition: int
    offset: int
    key: str
    position: int


def lines(file: Path) -> Iterator[Line]:
    """What is kept in it; a line that was cut short by a death is none."""
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            partition, offset, key, position = line.split()
            yield Line(int(partition), int(offset), key, int(position))


def main() -> None:
    kafka, topic, file = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rfind(b"\n") + 1])
    with file.open("ab", buffering=0) as kept, closing(_consumer(kafka)) as consumer:
        _stand(consumer, topic, file)
        while True:
            try:
                polled = consumer.poll(timeout_ms=POLL_MS)
            except KafkaError:  # the broker is being restarted
                continue
            if polled:
                kept.write(b"".join(_line(record) for records in polled.values() for record in records))


def _stand(consumer: Any, topic: str, file: Path) -> None:
    """Go behind what was read last."""
    while not (partitions := consumer.partitions_for_topic(topic)):
        consumer.poll(timeout_ms=POLL_MS)
    consumer.assign([TopicPartition(topic, partition) for partition in partitions])
    following = {line.partition: line.offset + 1 for line in lines(file)}
    for partition in partitions:
        consumer.seek(TopicPartition(topic, partition), following.get(partition, 0))


def _line(record: Any) -> bytes:
    position = json.decode(record.value)["position"]
    return b"%d %d %s %d\n" % (record.partition, record.offset, record.key, position)


def _consumer(kafka: str) -> Any:
    return KafkaConsumer(
        bootstrap_servers=kafka,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        reconnect_backoff_max_ms=200,
    )


if __name__ == "__main__":
    main()
