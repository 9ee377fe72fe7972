"""`/health`: the process lives. `/ready`: it can do its work now."""

import asyncio

import psycopg
from litestar import Response, get
from psycopg_pool import PoolTimeout, TooManyRequests

from interface.bootstrap import PROJECTIONS
from interface.services import Services
from interface.web.views import Health, Ready

CHECK_TIMEOUT_S = 2.0


@get("/health", tags=["operation"], security=[{}], sync_to_thread=False)
def health(services: Services) -> Health:
    """Answers as long as the process does."""
    return Health("healthy", "payment-service", services.clock())


@get("/ready", tags=["operation"], security=[{}])
async def ready(services: Services) -> Response[Ready]:
    """200 when the store answers and the read models follow it; 503, saying what is wrong, otherwise."""
    checks = await _checks(services)
    fine = all(result == "ok" for result in checks.values())
    return Response(Ready("ready" if fine else "not_ready", checks), status_code=200 if fine else 503)


async def _checks(services: Services) -> dict[str, str]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), services.queries.connection() as conn:
            rows = await (await conn.execute("SELECT projection, count(*) FROM parked GROUP BY projection")).fetchall()
    except (psycopg.Error, PoolTimeout, TooManyRequests, TimeoutError) as error:
        return {"store": f"does not answer ({type(error).__name__})"}
    parked = {projection: f"{count} streams are parked" for projection, count in rows}
    return {"store": "ok"} | {projection.name: parked.get(projection.name, "ok") for projection in PROJECTIONS}
