"""`payledger catalog`: what is sold, as the payment provider has it."""

import asyncio
from pathlib import Path

import click
from msgspec import json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from application.billing import Price, Product
from application.gateway import GatewayMisconfigured, Unknown

NO_TERMINAL_WIDTH = 160


@click.command()
@click.option("--api-key", envvar="STRIPE_API_KEY", show_envvar=True, help="Stripe's secret key.")
@click.option("--api-base", envvar="STRIPE_API_BASE", show_envvar=True, help="Where Stripe's API is, if elsewhere.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".payledger"),
    help="Else: the stand-in of what runs from this data folder.",
)
@click.option("--all", "everything", is_flag=True, help="Also what is not sold any more.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each product, for programs.")
def catalog(api_key: str | None, api_base: str | None, data: Path, *, everything: bool, as_json: bool) -> None:
    """Show the products and prices that can be subscribed to.

    They are Stripe's and nothing of them is stored here, so there is nothing to sync: a running ledger takes what is
    new there at once, and what was changed within five minutes.
    """
    key, base = (api_key, api_base or None) if api_key else _stand_in(data)
    found = [_listed(product, everything) for product in _asked(key, base) if product.active or everything]
    if as_json:
        for product in found:
            click.echo(json.encode(product))
        return
    table = Table()
    for name in ("name", "product", "price", "amount", "each", ""):
        table.add_column(name, overflow="fold")
    for product in found:
        for price in product.prices:
            cells = (product.id, price.id, f"{price.amount.major():f} {price.amount.currency}", _every(price))
            table.add_row(Text(product.name), *cells, _said(product, price))
    if table.row_count:
        # Ids are for copying: where there is no terminal they are not cut to its width.
        console = Console()
        (console if console.is_terminal else Console(width=NO_TERMINAL_WIDTH)).print(table)
    click.echo(f"{len(found)} products are shown")


def _stand_in(data: Path) -> tuple[str, str]:
    from interface import dev  # noqa: PLC0415  the sandbox is not needed where a key is given

    handle = dev.running(data)
    if handle is None or not handle.stripe:
        raise click.UsageError("Missing option '--api-key' (env var: 'STRIPE_API_KEY'): no stand-in runs here.")
    return dev.STAND_IN_KEY, handle.stripe


def _asked(api_key: str, api_base: str | None) -> tuple[Product, ...]:
    from application.stripe_billing import StripeBilling  # noqa: PLC0415  the others start faster without
    from application.stripe_client import StripeApi  # noqa: PLC0415

    async def ask() -> tuple[Product, ...] | Unknown:
        api = StripeApi(api_key, api_base)
        try:
            return await StripeBilling(api).catalog()
        finally:
            await api.close()

    try:
        found = asyncio.run(ask())
    except GatewayMisconfigured as refused:
        raise click.ClickException(f"Stripe does not take this key ({refused})") from None
    if isinstance(found, Unknown):
        raise click.ClickException(f"Stripe does not answer ({found.reason}); run it again")
    return found


def _listed(product: Product, everything: bool) -> Product:  # noqa: FBT001
    prices = tuple(price for price in product.prices if price.active or everything)
    return Product(product.id, product.name, product.active, product.default_price, prices)


def _every(price: Price) -> str:
    return price.interval if price.interval_count == 1 else f"{price.interval_count} {price.interval}s"


def _said(product: Product, price: Price) -> str:
    if not (product.active and price.active):
        return "not sold any more"
    return "default" if price.id == product.default_price else ""
