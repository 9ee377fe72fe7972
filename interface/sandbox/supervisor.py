"""Starts the processes of the sandbox in order, keeps them alive, and ends them in reverse order.

A thread per service starts it, waits for its end and starts it again. The threads report to one queue, which
the main thread alone reads: there the callbacks run, and there a signal becomes an orderly stop.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Self

from interface.sandbox.service import Child, Limits, Process, Service, ServiceError, ending

JOIN_S = 0.01
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """Use it as a context: leaving it ends what was started. SIGINT, SIGTERM and SIGHUP ask for that."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self._logs = folder / "logs"
        self._limits = limits or Limits()
        self._news: SimpleQueue[_Started | _Failed | _StopAsked] = SimpleQueue()
        self._keepers: list[_Keeper] = []
        self._handlers: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        self._alive_fd, self._our_end_fd = os.pipe()
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
                    self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        os.close(self._our_end_fd)
        os.close(self._alive_fd)
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)

    @property
    def pids(self) -> dict[str, int]:
        """Of all services that run now, in the order of their start."""
        return {keeper.name: pid for keeper in self._keepers if (pid := keeper.service.pid)}

    def start(self, services: Iterable[Process | Service]) -> None:
        """Start each one when those before it are ready; may be called again for more.

        Raises ServiceError, and SystemExit(0) when a signal asks to stop meanwhile.
        """
        for service in services:
            if isinstance(service, Process):
                service = Child(service, self._logs, self._alive_fd, self._limits)  # noqa: PLW2901
            keeper = _Keeper(service, self._news, self._limits)
            self._keepers.append(keeper)
            keeper.start()
            while (news := self._news.get()) != _Started(service.name):
                if isinstance(news, _Failed):
                    raise news.error
                if isinstance(news, _StopAsked):
                    raise SystemExit(0)

    def wait(self, on_change: Callable[[dict[str, int]], object] | None = None) -> None:
        """Return when a stop is asked for. Raises ServiceError when a service does not stay up.

        `on_change` gets all pids after each restart, in this thread.
        """
        while True:
            match self._news.get():
                case _Started():
                    if on_change:
                        on_change(self.pids)
                case _Failed(error):
                    raise error
                case _StopAsked():
                    return

    def ask_to_stop(self) -> None:
        """Make `wait` return. Safe from any thread and from a signal handler."""
        self._news.put(_StopAsked())

    def stop(self) -> None:
        """End all services, the last started first."""
        for keeper in self._keepers:  # first of all, so that none comes back while another one ends
            keeper.stopping.set()
        while self._keepers:
            self._keepers.pop().end()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.ask_to_stop()


# What the threads report


@dataclass(frozen=True, slots=True)
class _Started:
    name: str


@dataclass(frozen=True, slots=True)
class _Failed:
    error: ServiceError


@dataclass(frozen=True, slots=True)
class _StopAsked:
    pass


class _Keeper(threading.Thread):
    """Starts one service and starts it again, until that is too often or `stopping` is set."""

    def __init__(self, service: Service, news: SimpleQueue[_Started | _Failed | _StopAsked], limits: Limits) -> None:
        super().__init__(name=service.name, daemon=True)
        self.service, self.stopping = service, threading.Event()
        self._news, self._limits = news, limits
        self._restarts: deque[float] = deque()
        self._last = ""

    def run(self) -> None:
        try:
            self.service.start()
            self._news.put(_Started(self.name))
            while self._goes_on(self.service.wait()):
                self._start_again()
        except Exception as error:  # noqa: BLE001 - whatever it is, the main thread must hear of it
            named = error if isinstance(error, ServiceError) else ServiceError(self.name, f"failed: {error}")
            self._news.put(_Failed(named))
        if self.stopping.is_set():
            self.service.stop()  # it may have come up while the stop was on its way

    def end(self) -> None:
        """Stop the service and wait for this thread, which may be in the midst of starting it."""
        deadline = time.monotonic() + self._limits.ready_s + self._limits.stop_s
        while self.is_alive() and time.monotonic() < deadline:
            self.service.stop()
            self.join(JOIN_S)

    def _goes_on(self, status: int) -> bool:
        self._last = ending(status)
        if self.stopping.is_set():
            return False
        if not self.service.restart and status != 0:
            raise ServiceError(self.name, self._last, self.service.log)
        return self.service.restart

    def _start_again(self) -> None:
        """At once the first time, then after growing pauses. A start that fails counts like an end."""
        while not self.stopping.wait(self._pause_s()):
            try:
                self.service.start()
            except Exception as error:  # noqa: BLE001 - the limit decides; the last one is told then
                self._last = str(error).partition("\n")[0]
            else:
                self._news.put(_Started(self.name))
                return

    def _pause_s(self) -> float:
        """Before the next restart. Raises ServiceError when it would be one too many."""
        limits, now = self._limits, time.monotonic()
        while self._restarts and self._restarts[0] < now - limits.window_s:
            self._restarts.popleft()
        recent = len(self._restarts)
        if recent >= limits.restarts:
            what = f"does not stay up: {recent} restarts within {limits.window_s:g} s, the last: {self._last}"
            raise ServiceError(self.name, what, self.service.log)
        self._restarts.append(now)
        return min(limits.longest_backoff_s, limits.backoff_s * 2 ** (recent - 1)) if recent else 0.0
