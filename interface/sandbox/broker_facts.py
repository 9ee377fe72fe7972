"""What a broker has to remember, each as a fact in its journal: a change here is a change of a stored format.

Group membership is not among them: members join again after a restart.
"""

from typing import TypeAlias

import msgspec

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""
PlacedOffset: TypeAlias = tuple[str, int, int, str]
"""Topic, partition, the committed offset and the client's note about it."""


class _Fact(msgspec.Struct, frozen=True, array_like=True):
    pass


class TopicCreated(_Fact, frozen=True, tag="topic_created"):
    name: str
    partitions: int
    configs: dict[str, str]


class TopicDeleted(_Fact, frozen=True, tag="topic_deleted"):
    name: str


class BatchAppended(_Fact, frozen=True, tag="batch"):
    """A record batch with its offset filled in; its bytes are the last of the frame, and are read from there."""

    topic: str
    partition: int
    batch: bytes


class ProducerRegistered(_Fact, frozen=True, tag="producer"):
    """A producer id and epoch were handed out; for a transactional id this fences every earlier one."""

    producer_id: int
    epoch: int
    transactional_id: str | None
    timeout_ms: int


class PartitionsEnrolled(_Fact, frozen=True, tag="enrolled"):
    """Partitions belong to the open transaction of this id, which begins with the first of them.

    `at_ms` since 1970; 0 in journals of older versions, whose open transactions have no time left.
    """

    transactional_id: str
    places: list[Place]
    at_ms: int = 0


class OffsetsEnrolled(_Fact, frozen=True, tag="offsets_enrolled"):
    """Offsets become committed when the open transaction does, which begins with them if nothing else did."""

    transactional_id: str
    group: str
    offsets: list[PlacedOffset]
    at_ms: int = 0


class TransactionEnded(_Fact, frozen=True, tag="ended"):
    """A transaction was committed or aborted: one marker batch for each place, in order, all of one size.

    `epoch` holds from now on: if it is a higher one than before, the producer is fenced by the same fact.
    """

    transactional_id: str
    epoch: int
    committed: bool
    places: list[Place]
    markers: bytes


class OffsetsCommitted(_Fact, frozen=True, tag="offsets"):
    group: str
    offsets: list[PlacedOffset]


Fact: TypeAlias = (
    TopicCreated
    | TopicDeleted
    | BatchAppended
    | ProducerRegistered
    | PartitionsEnrolled
    | OffsetsEnrolled
    | TransactionEnded
    | OffsetsCommitted
)
