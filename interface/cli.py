"""The command line: `payledger --help`."""

import logging
import os
import sys
from datetime import timedelta
from pathlib import Path

import click

from interface import settings as configuration
from interface.bootstrap import clock
from interface.cli_audit import audit
from interface.cli_bookings import collect, refund
from interface.cli_catalog import catalog
from interface.cli_operations import inbox, operations
from interface.cli_projections import projections, rebuild
from interface.cli_tokens import revoke
from interface.sandbox.alive import watch_parent
from interface.settings import DEFAULT_PORT, Settings, SettingsInvalid
from interface.tokens import SCOPES, mint

DATA = click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=Path(".payledger"), help="The data folder."
)
DEVELOPMENT_LIFETIME = timedelta(days=30)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="payledger")
def main() -> None:
    """An event-sourced payment ledger: Postgres keeps the facts, Stripe moves the money."""
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
def publish() -> None:
    """Publish facts to Kafka."""
    watch_parent()
    from interface import workers  # noqa: PLC0415

    workers.publish(_settings())


@main.command()
def recover() -> None:
    """Finish what was interrupted, and handle what the provider tells."""
    watch_parent()
    from interface import recovering  # noqa: PLC0415

    recovering.recover(_settings())


@main.group(invoke_without_command=True)
@click.option("--subject", help="Whose token: the caller's name in every fact.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="Default: every scope.")
@DATA
@click.pass_context
def token(context: click.Context, subject: str | None, scopes: tuple[str, ...], data: Path) -> None:
    """Mint a development token for the service running from a data folder."""
    from interface.dev import jwt_secret  # noqa: PLC0415

    if context.invoked_subcommand:
        return
    if not subject:
        raise click.UsageError("Missing option '--subject'.")
    click.echo(mint(jwt_secret(data), subject, scopes or SCOPES, clock(), DEVELOPMENT_LIFETIME))


token.add_command(revoke)
main.add_command(audit)
main.add_command(catalog)
main.add_command(collect)
main.add_command(inbox)
main.add_command(operations)
main.add_command(projections)
main.add_command(rebuild)
main.add_command(refund)


def _settings() -> Settings:
    try:
        return configuration.read(os.environ)
    except SettingsInvalid as invalid:
        raise click.ClickException(str(invalid)) from None


if __name__ == "__main__":
    main()
