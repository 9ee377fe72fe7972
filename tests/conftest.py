"""What many tests need: one PostgreSQL for the session, and a database of its own for each test that asks."""

import gc
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from unittest.mock import patch

import httpx
import psycopg
import pytest

from application.event_store import Ledger
from interface.sandbox.folder import free_port
from interface.sandbox.postgres import SETTINGS, Postgres
from tests.system import system  # noqa: F401  # a fixture

_numbers = count(1)

# The collector looks for cycles once for so many new objects.
LOADING = 20_000


# A file is tested on one core. The longest go first, so that no core is left alone with one of them at the end.
LONGEST = (
    "test_survival",
    "test_black_box_cinema",
    "test_bare_charges",
    "test_http_schema",
    "test_money_storm",
    "test_black_box_airline",
    "test_billing_years",
    "test_faults",
    "test_black_box_gateway",
    "test_canary",
    "test_order_survival",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The others stay in the order that chance gave them."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_configure() -> None:
    """Thousands of tests are loaded, and none of that is garbage: the collector looks through it seldom, then never."""
    gc.set_threshold(LOADING)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def authorities() -> Iterator[None]:
    """Those that TLS trusts are read once, and not for each client: nobody here speaks it."""
    with patch("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context)):
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server on a temporary folder that everybody may enter, as pytest's own are closed to others.

    It takes everybody's word for who they are: a password proved at each connection costs ten times the connection.
    """
    with tempfile.TemporaryDirectory(prefix="payledger-test-") as name:
        Path(name).chmod(0o755)
        server = Postgres(Path(name) / "data", free_port())
        with patch.dict(SETTINGS, fsync="off"):  # nobody pulls the plug here, and databases come and go quickly
            server.start()
        (server.cluster / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
        with psycopg.connect(server.url) as admin:
            admin.execute("SELECT pg_reload_conf()")
        yield server
        server.stop()
        if server.cluster.is_symlink():
            shutil.rmtree(server.cluster.resolve().parent, ignore_errors=True)


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """An empty database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield postgres.url.rpartition("/")[0] + f"/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """An empty log."""
    with Ledger(database_url, create_table=True) as ledger:
        yield ledger
