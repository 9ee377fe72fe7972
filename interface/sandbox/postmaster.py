"""One running PostgreSQL server: how it is started, known, and ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO

from interface.sandbox.account import Account, PostgresError, small_environment

WRAPPER = Path(__file__).with_name("die_with_parent.py")
POLL_S = 0.01
# How to end a server, from the kindest to the last, and how long each may take. Each of them keeps every commit.
ENDINGS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def spawn(argv: Sequence[str], account: Account, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server as a child that ends with us.

    A thread of its own starts it and stays until it has ended: Linux sends the parent-death signal when the
    starting *thread* ends, so a short-lived one would take the server with it.
    """
    uid, gid = (-1, -1) if account.uid is None or account.gid is None else (account.uid, account.gid)
    wrapped = [sys.executable, "-I", "-S", str(WRAPPER), str(os.getpid()), str(uid), str(gid), *argv]
    born: Future[subprocess.Popen[bytes]] = Future()

    def live() -> None:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own wrapper around the server we found
                wrapped,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=small_environment(),
                start_new_session=True,
            )
        except OSError as error:
            born.set_exception(error)
            return
        born.set_result(process)
        process.wait()

    threading.Thread(target=live, name="postmaster", daemon=True).start()
    return born.result()


def is_ready(cluster: Path, pid: int) -> bool:
    """Whether this very process serves this cluster: the eighth line of its pid file says so."""
    lines = _pid_file(cluster)
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def stop_orphan(cluster: Path) -> None:
    """End a server of this cluster that somebody else left running, and clear away a pid file that lies.

    Raises PostgresError when it cannot be ended.
    """
    lines = _pid_file(cluster)
    pid = int(lines[0]) if lines and lines[0].isdigit() else None
    if pid is None:
        return
    for ending, patience_s in ENDINGS:
        if not _serves(pid, cluster):
            break
        os.kill(pid, ending)
        deadline = time.monotonic() + patience_s
        while _serves(pid, cluster) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    if _serves(pid, cluster):
        raise PostgresError(f"an earlier PostgreSQL (pid {pid}) on {cluster} does not end")
    # After a crash the number may belong to another program by now, at which PostgreSQL would refuse to start.
    # That no server is left is safe to say: a second interlock, its shared memory, is keyed by the folder.
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _pid_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _serves(pid: int, cluster: Path) -> bool:
    """Whether the process is a server that was started on this cluster (a zombie is none)."""
    if sys.platform == "linux":
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(cluster) in words
    shown = subprocess.run(  # noqa: S603 - a number and two constants
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return f"-D {cluster} " in shown.stdout
