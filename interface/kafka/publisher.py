"""Facts to Kafka: exactly once for those who read what is committed, in order, resuming where it left off.

The log is the outbox; nothing else is needed. How far the publisher is stands in Kafka, committed with the facts it
speaks of (standing.py). Several instances may run: an advisory lock in the log's database chooses who works, and the
others stand by. The lock is not what keeps order: whoever works has fenced all before it (outlet.py), so one that lost
its lock without noticing is refused by Kafka, and stands by like the others.

The row in `checkpoints` and the rows in `parked` tell people how the publisher is doing. They are written after the
transaction in Kafka and nothing is decided by them, but once: a topic that an older version wrote to, which left its
position there, is gone on with from that position.
"""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any
from uuid import UUID

from kafka.errors import KafkaError
from psycopg import Connection

from interface.kafka import PUBLISHER
from interface.kafka.outlet import Outlet
from interface.kafka.sending import Row, Sending
from interface.kafka.standing import Standing
from projections import parking
from projections.engine import (
    ALARM_S,
    FULL_ENOUGH,
    IDLE_S,
    PASSING,
    RECONNECT_S,
    Away,
    checkpoint,
    connect,
    take_over,
)
from projections.parking import Failure, TooManyParked

log = logging.getLogger(__name__)

# Nobody waits for what is published, and a transaction costs more than many facts in it.
PACE_S = 0.05
# So often a retry beside a worker takes its place.
RETRIES = 3
# After a doubt the next try waits so long, and twice as long each time, up to this.
MAX_PAUSE_S = 10.0
_TELL = "UPDATE checkpoints SET position = %s, stopped = NULL WHERE projection = %s"
_TELL_STOPPED = "UPDATE checkpoints SET stopped = %s WHERE projection = %s"
_ID_AT = "SELECT originator_id, originator_version FROM ledger_events WHERE notification_id = %s"


class AnotherLog(Exception):  # noqa: N818  it says what is so
    """What Kafka holds was not published from this log: one of the two is another's, or was restored."""


