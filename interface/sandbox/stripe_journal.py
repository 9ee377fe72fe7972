"""The append-only file that makes a kill harmless.

One record per change: `crc32 of the JSON in 8 hex digits, space, JSON, newline`, appended with a single write(2)
before the request is answered. What the kernel has taken over survives the death of the process, so there is no
fsync: the stand-in defends against `kill -9`, not against power loss. A record torn at the end of the file was never
answered and is cut off; damage anywhere else is refused.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

MAX_RECORD_BYTES = 8 * 1024 * 1024

_NAME = "journal.jsonl"
_HEAD_BYTES = 9  # eight hex digits and a space


class JournalDamagedError(Exception):
    """A record before the end of the journal cannot be read."""


class Kept(msgspec.Struct, gc=False):
    """An idempotency key with the answer that belongs to it. `at` is in Unix seconds of the stand-in's clock."""

    key: str
    path: str
    fingerprint: str
    status: int
    body: msgspec.Raw
    at: int


class Record(msgspec.Struct, omit_defaults=True):
    """One change: objects and events as they are answered, the idempotency key it answers, the clock's advance.

    `sent`: events that need not be delivered any more.
    """

    put: list[msgspec.Raw] = []
    kept: Kept | None = None
    advance_s: int | None = None
    sent: list[str] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Journal:
    """Open once per data directory; a lock keeps a second process out."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / _NAME
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _lock(self._fd)
        self._size = 0

    def replay(self) -> Iterator[Record]:
        """Every whole record, oldest first; afterwards the file ends behind the last of them."""
        size = os.fstat(self._fd).st_size
        with self._path.open("rb") as lines:
            for line in lines:
                record = _read(line)
                if record is None:
                    if self._size + len(line) < size:
                        raise JournalDamagedError(f"{_NAME}: unreadable record at byte {self._size}")
                    break
                self._size += len(line)
                yield record
        os.ftruncate(self._fd, self._size)

    def append(self, record: Record) -> None:
        """Raises OSError and leaves no trace when the record cannot be written whole."""
        body = _encode(record)
        if len(body) > MAX_RECORD_BYTES:
            raise OSError(f"a journal record is limited to {MAX_RECORD_BYTES} bytes")
        framed = b"%08x %b\n" % (zlib.crc32(body), body)
        try:
            written = os.write(self._fd, framed)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        if written < len(framed):
            os.ftruncate(self._fd, self._size)
            raise OSError("the journal could not be written: disk full?")
        self._size += written

    def close(self) -> None:
        os.close(self._fd)


def _read(line: bytes) -> Record | None:
    body = line[_HEAD_BYTES:-1]
    if not line.endswith(b"\n") or line[: _HEAD_BYTES - 1] != b"%08x" % zlib.crc32(body):
        return None
    return _decode(body)


def _lock(fd: int) -> None:
    try:
        import fcntl  # noqa: PLC0415 - absent on Windows, where nothing keeps a second process out
    except ImportError:
        return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
