"""Faults on command: what a network and a busy provider do to a caller, at a chosen request.

refused       the connection closes, nothing was applied       reply_lost  applied, then the connection closes
reset         the same with a TCP reset                        slow        answered late
error         an error is answered, before or after applying   garbage     applied, then answered with a page of HTML
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from interface.sandbox.stripe_errors import Json, RefusedError, StripeError

Mode = Literal["reply_lost", "refused", "error", "slow", "reset", "garbage"]
When = Literal["before", "after"]

MAX_FAULTS = 100
MAX_DELAY_MS = 600_000
MAX_TIMES = 1_000_000
DEFAULT_DELAY_MS = 1_000

_MIN_STATUS, _MAX_STATUS = 400, 599
_METHODS = ("GET", "POST", "DELETE")
_FIELDS = ("match", "mode", "status", "when", "delay_ms", "times")


class BadControlError(Exception):
    """Control input that cannot be used; `field` names the culprit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(slots=True)
class Fault:
    """`times` 0 means until cleared. `when` of an error: before or after applying; of slow: the delay likewise."""

    match: str
    mode: Mode
    status: int = 500
    when: When = "before"
    delay_ms: int = DEFAULT_DELAY_MS
    times: int = 1
    hits: int = 0

    def fits(self, method: str, path: str) -> bool:
        wanted_method, _, pattern = self.match.partition(" ")
        wanted, given = pattern.split("/"), path.split("/")
        same = len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))
        return same and wanted_method == method

    @property
    def spent(self) -> bool:
        return self.times != 0 and self.hits >= self.times


class Faults:
    """Armed in order; the first that fits a request is the one that happens. They do not outlive the process."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, given: object) -> Fault:
        """Raises BadControlError."""
        fault = _fault(given)
        self._armed = [old for old in self._armed if not old.spent]
        if len(self._armed) >= MAX_FAULTS:
            raise BadControlError("match", f"at most {MAX_FAULTS} faults can be armed")
        self._armed.append(fault)
        return fault

    def clear(self) -> None:
        self._armed.clear()

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault for this request, counted."""
        for fault in self._armed:
            if not fault.spent and fault.fits(method, path):
                fault.hits += 1
                return fault
        return None

    def shown(self) -> list[Json]:
        return [asdict(fault) for fault in self._armed]


def fault_error(fault: Fault) -> StripeError:
    """The error that a fault answers with."""
    if fault.status == 429:
        return RefusedError(429, "invalid_request_error", "Request rate limit exceeded. (injected)", code="rate_limit")
    if fault.status == 402:
        return RefusedError(
            402, "card_error", "Your card was declined.", code="card_declined", decline_code="generic_decline"
        )
    kind = "api_error" if fault.status >= 500 else "invalid_request_error"
    return RefusedError(fault.status, kind, "An injected error: sorry, something went wrong on the sandbox's end.")


def _fault(given: object) -> Fault:
    if not isinstance(given, dict):
        raise BadControlError("body", "a JSON object is needed")
    for name in given:
        if name not in _FIELDS:
            raise BadControlError(str(name), "unknown field")
    fault = Fault(
        match=_match(given.get("match")),
        mode=_word(given, "mode", get_args(Mode), None),
        status=whole(given, "status", _MIN_STATUS, _MAX_STATUS, 500),
        when=_word(given, "when", get_args(When), "before"),
        delay_ms=whole(given, "delay_ms", 0, MAX_DELAY_MS, DEFAULT_DELAY_MS),
        times=whole(given, "times", 0, MAX_TIMES, 1),
    )
    if "when" in given and fault.mode not in ("error", "slow"):
        raise BadControlError("when", "only error and slow have a before and after")
    return fault


def _match(given: object) -> str:
    method, _, path = given.partition(" ") if isinstance(given, str) else ("", "", "")
    if method not in _METHODS or not path.startswith("/v1/"):
        raise BadControlError("match", "method and path are needed, such as 'POST /v1/payment_intents/*/capture'")
    return f"{method} {path}"


def _word(given: Json, name: str, allowed: tuple[str, ...], default: str | None) -> Any:
    word = given.get(name, default)
    if word not in allowed:
        raise BadControlError(name, f"one of {', '.join(allowed)} is needed")
    return word


def whole(given: Json, name: str, least: int, most: int, default: int | None) -> int:
    """A whole number of control input, within limits."""
    number = given.get(name, default)
    if type(number) is not int or not least <= number <= most:
        raise BadControlError(name, f"a whole number from {least} to {most} is needed")
    return number
