"""`payledger collect` and `payledger refund`: what the airline's booking workflow does with a charge."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import json

from interface import client_calls as calls
from interface.client_attempts import Call
from interface.client_errors import PayledgerError

T = TypeVar("T")

CHARGE = click.option("--charge", required=True, help="The pre-authorised charge, ch_….")


def _addressed(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which ledger is asked, and as whom."""
    data = click.Path(file_okay=False, path_type=Path)
    for option in (
        click.option("--data", type=data, default=Path(".payledger"), help="Else: what runs from this data folder."),
        click.option("--token", envvar="PAYLEDGER_TOKEN", show_envvar=True, help="The caller's token."),
        click.option("--url", envvar="PAYLEDGER_URL", show_envvar=True, help="The ledger's address."),
    ):
        command = option(command)
    return command


@click.command()
@CHARGE
@click.option("--customer", required=True, help="Whose booking it is.")
@click.option("--booking", required=True, help="The booking that was confirmed.")
@_addressed
def collect(charge: str, customer: str, booking: str, **address: Any) -> None:
    """Take the whole of a pre-authorised charge, once its booking is confirmed."""
    with _errors_told():
        call = calls.collect(charge, customer, booking)
        click.echo(json.encode(_sent(call, **address)))


@click.command()
@CHARGE
@_addressed
def refund(charge: str, **address: Any) -> None:
    """Give all that is left of a charge back; one that was not taken yet is released."""
    with _errors_told():
        call = calls.refund(charge)
        click.echo(json.encode(_sent(call, **address)))


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except PayledgerError as error:
        raise click.ClickException(str(error)) from None


def _sent(call: Call[T], url: str | None, token: str | None, data: Path) -> T:
    from interface.client import PayledgerClient  # noqa: PLC0415  the others start faster without an HTTP library

    try:
        client = PayledgerClient(*_address(url, token, data))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with client:
        return client.send(call)


def _address(url: str | None, token: str | None, data: Path) -> tuple[str, str]:
    """A folder's token goes to the folder's own service alone."""
    from interface.dev import running  # noqa: PLC0415  the sandbox is not needed where an address is given

    if url and token:
        return url, token
    if url:
        raise click.UsageError("Missing option '--token' (env var: 'PAYLEDGER_TOKEN') for this address.")
    handle = running(data)
    if handle is None:
        raise click.UsageError(f"Missing option '--url' (env var: 'PAYLEDGER_URL'); nothing runs from {data}.")
    return handle.url, token or handle.token
