"""What can go wrong with a call of the client: the tree is drawn in interface/client.py.

No text of these holds a token or anything personal: what the ledger says of a request is quoted, as it keeps to that,
too; what anything else says, which may repeat the request, is not.
"""

from http import HTTPStatus
from http.client import responses

import msgspec
from msgspec.structs import replace

from interface.client_answers import Answer, Payment, Problem, position_in

PROBLEM_PREFIX = "urn:payledger:problem:"
IN_FLIGHT = PROBLEM_PREFIX + "operation-in-flight"
RETRIED = frozenset({429, 502, 503, 504})


class PayledgerError(Exception):
    """A call that did not do what was asked, as far as is known.

    `key` is the idempotency key it went under, if it did: asked again with it, a command is still done only once.
    """

    key: str | None = None

    def __repr__(self) -> str:
        """The text alone: a payment inside names its customer."""
        return f"{type(self).__name__}({str(self)!r})"


class Refused(PayledgerError):  # noqa: N818  it says what was decided
    """The ledger said no. `type`, `title` and `detail` are its problem's; `errors` names each wrong field."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(status, problem)
        self.status = status
        self.type, self.title, self.detail = problem.type, problem.title, problem.detail
        self.errors = tuple(problem.errors)
        self.payment: Payment | None = problem.payment

    def __str__(self) -> str:
        return f"{self.detail} ({self.status} {self.title})"


class Declined(Refused):
    """402. `payment` is absent where the contract has no room for it, as in the airline's."""


class Unauthorized(Refused):
    """401."""


class Forbidden(Refused):
    """403."""


class NotFound(Refused):
    """404."""


class Conflict(Refused):
    """409 or 412."""


class Unavailable(PayledgerError):  # noqa: N818  it says what is so
    """No answer that tells what became of it, while there was patience. `status` is None where none came at all."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason, status)
        self.reason, self.status = reason, status

    def __str__(self) -> str:
        return self.reason


class Unreadable(PayledgerError):  # noqa: N818  it says what is so
    """The answer says that all went well, but it is not one of the ledger's. Is the address right?"""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return f"the answer ({self.status}) is not one of the ledger's"


class InvalidChargeID(PayledgerError):  # noqa: N818  the contract's name
    """A charge is named by its id, `ch_…`; an empty one names none."""

    def __init__(self) -> None:
        super().__init__("InvalidChargeID: the charge id is empty")


_BY_STATUS: dict[int, type[Refused]] = {
    401: Unauthorized,
    402: Declined,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
}


def error_in(answer: Answer) -> PayledgerError:
    """What an answer that is no success means."""
    problem = _problem_in(answer)
    if answer.status in RETRIED or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unavailable(f"{problem.detail} ({answer.status} {problem.title})", answer.status)
    return _BY_STATUS.get(answer.status, Refused)(answer.status, problem)


def in_flight(answer: Answer) -> bool:
    """Whether another operation of the payment has to end first."""
    return answer.status == HTTPStatus.CONFLICT and _problem_in(answer).type == IN_FLIGHT


def _problem_in(answer: Answer) -> Problem:
    """The ledger's own words; anything else in between is not quoted, as it may repeat what was sent."""
    try:
        problem = msgspec.json.decode(answer.body, type=Problem)
    except msgspec.MsgspecError:
        problem = Problem("", "", "")
    if not problem.type.startswith(PROBLEM_PREFIX):
        return Problem("about:blank", responses.get(answer.status, "Unknown"), "not answered by the ledger")
    payment = problem.payment
    return replace(problem, payment=payment and replace(payment, position=position_in(answer)))
