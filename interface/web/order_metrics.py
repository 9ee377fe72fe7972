"""How taking orders in does, as the database tells: for Prometheus, whichever process does it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from prometheus_client import Gauge
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

_PARTITIONS = """
SELECT topic, partition::text, lag, halted IS NOT NULL, seen_at, applied, unchanged, passed_over FROM consumer_offsets
"""
_ASIDE = """
SELECT (SELECT count(*) FROM waiting_cancellations), (SELECT min(since) FROM waiting_cancellations),
    count(*), count(DISTINCT lane) FROM parked_orders
"""
OUTCOMES = ("applied", "unchanged", "passed over")


class OrderGauges:
    """Looked up when asked."""

    def __init__(self, gauge: Callable[..., Gauge]) -> None:
        place = "topic", "partition"
        self._lag = gauge("orders_lag_messages", "Messages that have not been taken in, when last heard of.", *place)
        self._halted = gauge("orders_halted", "1 if the partition waits for somebody to look at it.", *place)
        self._silent = gauge("orders_silent_seconds", "Since a consumer of the partition was last heard of.", *place)
        self._messages = gauge("orders_messages", "Messages about orders by what became of them.", *place, "outcome")
        self._waiting = gauge("orders_waiting", "Cancellations that wait for what they follow.")
        self._oldest = gauge("orders_waiting_oldest_seconds", "Age of the oldest of them.")
        self._parked = gauge("orders_parked_messages", "Messages that could not be taken in, and those behind them.")
        self._lanes = gauge("orders_parked_orders", "Orders that they are about.")

    async def ask(self, conn: AsyncConnection[Any], now: datetime) -> None:
        async with conn.cursor(row_factory=tuple_row) as cursor:
            partitions = await (await cursor.execute(_PARTITIONS)).fetchall()
            aside = await (await cursor.execute(_ASIDE)).fetchone()
        for topic, partition, lag, halted, seen_at, *counts in partitions:
            self._lag.labels(topic, partition).set(lag)
            self._halted.labels(topic, partition).set(halted)
            self._silent.labels(topic, partition).set(max(0.0, (now - seen_at).total_seconds()))
            for outcome, count in zip(OUTCOMES, counts, strict=True):
                self._messages.labels(topic, partition, outcome).set(count)
        waiting, oldest, messages, lanes = aside or (0, None, 0, 0)
        self._waiting.set(waiting)
        self._oldest.set((now - oldest).total_seconds() if oldest else 0)
        self._parked.set(messages)
        self._lanes.set(lanes)
