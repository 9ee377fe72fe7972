"""Reading one's own writes, and following a request through the services."""

import re
from typing import Any
from uuid import uuid4

from litestar import Request

from interface.services import Services
from interface.web.problems import FieldError, bad_request, unavailable

MAX_WAIT_S = 5.0
_CORRELATION = re.compile(r"[\x21-\x7e]{1,128}")


async def wait_for(services: Services, projection: str, after: int | None) -> None:
    """Wait until the read model includes a position. Raises ProblemError: 503 when behind, 400 when absurd."""
    if after is None or await services.progress.reached(projection, after, 0):
        return
    async with services.queries.connection() as conn:
        row = await (await conn.execute("SELECT last_value FROM ledger_events_notification_id_seq")).fetchone()
    if row is None or after > row[0]:
        raise bad_request(FieldError("no fact has this position yet", parameter="after"))
    if not await services.progress.reached(projection, after, MAX_WAIT_S):
        raise unavailable("read-model-behind", f"the read model has not reached position {after} yet")


def correlation_of(request: Request[Any, Any, Any]) -> str:
    """The caller's own name for this conversation, or a new one."""
    given = request.headers.get("x-correlation-id", "")
    return given if _CORRELATION.fullmatch(given) else str(uuid4())
