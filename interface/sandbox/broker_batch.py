"""A record batch (message format 2): the header that a broker reads, what it checks, and the end-of-transaction
marker it writes itself. The layout is Kafka's, https://kafka.apache.org/documentation/#recordbatch.
"""

import struct
from dataclasses import dataclass

from kafka.record.util import calc_crc32c

from interface.sandbox.broker_protocol import Code, RefusedError

NO_PRODUCER_ID = -1
MARKER_BYTES = 78

_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END = 12  # the length field counts the bytes after itself
_CRC_START, _CRC_END = 17, 21  # the checksum covers everything after itself
_MAGIC = 2
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
_SEQUENCE_MASK = 0x7FFF_FFFF


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's bytes, and those header fields that decide what happens to it."""

    raw: bytes
    base_offset: int
    attributes: int
    last_offset_delta: int
    max_timestamp_ms: int
    producer_id: int
    epoch: int
    base_sequence: int
    count: int

    @property
    def transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def last_sequence(self) -> int:
        return (self.base_sequence + self.last_offset_delta) & _SEQUENCE_MASK

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    def at(self, offset: int) -> bytes:
        """The bytes as they are stored: with the offset of the first record, and leader epoch 0."""
        return struct.pack(">q", offset) + self.raw[8:12] + bytes(4) + self.raw[16:]


def follows(sequence: int, last: int) -> bool:
    """Sequence numbers wrap around after 2^31 - 1."""
    return sequence == (last + 1) & _SEQUENCE_MASK


def read(raw: bytes) -> Batch:
    """A batch that was checked before it was stored."""
    fields = _HEADER.unpack_from(raw)
    (base, _, _, _, _, attributes, last_delta, _, max_timestamp, producer_id, epoch, sequence, count) = fields
    return Batch(
        raw, base, attributes, last_delta, max_timestamp, producer_id, epoch, sequence, count
    )  # positional: this is the hot path


def check(raw: bytes, max_bytes: int) -> Batch:
    """A batch as a producer sent it. Raises RefusedError."""
    if len(raw) < _HEADER.size:
        raise RefusedError(Code.CORRUPT_MESSAGE)
    if len(raw) > max_bytes:
        raise RefusedError(Code.MESSAGE_TOO_LARGE)
    if raw[16] != _MAGIC:
        raise RefusedError(Code.UNSUPPORTED_FOR_MESSAGE_FORMAT)
    length = int.from_bytes(raw[8:_LENGTH_END], "big")
    crc = int.from_bytes(raw[_CRC_START:_CRC_END], "big")
    if length != len(raw) - _LENGTH_END or calc_crc32c(memoryview(raw)[_CRC_END:]) != crc:
        raise RefusedError(Code.CORRUPT_MESSAGE)
    batch = read(raw)
    if batch.attributes & _CONTROL or batch.count < 1 or batch.last_offset_delta != batch.count - 1:
        raise RefusedError(Code.INVALID_RECORD)
    return batch


def marker(offset: int, producer_id: int, epoch: int, at_ms: int, *, committed: bool) -> bytes:
    """The control batch that ends a transaction in one partition: MARKER_BYTES long."""
    key = struct.pack(">hh", 0, int(committed))
    value = struct.pack(">hi", 0, 0)
    # One record; its lengths are zigzag varints, so 16 bytes, a key of 4 and a value of 6 are 32, 8 and 12.
    record = bytes((32, 0, 0, 0, 8)) + key + bytes((12,)) + value + bytes(1)
    tail = struct.pack(">hiqqqhii", _TRANSACTIONAL | _CONTROL, 0, at_ms, at_ms, producer_id, epoch, -1, 1) + record
    body = struct.pack(">ibI", 0, _MAGIC, calc_crc32c(tail)) + tail
    return struct.pack(">qi", offset, len(body)) + body
