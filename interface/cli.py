"""The command line: `payledger --help`."""

import gc
import importlib
import logging
import os
import sys
from pathlib import Path

import click

from interface import settings as configuration
from interface.sandbox.alive import watch_parent
from interface.settings import DEFAULT_PORT, Settings, SettingsInvalid

DATA = click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=Path(".payledger"), help="The data folder."
)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# The collector looks for cycles once for so many new objects. What a process loads has none, and looking through it
# again and again took a quarter of its start.
LOADING = 20_000
# Commands in files of their own: a process loads the one that it runs.
ELSEWHERE = {
    "asyncapi": "interface.cli_asyncapi",
    "audit": "interface.cli_audit",
    "catalog": "interface.cli_catalog",
    "collect": "interface.cli_bookings",
    "inbox": "interface.cli_operations",
    "operations": "interface.cli_operations",
    "parked": "interface.cli_parked",
    "projections": "interface.cli_projections",
    "publish": "interface.cli_publish",
    "rebuild": "interface.cli_projections",
    "refund": "interface.cli_bookings",
    "token": "interface.cli_tokens",
}


class _Commands(click.Group):
    """Those of this file and those elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(ELSEWHERE[cmd_name]), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="payledger")
def main() -> None:
    """An event-sourced payment ledger: Postgres keeps the facts, Stripe moves the money."""
    gc.set_threshold(LOADING)
    level = os.environ.get("LOG_LEVEL", "").strip() or "INFO"
    if level not in LEVELS:
        raise click.ClickException(f"LOG_LEVEL must be one of {', '.join(LEVELS)}")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "kafka", "stripe", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


@main.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=DEFAULT_PORT, show_default=True, help="The API's port.")
@DATA
@click.option("--demo/--no-demo", default=False, help="Send a payment through when everything is up.")
def dev(port: int, data: Path, *, demo: bool) -> None:
    """Run everything on this machine: Postgres, broker, Stripe stand-in, API and workers."""
    from interface import dev as development  # noqa: PLC0415  only here are the sandbox's packages needed

    sys.exit(development.run(port, data, with_demo=demo))


@main.command()
@DATA
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Save what is shown as an SVG, too.")
def demo(data: Path, picture: Path | None) -> None:
    """Walk one payment through the running service, or start one and stop it."""
    from interface import dev as development  # noqa: PLC0415

    sys.exit(development.demo(data, picture))


@main.command()
def migrate() -> None:
    """Bring the database to the current schema."""
    from interface.migrations import migrate as apply  # noqa: PLC0415  the others start faster without

    for name in apply(_settings().database_url):
        click.echo(f"applied {name}")


@main.command()
def api() -> None:
    """Serve the HTTP interface."""
    watch_parent()
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415

    from interface.server import serve  # noqa: PLC0415

    try:
        serve(_settings())
    except PersistenceError as error:
        raise click.ClickException(f"the database does not answer ({type(error).__name__})") from None


@main.command()
def project() -> None:
    """Keep the read models up to date."""
    watch_parent()
    from interface import workers  # noqa: PLC0415

    workers.project(_settings())


@main.command()
def consume() -> None:
    """Take in orders from Kafka."""
    watch_parent()
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415

    from interface import consuming  # noqa: PLC0415

    try:
        consuming.consume(_settings())
    except PersistenceError as error:
        raise click.ClickException(f"the database does not answer ({type(error).__name__})") from None


@main.command()
def recover() -> None:
    """Finish what was interrupted, and handle what the provider tells."""
    watch_parent()
    from interface import recovering  # noqa: PLC0415

    recovering.recover(_settings())


def _settings() -> Settings:
    try:
        return configuration.read(os.environ)
    except SettingsInvalid as invalid:
        raise click.ClickException(str(invalid)) from None


if __name__ == "__main__":
    main()