class Publisher:
    """Works until it is stopped. `wake` is set whenever the log may have grown."""

    name = PUBLISHER

    def __init__(self, outlet: Outlet, sending: Sending, database_url: str, worker: str) -> None:
        """`worker` is what the database calls the session: who publishes, and where."""
        self._outlet = outlet
        self._sending = sending
        self._database_url = database_url
        self._worker = worker
        self.wake = Event()
        self._stopping = Event()

    def stop(self) -> None:
        self._stopping.set()
        self.wake.set()

    def run(self) -> None:
        """Work or stand by until stopped, through lost connections, brokers that go away and errors of our own."""
        pause_s = RECONNECT_S
        while not self._stopping.is_set():
            before = self._sending.standing
            try:
                with connect(self._database_url, self._worker) as conn:
                    self._work(conn)
            except (*PASSING, KafkaError, TimeoutError) as error:
                log.warning("%s waits: %s", PUBLISHER, type(error).__name__)
            except Exception as error:  # noqa: BLE001  a thread that ends here would be missed by nobody
                log.critical("%s STOPPED: %s at %s", PUBLISHER, type(error).__name__, parking.where(error))
                pause_s = max(pause_s, ALARM_S)
            pause_s = min(MAX_PAUSE_S, pause_s * 2) if self._sending.standing == before else RECONNECT_S
            self._stopping.wait(pause_s)
        self.close()

    def close(self) -> None:
        self._sending.close()

    def _work(self, conn: Connection[Any]) -> None:
        while not take_over(conn, PUBLISHER):
            if self._stopping.is_set():
                return
        try:
            self._take_over(conn)
            self._told(conn, [])
            while not self._stopping.is_set():
                self.wake.clear()
                began_s = time.monotonic()
                batch = self._sending.step()
                if batch.facts:
                    self._told(conn, batch.failures)
                if not batch.facts:
                    self.wake.wait(IDLE_S)
                elif batch.facts < FULL_ENOUGH:
                    self._stopping.wait(max(0.0, began_s + PACE_S - time.monotonic()))
        except (*PASSING, KafkaError, TimeoutError):
            raise
        except Exception as error:
            _tell_stopped(conn, error)
            raise

    def retry(self, conn: Connection[Any], stream: UUID, read: Callable[[UUID], Sequence[Row]]) -> bool:
        """Send what a parked stream missed, in order; answer whether it is back. It may run beside a worker.

        It takes the worker's place for that long: the worker is fenced, and takes over again. Raises Away when Kafka
        does not answer, or the worker was faster each time.
        """
        for attempt in range(1, RETRIES + 1):
            try:
                self._take_over(conn)
                failure = self._sending.bring_back(stream, read(stream))
                break
            except (KafkaError, TimeoutError) as error:
                if attempt == RETRIES:
                    raise Away(type(error).__name__) from error
        with conn.transaction():
            if failure:
                parking.park(conn, PUBLISHER, [failure])
            else:
                parking.unpark(conn, PUBLISHER, stream)
        return failure is None

    # --- How far it is -------------------------------------------------------------------------------------------

    def _take_over(self, conn: Connection[Any]) -> None:
        """Take over from whoever published before, and go on where they were. Raises AnotherLog."""
        standing = self._outlet.take_over()
        if standing is None:
            standing = self._first(conn)
        check_same_log(conn, standing)
        self._sending.standing = standing

    def _first(self, conn: Connection[Any]) -> Standing:
        """Where to begin when no standing was ever committed.

        Usually with the first fact. But versions before this one kept their position in the database and left none
        in Kafka: where a topic has been written to, all would be sent a second time. What they had sent beyond that
        position when they last died is sent again, as it was with them.
        """
        if not self._outlet.has_facts():
            return Standing()
        aside = {str(one.stream): one.position for one in parking.parked(conn) if one.projection == PUBLISHER}
        standing = Standing(checkpoint(conn, PUBLISHER), aside=aside)
        self._outlet.send([], standing)
        log.warning("%s goes on from position %d, which an older version left", PUBLISHER, standing.position)
        return standing

    def _told(self, conn: Connection[Any], failures: Sequence[Failure]) -> None:
        """Let people see how it is doing: the checkpoint, and the streams that are aside."""
        standing = self._sending.standing
        shown = {str(one.stream): one.position for one in parking.parked(conn) if one.projection == PUBLISHER}
        known = {str(failure.stream): failure for failure in failures}
        with conn.transaction():
            conn.execute(_TELL, (standing.position, PUBLISHER), prepare=True)
            for stream in shown.keys() - standing.aside.keys():
                parking.unpark(conn, PUBLISHER, UUID(stream))
            for stream, position in standing.aside.items():
                if stream in known or stream not in shown:
                    failure = known.get(stream) or Failure(UUID(stream), position, "set aside before; see the log")
                    log.error("%s parks stream %s at position %s", PUBLISHER, stream, position)
                    parking.park(conn, PUBLISHER, [failure])


def check_same_log(conn: Connection[Any], standing: Standing) -> None:
    """Is the fact that was sent last in this log, where it was? Raises AnotherLog."""
    row = conn.execute(_ID_AT, (standing.position,)).fetchone()
    if standing.fact and (row is None or standing.fact != f"{row[0]}.{row[1]}"):
        raise AnotherLog(f"Kafka holds the fact {standing.fact} of position {standing.position}, the log does not")


def _tell_stopped(conn: Connection[Any], error: Exception) -> None:
    """Leave word where everybody looks; it is gone when facts are sent again."""
    reason = str(error) if isinstance(error, TooManyParked | AnotherLog) else type(error).__name__
    conn.execute(_TELL_STOPPED, (reason, PUBLISHER))
    parking.tell_trouble(conn, PUBLISHER)
