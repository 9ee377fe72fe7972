"""The processes that follow the log: `payledger project`, and what `payledger publish` has in common with it."""

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import Protocol

import psycopg

from application.event_store import Ledger
from interface.bootstrap import FOLDING, PROJECTIONS, collect_seldom, log_reader, recall, shared, worker_name
from interface.settings import Settings
from interface.signals import LOG_GREW, listen
from projections.engine import Engine, Log, connect

STOP_TIMEOUT_S = 10
# One reads while another writes.
READERS = 2


class Follower(Protocol):
    """What follows the log in a thread of its own."""

    wake: Event

    def run(self) -> None: ...
    def stop(self) -> None: ...


def project(settings: Settings) -> None:
    """Keep all read models up to date until told to stop."""

    def engines(read: Log) -> Sequence[Follower]:
        together = shared(read)
        return [Engine(projection, together, settings.database_url, worker_name()) for projection in PROJECTIONS]

    follow(settings, engines, READERS * len(PROJECTIONS))


def follow(settings: Settings, followers: Callable[[Log], Sequence[Follower]], readers: int) -> None:
    """Have them follow the log until told to stop. `readers`: connections that read it at once."""
    collect_seldom(FOLDING)
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ledger = Ledger(settings.database_url, pool_size=readers)
    with suppress(psycopg.OperationalError), connect(settings.database_url, worker_name()) as conn:
        recall(ledger, conn)  # a help at the start, not a need: the followers wait for the database
    following = followers(log_reader(ledger))
    threads = [Thread(target=follower.run, daemon=True) for follower in following]

    def wake(_: str) -> None:
        for follower in following:
            follower.wake.set()

    threads.append(Thread(target=listen, args=(settings.database_url, LOG_GREW, wake, stopping), daemon=True))
    for thread in threads:
        thread.start()
    print("ready", flush=True)  # noqa: T201  the supervisor waits for this line
    stopping.wait()
    for follower in following:
        follower.stop()
    for thread in threads:
        thread.join(timeout=STOP_TIMEOUT_S)
    ledger.close()
