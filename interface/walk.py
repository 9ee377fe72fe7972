"""The walk that a newcomer sees: one payment authorized, captured and refunded, one card declined, fact by fact."""

import json
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from rich.console import Console
from rich.panel import Panel
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
    console.rule("[bold]one payment, end to end[/]", style="cyan")
    order = f"order-{uuid4().hex[:8]}"
    body = {"amount": 100_99, "currency": "usd", "payment_method": "pm_card_visa", "capture": "manual", "order": order}
    payment = _step(console, caller, "authorize 100.99 USD", "/v1/payments", body, 201)
    path = f"/v1/payments/{payment['id']}"
    _step(console, caller, "capture    60.00 USD", f"{path}/captures", {"amount": 60_00}, 201)
    _step(console, caller, "refund     10.50 USD", f"{path}/refunds", {"amount": 10_50}, 201)
    declined = body | {"payment_method": DECLINED_CARD}
    refused = _step(console, caller, "authorize 100.99 USD", "/v1/payments", declined, 402)["payment"]
    position = _show_facts(console, caller, kafka, [payment["id"], refused["id"]])
    _show_order(console, caller, order, position)


def invite(url: str, data: Path, console: Console) -> None:
    """How to make the next payment by hand."""
    text = Text.from_markup(
        f"The API is on [bold]{url}[/], its description on [bold]{url}/schema[/]. The next payment:\n\n"
        f"[green]TOKEN=$(.venv/bin/payledger token --subject me --data {data})\n"
        f"curl -s {url}/v1/payments \\\n"
        '  -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: my-first-payment" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"amount": 2599, "currency": "eur", "payment_method": "pm_card_visa", "capture": "automatic"}\'[/]\n\n'
        "Ctrl-C stops everything; the data stays."
    )
    console.print(Panel(text, title="payledger is up", border_style="cyan", expand=False))


def _step(
    console: Console, caller: Caller, what: str, path: str, body: dict[str, Any], expected: int
) -> dict[str, Any]:
    status, answer = caller.post(path, body)
    if status != expected:
        raise WalkFailed(f"{what}: answered {status} instead of {expected}: {json.dumps(answer)[:500]}")
    payment = answer.get("payment") or answer
    style = "green" if status < 400 else "yellow"
    detail = _money(payment) if status < 400 else answer["detail"]
    console.print(f"  [bold]{what}[/]  [{style}]{status} {payment['status']}[/]  [dim]{detail}[/]")
    return answer


def _money(payment: dict[str, Any]) -> str:
    parts = ("authorized", "captured", "refunded")
    return "  ".join(f"{part} {_major(payment[f'amount_{part}'])}" for part in parts)


def _major(minor: int) -> str:
    return f"{Decimal(minor) / 100:.2f}"


def _show_facts(console: Console, caller: Caller, kafka: str, payments: list[str]) -> int:
    """Show the table; answer the position of the last fact in it."""
    facts = [fact for payment in payments for fact in caller.get(f"/v1/payments/{payment}/events")[1]["events"]]
    offsets = _offsets(kafka, {fact["id"] for fact in facts})
    table = Table(title="\nwhat happened, fact by fact", title_style="bold", header_style="cyan", border_style="dim")
    for heading in ("position", "payment", "fact", "amount", "Stripe", "Kafka"):
        table.add_column(heading, justify="right" if heading in {"position", "amount"} else "left", no_wrap=True)
    for fact in facts:
        data = fact["data"]
        amount = f"{_major(data['amount'])} {data['currency'].upper()}" if "amount" in data else ""
        stripe = data.get("refund") or data.get("charge") or data.get("payment_intent") or ""
        name = Text(fact["type"], style="yellow" if fact["type"] == "Failed" else "default")
        where = offsets.get(fact["id"], "not yet")
        table.add_row(str(fact["position"]), fact["stream"][:8], name, amount, stripe, where)
    console.print(table)
    return int(facts[-1]["position"])


def _show_order(console: Console, caller: Caller, order: str, position: int) -> None:
    status, answer = caller.get(f"/v1/orders/{order}?after={position}")
    if status == 200:
        total = answer["totals"][0]
        console.print(f"\n  order [bold]{order}[/]  [green]{answer['status']}[/]  [dim]{_money(total)}[/]\n")


def _offsets(kafka: str, wanted: set[str]) -> dict[str, str]:
    """Where each fact stands on its topic, as a consumer sees it: `partition@offset` by the fact's id."""
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
