"""What Prometheus is told: what is asked of the service, what became of it, and how the log's readers do."""

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID, uuid4, uuid5

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from application.event_store import Ledger, StreamMoved
from application.gateway import Absent, AnyInstruction, PaymentGateway, RefundInstruction, Standing, Unknown
from domain.envelope import NO_PREVIOUS
from domain.payment_commands import Outcome, RecordFailed, RecordRefunded
from interface.metrics import MeteredGateway, MeteredLedger, Metrics, metered
from tests.given import CAPTURED, NO_FUNDS, failed, usd
from tests.processes import eventually
from tests.system import System, made, position
from tests.test_event_store import envelopes

PATIENCE_S = 20.0
INSERT = "INSERT INTO ledger_events (originator_id, originator_version, topic, state) VALUES (%s, 1, 'T', '{}')"

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Each sample's value, by its name without our prefix and its labels' values in the order of their names."""
    return {
        (sample.name.removeprefix("payledger_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(system: System) -> Samples:
    answer = httpx.get(f"{system.url}/metrics")  # without a token
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return samples(answer.text)


def grown(system: System, act: Callable[[], Any]) -> Samples:
    """What an act added, by sample."""
    before = scraped(system)
    act()
    after = scraped(system)
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}


# --- Requests ----------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_the_template_of_their_route_and_the_class_of_their_status(system: System) -> None:
    payment = system.paid()

    def ask() -> None:
        system.payment(payment["id"])
        system.payment(payment["id"])
        system.get(f"/v1/payments/{uuid4()}")
        system.get(f"/nothing/{uuid4()}")
        system.http.request("DELETE", f"/v1/payments/{payment['id']}")

    more = grown(system, ask)
    route = "/v1/payments/{payment}"
    assert more["http_requests_total", "GET", route, "2xx"] == 2
    assert more["http_requests_total", "GET", route, "4xx"] == 1
    assert more["http_requests_total", "GET", "none", "4xx"] == 1
    assert more["http_requests_total", "DELETE", "none", "4xx"] == 1
    assert more["http_request_seconds_count", "GET", route] == 3


def test_a_method_that_nobody_knows_has_no_label_of_its_own() -> None:
    metrics = Metrics()
    for method in ("GET", "BREW", "PROPFIND", str(uuid4())):
        metrics.answered("/v1/orders", method, 200, 0.001)
    counted = {
        key[1]: value for key, value in samples(metrics.text().decode()).items() if key[0] == "http_requests_total"
    }
    assert counted == {"GET": 1, "other": 3}


def test_an_answer_is_timed_to_its_beginning_however_long_it_goes_on() -> None:
    metrics = Metrics()
    heard: list[str] = []

    async def app(scope: Any, _: Any, send: Any) -> None:
        scope["path_template"] = "/stream"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        heard.append(metrics.text().decode())
        await send({"type": "http.response.body", "body": b"more", "more_body": True})

    async def send(message: Any) -> None:
        heard.append(message["type"])

    async def serve() -> None:
        await metered(app, metrics)(cast("Any", {"type": "http", "method": "GET"}), cast("Any", None), send)

    asyncio.run(serve())
    assert [heard[0], heard[2]] == ["http.response.start", "http.response.body"]
    assert samples(heard[1])["http_requests_total", "GET", "/stream", "2xx"] == 1


# --- Operations --------------------------------------------------------------------------------------------------


def test_operations_facts_and_calls_of_the_provider_are_counted_by_what_came_of_them(system: System) -> None:
    def act() -> None:
        payment = system.paid()
        system.moved(payment, "captures", amount=60_00)
        system.moved(payment, "refunds", amount=10_00)
        system.paid(capture="automatic")
        assert system.pay(payment_method="pm_card_chargeDeclined").status_code == 402
        made(system.move(system.paid(), "void"))

    more = grown(system, act)
    operations = {key[1:]: value for key, value in more.items() if key[0] == "operations_total"}
    assert operations == {
        ("authorize", "done"): 3,
        ("authorize", "failed"): 1,
        ("capture", "done"): 1,
        ("refund", "done"): 1,
        ("void", "done"): 1,
    }
    calls = {key[1:]: value for key, value in more.items() if key[0] == "gateway_call_seconds_count"}
    assert calls == {
        ("authorize", "approved"): 3,
        ("authorize", "declined"): 1,
        ("capture", "approved"): 1,
        ("refund", "approved"): 1,
        ("void", "approved"): 1,
    }
    facts = sum(value for key, value in more.items() if key[0] == "facts_appended_total")
    assert facts == 15


def test_a_call_whose_outcome_is_not_known_leaves_an_open_operation() -> None:
    answers: list[Outcome | Unknown] = [
        Unknown("timeout"),
        RecordFailed("re_1", NO_FUNDS, "req_1"),
        RecordRefunded("re_1", usd(1), "re_stripe", "req_2"),
    ]

    class Gateway(PaymentGateway):
        async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
            return answers[int(instruction.operation)]

        async def standing(
            self, payment: UUID, authorization: str, payment_intent: str | None
        ) -> Standing | Absent | Unknown:
            del payment, authorization
            return Absent("req_3") if payment_intent else Unknown("timeout")

        async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
            return uuid5(uuid4(), payment_intent)

        def unavailable_s(self) -> float | None:
            return 2.5

        async def verify(self) -> None:
            raise NotImplementedError

    metrics = Metrics()
    gateway = MeteredGateway(Gateway(), metrics)

    async def ask() -> None:
        for number, answer in enumerate(answers):
            name = str(number)
            refund = RefundInstruction(payment=uuid4(), operation=name, payment_intent="pi_1", amount=usd(1))
            assert await gateway.perform(refund) is answer
        assert await gateway.standing(uuid4(), "0", "pi_1") == Absent("req_3")
        assert isinstance(await gateway.payment_of("pi_1"), UUID)
        assert gateway.unavailable_s() == 2.5

    asyncio.run(ask())
    counted = samples(metrics.text().decode())
    for result in ("unknown", "declined", "approved"):
        assert counted["gateway_call_seconds_count", "refund", result] == 1
    assert counted["gateway_call_seconds_count", "standing", "absent"] == 1
    assert counted["gateway_call_seconds_count", "payment_of", "found"] == 1
    assert counted["operations_total", "refund", "open"] == 1


def test_appends_and_their_conflicts_are_counted_in_the_one_log_there_is(ledger: Ledger, database_url: str) -> None:
    metrics = Metrics()
    rung: list[bool] = []
    counting = MeteredLedger(metrics, database_url, None, pool_size=1, appended=lambda: rung.append(True))
    with counting:
        stream = uuid4()
        counting.append(envelopes(stream, *CAPTURED), NO_PREVIOUS)
        with pytest.raises(StreamMoved):
            counting.append(envelopes(stream, failed()), NO_PREVIOUS)
    assert len(ledger.read(0, 10)) == len(CAPTURED)
    counted = samples(metrics.text().decode())
    assert counted["facts_appended_total", "Captured"] == 1
    assert counted["append_conflicts_total",] == 1
    assert ("operations_total", "authorize", "failed") not in counted
    assert rung == [True]


def test_nothing_in_the_metrics_is_about_anybody(system: System) -> None:
    words = {"customer": f"anna-{uuid4()}", "order": f"order-{uuid4()}", "description": f"for-{uuid4()}"}
    answer = system.pay(metadata={"guest": f"guest-{uuid4()}"}, **words)
    payment = made(answer)
    system.found(f"/v1/orders/{words['order']}", after=position(answer))
    system.http.get(f"/{words['customer']}")
    text = httpx.get(f"{system.url}/metrics").text
    for word in (*words.values(), payment["id"], "guest-", "developer", "pi_", "pm_"):
        assert word not in text


# --- The log and its readers -------------------------------------------------------------------------------------


def test_everybody_who_follows_the_log_is_at_its_end_when_nothing_happens(system: System) -> None:
    system.paid()

    def caught_up() -> bool:
        now = scraped(system)
        lags = [value for key, value in now.items() if key[0].endswith("_lag_positions")]
        return len(lags) >= 3 and not any(lags) and now["horizon_position",] == now["log_position",] > 0

    eventually(caught_up, PATIENCE_S)
    now = scraped(system)
    assert now["store_up",] == 1
    assert now["projection_parked_streams", "payment_status"] == 0
    assert 0 < now["pool_connections", "queries", "open"] <= now["pool_connections", "queries", "max"]


def test_a_stall_is_seen_with_its_pid_while_writers_go_on_and_is_gone_when_it_ends(system: System) -> None:
    def stalled_by() -> float:
        return scraped(system)["horizon_blocking_pid",]

    log = system.data / "logs" / "api.log"
    with psycopg.connect(system.database_url, application_name="a forgotten session") as writer:
        writer.execute(INSERT, (uuid4(),))
        pid = writer.info.backend_pid
        first = system.paid()
        eventually(lambda: stalled_by() == pid, PATIENCE_S)
        assert system.paid()["status"] == "authorized", "writers go on"
        now = scraped(system)
        assert now["horizon_stalled_seconds",] >= 2
        assert now["log_position",] > now["horizon_position",]
        assert system.get("/ready").status_code == 200
        assert f"seconds by backend pid {pid} (a forgotten session, in a transaction since " in log.read_text()
        writer.rollback()
    eventually(lambda: stalled_by() == 0, PATIENCE_S)
    assert scraped(system)["horizon_stalled_seconds",] == 0
    assert system.payment(first["id"], after=int(scraped(system)["horizon_position",]))["status"] == "authorized"
