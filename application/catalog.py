"""What is sold: the provider's products with their prices, kept for a while, so that a caller can name a product."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from application.billing import BillingGateway, Price, Product
from application.gateway import Unknown
from domain.errors import PriceNeeded, PriceOfAnotherProduct, UnknownProduct

# What was changed at the provider is seen here after so long; what is new there, at once.
KEEP = timedelta(minutes=5)


class CatalogUnavailable(Exception):  # noqa: N818  it says what is so
    """What is sold could not be learned from the provider now."""


class Catalog:
    """One a process. `clock` gives the time with its zone."""

    def __init__(self, gateway: BillingGateway, clock: Callable[[], datetime]) -> None:
        self._gateway = gateway
        self._clock = clock
        self._products: tuple[Product, ...] = ()
        self._read_at: datetime | None = None

    async def price(self, product: str, price: str | None) -> Price:
        """The price that is meant: of a product by its id or its name, the one that is named or its only one.

        Raises UnknownProduct, PriceOfAnotherProduct, PriceNeeded or CatalogUnavailable.
        """
        if self._read_at is not None and self._clock() - self._read_at < KEEP:
            try:
                return price_in(self._products, product, price)
            except (UnknownProduct, PriceNeeded, PriceOfAnotherProduct):
                pass  # it may be new
        return price_in(await self.products(), product, price)

    async def products(self) -> tuple[Product, ...]:
        """All of them, as they are now. Raises CatalogUnavailable."""
        found = await self._gateway.catalog()
        if isinstance(found, Unknown):
            raise CatalogUnavailable(found.reason)
        self._products, self._read_at = found, self._clock()
        return found


def price_in(products: Sequence[Product], product: str, price: str | None) -> Price:
    """See Catalog.price. What is not sold any more is not known."""
    meant = [one for one in products if one.id == product] or [one for one in products if one.name == product]
    sold = [one for one in meant if one.active]
    if len(sold) != 1:
        raise UnknownProduct(product)
    if price is None:
        return _only_price(sold[0])
    for one in products:
        for found in one.prices:
            if found.id == price and found.active:
                if one.id != sold[0].id:
                    raise PriceOfAnotherProduct(price=price, product=product)
                return found
    raise UnknownProduct(product, price)


def _only_price(product: Product) -> Price:
    active = {price.id: price for price in product.prices if price.active}
    if product.default_price in active:
        return active[product.default_price]
    if len(active) != 1:
        raise PriceNeeded(product=product.id, prices=tuple(sorted(active)))
    return next(iter(active.values()))
