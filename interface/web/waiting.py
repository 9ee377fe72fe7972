"""Reading one's own writes, and following a request through the services."""

import re
from typing import Any
from uuid import uuid4

from litestar import Request
from psycopg import AsyncConnection

from interface.services import Services
from interface.web.card_numbers import holds_card_number
from interface.web.problems import FieldError, ProblemError, bad_request, problem, unavailable
from projections.engine import LOCK_SPACE
from projections.rebuild import NEXT

MAX_WAIT_S = 5.0
# What somebody has to set right is not asked for again at once.
TROUBLE_RETRY_AFTER_S = 30
_CORRELATION = re.compile(r"[\x21-\x7e]{1,128}")
_LAST = "SELECT last_value FROM ledger_events_notification_id_seq"
_PARKED = """
SELECT FROM parked JOIN ledger_events ON originator_id = stream
WHERE projection = %s AND notification_id = %s AND position <= notification_id
"""
# The name that is being built is worked, and the one that serves is not.
_REBUILDING = """
SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND objid::bigint IN (hashtext(%s)::bigint & 4294967295, hashtext(%s)::bigint & 4294967295)
HAVING bool_and(objid::bigint = hashtext(%s)::bigint & 4294967295)
"""


async def wait_for(services: Services, projection: str, after: int | None) -> None:
    """Wait, bounded, until the read model includes a position.

    Raises ProblemError: 400 when no fact has it; 503 when the read model is behind, and a problem of its own when it
    has stopped, is not there but being rebuilt, or has set aside the stream that the position belongs to.
    """
    if after is None:
        return
    progress = services.progress
    if not await progress.reached(projection, after, 0):
        async with services.queries.connection() as conn:
            row = await (await conn.execute(_LAST)).fetchone()
        if row is None or after > row[0]:
            raise bad_request(FieldError("no fact has this position yet", parameter="after"))
        if progress.stopped(projection) or not await progress.reached(projection, after, MAX_WAIT_S):
            async with services.queries.connection() as conn:
                raise await _behind(services, conn, projection, after)
    if progress.has_parked(projection):
        async with services.queries.connection() as conn:
            parked = await (await conn.execute(_PARKED, (projection, after), prepare=True)).fetchone()
        if parked is not None:
            raise _trouble("parked", "what happened at this position waits, set aside after a failure, for somebody")


async def _behind(services: Services, conn: AsyncConnection[Any], projection: str, after: int) -> ProblemError:
    if services.progress.stopped(projection):
        return _trouble("stopped", "the read model has stopped after a failure, and waits for somebody to look")
    building = projection + NEXT
    query = (LOCK_SPACE, projection, building, building)
    if await (await conn.execute(_REBUILDING, query)).fetchone() is not None:
        return _trouble("rebuilding", f"the read model is being rebuilt and has not reached position {after} yet")
    return unavailable("read-model-behind", f"the read model has not reached position {after} yet")


def _trouble(name: str, said: str) -> ProblemError:
    return ProblemError(problem(503, f"read-model-{name}", said), {"Retry-After": str(TROUBLE_RETRY_AFTER_S)})


def correlation_of(request: Request[Any, Any, Any]) -> str:
    """The caller's own name for this conversation, or a new one: it is kept, so it must not be a card number either."""
    given = request.headers.get("x-correlation-id", "")
    return given if _CORRELATION.fullmatch(given) and not holds_card_number(given) else str(uuid4())
