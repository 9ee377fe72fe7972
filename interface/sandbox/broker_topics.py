"""Requests about topics: metadata (which creates a topic that is asked for), create, delete, configuration."""

import re
from typing import NamedTuple

from kafka.protocol.admin import CreateTopicsResponse, DeleteTopicsResponse, DescribeConfigsResponse
from kafka.protocol.metadata import FindCoordinatorResponse, MetadataResponse

from interface.sandbox.broker_facts import TopicCreated, TopicDeleted
from interface.sandbox.broker_protocol import Code, Message, RefusedError
from interface.sandbox.broker_state import Store, Topic

NODE_ID = 1
DEFAULT_PARTITIONS = 4
MAX_PARTITIONS = 256
MAX_TOPICS = 10_000
MAX_BATCH_BYTES = 1_048_588
"""Kafka's own default of max.message.bytes; a topic may set another."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TOPIC_RESOURCE, _SET_ON_TOPIC = 2, 1  # a resource's type and a config's source in DescribeConfigs
_BATCH_LIMIT = "max.message.bytes"
_CONFIGS = frozenset({
    "cleanup.policy", "compression.type", "delete.retention.ms", "file.delete.delay.ms", "flush.messages",
    "flush.ms", "index.interval.bytes", "max.compaction.lag.ms", _BATCH_LIMIT, "message.timestamp.type",
    "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas", "preallocate",
    "retention.bytes", "retention.ms", "segment.bytes", "segment.index.bytes", "segment.jitter.ms",
    "segment.ms", "unclean.leader.election.enable",
})  # fmt: skip


class Address(NamedTuple):
    """Where clients reach the broker."""

    host: str
    port: int


class Topics:
    """Answers requests about topics and about the one node that has them all."""

    def __init__(self, store: Store, address: Address) -> None:
        self._store = store
        self._address = address

    async def metadata(self, request: Message) -> Message:
        everything = request.topics is None or (request.version == 0 and not request.topics)
        names = list(self._store.topics) if everything else [topic.name for topic in request.topics]
        creates = request.allow_auto_topic_creation if request.version >= 4 else True
        node = MetadataResponse.MetadataResponseBroker
        return MetadataResponse(
            throttle_time_ms=0,
            brokers=[node(node_id=NODE_ID, host=self._address.host, port=self._address.port, rack=None)],
            cluster_id="stand-in",
            controller_id=NODE_ID,
            topics=[self._describe(name, creates=creates) for name in names],
        )

    async def find_coordinator(self, _request: Message) -> Message:
        return FindCoordinatorResponse(
            throttle_time_ms=0,
            error_code=Code.NONE,
            error_message=None,
            node_id=NODE_ID,
            host=self._address.host,
            port=self._address.port,
        )

    async def create(self, request: Message) -> Message:
        return CreateTopicsResponse(
            throttle_time_ms=0,
            topics=[self._create_one(topic, dry_run=request.validate_only) for topic in request.topics],
        )

    async def delete(self, request: Message) -> Message:
        results = []
        for name in request.topic_names:
            known = name in self._store.topics
            if known:
                self._store.record(TopicDeleted(name))
            code = Code.NONE if known else Code.UNKNOWN_TOPIC_OR_PARTITION
            results.append(DeleteTopicsResponse.DeletableTopicResult(name=name, error_code=code, error_message=None))
        return DeleteTopicsResponse(throttle_time_ms=0, responses=results)

    async def describe_configs(self, request: Message) -> Message:
        return DescribeConfigsResponse(
            throttle_time_ms=0,
            results=[self._describe_config(resource) for resource in request.resources],
        )

    def _describe(self, name: str, *, creates: bool) -> Message:
        try:
            topic = self._find(name, creates=creates)
        except RefusedError as refusal:
            return MetadataResponse.MetadataResponseTopic(
                error_code=refusal.code, name=name, is_internal=False, partitions=[]
            )
        partition = MetadataResponse.MetadataResponseTopic.MetadataResponsePartition
        return MetadataResponse.MetadataResponseTopic(
            error_code=Code.NONE,
            name=name,
            is_internal=False,
            partitions=[
                partition(
                    error_code=Code.NONE,
                    partition_index=index,
                    leader_id=NODE_ID,
                    leader_epoch=0,
                    replica_nodes=[NODE_ID],
                    isr_nodes=[NODE_ID],
                    offline_replicas=[],
                )
                for index in range(len(topic.partitions))
            ],
        )

    def _find(self, name: str, *, creates: bool) -> Topic:
        if name not in self._store.topics:
            if not creates:
                raise RefusedError(Code.UNKNOWN_TOPIC_OR_PARTITION)
            self._check_name(name)
            self._store.record(TopicCreated(name, DEFAULT_PARTITIONS, {}))
        return self._store.topics[name]

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name) or name in {".", ".."}:
            raise RefusedError(Code.INVALID_TOPIC)
        if len(self._store.topics) >= MAX_TOPICS:
            raise RefusedError(Code.INVALID_REQUEST)

    def _create_one(self, wish: Message, *, dry_run: bool) -> Message:
        code, partitions = Code.NONE, -1
        try:
            fact = self._decide_create(wish)
            partitions = fact.partitions
            if not dry_run:
                self._store.record(fact)
        except RefusedError as refusal:
            code = refusal.code
        return CreateTopicsResponse.CreatableTopicResult(
            name=wish.name,
            error_code=code,
            error_message=None if code is Code.NONE else code.name,
            num_partitions=partitions,
            replication_factor=-1 if code else 1,
            configs=[],
        )

    def _decide_create(self, wish: Message) -> TopicCreated:
        self._check_name(wish.name)
        if wish.name in self._store.topics:
            raise RefusedError(Code.TOPIC_ALREADY_EXISTS)
        partitions = DEFAULT_PARTITIONS if wish.num_partitions == -1 else int(wish.num_partitions)
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise RefusedError(Code.INVALID_PARTITIONS)
        if wish.replication_factor not in {-1, 1}:
            raise RefusedError(Code.INVALID_REPLICATION_FACTOR)
        if wish.assignments:
            raise RefusedError(Code.INVALID_REPLICA_ASSIGNMENT)  # there is one node, and nothing to choose
        configs = {config.name: config.value or "" for config in wish.configs}
        if not configs.keys() <= _CONFIGS or not configs.get(_BATCH_LIMIT, "0").isdecimal():
            raise RefusedError(Code.INVALID_CONFIG)
        return TopicCreated(wish.name, partitions, configs)

    def _describe_config(self, resource: Message) -> Message:
        topic = self._store.topics.get(resource.resource_name)
        unknown = resource.resource_type == _TOPIC_RESOURCE and topic is None
        asked = resource.configuration_keys  # None asks for all
        config = DescribeConfigsResponse.DescribeConfigsResult.DescribeConfigsResourceResult
        return DescribeConfigsResponse.DescribeConfigsResult(
            error_code=Code.UNKNOWN_TOPIC_OR_PARTITION if unknown else Code.NONE,
            error_message=None,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
            configs=[
                config(
                    name=name,
                    value=value,
                    read_only=False,
                    config_source=_SET_ON_TOPIC,
                    is_sensitive=False,
                    synonyms=[],
                    config_type=0,
                    documentation=None,
                )
                for name, value in (topic.configs if topic else {}).items()
                if asked is None or name in asked
            ],
        )


def batch_limit_bytes(topic: Topic) -> int:
    """The largest batch that the topic takes."""
    return int(topic.configs.get(_BATCH_LIMIT, MAX_BATCH_BYTES))
