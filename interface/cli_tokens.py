"""`payledger token revoke`: taking a token back before it expires."""

import asyncio
from datetime import datetime

import click
import psycopg
from psycopg import AsyncConnection

from interface.bootstrap import clock
from interface.cli_projections import DATABASE_URL
from interface.invalidation import LONGEST_LIFETIME, MAX_TOKEN_ID, write_down

CONNECT_TIMEOUT_S = 5


@click.command()
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
