"""What readers of the feed do, for its tests: follow it, and tell what they have seen."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg

from tests.system import System


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def positions(facts: Sequence[dict[str, Any]]) -> list[int]:
    return [fact["position"] for fact in facts]


def end_of_log(system: System) -> int:
    with psycopg.connect(system.database_url) as database:
        row = database.execute("SELECT coalesce(max(notification_id), 0) FROM ledger_events").fetchone()
    assert row is not None
    return int(row[0])


def committed(system: System, after: int) -> list[int]:
    query = "SELECT notification_id FROM ledger_events WHERE notification_id > %s ORDER BY 1"
    with psycopg.connect(system.database_url) as database:
        return [row[0] for row in database.execute(query, (after,)).fetchall()]


class Event(dict[str, Any]):
    """One server-sent event: its fields, `data` decoded."""


def server_sent(answer: httpx.Response) -> Iterator[Event]:
    fields = Event()
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif "id" in fields:
            fields["data"] = json.loads(fields["data"])
            yield fields
            fields = Event()
        elif not line:
            fields = Event()


@contextmanager
def following(system: System, after: int, **headers: str) -> Iterator[Iterator[Event]]:
    with system.http.stream("GET", "/v1/events/stream", params={"after": after}, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield server_sent(answer)


def checked(event: Event) -> int:
    assert int(event["id"]) == event["data"]["position"]
    assert event["event"] == event["data"]["type"]
    return int(event["id"])
