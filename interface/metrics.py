"""What is counted and measured in this process, for Prometheus. Label sets are bounded, and nobody is named.

The parts that are counted do not know of it: the ledger and the gateway are wrapped, the web is listened to.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from application.billing import CustomerSeen, SubscriptionSeen
from application.event_store import Ledger, Loaded, StreamMoved
from application.gateway import (
    Absent,
    AnyInstruction,
    AuthorizeInstruction,
    CaptureInstruction,
    PaymentGateway,
    RefundInstruction,
    Standing,
    Unknown,
    VoidInstruction,
)
from application.privacy import Keys
from domain import customer_commands, subscription_commands
from domain.envelope import Envelope
from domain.facts import NAMES, Fact
from domain.payment_commands import Outcome, RecordActionRequired, RecordExpired, RecordFailed
from domain.payment_facts import ActionRequired, Authorized, Captured, Failed, Refunded, Voided
from interface.tracing import provider_call

T = TypeVar("T")

disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of the text, and nobody asks since when

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
# Where no route matched: a path may hold anything, and there is no end to them.
NO_ROUTE = "none"
REQUEST_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
GATEWAY_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90)

# The calls of the airline's contract, by what they are about.
AIRLINE = {"Payment": ("payment", "charge", "capture"), "Refund": ("refund",)}

KINDS = {
    AuthorizeInstruction: "authorize",
    CaptureInstruction: "capture",
    VoidInstruction: "void",
    RefundInstruction: "refund",
}


class Metrics:
    """One process's. Its counters may be counted up from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests: dict[tuple[str, str, int], Callable[[float], None]] = {}
        self._request_count = self._counter("http_requests", "Requests answered.", "route", "method", "status")
        self._request_seconds = self._histogram(
            "http_request_seconds", "Until an answer began.", REQUEST_BUCKETS_S, "route", "method"
        )
        self.operations = self._counter(
            "operations", "What became of operations, as recorded; open: left open.", "kind", "outcome"
        )
        self.gateway_calls = self._histogram(
            "gateway_call_seconds", "Calls of the payment provider.", GATEWAY_BUCKETS_S, "kind", "result"
        )
        facts = self._counter("facts_appended", "Facts appended by this process.", "type")
        self.facts = {fact: facts.labels(name) for fact, name in NAMES.items()}
        # By the names that the airline's dashboards know.
        self.airline = {
            name: Counter(name, "Of the airline's contract.", ["call"], registry=self.registry)
            for kind in AIRLINE
            for name in (f"Successful{kind}", f"Failed{kind}", f"Invalid{kind}Request")
        }
        for name, counter in self.airline.items():
            for call in next(calls for kind, calls in AIRLINE.items() if kind in name):
                counter.labels(call)  # shown from the start, as zero
        # Of the cinema's contract: success rate, errors by type, processing time and volume, from these three.
        self.cinema_answers = self._counter("cinema_answers", "Of the cinema's contract.", "call", "outcome", "code")
        self.cinema_seconds = self._histogram("cinema_seconds", "Until they were given.", GATEWAY_BUCKETS_S, "call")
        self.cinema_volume = self._counter("cinema_volume_minor", "Money moved, in minor units.", "call", "currency")
        self.webhooks = self._counter("webhooks", "Webhooks by what became of them.", "result")
        self.conflicts = self._counter("append_conflicts", "Appends that found another writer had been faster.")

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def gauge(self, name: str, said: str, *labels: str) -> Gauge:
        return Gauge(f"payledger_{name}", said, labels, registry=self.registry)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. The children of a label set are looked up once."""
        key = (route, method if method in METHODS else "other", status)
        count = self._requests.get(key)
        if count is None:
            count = self._requests[key] = self._request_counter(*key)
        count(seconds)

    def _request_counter(self, route: str, method: str, status: int) -> Callable[[float], None]:
        count = self._request_count.labels(route, method, f"{status // 100}xx").inc
        observe = self._request_seconds.labels(route, method).observe

        def counted(seconds: float) -> None:
            count()
            observe(seconds)

        return counted

    def _counter(self, name: str, said: str, *labels: str) -> Counter:
        return Counter(f"payledger_{name}", said, labels, registry=self.registry)

    def _histogram(self, name: str, said: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"payledger_{name}", said, labels, buckets=buckets, registry=self.registry)


def metered(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """The application, its requests counted when the answer begins: a stream is not slow because it is long."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        method = scope["method"]
        began = time.perf_counter()

        async def heard(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Known by now: the router has put the template in the scope. In it, no id or name can stand.
                route = scope.get("path_template", NO_ROUTE)
                metrics.answered(route, method, message["status"], time.perf_counter() - began)
            await send(message)

        await app(scope, receive, heard)

    return serve


class MeteredLedger(Ledger):
    """The ledger, counting what it appends."""

    # The library names the table after the application.
    name = Ledger.name

    def __init__(
        self, metrics: Metrics, database_url: str, keys: Keys | None, *, pool_size: int, appended: Callable[[], None]
    ) -> None:
        super().__init__(database_url, keys, pool_size=pool_size, appended=appended)
        self._metrics = metrics

    def append(self, envelopes: Sequence[Envelope], tail: bytes) -> Loaded:
        try:
            stored = super().append(envelopes, tail)
        except StreamMoved:
            self._metrics.conflicts.inc()
            raise
        for envelope in stored.envelopes:
            self._metrics.facts[type(envelope.fact)].inc()
        # An append concludes one operation at most: an automatic capture is part of its authorization.
        concluded = next(filter(None, (_concluded(envelope.fact) for envelope in stored.envelopes)), None)
        if concluded:
            self._metrics.operations.labels(*concluded).inc()
        return stored


def _concluded(fact: Fact) -> tuple[str, str] | None:
    """The kind and outcome of the operation that the fact concludes, if it does."""
    match fact:
        case Authorized():
            return "authorize", "done"
        case ActionRequired():
            return "authorize", "waiting"
        case Captured():
            return "capture", "done"
        case Voided():
            return "void", "done"
        case Refunded():
            return "refund", "done"
        case Failed():
            return fact.stage, "failed"
        case _:
            return None


class MeteredGateway(PaymentGateway):
    """A gateway whose calls are timed, and counted by what they learned."""

    def __init__(self, gateway: PaymentGateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        kind = KINDS[type(instruction)]
        outcome = await self.timed(kind, self._gateway.perform(instruction))
        if isinstance(outcome, Unknown):
            self._metrics.operations.labels(kind, "open").inc()
        return outcome

    async def standing(
        self, payment: UUID, authorization: str, payment_intent: str | None
    ) -> Standing | Absent | Unknown:
        return await self.timed("standing", self._gateway.standing(payment, authorization, payment_intent))

    async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
        return await self.timed("payment_of", self._gateway.payment_of(payment_intent))

    def unavailable_s(self) -> float | None:
        return self._gateway.unavailable_s()

    async def verify(self) -> None:
        await self._gateway.verify()

    async def timed(self, kind: str, call: Awaitable[T], /) -> T:
        """The answer to a call, once it is timed and counted."""
        began = time.perf_counter()
        with provider_call(kind):
            answer = await call
        self._metrics.gateway_calls.labels(kind, _result(answer)).observe(time.perf_counter() - began)
        return answer


def _result(outcome: object) -> str:
    match outcome:
        case Unknown():
            return "unknown"
        case RecordFailed() | RecordExpired():
            return "declined"
        case customer_commands.RecordRefused() | subscription_commands.RecordRefused():
            return "declined"
        case RecordActionRequired():
            return "action_required"
        case Standing() | CustomerSeen() | SubscriptionSeen() | tuple() | UUID():
            return "found"
        case Absent():
            return "absent"
        case _:
            return "approved"
