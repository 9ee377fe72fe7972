"""`/metrics`: what Prometheus reads. No token is needed, and nothing in it is about anybody."""

import asyncio
import logging
from datetime import datetime

import psycopg
from litestar import Response, get
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example
from prometheus_client import CONTENT_TYPE_LATEST
from psycopg_pool import PoolTimeout, TooManyRequests

from interface.bootstrap import PROJECTIONS
from interface.kafka import PUBLISHER
from interface.services import Services
from interface.web.order_metrics import OrderGauges

log = logging.getLogger(__name__)

STORE_TIMEOUT_S = 2.0
# The store is asked this often at most, however many ask us.
MIN_AGE_S = 1.0

# One line a thing that follows the log; the last fact stands in for a horizon that may lie in a gap.
_PROGRESS = """
WITH last AS (SELECT coalesce(max(notification_id), 0) AS fact FROM ledger_events WHERE notification_id <= %s)
SELECT projection, position, greatest(last.fact - position, 0),
       (SELECT count(*) FROM parked WHERE parked.projection = checkpoints.projection)
FROM checkpoints, last
"""

# What has not ended, and what the provider told that has not been dealt with.
_UNSETTLED = """
SELECT (SELECT count(*) FROM open_operations), (SELECT min(started_at) FROM open_operations WHERE NOT waiting),
    count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'unmatched'),
    count(*) FILTER (WHERE state = 'stuck')
FROM inbox WHERE state IN ('waiting', 'unmatched', 'stuck')
"""

_EXAMPLE = 'payledger_horizon_position 4711.0\npayledger_projection_lag_positions{projection="payment_status"} 0.0\n'
_ANSWER = ResponseSpec(
    str,
    generate_examples=False,
    description="Prometheus' text format",
    media_type="text/plain",
    examples=[Example(summary="two of them", value=_EXAMPLE)],
)


class Gauges:
    """What is looked up when asked: the end of the log, those who follow it, and the pools."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._pools = {"commands": services.ledger.recorder.datastore.pool, "queries": services.queries}
        gauge = services.metrics.gauge
        self._orders = OrderGauges(gauge)
        self._asked_s = float("-inf")
        self._asking = asyncio.Lock()
        self.store = gauge("store_up", "1 if the store answered this query.")
        self.drawn = gauge("log_position", "The last position drawn.")
        self.safe = gauge("horizon_position", "The last position that readers may pass to.")
        self.stalled = gauge("horizon_stalled_seconds", "How long readers have been held back; 0 if they are not.")
        self.blocker = gauge("horizon_blocking_pid", "The oldest backend that holds readers back; 0 if none does.")
        self.position = gauge("projection_position", "The last position a projection has applied.", "projection")
        self.lag = gauge("projection_lag_positions", "From there to the last fact behind the horizon.", "projection")
        self.parked = gauge("projection_parked_streams", "Streams that a projection has set aside.", "projection")
        self.publisher_lag = gauge("publisher_lag_positions", "From the last published to the last fact.")
        self.pool = gauge("pool_connections", "Connections to the database.", "pool", "state")
        self.pool_waiting = gauge("pool_waiting", "Requests that wait for a connection.", "pool")
        self.provider = gauge("provider_available", "1 unless the circuit breaker is open, or too many calls are.")
        self.open_operations = gauge("open_operations", "Operations that have started and not ended.")
        self.oldest = gauge("open_operations_oldest_seconds", "Age of the oldest that does not wait for a cardholder.")
        self.inbox = gauge("inbox_entries", "Events of the provider that are not done.", "state")
        self.streams = gauge("feed_streams", "Open streams of events.")
        self.followers = gauge("feed_followers", "Streams and long polls that wait for the log to grow.")

    async def text(self) -> bytes:
        """All metrics of the process, as of now."""
        self._look_around()
        async with self._asking:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._asked_s >= MIN_AGE_S:
                self._asked_s = now_s
                self.store.set(await self._ask())
        return self._services.metrics.text()

    def _look_around(self) -> None:
        sight = self._services.log.sight
        stall = sight.stall
        self.drawn.set(sight.drawn)
        self.safe.set(sight.safe)
        self.stalled.set(stall.seconds if stall else 0)
        pids = [blocker.pid for blocker in stall.blockers if blocker.pid] if stall else []
        self.blocker.set(pids[0] if pids else 0)
        self.provider.set(self._services.breaker.unavailable_s() is None)
        self.streams.set(self._services.log.streams)
        self.followers.set(self._services.log.followers)
        for name, pool in self._pools.items():
            stats = pool.get_stats()
            self.pool.labels(name, "max").set(stats.get("pool_max", 0))
            self.pool.labels(name, "open").set(stats.get("pool_size", 0))
            self.pool.labels(name, "idle").set(stats.get("pool_available", 0))
            self.pool_waiting.labels(name).set(stats.get("requests_waiting", 0))

    async def _ask(self) -> bool:
        safe = self._services.log.sight.safe
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S), self._services.queries.connection() as conn:
                rows = await (await conn.execute(_PROGRESS, (safe,))).fetchall()
                unsettled = await (await conn.execute(_UNSETTLED)).fetchone()
                await self._orders.ask(conn, self._services.clock())
        except (psycopg.Error, PoolTimeout, TooManyRequests, TimeoutError) as error:
            log.warning("no metrics of the store: %s", type(error).__name__)
            return False
        self._tell_unsettled(*(unsettled or (0, None, 0, 0, 0)))
        begun = {projection: numbers for projection, *numbers in rows}
        for name in {projection.name for projection in PROJECTIONS} | {PUBLISHER} | begun.keys():
            position, lag, parked = begun.get(name, (0, safe, 0))
            if name == PUBLISHER:
                self.publisher_lag.set(lag)
                continue
            self.position.labels(name).set(position)
            self.lag.labels(name).set(lag)
            self.parked.labels(name).set(parked)
        return True

    def _tell_unsettled(self, count: int, oldest: datetime | None, waiting: int, unmatched: int, stuck: int) -> None:
        self.open_operations.set(count)
        self.oldest.set((self._services.clock() - oldest).total_seconds() if oldest else 0)
        for state, number in (("waiting", waiting), ("unmatched", unmatched), ("stuck", stuck)):
            self.inbox.labels(state).set(number)


@get("/metrics", tags=["operation"], responses={200: _ANSWER}, media_type="text/plain", security=[{}])
async def metrics(gauges: Gauges) -> Response[bytes]:
    """How the service does, for Prometheus: requests, operations, calls of the provider, the log and its followers."""
    return Response(await gauges.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
