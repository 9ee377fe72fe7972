"""The stand-in delivers its events as Stripe does, or as badly as it is told to; and cardholders contest charges."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web

from interface.sandbox.stripe import StripeStandIn
from interface.sandbox.stripe_webhooks import MAX_AT_ONCE

SECRET = "whsec_for_tests"
KEY = {"Authorization": "Bearer sk_test_webhooks"}
PATIENCE_S = 30


class Receiver:
    """Whoever the events are posted to. `status` is what it answers, `until` what it waits for before."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, str]] = []
        self.status = 200
        self.at_once = self.most_at_once = 0
        self.until: asyncio.Event | None = None
        self._changed = asyncio.Condition()

    async def start(self) -> str:
        self._runner = web.ServerRunner(web.Server(self._take, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.until is not None:
            await self.until.wait()
        self.at_once -= 1
        self.got.append((body, request.headers["Stripe-Signature"]))
        async with self._changed:
            self._changed.notify_all()
        return web.Response(status=self.status)

    @property
    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for body, _ in self.got]

    async def wait_for(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(happened)


class Sandbox:
    def __init__(self, url: str, http: aiohttp.ClientSession, receiver: Receiver) -> None:
        self.url, self.http, self.receiver = url, http, receiver

    async def ask(self, method: str, path: str, **form: str) -> Any:
        async with self.http.request(method, f"{self.url}{path}", data=form or None, headers=KEY) as answer:
            return await answer.json()

    async def control(self, **given: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/_sandbox/webhooks", json=given) as answer:
            return answer.status, await answer.json()

    async def pay(self, method: str = "pm_card_visa", amount: int = 1_000) -> Any:
        form = {
            "amount": str(amount),
            "currency": "usd",
            "payment_method": method,
            "confirm": "true",
            "automatic_payment_methods[enabled]": "true",
            "automatic_payment_methods[allow_redirects]": "never",
        }
        return await self.ask("POST", "/v1/payment_intents", **form)

    async def events(self) -> list[Any]:
        listed: list[Any] = (await self.ask("GET", "/v1/events?limit=100"))["data"]
        return listed

    async def delivered(self, number: int) -> Any:
        """What is told of deliveries, once so many have ended."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with self.http.get(f"{self.url}/_sandbox/webhooks") as answer:
                    told = await answer.json()
                if told["delivered"] + told["dropped"] + told["given_up"] >= number:
                    return told
                await asyncio.sleep(0)


Use = Callable[[Sandbox], Awaitable[None]]


def run(folder: Path, *uses: Use, enabled: tuple[str, ...] = ()) -> None:
    """Each use finds the stand-in started anew on the same folder, with the same receiver."""

    async def together() -> None:
        receiver = Receiver()
        hook = await receiver.start()
        async with aiohttp.ClientSession() as http:
            for use in uses:
                stand_in = StripeStandIn(webhooks=(hook, SECRET, enabled))
                port = await stand_in.start("127.0.0.1", 0, folder)
                try:
                    await use(Sandbox(f"http://127.0.0.1:{port}", http, receiver))
                finally:
                    await stand_in.stop()
        await receiver.stop()

    asyncio.run(together())


# --- Deliveries --------------------------------------------------------------------------------------------------


def test_every_event_arrives_signed_and_as_it_is_listed(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        await sandbox.pay()
        listed = {event["id"]: event for event in await sandbox.events()}
        await sandbox.receiver.wait_for(lambda: set(sandbox.receiver.ids) == set(listed))
        for body, header in sandbox.receiver.got:
            event = json.loads(body)
            assert event == listed[event["id"]]
            assert stripe.WebhookSignature.verify_header(body.decode(), header, SECRET, tolerance=300)
            with pytest.raises(stripe.SignatureVerificationError):
                stripe.WebhookSignature.verify_header(body.decode() + " ", header, SECRET, tolerance=300)

    run(tmp_path, use)


def test_an_endpoint_is_sent_only_what_it_asked_for(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        await sandbox.pay()
        listed = {event["type"]: event["id"] for event in await sandbox.events()}
        told = await sandbox.delivered(1)
        assert (sandbox.receiver.ids, told["pending"]) == ([listed["charge.succeeded"]], 0)
        assert told["not_asked_for"] == len(listed) - 1 > 0

    run(tmp_path, use, enabled=("charge.succeeded",))


def test_what_is_not_acknowledged_is_sent_again(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        sandbox.receiver.status = 500
        await sandbox.pay()
        await sandbox.receiver.wait_for(lambda: max(Counter(sandbox.receiver.ids).values(), default=0) >= 2)
        sandbox.receiver.status = 200
        told = await sandbox.delivered(len(await sandbox.events()))
        assert (told["pending"], told["given_up"]) == (0, 0)

    run(tmp_path, use)


def test_what_was_not_acknowledged_is_sent_after_a_restart_and_what_was_is_not(tmp_path: Path) -> None:
    async def acknowledged(sandbox: Sandbox) -> None:
        await sandbox.pay()
        await sandbox.delivered(len(await sandbox.events()))

    async def held(sandbox: Sandbox) -> None:
        assert sandbox.receiver.got
        sandbox.receiver.got.clear()
        await sandbox.control(mode="hold")
        await sandbox.pay()
        assert (await sandbox.delivered(0))["pending"] > 0

    async def again(sandbox: Sandbox) -> None:
        told = await sandbox.delivered(1)
        await sandbox.receiver.wait_for(lambda: len(set(sandbox.receiver.ids)) * 2 == len(listed))
        assert told["given_up"] == 0

    listed: list[Any] = []

    async def list_them(sandbox: Sandbox) -> None:
        await held(sandbox)
        listed.extend(await sandbox.events())

    run(tmp_path, acknowledged, list_them, again)


def test_events_are_repeated_mixed_up_or_lost_on_request(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        await sandbox.control(mode="duplicate")
        await sandbox.pay()
        number = len(await sandbox.events())
        await sandbox.delivered(number)
        assert set(Counter(sandbox.receiver.ids).values()) <= {2, 3}
        await sandbox.control(mode="drop")
        await sandbox.pay()
        told = await sandbox.delivered(2 * number)
        assert told["dropped"] == number
        sandbox.receiver.got.clear()
        assert (await sandbox.control(mode="hold"))[0] == 200
        for _ in range(5):
            await sandbox.pay()
        assert sandbox.receiver.got == []
        await sandbox.control(mode="shuffle", seed=1)
        await sandbox.receiver.wait_for(lambda: len(sandbox.receiver.got) == 5 * number)
        created = [event["id"] for event in reversed(await sandbox.events()) if event["id"] in sandbox.receiver.ids]
        assert sandbox.receiver.ids != created
        assert sorted(sandbox.receiver.ids) == sorted(created)

    run(tmp_path, use)


def test_only_so_many_are_under_way_at_once(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        sandbox.receiver.until = asyncio.Event()
        for _ in range(10):
            await sandbox.pay()
        number = len(await sandbox.events())
        sandbox.receiver.until.set()
        await sandbox.delivered(number)
        assert sandbox.receiver.most_at_once <= MAX_AT_ONCE

    run(tmp_path, use)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "mode"),
        ({"mode": "loudly"}, "mode"),
        ({"mode": "drop", "percent": 0}, "percent"),
        ({"mode": "drop", "percent": 101}, "percent"),
        ({"mode": "shuffle", "seed": "x"}, "seed"),
        ({"mode": "normal", "often": 1}, "often"),
    ],
)
def test_control_that_cannot_be_used_names_its_field(tmp_path: Path, given: dict[str, Any], field: str) -> None:
    async def use(sandbox: Sandbox) -> None:
        status, told = await sandbox.control(**given)
        assert (status, told["error"]["field"]) == (400, field)

    run(tmp_path, use)


# --- Disputes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "status", "back"), [("winning_evidence", "won", 1_000), ("losing_evidence", "lost", 0)]
)
def test_a_contested_charge_is_decided_by_evidence(tmp_path: Path, evidence: str, status: str, back: int) -> None:
    async def use(sandbox: Sandbox) -> None:
        intent = await sandbox.pay("pm_card_createDispute")
        [dispute] = (await sandbox.ask("GET", f"/v1/disputes?payment_intent={intent['id']}"))["data"]
        assert (dispute["status"], dispute["reason"], dispute["amount"]) == ("needs_response", "fraudulent", 1_000)
        charge = await sandbox.ask("GET", f"/v1/charges/{intent['latest_charge']}")
        assert charge["disputed"] is True
        refused = await sandbox.ask("POST", "/v1/refunds", charge=charge["id"])
        assert refused["error"]["code"] == "charge_disputed"
        path = f"/v1/disputes/{dispute['id']}"
        ended = await sandbox.ask("POST", path, **{"evidence[uncategorized_text]": evidence, "submit": "true"})
        assert ended["status"] == status
        assert sum(moved["amount"] for moved in ended["balance_transactions"]) == back - 1_000
        assert (await sandbox.ask("POST", f"{path}/close"))["error"]["code"] == "dispute_already_closed"
        told = Counter(event["type"] for event in await sandbox.events())
        assert told["charge.dispute.created"] == told["charge.dispute.closed"] == 1
        assert told["charge.dispute.funds_reinstated"] == (1 if back else 0)

    run(tmp_path, use)


def test_who_gives_in_has_lost_and_an_inquiry_takes_no_money(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        for method, first, last in (
            ("pm_card_createDisputeProductNotReceived", "needs_response", "lost"),
            ("pm_card_createDisputeInquiry", "warning_needs_response", "warning_closed"),
        ):
            intent = await sandbox.pay(method)
            [dispute] = (await sandbox.ask("GET", f"/v1/disputes?charge={intent['latest_charge']}"))["data"]
            assert dispute["status"] == first
            assert bool(dispute["balance_transactions"]) == (last == "lost")
            assert (await sandbox.ask("POST", f"/v1/disputes/{dispute['id']}/close"))["status"] == last

    run(tmp_path, use)
