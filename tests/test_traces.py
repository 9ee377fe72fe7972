"""What a collector of traces is told: what became of a payment, whose it is by its ids, and nothing personal."""

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from interface.tracing import opaque
from tests.system import System, running

PATIENCE_S = 30.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PERSONAL = "ada@example.com"


class Collector:
    """Whoever traces are sent to: OpenTelemetry's own protocol over HTTP."""

    def __init__(self) -> None:
        self.raw = b""
        self.spans: list[dict[str, Any]] = []
        self._came = Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        found = [
            {"trace": span.trace_id.hex(), "name": span.name, "id": span.span_id, "parent": span.parent_span_id}
            | {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._came:
            self.raw += body
            self.spans += found
            self._came.notify_all()

    def wait_for(self, **attributes: Any) -> dict[str, Any]:
        """The first span with these."""

        def found() -> dict[str, Any] | None:
            return next((span for span in self.spans if attributes.items() <= span.items()), None)

        with self._came:
            assert self._came.wait_for(found, PATIENCE_S), (attributes, self.spans)
            span = found()
        assert span is not None
        return span


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[System]:
    with running(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as system:
        yield system


def charged(system: System, token: str = "tok_visa") -> Any:
    body = {"stripeToken": token, "amount": 5000, "currency": "usd", "email": PERSONAL, "description": f"{uuid4()}"}
    return system.http.post("/charge", json=body).json()


def test_a_collected_booking_is_told_with_its_ids_in_the_callers_trace(traced: System, collector: Collector) -> None:
    charge = charged(traced)["createdCharge"]["id"]
    caller = f"00-{TRACE}-00f067aa0ba902b7-01"
    headers = {"X-Booking-Id": "booking-7", "X-Customer-Id": "customer-7", "traceparent": caller}
    assert traced.http.post("/capture", json={"chargeId": charge}, headers=headers).status_code == 200
    span = collector.wait_for(trace=TRACE, PaymentStatus="SUCCESS")
    assert (span["Booking"], span["Customer"]) == ("booking-7", "customer-7")
    assert (span["http.route"], span["http.response.status_code"]) == ("/capture", 200)
    assert collector.wait_for(trace=TRACE, name="provider capture")["parent"] == span["id"]


def test_a_refund_and_a_decline_are_told_by_their_words(traced: System, collector: Collector) -> None:
    charge = charged(traced)["createdCharge"]["id"]
    assert traced.http.post("/refund", json={"chargeId": charge}).status_code == 200
    collector.wait_for(PaymentStatus="REFUNDED")
    charged(traced, "tok_chargeDeclined")
    collector.wait_for(PaymentStatus="FAILED")


def test_nothing_personal_is_told(traced: System, collector: Collector) -> None:
    charge = charged(traced)["createdCharge"]["id"]
    headers = {
        "X-Booking-Id": "the one by the window",
        "X-Customer-Id": PERSONAL,
        "traceparent": f"00-{'7' * 32}-{'1' * 16}-01",
    }
    assert traced.http.post("/capture", json={"chargeId": charge}, headers=headers).status_code == 200
    span = collector.wait_for(trace="7" * 32, PaymentStatus="SUCCESS")
    assert not {"Booking", "Customer"} & set(span)
    assert PERSONAL.encode() not in collector.raw
    assert charge.encode() not in collector.raw


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("c-1", "c-1"),
        ("", None),
        (None, None),
        ("Ada L", None),
        (PERSONAL, None),
        ("4111111111111111", None),
        ("a" * 201, None),
    ],
)
def test_only_what_is_an_id_is_shown(name: str | None, shown: str | None) -> None:
    assert opaque(name) == shown
