"""The topics that facts and events go to: created as they must be when missing, left as they are when they exist."""

import logging
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError
from msgspec import Struct

from interface.kafka.brokers import reach

log = logging.getLogger(__name__)

TIMEOUT_MS = 10_000
# Enough for a dozen consumers beside each other; a topic's number is its own once it exists.
PARTITIONS = 6


class Topic(Struct, frozen=True):
    """A topic as it is created; of `settings`, those that must not be otherwise."""

    name: str
    partitions: int
    settings: dict[str, str] = {}


def facts(name: str) -> Topic:
    """Nothing in it ever expires: it is history."""
    return Topic(name, PARTITIONS, {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"})


def events(name: str) -> Topic:
    """How long these are kept is the cluster's business: they can be told anew from the facts."""
    return Topic(name, PARTITIONS)


def standing(name: str) -> Topic:
    """How far a publisher is: only its last word counts, and the rest is cleared away soon."""
    # Segments are cleared once they are closed: the default of a gigabyte would take a year.
    return Topic(name, 1, {"cleanup.policy": "compact", "segment.bytes": "1048576"})


def ensure(bootstrap_servers: str, topics: Sequence[Topic]) -> None:
    """Create what is missing. Of what is there, say in one line what looks wrong. Raises KafkaError."""
    reach(bootstrap_servers)
    admin = KafkaAdminClient(
        bootstrap_servers=bootstrap_servers, request_timeout_ms=TIMEOUT_MS, bootstrap_timeout_ms=TIMEOUT_MS
    )
    with closing(admin):
        existing = set(admin.list_topics())
        for topic in topics:
            if topic.name not in existing:
                _create(admin, topic)
            elif topic.settings:
                _look_at(admin, topic)


def _create(admin: Any, topic: Topic) -> None:
    # -1: as many replicas as the cluster has by default.
    wish = {"num_partitions": topic.partitions, "replication_factor": -1, "configs": topic.settings}
    try:
        admin.create_topics({topic.name: wish}, timeout_ms=TIMEOUT_MS, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return  # another instance was faster
    log.info("created topic %s with %d partitions", topic.name, topic.partitions)


def _look_at(admin: Any, topic: Topic) -> None:
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic.name)
        found = admin.describe_configs([resource], config_filter="all")["topic"][topic.name]
    except KafkaError as error:  # seeing the settings may need a right that publishing does not
        log.warning("the settings of topic %s cannot be seen: %s", topic.name, type(error).__name__)
        return
    has = {name: found.get(name, {}).get("value") for name in topic.settings}
    wrong = [f"{name} is {has[name]}, not {value}" for name, value in topic.settings.items() if has[name] != value]
    if wrong:
        log.warning("topic %s was created otherwise and is left so: %s", topic.name, "; ".join(wrong))
