"""The walk that a newcomer sees: one payment authorized, captured and refunded, one card declined, fact by fact."""

import json
import sys
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

TIMEOUT_S = 30
KAFKA_PATIENCE_MS = 20_000
TOPIC = "payments"
DECLINED_CARD = "pm_card_chargeDeclinedInsufficientFunds"


class WalkFailed(Exception):  # noqa: N818  it says what happened
    """The service did not answer the walk as it should."""


class Caller:
    """A service that calls the API, as small as can be: JSON over HTTP with a bearer token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return self._call("POST", path, body)

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        return self._call("GET", path, None)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": str(uuid4())}
        if body is not None:
            headers["Content-Type"] = "application/json"
        payload = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, payload, headers, method=method)  # noqa: S310  our own URL
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)
        except OSError as error:
            raise WalkFailed(f"{method} {path}: {error}") from error


def walk(url: str, token: str, kafka: str, console: Console) -> None:
    """Send a payment through the service at `url` and show what happened. Raises WalkFailed."""
    caller = Caller(url, token)
    console.print()
    console.rule("[bold]one payment in USD, end to end[/]", style="cyan")
    order = f"order-{uuid4().hex[:8]}"
    body = {"amount": 100_99, "currency": "usd", "payment_method": "pm_card_visa", "capture": "manual", "order": order}
    payment = _step(console, caller, "authorize 100.99", "/v1/payments", body, 201)
    path = f"/v1/payments/{payment['id']}"
    _step(console, caller, "capture    60.00", f"{path}/captures", {"amount": 60_00}, 201)
    _step(console, caller, "refund     10.50", f"{path}/refunds", {"amount": 10_50}, 201)
    declined = body | {"payment_method": DECLINED_CARD}
    refused = _step(console, caller, "authorize 100.99", "/v1/payments", declined, 402)["payment"]
    position = _show_facts(console, caller, kafka, [payment["id"], refused["id"]])
    _show_order(console, caller, order, position)


def invite(url: str, data: Path, console: Console) -> None:
    """How to make the next payment by hand, ready to be pasted."""
    console.rule("[bold]payledger is up[/]", style="cyan")
    console.print(f"\n  API [bold]{url}[/]   description [bold]{url}/schema[/]   data [bold]{data}[/]")
    console.print("\n  The next payment:\n")
    program = Path(sys.executable).with_name("payledger")
    console.out(
        f"TOKEN=$({_short(program)} token --subject me --data {_short(data)})\n"
        f"curl -s {url}/v1/payments \\\n"
        '  -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: my-first-payment" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"amount": 2599, "currency": "eur", "payment_method": "pm_card_visa", "capture": "automatic"}\'',
        style="green",
        highlight=False,
    )
    console.print("\n  Ctrl-C stops everything; the data stays.\n")


def _short(path: Path) -> Path:
    """The path as somebody in this folder would type it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _step(
    console: Console, caller: Caller, what: str, path: str, body: dict[str, Any], expected: int
) -> dict[str, Any]:
    status, answer = caller.post(path, body)
    if status != expected:
        raise WalkFailed(f"{what}: answered {status} instead of {expected}: {json.dumps(answer)[:500]}")
    payment = answer.get("payment") or answer
    style = "green" if status < 400 else "yellow"
    detail = _money(payment) if status < 400 else payment["failure"]["decline_code"]
    console.print(f"  [bold]{what}[/]  [{style}]{status} {payment['status']:<20}[/] [dim]{detail}[/]")
    return answer


def _money(payment: dict[str, Any]) -> str:
    """Held, taken and given back, in major units."""
    authorized, captured, refunded = (payment[f"amount_{part}"] for part in ("authorized", "captured", "refunded"))
    return f"held {_major(authorized)} taken {_major(captured)} back {_major(refunded)}"


def _major(minor: int) -> str:
    return f"{Decimal(minor) / 100:.2f}"


def _show_facts(console: Console, caller: Caller, kafka: str, payments: list[str]) -> int:
    """Show the table; answer the position of the last fact in it."""
    histories = [caller.get(f"/v1/payments/{payment}/events")[1]["events"] for payment in payments]
    offsets = _offsets(kafka, {fact["id"] for facts in histories for fact in facts})
    table = Table(title="\nwhat happened, fact by fact", title_style="bold", header_style="cyan", box=box.SIMPLE_HEAD)
    table.add_column("log", justify="right")
    table.add_column("fact", no_wrap=True)
    table.add_column("USD", justify="right")
    table.add_column("Stripe", no_wrap=True)
    table.add_column("Kafka", justify="right")
    for facts in histories:
        for fact in facts:
            table.add_row(*_fact_row(fact, offsets))
        table.add_section()
    console.print(table)
    return int(histories[-1][-1]["position"])


def _fact_row(fact: dict[str, Any], offsets: dict[str, str]) -> tuple[str, Text, str, str, str]:
    data = fact["data"]
    amount = _major(data["amount"]) if "amount" in data else ""
    stripe = data.get("refund") or data.get("charge") or data.get("payment_intent") or ""
    name = Text(fact["type"], style="yellow" if fact["type"] == "Failed" else "")
    return str(fact["position"]), name, amount, stripe, offsets.get(fact["id"], "not yet")


def _show_order(console: Console, caller: Caller, order: str, position: int) -> None:
    status, answer = caller.get(f"/v1/orders/{order}?after={position}")
    if status == 200:
        total = answer["totals"][0]
        console.print(f"  order [bold]{order}[/]  [green]{answer['status']}[/]  [dim]{_money(total)}[/]\n")


def _offsets(kafka: str, wanted: set[str]) -> dict[str, str]:
    """Where each fact stands on its topic, as a consumer sees it: `partition@offset` by the fact's id."""
    from kafka import KafkaConsumer  # noqa: PLC0415  everything starts faster without it
    from kafka.errors import KafkaError  # noqa: PLC0415

    found: dict[str, str] = {}
    try:
        consumer = KafkaConsumer(
            TOPIC,
            bootstrap_servers=kafka,
            auto_offset_reset="earliest",
            consumer_timeout_ms=KAFKA_PATIENCE_MS,
            isolation_level="read_committed",
        )
        for record in consumer:
            fact = dict(record.headers).get("ce_id", b"").decode()
            if fact in wanted:
                found[fact] = f"{record.partition}@{record.offset}"
            if len(found) == len(wanted):
                break
        consumer.close()
    except KafkaError as error:
        raise WalkFailed(f"Kafka at {kafka}: {type(error).__name__}") from error
    return found
