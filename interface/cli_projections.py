"""`payledger projections` and `payledger rebuild`: how the read models stand, and setting right what does not."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import UUID

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from application.event_store import Ledger
from domain.envelope import Envelope
from interface import settings
from interface.bootstrap import (
    FOLDING,
    PROJECTIONS,
    READ_MODELS,
    collect_seldom,
    log_reader,
    stream_reader,
    worker_name,
)
from interface.kafka import PUBLISHER
from interface.settings import Settings, SettingsInvalid
from projections.engine import LOCK_SPACE, Engine, connect
from projections.parking import Parked, Unreadable, parked
from projections.rebuild import NEXT, Outcome, Rebuild, Refused, drop_old

# A lag beyond this is told as "more than".
MAX_LAG = 1_000_000
DATABASE_URL = click.option("--database-url", envvar="DATABASE_URL", required=True, help="The ledger's database.")
MODELS = {model.name: model for model in READ_MODELS}
# An advisory lock with two keys shows the second as an unsigned number.
_STANDING = """
SELECT projection, position, stopped, (
    SELECT application_name || ' (session ' || pid || coalesce(' from ' || host(client_addr), '') || ')'
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = %s
        AND objid::bigint = hashtext(projection)::bigint & 4294967295
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) FROM checkpoints ORDER BY projection
"""
_LAG = """
SELECT count(*) FROM (
    SELECT FROM ledger_events WHERE notification_id > %s AND notification_id <= %s LIMIT %s
) AS missing
"""

# --- How they stand ----------------------------------------------------------------------------------------------


@click.group(invoke_without_command=True)
@DATABASE_URL
@click.option("--trace", is_flag=True, help="Show where in the code each parked stream failed.")
@click.pass_context
def projections(context: click.Context, database_url: str, *, trace: bool) -> None:
    """Show how far each projection is, who works it, and what is parked; exit 1 if anything is."""
    context.obj = database_url
    if context.invoked_subcommand:
        return
    with _database(database_url) as conn, Ledger(database_url, pool_size=1) as ledger:
        with ledger.recorder.datastore.get_connection() as reading:
            horizon = ledger.recorder.horizon.advance(reading)
        standing, aside = conn.execute(_STANDING, (LOCK_SPACE,)).fetchall(), parked(conn)
        lags = [conn.execute(_LAG, (row[1], horizon, MAX_LAG)).fetchone() for row in standing]
    table = Table("projection", "checkpoint", "facts behind", "worked by", "parked", "state")
    for (name, position, stopped, worker), lag in zip(standing, lags, strict=True):
        streams = sum(stream.projection == name for stream in aside)
        state = f"stopped: {stopped}" if stopped else "building" if name.endswith(NEXT) else "ok"
        table.add_row(name, str(position), str(lag[0] if lag else 0), worker or "nobody", str(streams), Text(state))
    console = Console()
    console.print(table)
    if aside:
        console.print(_parked_table(aside))
    for stream in aside if trace else ():
        console.print(Text(f"\n{stream.projection} {stream.stream}\n{stream.trace}"))
    sys.exit(1 if aside or any(row[2] for row in standing) else 0)


def _parked_table(aside: list[Parked]) -> Table:
    table = Table("projection", "parked stream", "from position", "tried", "reason")
    for stream in aside:
        cells = (stream.projection, str(stream.stream), str(stream.position), str(stream.attempts))
        table.add_row(*cells, Text(stream.reason))
    return table


class Worker(Protocol):
    """What brings a parked stream back: an engine, or the publisher."""

    def retry(
        self, conn: psycopg.Connection[Any], stream: UUID, read: Callable[[UUID], Sequence[Envelope | Unreadable]]
    ) -> bool: ...


# --- Set right ---------------------------------------------------------------------------------------------------


@projections.command()
@click.argument("name", required=False)
@click.option("--stream", type=click.UUID, help="Only this stream.")
@click.pass_obj
def retry(database_url: str, name: str | None, stream: UUID | None) -> None:
    """Apply what the parked streams missed, in order. What fails again stays parked; exit 1 if anything does."""
    still = 0
    with _database(database_url) as conn, Ledger(database_url, pool_size=2) as ledger:
        wanted = [one for one in parked(conn) if name in (None, one.projection) and stream in (None, one.stream)]
        for projection in dict.fromkeys(one.projection for one in wanted):
            with _worker(projection, ledger, database_url) as worker:
                for one in wanted:
                    if one.projection == projection:
                        back = worker.retry(conn, one.stream, stream_reader(ledger))
                        still += not back
                        click.echo(f"{projection} {one.stream} {'is back' if back else 'fails again'}")
    click.echo(f"{len(wanted) - still} streams are back, {still} stay parked")
    sys.exit(1 if still else 0)


@contextmanager
def _worker(name: str, ledger: Ledger, database_url: str) -> Iterator[Worker]:
    from interface.publishing import publishing  # noqa: PLC0415  the other commands start faster without Kafka's client

    known = {projection.name: projection for projection in PROJECTIONS}
    known |= {model.name + NEXT: model.projection(NEXT) for model in READ_MODELS}
    if name == PUBLISHER:
        with publishing(_settings()) as publisher:
            yield publisher
    elif name in known:
        yield Engine(known[name], log_reader(ledger), database_url)
    else:
        raise click.ClickException(f"this version has no projection {name}")


@click.command()
@click.argument("name", type=click.Choice(sorted(MODELS)))
@click.option("--accept-differences", is_flag=True, help="Switch even if the new rows differ from those that serve.")
@click.option("--anew", is_flag=True, help="Begin again, not where an earlier rebuild stopped.")
@click.option("--drop-old", is_flag=True, help="Build nothing: drop what the last rebuild replaced.")
@DATABASE_URL
def rebuild(name: str, database_url: str, *, accept_differences: bool, anew: bool, drop_old: bool) -> None:
    """Build a read model anew beside the one that serves, compare the two, and switch at once.

    Stopped at any moment, it goes on from there when it is run again.
    """
    if drop_old:
        _drop_old(database_url, name)
        return
    collect_seldom(FOLDING)
    # A connection first: where there is none, it says so.
    with _database(database_url), Ledger(database_url, pool_size=2) as ledger, _progress(name) as told:
        building = Rebuild(MODELS[name], log_reader(ledger), database_url, worker_name())
        try:
            outcome = building.run(told, accept_differences=accept_differences, anew=anew)
        except Refused as refused:
            raise click.ClickException(str(refused)) from None
    _report(name, outcome)


def _report(name: str, outcome: Outcome) -> None:
    click.echo(f"{outcome.rows} rows built, compared at position {outcome.position}: {outcome.differing} differ")
    if outcome.parked:
        click.echo(f"{outcome.parked} streams are parked in what was built")
    if outcome.differing:
        click.echo(f"for example {', '.join(outcome.examples)}")
    if not outcome.switched:
        raise click.ClickException("nothing was switched; with --accept-differences the new rows serve")
    click.echo(f"switched; what {name} replaced is kept until: payledger rebuild {name} --drop-old")


def _drop_old(database_url: str, name: str) -> None:
    with _database(database_url) as conn:
        dropped = drop_old(conn, MODELS[name])
    click.echo(f"dropped {', '.join(dropped)}" if dropped else "there is nothing to drop")


# --- Helpers -----------------------------------------------------------------------------------------------------


def _settings() -> Settings:
    try:
        return settings.read(os.environ)
    except SettingsInvalid as invalid:
        raise click.ClickException(str(invalid)) from None


@contextmanager
def _database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with connect(database_url, worker_name()) as conn:
            yield conn
    except psycopg.OperationalError as error:
        raise click.ClickException(f"the database does not answer ({type(error).__name__}); run it again") from None


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} facts/s" if task.speed else "")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn(f"rebuilding {name}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, _Rate(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None)
        yield lambda position, end: progress.update(task, completed=position, total=max(position, end))
