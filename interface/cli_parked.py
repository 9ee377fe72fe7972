"""`payledger parked`: what came about orders and could not be taken in, and setting that right."""

import getpass
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import click
from eventsourcing.persistence import PersistenceError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from application.event_store import Ledger, StoreUnavailable, StreamMoved
from application.log_transaction import log_transaction
from application.order_intake import NotParked, OrderIntake, Retried
from application.order_offsets import Halted, halted, restart
from application.order_parking import MAX_PARKED, Parked, SealUnknown, all_parked
from application.privacy import Keys
from interface import settings
from interface.bootstrap import clock
from interface.kafka.order_reading import reader
from interface.settings import Settings, SettingsInvalid

DATABASE_URL = click.option("--database-url", envvar="DATABASE_URL", required=True, help="The ledger's database.")
REASON = click.option("--reason", required=True, help="Why. It is kept.")
BY = click.option("--by", default=getpass.getuser, show_default="who you are here", help="Who decided so. It is kept.")
NO_TERMINAL_WIDTH = 220
# A lane to which orders are paid at this moment is tried again so often.
MAX_TRIES = 5


@click.group(invoke_without_command=True)
@DATABASE_URL
@click.pass_context
def parked(context: click.Context, database_url: str) -> None:
    """Show messages that could not be taken in, with those behind them, and partitions that halt; exit 1 if any."""
    context.obj = database_url
    if context.invoked_subcommand:
        return
    with _ledger(database_url) as ledger, log_transaction(ledger) as transaction:
        aside, standing = all_parked(transaction.conn, MAX_PARKED), halted(transaction.conn)
    if aside:
        _show(_aside(aside))
    if standing:
        _show(_standing(standing))
    lanes = len({one.lane for one in aside})
    click.echo(f"{len(aside)} messages of {lanes} orders are parked, {len(standing)} partitions halt")
    sys.exit(1 if aside or standing else 0)


def _aside(aside: list[Parked]) -> Table:
    table = _table("id", "message", "order", "since", "tried", "reason")
    for one in aside:
        order = Text(one.order_id or f"lane {one.lane}")
        table.add_row(str(one.id), one.place, order, f"{one.since:%F %T}", str(one.attempts), one.reason)
    return table


def _standing(standing: list[Halted]) -> Table:
    table = _table("topic", "halted partition", "at offset", "reason")
    for one in standing:
        table.add_row(one.topic, str(one.partition), str(one.next_offset), one.reason)
    return table


# --- Set right ---------------------------------------------------------------------------------------------------


@parked.command()
@click.argument("ids", metavar="ID…", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Of every order.")
@click.pass_obj
def retry(database_url: str, ids: tuple[int, ...], *, everything: bool) -> None:
    """Take in what waits with these messages, order by order; what fails again stays. Exit 1 if anything does."""
    if bool(ids) == everything:
        raise click.UsageError("Say which: ID… or --all.")
    with _ledger(database_url) as ledger:
        intake = _intake(ledger)
        with log_transaction(ledger) as transaction:
            known = {one.id: one for one in all_parked(transaction.conn, MAX_PARKED)}
        unknown = [str(wanted) for wanted in ids if wanted not in known]
        if unknown:
            raise click.ClickException(f"not parked: {', '.join(unknown)}")
        # One of each lane: the others go with it.
        firsts = {known[wanted].lane: wanted for wanted in reversed(ids or tuple(known))}
        outcomes = [_told(wanted, partial(_retry, intake, wanted)) for wanted in firsts.values()]
    stay = sum(outcome.stay for outcome in outcomes)
    click.echo(f"{sum(outcome.taken for outcome in outcomes)} messages were taken in, {stay} stay parked")
    sys.exit(1 if stay else 0)


@parked.command()
@click.argument("parked_id", metavar="ID", type=int)
@REASON
@BY
@click.pass_obj
def discard(database_url: str, parked_id: int, reason: str, by: str) -> None:
    """Give a message up for good, and take in what waited behind it."""
    with _ledger(database_url) as ledger:
        intake = _intake(ledger)
        outcome = _told(parked_id, lambda: intake.discard(parked_id, by, reason, clock()))
    click.echo(f"discarded; {outcome.taken} behind it were taken in, {outcome.stay} stay parked")
    sys.exit(1 if outcome.stay else 0)


@parked.command("restart")
@click.argument("topic")
@click.argument("partitions", metavar="[PARTITION…]", type=int, nargs=-1)
@REASON
@BY
@click.pass_obj
def restart_command(database_url: str, topic: str, partitions: tuple[int, ...], reason: str, by: str) -> None:
    """Have partitions that halt (all, unless named) begun anew at the oldest message there is.

    What is told again changes nothing. What is not there any more is not taken in.
    """
    with _ledger(database_url) as ledger, log_transaction(ledger) as transaction:
        wanted = partitions or [one.partition for one in halted(transaction.conn) if one.topic == topic]
        begun = [one for one in wanted if restart(transaction.conn, topic, one, by, reason, clock())]
    if not begun:
        raise click.ClickException(f"no such partition of {topic} halts")
    click.echo(f"within seconds these begin anew: {', '.join(map(str, begun))}")


def _retry(intake: OrderIntake, parked_id: int) -> Retried:
    return intake.retry(parked_id, clock())


# --- Helpers -----------------------------------------------------------------------------------------------------


@contextmanager
def _ledger(database_url: str) -> Iterator[Ledger]:
    try:
        with Ledger(database_url, pool_size=1) as ledger:
            yield ledger
    except (StoreUnavailable, PersistenceError) as error:
        raise click.ClickException(f"the database does not answer ({type(error).__name__}); run it again") from None


def _intake(ledger: Ledger) -> OrderIntake:
    read = _settings()
    return OrderIntake(ledger, Keys(read.encryption_keys, secrets.token_bytes), reader(read.default_currency))


def _told(parked_id: int, act: Callable[[], Retried]) -> Retried:
    """What was done. Raises click's error for what cannot be."""
    for _ in range(MAX_TRIES):
        try:
            outcome = act()
        except StreamMoved:
            continue
        except NotParked:
            raise click.ClickException(f"not parked: {parked_id}") from None
        except SealUnknown:
            raise click.ClickException(f"no ENCRYPTION_KEY of these opens message {parked_id}") from None
        if outcome.stay:
            click.echo(f"{parked_id}: {outcome.reason}")
        return outcome
    raise click.ClickException(f"the order of message {parked_id} is busy; run it again")


def _settings() -> Settings:
    try:
        return settings.read(os.environ)
    except SettingsInvalid as invalid:
        raise click.ClickException(str(invalid)) from None


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _show(table: Table) -> None:
    # Ids are for copying: where there is no terminal they are not cut to its width.
    console = Console()
    (console if console.is_terminal else Console(width=NO_TERMINAL_WIDTH)).print(table)
