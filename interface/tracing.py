"""Traces, for whoever collects them: a span for each request, and one for each call of the payment provider in it.

`OTEL_EXPORTER_OTLP_ENDPOINT` says where they go; without it nothing is recorded and nothing is paid for it. A span says
which route it was, what became of the payment, and opaque ids: no body, no header, no address that may hold a name.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal
from urllib.parse import unquote

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from interface.web.card_numbers import holds_card_number

SERVICE = "payledger"
# A collector that does not answer costs at most this much memory, and never holds up a request.
MAX_QUEUED_SPANS = 2_048
EXPORT_TIMEOUT_S = 5
EXPORT_EVERY_MS = 1_000
MAX_ID = 200
# What is an id and no name or e-mail address.
_ID = re.compile(r"[A-Za-z0-9_.:-]+")

PaymentStatus = Literal["SUCCESS", "FAILED", "REFUNDED"]
_tracer = trace.get_tracer(SERVICE)


class TracesUnavailable(Exception):  # noqa: N818  it says what is so
    """Traces were asked for, and the packages that send them are not installed."""


def export_to(endpoint: str) -> None:
    """Send spans there, by OTLP over HTTP, from a thread of their own. Called once a process, before it serves."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise TracesUnavailable("OTEL_EXPORTER_OTLP_ENDPOINT needs payledger's extra `traces`") from None
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUED_SPANS, schedule_delay_millis=EXPORT_EVERY_MS)
    )
    trace.set_tracer_provider(provider)


def traced(app: ASGIApp) -> ASGIApp:
    """The application with a span around each request, a part of the caller's trace when it names one."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = propagate.extract(carrier)
        with _tracer.start_as_current_span(scope["method"], context, SpanKind.SERVER, record_exception=False) as span:

            async def heard(message: Message) -> None:
                if message["type"] == "http.response.start":
                    # The template, known by now: in the path any id or name can stand.
                    span.set_attribute("http.route", scope.get("path_template", "none"))
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await app(scope, receive, heard)

    return serve


@contextmanager
def provider_call(kind: str) -> Iterator[None]:
    """A span around one call of the payment provider."""
    with _tracer.start_as_current_span(f"provider {kind}", kind=SpanKind.CLIENT, record_exception=False):
        yield


def tell(status: PaymentStatus | None, booking: str | None = None, customer: str | None = None) -> None:
    """Add to the request's span what became of the payment, and whose it is."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    for name, value in (("PaymentStatus", status), ("Booking", opaque(booking)), ("Customer", opaque(customer))):
        if value:
            span.set_attribute(name, value)


def tell_booking(headers: Mapping[str, str]) -> None:
    """The booking and the customer that a caller of the booking workflow names in its headers."""
    booking, customer = (headers.get(name) for name in ("x-booking-id", "x-customer-id"))
    tell(None, booking and unquote(booking), customer and unquote(customer))


def opaque(name: str | None) -> str | None:
    """An id that may be shown; None for what could be a name, an address or a card number."""
    if not name or len(name) > MAX_ID or not _ID.fullmatch(name) or holds_card_number(name):
        return None
    return name
