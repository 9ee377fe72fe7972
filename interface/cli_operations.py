"""`payledger operations` and `payledger inbox`: what has not ended, and what the provider told that fits nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import click
import psycopg
from msgspec import json
from psycopg import AsyncConnection
from rich.console import Console
from rich.table import Table
from rich.text import Text

from application.order_returns import ACTOR, MAX_TRIES, WHYS, tried
from application.settlement import KEY_LIFETIME
from domain.payment import PaymentAt
from interface.bootstrap import clock
from interface.cli_projections import DATABASE_URL
from projections import open_operations, orders
from projections.open_operations import OpenOperation

CONNECT_TIMEOUT_S = 5
MAX_SHOWN = 1_000
NO_TERMINAL_WIDTH = 220
JSON = click.option("--json", "as_json", is_flag=True, help="A line of JSON each, for programs.")
_INBOX = """
SELECT state, event_id, type, object_id, payment_intent, payment::text, customer, created_at, received_at, attempts,
    note
FROM inbox WHERE state = ANY(%s) ORDER BY received_at LIMIT %s
"""

T = TypeVar("T")


@click.command()
@DATABASE_URL
@JSON
def operations(database_url: str, *, as_json: bool) -> None:
    """Show every operation that has started and not ended, the oldest first; then what is to go back by itself."""
    found = _asked(database_url, open_operations.oldest) + _asked(database_url, _owed)
    now = clock()
    if as_json:
        for operation in found:
            click.echo(json.encode(operation))
        return
    table = _table("of", "stream", "operation", "kind", "amount", "since", "by", "tried", "what is known")
    for operation in found:
        stream = operation.aggregate, str(operation.payment)
        cells = (*stream, operation.operation, operation.kind, _amount(operation), f"{operation.started_at:%F %T}")
        table.add_row(*cells, operation.actor, str(operation.attempts), Text(_known(operation, now)))
    _show(table, f"{len(found)} operations are open")


async def _owed(conn: AsyncConnection[Any]) -> list[OpenOperation]:
    """What goes back by itself, as the operation that the next try will be."""
    return [_return(at) for at in await orders.owed(conn, MAX_SHOWN)]


def _return(at: PaymentAt) -> OpenOperation:
    payment = at.payment
    taken = payment.refundable.minor > 0 and not payment.capturable
    each = [tried(at.id, payment, "refund" if taken else "void", why) for why in WHYS]
    tries = max(each, key=lambda one: len(one.failed))
    said = f"owed to who paid for the order {payment.order}; {len(tries.failed)} tries failed"
    return OpenOperation(
        payment=at.id,
        operation=tries.next,
        kind="refund" if taken else "void",
        amount=payment.refundable.minor if taken else None,
        currency=payment.amount.currency if taken else None,
        waiting=False,
        actor=ACTOR,
        correlation="",
        started_at=at.updated_at,
        attempts=len(tries.failed),
        reason=said if len(tries.failed) < MAX_TRIES else f"{said}: somebody has to look",
        next_try=None,
    )


def _amount(operation: OpenOperation) -> str:
    if operation.amount is not None:
        return f"{operation.amount} {operation.currency}"
    return "the rest" if operation.aggregate == "payment" else ""


def _known(operation: OpenOperation, now: datetime) -> str:
    said = operation.reason or ("waits for the cardholder" if operation.waiting else "under way")
    begun = bool(operation.correlation)  # else it is only owed, and has no key yet
    if begun and now - operation.started_at >= KEY_LIFETIME:
        said += "; too old to be sent again, only looked up"
    return said


@click.command()
@DATABASE_URL
@JSON
@click.option("--all", "everything", is_flag=True, help="Also those that merely wait for their turn.")
def inbox(database_url: str, *, as_json: bool, everything: bool) -> None:
    """Show what the provider told that belongs to no payment or customer of ours, or contradicts one."""
    states = ["stuck", "unmatched", *(["waiting"] if everything else [])]

    async def ask(conn: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        return await (await conn.execute(_INBOX, (states, MAX_SHOWN))).fetchall()

    found = _asked(database_url, ask)
    about = ("payment intent", "payment", "customer")
    names = ("state", "event", "type", "object", *about, "created", "received", "tried", "note")
    if as_json:
        for row in found:
            click.echo(json.encode(dict(zip(names, row, strict=True))))
        return
    table = _table("state", "event", "type", "object", "of", "created", "tried", "note")
    for state, event, kind, thing, _, payment, customer, created, _, attempts, note in found:
        of = payment or customer or ""
        table.add_row(state, event, kind, thing, of, f"{created:%F %T}", str(attempts), Text(note))
    _show(table, f"{len(found)} events are shown")


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _show(table: Table, said: str) -> None:
    if table.row_count:
        # Ids are for copying: where there is no terminal they are not cut to its width.
        console = Console()
        (console if console.is_terminal else Console(width=NO_TERMINAL_WIDTH)).print(table)
    click.echo(said)


def _asked(database_url: str, ask: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with await AsyncConnection.connect(database_url, connect_timeout=CONNECT_TIMEOUT_S) as conn:
            return await ask(conn)

    try:
        return asyncio.run(connected())
    except psycopg.OperationalError as error:
        raise click.ClickException(f"the database does not answer ({type(error).__name__}); run it again") from None
