"""`/health`: the process lives. `/ready`: it can do its work now."""

import asyncio

import psycopg
from litestar import Response, get
from psycopg_pool import PoolTimeout, TooManyRequests

from interface.bootstrap import PROJECTIONS
from interface.services import Services
from interface.web.views import Health, Ready

CHECK_TIMEOUT_S = 2.0
# That one has stopped is said rather than what it has parked. Why the first fact failed is for those who may look.
_TROUBLES = """
SELECT projection, count(*) || ' streams are parked' FROM parked GROUP BY projection
UNION ALL SELECT projection, 'has stopped: ' || split_part(stopped, ';', 1) FROM checkpoints WHERE stopped IS NOT NULL
"""


@get("/health", tags=["operation"], security=[{}], sync_to_thread=False)
def health(services: Services) -> Health:
    """Answers as long as the process does."""
    return Health("healthy", "payment-service", services.clock())


@get("/ready", tags=["operation"], security=[{}])
async def ready(services: Services) -> Response[Ready]:
    """200 when the store answers and the read models follow it; 503, saying what is wrong, otherwise.

    `degraded`, and still 200, while the provider does not answer: queries are answered, commands refused for now.
    """
    checks = await checked(services)
    fine = all(result == "ok" for result in checks.values())
    if fine and services.breaker.unavailable_s() is not None:
        return Response(Ready("degraded", checks | {"provider": "does not answer"}))
    return Response(Ready("ready" if fine else "not_ready", checks), status_code=200 if fine else 503)


async def checked(services: Services) -> dict[str, str]:
    """What the service needs, by name, and `ok` or what is wrong with it."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), services.queries.connection() as conn:
            troubles = await (await conn.execute(_TROUBLES)).fetchall()
    except (psycopg.Error, PoolTimeout, TooManyRequests, TimeoutError) as error:
        return {"store": f"does not answer ({type(error).__name__})"}
    said = dict(troubles)
    return {"store": "ok"} | {projection.name: said.get(projection.name, "ok") for projection in PROJECTIONS}
