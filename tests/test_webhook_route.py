"""`POST /webhooks/stripe`: an event is kept before it is answered, and nothing else is kept."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from litestar import Litestar
from litestar.di import Provide
from litestar.testing import AsyncTestClient

from application.event_store import StoreUnavailable
from application.inbox import Event
from application.stripe_events import BadSignature, verified
from interface.metrics import Metrics
from interface.services import Services
from interface.web import webhooks
from interface.web.problems import HANDLERS
from interface.web.webhooks import MAX_EVENT_BYTES
from tests.given import NOON
from tests.test_webhook_signatures import OLD, SECRET, body, signature


class Door:
    """The route alone, with a place where events are kept."""

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.away = False
        self.metrics = Metrics()
        # Of the services only what the route asks for: nothing is opened.
        self.services = Services.__new__(Services)
        self.services.__dict__.update(
            settings=SimpleNamespace(stripe_webhook_secrets=(SECRET, OLD)),
            clock=lambda: NOON,
            metrics=self.metrics,
            intake=SimpleNamespace(keep=self._keep),
        )

    async def _keep(self, event: Event) -> None:
        if self.away:
            raise StoreUnavailable
        self.kept.append(event)

    def post(self, signed: bytes, header: str | None = None) -> tuple[int, dict[str, Any]]:
        """The status and the document that answer it; without a header it is signed as it should be."""

        async def ask() -> tuple[int, dict[str, Any]]:
            app = Litestar(
                [webhooks.router],
                dependencies={"services": Provide(lambda: self.services, sync_to_thread=False)},
                exception_handlers=HANDLERS,
                openapi_config=None,
                logging_config=None,
            )
            async with AsyncTestClient(app) as client:
                said = {"Stripe-Signature": signature(signed) if header is None else header}
                answer = await client.post("/webhooks/stripe", content=signed, headers=said if header != "" else {})
                return answer.status_code, answer.json()

        return asyncio.run(ask())

    def counted(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("payledger_webhooks_total", {"result": result}) or 0.0


@pytest.fixture
def door() -> Door:
    return Door()


def test_an_event_is_kept_before_it_is_answered(door: Door) -> None:
    assert door.post(body()) == (200, {"received": True})
    assert door.post(body(), signature(body(), OLD)) == (200, {"received": True})
    assert [event.event_id for event in door.kept] == ["evt_1", "evt_1"], "the inbox knows that it is one"


def test_an_event_that_could_not_be_kept_is_for_stripe_to_send_again(door: Door) -> None:
    door.away = True
    status, document = door.post(body())
    assert (status, document["status"], door.counted("kept")) == (503, 503, 0)


@pytest.mark.parametrize("header", ["", "garbage", "t=1,v1=1", signature(body(), "whsec_forged"), signature(b"other")])
def test_what_is_not_signed_is_not_kept(door: Door, header: str) -> None:
    status, document = door.post(body(), header)
    assert (status, document["errors"][0]["header"]) == (400, "Stripe-Signature")
    assert (door.kept, door.counted("refused")) == ([], 1)


def test_what_is_signed_and_no_event_is_not_kept(door: Door) -> None:
    status, document = door.post(b"{}")
    assert (status, document["errors"][0]["pointer"], door.kept) == (400, "#", [])


def test_an_event_that_is_too_large_is_not_read(door: Door) -> None:
    assert door.post(body(more="x" * MAX_EVENT_BYTES))[0] == 413
    assert door.kept == []


def test_events_that_we_handle_and_others_are_kept_and_counted_apart(door: Door) -> None:
    door.post(body())
    door.post(body(type="customer.created"))
    assert (door.counted("kept"), door.counted("ignored"), len(door.kept)) == (1, 1, 2)


@pytest.mark.parametrize(
    "forged", [" {new},{old}", "x=1, {new},{old}", "t=+{then},{new},{signed}", "t= {then},{new},{signed}"]
)
def test_a_recording_is_as_old_as_the_timestamp_that_was_signed(forged: str) -> None:
    """Which part of a header holds it must not depend on who reads it: the SDK reads a number with a sign, too."""
    then = NOON - timedelta(days=1)
    old = signature(body(), at=then)
    stamp, signed = old.split(",")
    header = forged.format(new=f"t={int(NOON.timestamp())}", old=old, then=stamp.removeprefix("t="), signed=signed)
    assert verified(body(), old, (SECRET,), then).event_id == "evt_1"
    with pytest.raises(BadSignature):
        verified(body(), header, (SECRET,), NOON)


@pytest.mark.parametrize("digits", [12, 400, 5_000])
def test_a_timestamp_beyond_all_times_is_refused_and_no_accident(door: Door, digits: int) -> None:
    assert door.post(body(), f"t={'9' * digits},v1=x")[0] == 400
