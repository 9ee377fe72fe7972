"""What can be supervised: any program (`Process`, run as a `Child`), and whatever else is a `Service`."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from interface.sandbox.alive import ALIVE_VARIABLE
from interface.sandbox.folder import open_log, tail

POLL_S = 0.01
READY_LINE = re.compile(rb"^ready\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Limits:
    ready_s: float = 30.0
    stop_s: float = 10.0
    restarts: int = 10
    window_s: float = 60.0
    backoff_s: float = 0.1
    longest_backoff_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Process:
    """A program to keep running. Its output goes to DIR/logs/NAME.log.

    `env` is added to our own environment. `ready` is polled until it says yes; without it, the program prints
    a line that begins with `ready`. Without `restart` it may end, but only with status 0.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    restart: bool = True


class Service(Protocol):
    """What can be supervised: a Child, a Postgres."""

    @property
    def name(self) -> str: ...
    @property
    def restart(self) -> bool: ...
    @property
    def log(self) -> Path: ...
    @property
    def pid(self) -> int | None: ...
    def start(self) -> int:
        """Return the pid once it is ready; raise when it is not in time."""

    def wait(self) -> int:
        """Block until it has ended; its exit status, minus the number of the signal that ended it."""

    def stop(self) -> None:
        """End it within a bounded time. From any thread, also during start, also twice."""


class ServiceError(RuntimeError):
    """A service did not start, or does not stay up. The message names it and quotes the end of its log."""

    def __init__(self, name: str, what: str, log: Path | None = None) -> None:
        quoted = f"\nthe end of {log}:\n{tail(log)}" if log else ""
        super().__init__(f"{name} {what}{quoted}")
        self.name = name


class Child:
    """One program as a service. It leads a session of its own, so the terminal's Ctrl-C reaches only us."""

    def __init__(self, process: Process, logs: Path, alive_fd: int, limits: Limits) -> None:
        self.name, self.restart = process.name, process.restart
        self.log = logs / f"{process.name}.log"
        self._process, self._alive_fd, self._limits = process, alive_fd, limits
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._running.pid if self._running and self._running.poll() is None else None

    def start(self) -> int:
        announced = {ALIVE_VARIABLE: str(self._alive_fd), "PYTHONUNBUFFERED": "1"}
        with open_log(self.log) as log:
            before = log.tell()
            self._running = running = subprocess.Popen(  # noqa: S603 - the sandbox's own programs
                self._process.argv,
                env={**os.environ, **self._process.env, **announced},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(self._alive_fd,),
            )
        deadline = time.monotonic() + self._limits.ready_s
        while True:
            ended = running.poll() is not None  # asked first, so that no last words are missed
            if self._is_ready(before, ended=ended):
                return running.pid
            if ended:
                raise ServiceError(self.name, f"{ending(running.returncode)} before it was ready", self.log)
            if time.monotonic() > deadline:
                self.stop()
                raise ServiceError(self.name, f"was not ready after {self._limits.ready_s:g} s", self.log)
            time.sleep(POLL_S)

    def wait(self) -> int:
        return self._running.wait() if self._running else 0

    def stop(self) -> None:
        if self._running is None:
            return
        self._running.terminate()
        try:
            self._running.wait(self._limits.stop_s)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait(self._limits.stop_s)

    def _is_ready(self, before: int, *, ended: bool) -> bool:
        if self._process.ready:
            return not ended and self._process.ready()
        with self.log.open("rb") as log:
            log.seek(before)
            return READY_LINE.search(log.read()) is not None


def ending(status: int) -> str:
    """How a process ended, in words."""
    return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
