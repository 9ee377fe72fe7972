"""The wire: which requests the stand-in understands, and how a frame becomes a message and back.

Encoding is kafka-python's own (`kafka.protocol`), which ships no types: a message is `Any` here and in the
handlers that read and build messages, and nowhere below them. The version ranges are those of Kafka 2.8
for what is implemented, less the versions that need topic ids or batched look-ups.
"""

import struct
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

from kafka.protocol import admin, consumer, metadata, producer

Message: TypeAlias = Any

_KEY_VERSION_CORRELATION = struct.Struct(">hhi")


class Code(IntEnum):
    """Error codes of the Kafka protocol, https://kafka.apache.org/protocol#protocol_error_codes."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    INVALID_TOPIC = 17
    INVALID_REQUIRED_ACKS = 21
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_REPLICA_ASSIGNMENT = 39
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    INVALID_PRODUCER_ID_MAPPING = 49
    INVALID_TRANSACTION_TIMEOUT = 50
    UNKNOWN_PRODUCER_ID = 59
    MEMBER_ID_REQUIRED = 79
    GROUP_MAX_SIZE_REACHED = 81
    INVALID_RECORD = 87
    UNSTABLE_OFFSET_COMMIT = 88
    PRODUCER_FENCED = 90


class RefusedError(Exception):
    """The broker says no, with the code that the client is told."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


class MalformedRequestError(Exception):
    """These bytes are no request that the broker could answer; the connection has to go."""


class Api(NamedTuple):
    """One kind of request and the versions of it that are answered."""

    request: Message
    lowest: int
    highest: int


class Request(NamedTuple):
    """A decoded request with what its answer needs."""

    key: int
    version: int
    correlation_id: int
    body: Message


_APIS = (
    Api(producer.ProduceRequest, 3, 9),
    Api(consumer.FetchRequest, 4, 12),
    Api(consumer.ListOffsetsRequest, 1, 6),
    Api(metadata.MetadataRequest, 0, 9),
    Api(consumer.OffsetCommitRequest, 2, 8),
    Api(consumer.OffsetFetchRequest, 1, 7),
    Api(metadata.FindCoordinatorRequest, 0, 3),
    Api(consumer.JoinGroupRequest, 2, 5),
    Api(consumer.HeartbeatRequest, 0, 3),
    Api(consumer.LeaveGroupRequest, 0, 3),
    Api(consumer.SyncGroupRequest, 0, 3),
    Api(metadata.ApiVersionsRequest, 0, 3),
    Api(admin.CreateTopicsRequest, 2, 5),
    Api(admin.DeleteTopicsRequest, 1, 5),
    Api(producer.InitProducerIdRequest, 0, 4),
    Api(consumer.OffsetForLeaderEpochRequest, 2, 3),
    Api(producer.AddPartitionsToTxnRequest, 0, 3),
    Api(producer.AddOffsetsToTxnRequest, 0, 3),
    Api(producer.EndTxnRequest, 0, 3),
    Api(producer.TxnOffsetCommitRequest, 0, 3),
    Api(admin.DescribeConfigsRequest, 1, 4),
)
APIS: dict[int, Api] = {int(api.request.API_KEY): api for api in _APIS}
API_VERSIONS: int = metadata.ApiVersionsRequest.API_KEY


def decode(frame: bytes) -> Request:
    """Read one request, without its length. Raises MalformedRequestError."""
    if len(frame) < _KEY_VERSION_CORRELATION.size:
        raise MalformedRequestError(f"{len(frame)} bytes hold no request header")
    key, version, correlation_id = _KEY_VERSION_CORRELATION.unpack_from(frame)
    api = APIS.get(key)
    if key == API_VERSIONS and not 0 <= version <= APIS[key].highest:
        return Request(key, version, correlation_id, None)  # the one request that is answered in any version
    if api is None or not api.lowest <= version <= api.highest:
        raise MalformedRequestError(f"API key {key} version {version} is not supported")
    try:
        body = api.request.decode(frame, version=version, header=True)
    except Exception as fault:
        raise MalformedRequestError(f"API key {key} version {version} could not be decoded") from fault
    return Request(key, version, correlation_id, body)


def encode(answer: Message, request: Request) -> bytes:
    """Frame one answer for the version in which it was asked."""
    answer.API_VERSION = request.version
    answer.with_header(correlation_id=request.correlation_id)
    return bytes(answer.encode(header=True, framed=True))


def encode_api_versions(request: Request) -> bytes:
    """What is supported. A client that asks in too new a version is told so in version 0, and asks again."""
    unknown_version = request.body is None
    keys = [API_VERSIONS] if unknown_version else list(APIS)
    entry = metadata.ApiVersionsResponse.ApiVersion
    answer = metadata.ApiVersionsResponse(
        error_code=Code.UNSUPPORTED_VERSION if unknown_version else Code.NONE,
        api_keys=[entry(api_key=key, min_version=APIS[key].lowest, max_version=APIS[key].highest) for key in keys],
        throttle_time_ms=0,
    )
    return encode(answer, request._replace(version=0) if unknown_version else request)
