"""What a data folder keeps for the processes that share it: one owner at a time, their ports, their logs."""

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

LOG_LIMIT_BYTES = 10_000_000
TAIL_LIMIT_BYTES = 8_192
# Below the range from which Linux and macOS take the ports of outgoing connections: there, a client that
# retries while its server restarts can be given the server's own port, and keep it.
PORTS = range(20_000, 30_000)
PORT_ATTEMPTS = 200
PORT_PATIENCE_S = 4.0  # a little longer than orphans take to leave (alive.GRACE_S)


class FolderInUseError(RuntimeError):
    """Another process works on this data folder."""

    def __init__(self, folder: Path, holder: int | None) -> None:
        who = f"process {holder}" if holder else "another process"
        super().__init__(f"{folder} is in use by {who}: stop it first, or choose another folder")
        self.folder, self.holder = folder, holder


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone; the kernel lets go of it when the process ends, however it ends.

    Makes the folder when it is missing. Raises FolderInUseError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise FolderInUseError(folder, int(holder) if holder.isdigit() else None) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    for _ in range(PORT_ATTEMPTS):
        port = secrets.choice(PORTS)
        if _is_free(port):
            return port
    raise OSError(f"no free port between {PORTS.start} and {PORTS.stop}")


def remembered_port(folder: Path, name: str) -> int:
    """The port this name had at the last start, so that clients find it again; another one if it is taken.

    A port that the processes of a killed predecessor are just leaving is waited for.
    """
    book = folder / "ports.json"
    ports = msgspec.json.decode(book.read_bytes(), type=dict[str, int]) if book.exists() else {}
    if name in ports and _becomes_free(ports[name]):
        return ports[name]
    others = {port for other, port in ports.items() if other != name}
    port = next(port for port in iter(free_port, None) if port not in others)
    folder.mkdir(parents=True, exist_ok=True)
    aside = book.with_suffix(".new")
    aside.write_bytes(msgspec.json.encode(ports | {name: port}))
    aside.replace(book)
    return port


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending; one that has grown large is put aside first, so at most two are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_LIMIT_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are closing do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _becomes_free(port: int) -> bool:
    deadline = time.monotonic() + PORT_PATIENCE_S
    while not _is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
