"""When a call is sent, sent again or given up. Sends and sleeps nothing: it says what to do, and is told what came."""

from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from interface.client_answers import ACCEPTED, Answer
from interface.client_errors import RETRIED, PayledgerError, Unavailable, Unreadable, error_in, in_flight

KEY = "Idempotency-Key"
MAX_DOUBLINGS = 30
T = TypeVar("T")


class Patience(Struct, frozen=True):
    """How long, and how often, a call is tried. Seconds.

    `attempts` that failed end a call, and so does `deadline_s` after its start, whichever comes first. `timeout_s` is
    how long one attempt may be silent: longer than the 40 that the ledger itself waits for the provider.
    """

    attempts: int = 6
    deadline_s: float = 120.0
    timeout_s: float = 45.0
    first_delay_s: float = 0.25
    longest_delay_s: float = 8.0

    def __post_init__(self) -> None:
        if min(self.attempts, self.deadline_s, self.timeout_s, self.first_delay_s, self.longest_delay_s) <= 0:
            raise ValueError("patience is at least one attempt, and more than no time")

    def delay_s(self, tried: int, chance: float) -> float:
        """Twice as long after each try; `chance`, 0 to 1, takes up to half of it, so that callers do not keep step."""
        return min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(tried - 1, MAX_DOUBLINGS)) * (1 - chance / 2)


class Call(Struct, Generic[T], frozen=True, kw_only=True):
    """A request, and how its answer is read. With `wait` an outcome that is not known is asked for again."""

    method: str
    path: str
    read: Callable[[Answer], T]
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    body: bytes | None = None
    wait: bool = False

    @property
    def key(self) -> str | None:
        return self.headers.get(KEY)


class Attempt(Struct, frozen=True):
    """Wait `delay_s`, then send the call, for at most `timeout_s` of silence."""

    delay_s: float
    timeout_s: float


class Lost(Struct, frozen=True):
    """No answer came; the request may have arrived."""

    reason: str


def attempts(
    call: Call[T], patience: Patience, clock: Callable[[], float], random: Callable[[], float]
) -> Generator[Attempt, Answer | Lost, T]:
    """Attempt after attempt, each told what came of it; returns what the call is answered with.

    Raises the PayledgerError that it ends with. `clock` in seconds, `random` from 0 to 1.
    """
    ends, delay_s, tried, failed = clock() + patience.deadline_s, 0.0, 0, 0
    unknown: Answer | None = None
    left_s = patience.deadline_s
    while True:
        heard = yield Attempt(delay_s, min(patience.timeout_s, left_s))
        tried += 1
        if isinstance(heard, Answer) and heard.status == ACCEPTED and call.wait:
            unknown = heard
        elif isinstance(heard, Answer) and not passing(heard):
            return _read(call, heard)
        else:
            failed += 1
        delay_s = max(patience.delay_s(tried, random()), _asked_delay_s(heard))
        left_s = ends - clock() - delay_s
        if failed >= patience.attempts or left_s <= 0:
            return _read(call, unknown or heard)


def passing(answer: Answer) -> bool:
    """Whether the same request may be answered otherwise soon."""
    return answer.status in RETRIED or in_flight(answer)


def _asked_delay_s(heard: Answer | Lost) -> float:
    """What the ledger asks for, in seconds. A date, which only others send, is passed over."""
    asked = heard.headers.get("retry-after", "") if isinstance(heard, Answer) else ""
    return float(asked) if asked.isdecimal() else 0.0


def _read(call: Call[T], heard: Answer | Lost) -> T:
    error: PayledgerError
    if isinstance(heard, Lost):
        error = Unavailable(f"no answer from the ledger ({heard.reason})")
    elif not 200 <= heard.status < 300:
        error = error_in(heard)
    else:
        try:
            return call.read(heard)
        except msgspec.MsgspecError:
            error = Unreadable(heard.status)
    error.key = call.key
    # Not inside the handler: the text of what cannot be read would be shown as this error's context.
    raise error
