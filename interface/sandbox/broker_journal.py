"""One append-only file that holds everything a broker must not forget.

    file  = MAGIC frame*
    frame = length (4 bytes), CRC-32C of the payload (4 bytes), payload: one fact in MessagePack

A fact is in the operating system's hands (`write`, no fsync) before anybody is told: a killed broker loses
nothing that it acknowledged, a machine that loses power may. What a kill can leave is half a frame at the end;
it was never acknowledged and is cut off at the next start. A damaged frame that others follow is no such
thing, and the broker refuses to start on it.
"""

import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from kafka.record.util import calc_crc32c

from interface.sandbox.broker_facts import Fact

MAGIC = b"payledger-broker-journal-1\n"
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
READ_AHEAD_BYTES = 1024 * 1024

_LENGTH_CRC = struct.Struct(">II")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Fact] = msgspec.msgpack.Decoder(Fact)
_log = logging.getLogger(__name__)


class JournalInUseError(Exception):
    """Another broker runs on the same directory."""


class CorruptJournalError(Exception):
    """The file is no journal, or is damaged elsewhere than at its end."""


class Journal:
    """Appends facts and reads them back; `replay` comes first. Raises JournalInUseError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = 0
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise JournalInUseError(f"{path} is another broker's") from None

    def replay(self) -> Iterator[tuple[Fact, int]]:
        """Every fact with the position after its frame, oldest first; then a torn frame is cut off."""
        size = os.fstat(self._file).st_size
        with os.fdopen(os.dup(self._file), "rb", buffering=READ_AHEAD_BYTES) as file:
            file.seek(0)
            magic = file.read(len(MAGIC))
            if not MAGIC.startswith(magic):
                raise CorruptJournalError(f"{self._path} is not a broker's journal")
            self._end = len(magic) if magic == MAGIC else 0
            while (payload := self._payload(file, size)) is not None:
                self._end += _LENGTH_CRC.size + len(payload)
                yield _decoder.decode(payload), self._end
        if self._end < size:
            _log.warning("cut %d torn bytes off the end of %s", size - self._end, self._path)
            os.ftruncate(self._file, self._end)
        if self._end == 0:
            self._write(MAGIC)

    def append(self, fact: Fact) -> int:
        """Store a fact; the position after its frame. Raises OSError, and then nothing was stored."""
        payload = _encoder.encode(fact)
        self._write(_LENGTH_CRC.pack(len(payload), calc_crc32c(payload)) + payload)
        return self._end

    def read(self, position: int, size: int) -> bytes:
        """Bytes inside a stored frame, at a position that the replay or the append told."""
        return os.pread(self._file, size, position)

    def close(self) -> None:
        os.close(self._file)

    def _payload(self, file: BinaryIO, size: int) -> bytes | None:
        """The frame at the end of what is known to be whole; None where the file or a torn frame ends."""
        header = file.read(_LENGTH_CRC.size) if self._end else b""
        if len(header) < _LENGTH_CRC.size:
            return None
        length, crc = _LENGTH_CRC.unpack(header)
        frame_end = self._end + _LENGTH_CRC.size + length
        if length > MAX_PAYLOAD_BYTES:
            raise CorruptJournalError(f"{self._path} is damaged at byte {self._end}")
        payload = file.read(length)
        if len(payload) == length and calc_crc32c(payload) == crc:
            return payload
        if frame_end < size:
            raise CorruptJournalError(f"{self._path} is damaged at byte {self._end}")
        return None

    def _write(self, data: bytes) -> None:
        rest, position = memoryview(data), self._end
        try:
            while rest:
                written = os.pwrite(self._file, rest, position)
                rest, position = rest[written:], position + written
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end = position
