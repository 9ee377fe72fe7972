"""The log as one process's followers see it: read in order behind the horizon, woken when it grows.

One thread with one connection listens for all of them, looks where the horizon is, and says so when it stands still.
"""

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from types import FrameType
from typing import Any, TypeVar

import psycopg
from eventsourcing.persistence import Notification
from psycopg import Connection

from application.event_store import Ledger
from application.horizon import Lookout, Sight, Stall
from interface.bootstrap import recall
from interface.signals import CONNECT_TIMEOUT_S, LOG_GREW, RECONNECT_S

log = logging.getLogger(__name__)

T = TypeVar("T")

# Apart from the threads and connections of the commands: followers that catch up must not hold those up.
MAX_READERS = 2
# An idle log is looked at this often, even if nobody rings.
IDLE_S = 1.0
# Between two looks, however often it rings, and at first while a writer is in flight (doubling up to IDLE_S).
MIN_INTERVAL_S = 0.002
# A stall is said when it begins, and this often while it lasts.
SAY_EVERY_S = 60.0


class LogWatch:
    """Made anywhere; opened, asked and closed in one event loop. `monotonic` gives seconds."""

    def __init__(self, database_url: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.sight = Sight()
        self.followers = 0
        self.streams = 0
        self.leaving = False
        self._database_url = database_url
        self._monotonic = monotonic
        self._ledger = Ledger(database_url, pool_size=MAX_READERS)
        self._readers = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="feed")
        self._change = asyncio.Event()
        self._wanted = Event()
        self._stopping = Event()
        self._said_s: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Thread(target=self._run, name="log watch", daemon=True)

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        self.leave()
        self._stopping.set()
        self._wanted.set()
        await asyncio.to_thread(self._thread.join, CONNECT_TIMEOUT_S)
        self._readers.shutdown(cancel_futures=True)
        self._ledger.close()

    # --- For followers -------------------------------------------------------------------------------------------

    async def read(self, after: int, limit: int, render: Callable[[Notification], T]) -> list[T]:
        """Up to `limit` rows after a position, rendered in a thread. Raises StoreUnavailable."""

        def rendered() -> list[T]:
            return [render(row) for row in self._ledger.read(after, limit)]

        return await asyncio.get_running_loop().run_in_executor(self._readers, rendered)

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """While somebody follows, the log is looked at as soon as it grows; otherwise now and then."""
        self.followers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.followers -= 1
            if not self.followers and not self._stopping.is_set():
                self._wanted.clear()

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Follow until told to stop: streams have a limit of their own."""
        self.streams += 1
        try:
            with self.following():
                yield
        finally:
            self.streams -= 1

    def next_change(self) -> asyncio.Event:
        """Set when there may be more to read than now. Ask for it *before* reading; wait when that gave nothing."""
        return self._change

    def leave(self) -> None:
        """Tell the followers to end: what they wait for will not come."""
        self.leaving = True
        self._change.set()

    # --- The thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(
                    self._database_url,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    autocommit=True,
                    options="-c statement_timeout=5000",
                    application_name="payledger log watch",
                ) as conn:
                    self._watch(conn)
            except psycopg.Error as error:
                log.warning("the log watch lost its database: %s", type(error).__name__)
                self.sight = Sight(self.sight.drawn, self.sight.safe)
                self._stopping.wait(RECONNECT_S)

    def _watch(self, conn: Connection) -> None:
        conn.execute(f"LISTEN {LOG_GREW}".encode())
        recall(self._ledger, conn)
        lookout = Lookout(self._ledger.recorder.horizon)
        pause_s = MIN_INTERVAL_S
        first = True
        while not self._stopping.is_set():
            now_s = self._monotonic()
            sight = lookout.look(conn, now_s)
            moved = first or sight.safe != self.sight.safe
            self._say(sight.stall, now_s)
            self.sight, first = sight, False
            if moved:
                self._tell()
            # A writer that rolls back rings no bell, and yet those behind it may be read then.
            behind = sight.drawn > sight.safe
            pause_s = min(pause_s * 2, IDLE_S) if behind and not moved else MIN_INTERVAL_S
            self._rest(conn, pause_s if behind else IDLE_S)

    def _rest(self, conn: Connection, pause_s: float) -> None:
        """Until the bell rings, at most for the pause; without followers, the bell is not listened to."""
        if not self.followers:
            self._wanted.wait(IDLE_S)
            for _ in conn.notifies(timeout=0):
                pass
            return
        for _ in conn.notifies(timeout=pause_s, stop_after=1):
            pass
        self._stopping.wait(MIN_INTERVAL_S)

    def _tell(self) -> None:
        assert self._loop is not None  # noqa: S101  set before the thread starts
        with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody in it
            self._loop.call_soon_threadsafe(self._changed)

    def _changed(self) -> None:
        if self.leaving:
            return
        self._change.set()
        self._change = asyncio.Event()

    def _say(self, stall: Stall | None, now_s: float) -> None:
        if stall is None:
            if self._said_s is not None:
                log.warning("the log's horizon moves again")
            self._said_s = None
        elif self._said_s is None or now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            log.warning("the log's horizon is %s; facts are appended, and readers wait", stall)


@contextlib.contextmanager
def before_stopping(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` in this event loop when the process is told to stop.

    uvicorn waits for open answers before it tells the application: a stream that ends only then would never end.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        handler = before[number]
        if callable(handler):
            handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        for stopping in (signal.SIGTERM, signal.SIGINT):
            before[stopping] = signal.signal(stopping, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)
