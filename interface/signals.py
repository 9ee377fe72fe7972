"""Wake-ups between processes, out of band: a hint that something changed, never the change itself.

A NOTIFY inside an append would serialise the commits. Here a thread of its own rings once for as many appends as have
happened meanwhile, and whoever misses a ring looks by itself a moment later.
"""

import logging
from collections.abc import Callable
from threading import Event, Thread

import psycopg

log = logging.getLogger(__name__)

LOG_GREW = "ledger"
INBOX_GREW = "inbox"
# Between two rings, so that a busy writer costs the database no more than this many notifications a second: 1 / it.
MIN_INTERVAL_S = 0.005
RECONNECT_S = 0.5
CONNECT_TIMEOUT_S = 5
# How soon a listening thread notices that it should stop.
LISTEN_S = 1.0


class Bell:
    """Rings a channel after `ring()`, coalescing. A daemon thread with a connection of its own."""

    def __init__(self, database_url: str, channel: str = LOG_GREW) -> None:
        self._database_url = database_url
        self._statement = f"NOTIFY {channel}"
        self._pulled = Event()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="bell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ring(self) -> None:
        self._pulled.set()

    def stop(self) -> None:
        self._stopping.set()
        self._pulled.set()
        self._thread.join(timeout=CONNECT_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._database_url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as conn:
                    self._ring_until_stopped(conn)
            except psycopg.Error as error:
                log.warning("the bell lost its database: %s", type(error).__name__)
                self._stopping.wait(RECONNECT_S)

    def _ring_until_stopped(self, conn: psycopg.Connection) -> None:
        while not self._stopping.is_set():
            self._pulled.wait()
            self._pulled.clear()
            conn.execute(self._statement.encode())
            self._stopping.wait(MIN_INTERVAL_S)


def listen(database_url: str, channel: str, heard: Callable[[str], None], stopping: Event) -> None:
    """Call `heard` with each message on the channel until told to stop; after every (re)connection once with ''."""
    while not stopping.is_set():
        try:
            with psycopg.connect(database_url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as conn:
                conn.execute(f"LISTEN {channel}".encode())
                heard("")
                while not stopping.is_set():
                    for notice in conn.notifies(timeout=LISTEN_S):
                        heard(notice.payload)
                        if stopping.is_set():
                            return
        except psycopg.Error as error:
            log.warning("listening for %s lost its database: %s", channel, type(error).__name__)
            stopping.wait(RECONNECT_S)
