"""A TCP proxy in front of PostgreSQL that loses what it is told to lose."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

CHUNK_BYTES = 65_536
# The server's ReadyForQuery, outside a transaction: whatever was asked has been committed, or refused.
READY = b"Z\x00\x00\x00\x05I"

Lost = Literal["request", "reply"]


def nothing() -> None:
    pass


class UnreliableNetwork:
    """Forwards to `port` of 127.0.0.1. `lose` breaks the next connections that send certain bytes."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._mark: bytes | None = None
        self._what: Lost = "reply"
        self._times = 0
        self._meanwhile: Callable[[], None] = nothing
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def lose(self, what: Lost, mark: bytes, *, times: int = 1, meanwhile: Callable[[], None] = nothing) -> None:
        """Break the connection of the next requests that contain `mark`.

        `request`: before the server hears of it. `reply`: after the server has done it, before the client hears.
        `meanwhile` happens just before the client notices.
        """
        with self._lock:
            self._what, self._mark, self._times, self._meanwhile = what, mark, times, meanwhile

    def close(self) -> None:
        """Break everything, and let nobody in any more."""
        _cut(self._listener, *self._open)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._open += [client, server]
                muted = threading.Event()
                for pump in (self._requests, self._replies):
                    threading.Thread(target=pump, args=(client, server, muted), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        with suppress(OSError):
            while sent := client.recv(CHUNK_BYTES):
                if self._is_lost(sent):
                    if self._what == "request":
                        self._meanwhile()
                        break
                    muted.set()
                server.sendall(sent)
        if not muted.is_set():
            _cut(client, server)

    def _replies(self, client: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        unheard = b""
        with suppress(OSError):
            while answered := server.recv(CHUNK_BYTES):
                if not muted.is_set():
                    client.sendall(answered)
                    continue
                unheard += answered
                if READY in unheard:
                    self._meanwhile()
                    break
        _cut(client, server)

    def _is_lost(self, sent: bytes) -> bool:
        with self._lock:
            hit = self._times > 0 and self._mark is not None and self._mark in sent
            self._times -= hit
            self.lost += hit
            return hit


def _cut(*sides: socket.socket) -> None:
    for side in sides:
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
        side.close()
