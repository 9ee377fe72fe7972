"""The cinema's envelope around whatever is refused before or beside its routes: no token, an outage, too many calls."""

from collections.abc import Callable
from datetime import datetime

from litestar.types import ASGIApp
from msgspec import Struct, json

from interface.web.contracts.cinema_words import Details, Error, ErrorEnvelope
from interface.web.contracts.other_words import in_other_words

# Where its routes are. `PUT /payment`, without the slash, is the airline's.
PREFIX = "/payment/"
_RETRY = frozenset({429, 502, 503, 504})


class Told(Struct, frozen=True):
    """What is used of a problem."""

    type: str
    title: str
    status: int
    detail: str = ""


def in_its_words(app: ASGIApp, clock: Callable[[], datetime]) -> ASGIApp:
    """The application, whose problems under `/payment/` are told in the cinema's envelope; all else passes through."""

    def worded(problem: bytes) -> bytes:
        return envelope(json.decode(problem, type=Told), clock())

    return in_other_words(app, lambda path: path.startswith(PREFIX), worded)


def envelope(problem: Told, now: datetime) -> bytes:
    code = problem.type.rpartition(":")[2].upper().replace("-", "_")
    said = problem.detail or problem.title
    return json.encode(ErrorEnvelope(Error(code, said, Details(said, None, problem.status in _RETRY)), now))
