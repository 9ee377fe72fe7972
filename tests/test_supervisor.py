"""The processes of the sandbox: started in order, kept alive, ended in reverse order, never left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from interface.sandbox.folder import PORTS, FolderInUseError, free_port, lock_folder, remembered_port
from interface.sandbox.postgres import Postgres
from interface.sandbox.service import Limits, Process, ServiceError
from interface.sandbox.supervisor import Supervisor
from tests.processes import eventually, runs

QUICK = Limits(ready_s=10, stop_s=5, restarts=3, window_s=60, backoff_s=0.01, longest_backoff_s=0.02)

# Says when it is asked to end, in a file that several children share.
WITNESS = """
import os, signal, sys
from pathlib import Path
from interface.sandbox.alive import watch_parent
def leave(number, frame):
    with Path(sys.argv[2]).open("a") as file:
        file.write(f"{sys.argv[1]} {signal.Signals(number).name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
assert watch_parent(), "nobody supervises"
print("ready", os.getpid(), flush=True)
signal.pause()
"""

DEAF = """
import os, signal
from interface.sandbox.alive import watch_parent
signal.signal(signal.SIGTERM, signal.SIG_IGN)
watch_parent(grace_s=0.05)
print("ready", flush=True)
while True:
    signal.pause()
"""

DEV = """
import signal, sys
from pathlib import Path
from interface.sandbox.service import Process
from interface.sandbox.supervisor import Supervisor
folder = Path(sys.argv[1])
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
with Supervisor(folder) as supervisor:
    supervisor.start(
        Process(name, [sys.executable, "-c", (folder / f"{name}.py").read_text(), name, str(folder / "ends")])
        for name in ("first", "second", "third")
    )
    print(*supervisor.pids.values(), flush=True)
    supervisor.wait()
"""


def witness(name: str, ends: Path) -> Process:
    return Process(name, [sys.executable, "-c", WITNESS, name, str(ends)])


def script(name: str, text: str) -> Process:
    return Process(name, [sys.executable, "-c", textwrap.dedent(text)])


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Run a supervisor of three children in a process of its own; its pids once all are ready."""
    started: list[subprocess.Popen[str]] = []

    def run(**children: str) -> tuple[subprocess.Popen[str], list[int]]:
        for name in ("first", "second", "third"):
            (tmp_path / f"{name}.py").write_text(children.get(name, WITNESS))
        argv = [sys.executable, "-c", DEV, str(tmp_path)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_children_start_in_order_and_end_in_reverse(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    with Supervisor(tmp_path) as supervisor:
        supervisor.start([witness("first", ends), witness("second", ends)])
        supervisor.start([witness("third", ends)])
        pids = supervisor.pids
        assert list(pids) == ["first", "second", "third"]
        for name, pid in pids.items():
            assert (tmp_path / f"logs/{name}.log").read_text() == f"ready {pid}\n"
    assert ends.read_text().split("\n")[:-1] == ["third SIGTERM", "second SIGTERM", "first SIGTERM"]
    assert not any(runs(pid) for pid in pids.values())


def test_the_next_one_waits_until_the_one_before_is_ready(tmp_path: Path) -> None:
    flag = tmp_path / "slow-is-ready"
    polled = []

    def ready() -> bool:
        polled.append(flag.exists())
        return polled[-1]

    slow = Process(
        "slow",
        [sys.executable, "-c", f"import signal; open({str(flag)!r}, 'w').close(); signal.pause()"],
        ready=ready,
    )
    follower = script(
        "follower",
        f"""
        import signal
        from pathlib import Path
        assert Path({str(flag)!r}).exists()
        print("ready", flush=True)
        signal.pause()
    """,
    )
    with Supervisor(tmp_path, QUICK) as supervisor:
        supervisor.start([slow, follower])
        assert polled[0] is False
        assert polled[-1] is True


def test_a_killed_child_is_restarted_and_its_new_pid_is_told(tmp_path: Path) -> None:
    told: list[dict[str, int]] = []
    with Supervisor(tmp_path) as supervisor:
        supervisor.start([witness("steady", tmp_path / "ends"), witness("victim", tmp_path / "ends")])
        before = supervisor.pids
        os.kill(before["victim"], signal.SIGKILL)

        def on_change(pids: dict[str, int]) -> None:
            told.append(pids)
            supervisor.ask_to_stop()

        supervisor.wait(on_change)
        assert told == [supervisor.pids]
        assert told[0]["steady"] == before["steady"]
        assert told[0]["victim"] != before["victim"]
        assert runs(told[0]["victim"])


def test_a_killed_postgres_is_restarted_with_its_rows_on_its_port() -> None:
    with tempfile.TemporaryDirectory(prefix="payledger-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = Postgres(folder, free_port())
        with Supervisor(folder) as supervisor:
            supervisor.start([postgres])
            with psycopg.connect(postgres.url) as connection:
                connection.execute("CREATE TABLE facts AS SELECT 7 AS number")
            before = supervisor.pids["postgres"]
            os.kill(before, signal.SIGKILL)
            supervisor.wait(lambda _pids: supervisor.ask_to_stop())
            assert supervisor.pids["postgres"] != before
            with psycopg.connect(postgres.url) as connection:
                assert connection.execute("SELECT number FROM facts").fetchone() == (7,)
        assert postgres.pid is None
        if postgres.cluster.is_symlink():
            shutil.rmtree(postgres.cluster.resolve().parent)


def test_a_child_that_keeps_crashing_ends_everything_with_a_clear_error(tmp_path: Path) -> None:
    crasher = script(
        "crasher",
        f"""
        import signal
        from pathlib import Path
        seen = Path({str(tmp_path / "seen")!r})
        if seen.exists():
            raise SystemExit("the disk is on fire")
        seen.touch()
        print("ready", flush=True)
        signal.pause()
        """,
    )
    with Supervisor(tmp_path, QUICK) as supervisor:
        supervisor.start([witness("steady", tmp_path / "ends"), crasher])
        pids = supervisor.pids
        os.kill(pids["crasher"], signal.SIGKILL)
        with pytest.raises(ServiceError) as caught:
            supervisor.wait()
    message = str(caught.value)
    assert message.startswith("crasher does not stay up: 3 restarts within 60 s, the last: crasher ended with status 1")
    assert message.endswith("the disk is on fire")
    assert (tmp_path / "logs/crasher.log").read_text().count("on fire") == 3
    assert not runs(pids["steady"])


def test_a_child_that_ends_before_it_is_ready_is_named_and_quoted(tmp_path: Path) -> None:
    api = script("api", "print('no such port'); raise SystemExit(3)")
    quoted = r"(?s)api ended with status 3 before it was ready.*no such port"
    with Supervisor(tmp_path, QUICK) as supervisor, pytest.raises(ServiceError, match=quoted):
        supervisor.start([api])


def test_a_child_that_is_never_ready_is_named_and_ended(tmp_path: Path) -> None:
    mute = script("mute", "import os, signal; print('pid', os.getpid()); print('not ready'); signal.pause()")
    with Supervisor(tmp_path, Limits(ready_s=0.5)) as supervisor:
        with pytest.raises(ServiceError, match=r"(?s)mute was not ready after 0.5 s.*pid \d+\nnot ready$"):
            supervisor.start([mute])
        assert not runs(int((tmp_path / "logs/mute.log").read_text().split()[1]))


@pytest.mark.parametrize("status", [0, 3])
def test_a_child_that_runs_once_may_end_well_but_not_badly(tmp_path: Path, status: int) -> None:
    once = Process(
        "once", [sys.executable, "-c", f"print('ready', flush=True); raise SystemExit({status})"], restart=False
    )
    with Supervisor(tmp_path, QUICK) as supervisor:
        supervisor.start([once])
        if status:
            with pytest.raises(ServiceError, match="once ended with status 3"):
                supervisor.wait()
        else:
            (keeper,) = supervisor._keepers
            keeper.join(5)  # it has nothing left to keep
            assert not keeper.is_alive()
            supervisor.ask_to_stop()
            supervisor.wait()
    assert (tmp_path / "logs/once.log").read_text() == "ready\n"


def test_a_child_that_does_not_listen_is_ended_the_hard_way(tmp_path: Path) -> None:
    with Supervisor(tmp_path, Limits(stop_s=0.2)) as supervisor:
        supervisor.start([script("deaf", DEAF)])
        pid = supervisor.pids["deaf"]
    assert not runs(pid)


def test_children_end_when_the_supervisor_is_killed(
    dev: Callable[..., tuple[subprocess.Popen[str], list[int]]], tmp_path: Path
) -> None:
    supervisor, pids = dev(second=DEAF)
    assert len(pids) == 3
    assert all(runs(pid) for pid in pids)
    supervisor.kill()
    eventually(lambda: not any(runs(pid) for pid in pids))
    assert sorted((tmp_path / "ends").read_text().split()) == ["SIGTERM", "SIGTERM", "first", "third"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_terminal_becomes_an_orderly_stop(
    dev: Callable[..., tuple[subprocess.Popen[str], list[int]]], tmp_path: Path, number: signal.Signals
) -> None:
    supervisor, pids = dev()
    os.killpg(supervisor.pid, number)
    assert supervisor.wait(10) == 0
    assert (tmp_path / "ends").read_text().split("\n")[:-1] == ["third SIGTERM", "second SIGTERM", "first SIGTERM"]
    assert not any(runs(pid) for pid in pids)


def test_a_signal_while_children_still_start_ends_those_that_did(
    dev: Callable[..., tuple[subprocess.Popen[str], list[int]]], tmp_path: Path
) -> None:
    slow = "import os, signal; os.kill(os.getppid(), signal.SIGINT); signal.pause()"
    supervisor, pids = dev(second=slow)
    assert pids == []
    assert supervisor.wait(10) == 0
    assert (tmp_path / "ends").read_text() == "first SIGTERM\n"


def test_a_second_holder_of_a_folder_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    holder = f"""
import sys
from pathlib import Path
from interface.sandbox.folder import lock_folder
with lock_folder(Path({str(tmp_path)!r}) / "data"):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUseError, match=f"in use by process {first.pid}") as caught:
            lock_folder(tmp_path / "data").__enter__()
        assert caught.value.holder == first.pid
        first.kill()
    with lock_folder(tmp_path / "data"):
        assert (tmp_path / "data/lock").read_text() == f"{os.getpid()}\n"


def test_a_name_keeps_its_port_until_another_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api, postgres = remembered_port(tmp_path, "api"), remembered_port(tmp_path, "postgres")
    assert api != postgres
    assert {api, postgres} <= set(PORTS)
    assert remembered_port(tmp_path, "api") == api
    monkeypatch.setattr("interface.sandbox.folder.PORT_PATIENCE_S", 0.1)
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", api))
        taker.listen()
        moved = remembered_port(tmp_path, "api")
        assert moved not in {api, postgres}
    assert remembered_port(tmp_path, "api") == moved
    assert remembered_port(tmp_path, "postgres") == postgres
