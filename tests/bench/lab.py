"""Where the benchmarks run: one PostgreSQL, databases to order, worker processes, the whole system.

PostgreSQL has the sandbox's settings, but does not wait for the disk unless FSYNC=1 asks for it: what a flush takes is
the disk's affair, the same for whoever is measured, and on most disks many times what is measured here.
"""

import logging
import multiprocessing
import os
import platform
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar
from unittest.mock import patch

import psycopg

from application.event_store import Ledger
from application.privacy import Keys
from interface.migrations import migrate
from interface.sandbox.folder import free_port
from interface.sandbox.postgres import SETTINGS, Postgres
from tests.bench.system import System, running

P = ParamSpec("P")
T = TypeVar("T")

# Personal fields are sealed as in the service. Every process of one run has the same key: nothing outlives the run.
KEYS = Keys((bytes(32),), secrets.token_bytes)
WORKERS = 2
TABLE = "ledger_events"
WARNINGS = ("application", "psycopg", "eventsourcing")


class Lab:
    """Use it as a context. Everything in it is made at first use, and removed at the end."""

    def __init__(self, *, quick: bool, fsync: bool) -> None:
        self.quick = quick
        self.fsync = fsync
        self._stack = ExitStack()
        self._numbers = count(1)

    def __enter__(self) -> Self:
        quiet()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @cached_property
    def postgres(self) -> Postgres:
        """It runs as another user when we are root, so its folder is one that everybody may enter."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="payledger-bench-")))
        folder.chmod(0o755)
        server = Postgres(folder / "data", free_port())
        with patch.dict(SETTINGS, fsync="on" if self.fsync else "off"):
            server.start()
        self._stack.callback(_end, server)
        return server

    @cached_property
    def system(self) -> System:
        """The whole system, `payledger dev`, as processes of its own."""
        return self._stack.enter_context(running(self.postgres))

    @cached_property
    def _workers(self) -> ProcessPoolExecutor:
        fresh = multiprocessing.get_context("spawn")
        return self._stack.enter_context(ProcessPoolExecutor(WORKERS, fresh, initializer=quiet))

    def elsewhere(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run it in a worker process, so that measuring and what is measured share no interpreter."""
        return self._workers.submit(function, *args, **kwargs)

    @contextmanager
    def database(self) -> Iterator[str]:
        """An empty database with the current schema."""
        name = f"bench_{next(self._numbers)}"
        with psycopg.connect(self.postgres.url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
            try:
                url = self.postgres.url.rpartition("/")[0] + f"/{name}"
                migrate(url)
                yield url
            finally:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    @cached_property
    def machine(self) -> dict[str, str | int]:
        """What numbers depend on, and nothing that names the machine."""
        with psycopg.connect(self.postgres.url) as conn:
            version = conn.info.parameter_status("server_version") or "?"
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {
            "cores": usable_cores(),
            "memory_gib": round(pages / 2**30),
            "python": platform.python_version(),
            "postgresql": version,
            "fsync": "on" if self.fsync else "off",
            "system": f"{platform.system()} {platform.machine()}",
        }


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def open_ledger(url: str, writers: int = 1, appended: Callable[[], None] = lambda: None) -> Ledger:
    """The ledger as the service opens it."""
    return Ledger(url, KEYS, pool_size=writers, appended=appended)


def settings_for(url: str) -> dict[str, str]:
    """The environment of a `payledger` command that needs the database alone."""
    return {
        "DATABASE_URL": url,
        "STRIPE_WEBHOOK_SECRET": "whsec_tests",
        "ENCRYPTION_KEY": KEYS.masters[0].hex(),
        "JWT_SECRET_KEY": "0" * 32,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "STRIPE_API_KEY": "sk_test_bench",
    }


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection as the service's own: each statement a transaction."""
    return psycopg.connect(url, autocommit=True)


def one(conn: psycopg.Connection[Any], query: str) -> int:
    """The only number a query answers."""
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0] or 0)


def quiet() -> None:
    """Warnings of what is done a thousand times on purpose."""
    for name in WARNINGS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _end(server: Postgres) -> None:
    server.stop()
    if server.cluster.is_symlink():
        shutil.rmtree(server.cluster.resolve().parent, ignore_errors=True)
