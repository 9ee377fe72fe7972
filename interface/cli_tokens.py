"""`payledger token`: tokens for development, and taking one back before it expires."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import click
import psycopg
from psycopg import AsyncConnection

from interface.bootstrap import clock
from interface.cli_projections import DATABASE_URL
from interface.invalidation import LONGEST_LIFETIME, MAX_TOKEN_ID, write_down
from interface.tokens import SCOPES, mint

CONNECT_TIMEOUT_S = 5
DEVELOPMENT_LIFETIME = timedelta(days=30)


@click.group(invoke_without_command=True)
@click.option("--subject", help="Whose token: the caller's name in every fact.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="Default: every scope.")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=Path(".payledger"), help="The data folder."
)
@click.pass_context
def token(context: click.Context, subject: str | None, scopes: tuple[str, ...], data: Path) -> None:
    """Mint a development token for the service running from a data folder."""
    from interface.dev import jwt_secret  # noqa: PLC0415  the sandbox is not needed to take a token back

    if context.invoked_subcommand:
        return
    if not subject:
        raise click.UsageError("Missing option '--subject'.")
    click.echo(mint(jwt_secret(data), subject, scopes or SCOPES, clock(), DEVELOPMENT_LIFETIME))


@token.command()
@click.argument("token_id", metavar="JTI")
@click.option("--expires-at", type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"]), help="When it would have expired.")
@DATABASE_URL
def revoke(token_id: str, expires_at: datetime | None, database_url: str) -> None:
    """Refuse a token from now on, in every process, by its id (`jti`); never hand the token itself about."""
    if not 1 <= len(token_id) <= MAX_TOKEN_ID or token_id.count(".") == 2:
        raise click.BadParameter("this is no token's id (jti)", param_hint="JTI")
    now = clock()

    async def write() -> None:
        async with await AsyncConnection.connect(
            database_url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True
        ) as conn:
            await write_down(conn, token_id, expires_at or now + LONGEST_LIFETIME, now)

    try:
        asyncio.run(write())
    except psycopg.OperationalError as error:
        raise click.ClickException(f"the database does not answer ({type(error).__name__}); run it again") from None
    click.echo(f"{token_id} is refused from now on")
