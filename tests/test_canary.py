"""Card numbers come in by one door, in pieces and by every wrong one; afterwards they are nowhere.

The API's own memory is where a number may be, for as long as its request lasts, and it leaves no dump. Everywhere else
is searched: answers, logs, traces, metrics, the database's files, Kafka's messages, the broker's files and memory, and
the Stripe stand-in's journal. In each of these a string of digits that is no card's was planted, and is found.
"""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from interface.web.card_numbers import holds_card_number
from tests.canary import (
    CARDS,
    CODE,
    EMAIL,
    HOLDER,
    NEEDLES,
    NUMBERS,
    PLANTED,
    grouped,
    held,
    memory_of,
    nothing_but_the_planted,
    written,
)
from tests.canary_aftermath import TOPICS, Aftermath, messages_of
from tests.canary_caller import STATUS
from tests.processes import eventually
from tests.system import System, problem, running
from tests.test_traces import Collector

BLOCK = 16 * 1024 * 1024
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def aftermath() -> Iterator[Aftermath]:
    """Whatever may be dumped of a process is, unless it sees to that itself."""
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    collector = Collector()
    settings = {"STRIPE_RAW_CARDS": "on", "STRIPE_LOG": "debug", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    try:
        with running(**settings) as system:
            yield Aftermath(system, collector)
    finally:
        collector.server.shutdown()
        resource.setrlimit(resource.RLIMIT_CORE, limits)


# --- The canary sings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*NUMBERS, *(grouped(number, " ") for number in NUMBERS), CODE, HOLDER, EMAIL])
def test_whatever_way_it_is_written_it_would_be_found(text: str) -> None:
    for spelled in written(text):
        assert held(b"noise " + spelled + b" noise"), spelled
    for coded in (text.encode("utf-16-be"), f"it was {text}.".encode("utf-16"), f"x{text}".encode()):
        assert held(b"noise" + coded + b"noise"), coded


@pytest.mark.parametrize("by", ["", " ", "-", "%20", "+", ".", "_", "\u00a0", "\\u00a0", "&nbsp;", "\n"])
def test_whatever_separates_its_digits_it_would_be_found(by: str) -> None:
    for number in (*NUMBERS, PLANTED):
        assert held(f"12{grouped(number, by)}34".encode()) == {number}


def test_what_is_no_card_is_not_found() -> None:
    assert not held(b"4111111111111112 1111 4111 pm_card_visa 0002 424242424242424" + bytes(10_000))
    assert not holds_card_number(PLANTED)
    assert all(len(needle) >= 7 for needle in NEEDLES)


# --- What was done -----------------------------------------------------------------------------------------------


def test_payments_by_number_were_made_and_declined(aftermath: Aftermath) -> None:
    for caller in (aftermath.test, aftermath.live):
        assert {number for number, _ in caller.statuses} == set(NUMBERS)
        for (number, by), status in caller.statuses.items():
            assert status == STATUS[number], grouped(number[-4:], by)


def test_in_live_mode_numbers_reach_stripe_and_only_where_they_are_switched_on(aftermath: Aftermath) -> None:
    assert held(aftermath.sent_live) >= set(CARDS)
    assert set(aftermath.not_taken.statuses.values()) == {400}
    assert not held(aftermath.sent_where_not_taken) & set(NUMBERS)


# --- Nowhere -----------------------------------------------------------------------------------------------------


def test_no_answer_tells_it(aftermath: Aftermath) -> None:
    callers = (aftermath.test, aftermath.live, aftermath.not_taken)
    answers = [answer for caller in callers for answer in caller.answers]
    found = {f"{place} {what}": held(answer) for place, (what, answer) in enumerate(answers)}
    nothing_but_the_planted(found, told=EMAIL)
    assert {what for what, _ in answers if what.endswith(" 500")} == set()


def test_no_metric_has_it(aftermath: Aftermath) -> None:
    for text in aftermath.metrics:
        assert held(text) == set()
        assert b"payledger_http_requests_total" in text


def test_no_trace_has_it(aftermath: Aftermath) -> None:
    nothing_but_the_planted({"traces": held(aftermath.collector.raw)})


def test_no_log_has_it(aftermath: Aftermath) -> None:
    logs = aftermath.found_in("postgres.log") | aftermath.found_in("logs")
    nothing_but_the_planted(logs)
    told = {Path(path).name: Path(path).read_bytes() for path in logs}
    assert {"api.log", "project.log", "publish.log", "recover.log", "broker.log", "stripe.log"} <= set(told)
    for name in ("api.log", "live-on.log"):
        assert b"Request to Stripe api" in told[name], "the driver logs all that it may"


def test_the_database_has_it_in_no_file(aftermath: Aftermath) -> None:
    for folder in ("base", "pg_wal"):
        nothing_but_the_planted(aftermath.found_in(f"postgres/{folder}"))
    nothing_but_the_planted(aftermath.found_in("postgres"))


def test_stripe_s_stand_in_keeps_it_in_no_file(aftermath: Aftermath) -> None:
    """It is told who its customers are, and nobody else is."""
    nothing_but_the_planted(aftermath.found_in("stripe"), told=EMAIL)


def test_kafka_has_it_in_no_message_and_the_broker_in_no_file(aftermath: Aftermath) -> None:
    nothing_but_the_planted({"messages": held(b"".join(messages_of(aftermath.system)))})
    nothing_but_the_planted(aftermath.found_in("broker"))


def test_no_file_beside_them_has_it(aftermath: Aftermath) -> None:
    stripes = aftermath.found_in("stripe")
    nothing_but_the_planted({path: names for path, names in aftermath.found_in(".").items() if path not in stripes})


if sys.platform == "linux":

    def test_the_broker_has_it_nowhere_in_its_memory(aftermath: Aftermath) -> None:
        group = f"group-{PLANTED}"
        consumer = KafkaConsumer(TOPICS[0], bootstrap_servers=aftermath.system.kafka, group_id=group)
        eventually(lambda: bool(consumer.poll(timeout_ms=100) is not None and consumer.assignment()))
        blocks = list(memory_of(aftermath.system.pids["broker"]))
        consumer.close()
        assert sum(map(len, blocks)) > BLOCK, "a Python process is larger than this"
        nothing_but_the_planted({str(place): held(block) for place, block in enumerate(blocks)})

    def test_a_process_that_holds_numbers_leaves_no_dump(aftermath: Aftermath) -> None:
        def allowed(name: str) -> str:
            told = Path(f"/proc/{aftermath.system.pids[name]}/limits").read_text()
            return told.partition("Max core file size")[2].split()[0]

        assert allowed("api") in {"0", "1"}
        assert allowed("broker") not in {"0", "1"}, "it holds none, and was let alone"


# --- What looks like a number ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111111 12/34",
        "4111 1111 1111 1111 12/34 123",
        "12 4111111111111111",
        "2026-11-20 4111111111111111",
        "no.4111111111111111",
        "4111.1111.1111.1111",
        "4111\u00a01111\u00a01111\u00a01111",
        "4111  1111  1111  1111",
        "４１１１１１１１１１１１１１１１",  # noqa: RUF001  that is how some write it
        "3566002020360505",
        "6200000000000005",
        "3056930009020004",
    ],
)
def test_a_number_is_seen_whatever_stands_beside_it(text: str) -> None:
    assert holds_card_number(text)


def test_a_name_that_a_program_gave_is_no_card_number() -> None:
    """One UUID in some thousand would pass for a card, and its owner's order be refused; a card beside it is found."""
    assert not holds_card_number("39221417-7625-418a-aafc-fb864cd4d5c0")
    assert holds_card_number(f"39221417-7625-418a-aafc-fb864cd4d5c0 {CARDS[0]}")


def test_a_number_is_no_name_of_a_token(system: System) -> None:
    problem(system.http.post(f"/v1/tokens/{CARDS[0]}/invalidation", json={}), 400)
