"""The feed page by page, over HTTP and on a real log."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.feed_readers import committed, end_of_log, lines, positions
from tests.processes import eventually
from tests.system import System, named, position, problem

PATIENCE_S = 30.0


def test_the_feed_gives_the_facts_of_the_log_a_line_each_and_says_where_it_ended(system: System) -> None:
    before = end_of_log(system)
    payment = system.paid(capture="automatic", description="for Anna", metadata={"seat": "12"})
    answer = system.get("/v1/events", after=before)
    facts = lines(answer)
    assert [fact["type"] for fact in facts] == ["AuthorizationStarted", "Authorized", "Captured"]
    assert {fact["stream"] for fact in facts} == {payment["id"]}
    assert position(answer) == facts[-1]["position"]
    assert facts[0].keys() == {
        "position", "id", "type", "stream", "version", "at", "actor", "correlation_id", "causation_id", "data",
    }  # fmt: skip
    assert facts[0]["data"]["amount"] == 100_99
    history = system.facts(payment["id"])
    assert [fact | {"data": None} for fact in facts] == [fact | {"data": None} for fact in history]


def test_what_somebody_typed_about_somebody_stays_out_of_the_feed(system: System) -> None:
    before = end_of_log(system)
    payment = system.paid(description="for Anna", metadata={"guest": "Anna"})
    system.moved(payment, "captures", reason="Anna asked")
    answer = system.get("/v1/events", after=before)
    assert "Anna" not in answer.text
    assert not {"description", "metadata", "reason"} & {field for fact in lines(answer) for field in fact["data"]}


def test_pages_follow_each_other_without_a_seam(system: System) -> None:
    before = end_of_log(system)
    for _ in range(3):
        system.paid(capture="automatic")
    seen: list[int] = []
    after = before
    while facts := lines(answer := system.get("/v1/events", after=after, limit=2)):
        assert len(facts) <= 2
        seen += positions(facts)
        after = position(answer)
    assert seen == committed(system, before)


def test_at_the_end_of_the_log_there_is_nothing_and_the_position_stays(system: System) -> None:
    end = end_of_log(system)
    answer = system.get("/v1/events", after=end)
    assert (lines(answer), position(answer)) == ([], end)


def test_a_long_poll_is_answered_by_the_next_fact_and_without_one_by_nothing(system: System) -> None:
    end = end_of_log(system)
    assert lines(system.get("/v1/events", after=end, wait=1)) == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(system.get, "/v1/events", after=end, wait=30)
        eventually(lambda: "payledger_feed_followers 1.0" in system.get("/metrics").text)
        payment = system.paid()
        first = lines(waiting.result(PATIENCE_S))[0]
    assert (first["stream"], first["type"]) == (payment["id"], "AuthorizationStarted")


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({"limit": 0}, {"limit"}),
        ({"limit": 1001}, {"limit"}),
        ({"after": -1}, {"after"}),
        ({"after": 2**63}, {"after"}),
        ({"after": "x", "wait": 31}, {"after", "wait"}),
        ({"cursor": "x"}, {"cursor"}),
    ],
)
def test_a_parameter_that_cannot_be_is_named(system: System, parameters: dict[str, Any], wrong: set[str]) -> None:
    assert named(problem(system.get("/v1/events", **parameters), 400)) == wrong


@pytest.mark.parametrize("event_id", ["x", "-1", "1.0", str(2**63), "٣"])
def test_an_event_id_that_is_none_of_ours_is_named(system: System, event_id: str) -> None:
    answer = system.http.get("/v1/events/stream", headers=[(b"Last-Event-ID", event_id.encode())])
    assert named(problem(answer, 400)) == {"Last-Event-ID"}


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/stream"])
def test_the_feed_is_for_those_who_may_read_payments(system: System, path: str) -> None:
    writer = system.new_token("writer", "write:payment")
    problem(system.http.get(path, headers={"Authorization": f"Bearer {writer}"}), 403)
    problem(httpx.get(system.url + path), 401)
