"""What many tests need: one PostgreSQL for the session, and a database of its own for each test that asks."""

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from unittest.mock import patch

import psycopg
import pytest

from application.event_store import Ledger
from interface.sandbox.folder import free_port
from interface.sandbox.postgres import SETTINGS, Postgres
from tests.system import system  # noqa: F401  # a fixture

_numbers = count(1)


# A file is tested on one core. The longest go first, so that no core is left alone with one of them at the end.
LONGEST = ("test_survival", "test_black_box_cinema", "test_http_schema", "test_money_storm", "test_black_box_airline")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The others stay in the order that chance gave them."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server on a temporary folder that everybody may enter, as pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="payledger-test-") as name:
        Path(name).chmod(0o755)
        server = Postgres(Path(name) / "data", free_port())
        with patch.dict(SETTINGS, fsync="off"):  # nobody pulls the plug here, and databases come and go quickly
            server.start()
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
