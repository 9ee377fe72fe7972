"""What is sold: a product named by its id or name, its price by default or by name, and for how long that is kept."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from application.billing import Price, Product
from application.billing_desk import Billing
from application.catalog import KEEP, CatalogUnavailable, price_in
from domain.errors import PriceNeeded, PriceOfAnotherProduct, UnknownProduct
from domain.money import Money
from interface.sandbox.postgres import Postgres
from tests.billing_desk_side import EVERY_TRY, BillingDesk, desk_on, unique
from tests.test_stripe_billing_standin import YEAR

LIST = "GET /v1/prices"


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BillingDesk]:
    with desk_on(postgres, tmp_path_factory.mktemp("stripe")) as desk:
        yield desk


@pytest.fixture
def desk(shared: BillingDesk) -> Iterator[BillingDesk]:
    with shared.for_a_test() as desk:
        yield desk


# --- Which price is meant ----------------------------------------------------------------------------------------


def price(name: str, product: str, *, active: bool = True) -> Price:
    return Price(name, product, Money(10_00, "usd"), "month", 1, active)


def product(name: str, *prices: Price, default: str | None = None, active: bool = True, called: str = "") -> Product:
    return Product(name, called or f"The {name}", active, default, prices)


SOLD = (
    product("basic", price("basic-month", "basic")),
    product("pro", price("pro-month", "pro"), price("pro-year", "pro"), default="pro-year"),
    product("many", price("many-month", "many"), price("many-year", "many")),
    product("rest", price("rest-old", "rest", active=False), price("rest-new", "rest"), default="rest-old"),
    product("none", price("none-old", "none", active=False)),
    product("gone", price("gone-month", "gone"), active=False),
    product("twin-1", price("twin-1-month", "twin-1"), called="Twin"),
    product("twin-2", price("twin-2-month", "twin-2"), called="Twin"),
    product("heir", price("heir-month", "heir"), called="gone"),
)


@pytest.mark.parametrize(
    ("named", "with_price", "meant"),
    [
        ("basic", None, "basic-month"),
        ("The basic", None, "basic-month"),
        ("pro", None, "pro-year"),
        ("pro", "pro-month", "pro-month"),
        ("many", "many-year", "many-year"),
        ("rest", None, "rest-new"),
        ("twin-2", None, "twin-2-month"),
    ],
)
def test_the_price_that_is_meant_is_found(named: str, with_price: str | None, meant: str) -> None:
    assert price_in(SOLD, named, with_price).id == meant


@pytest.mark.parametrize(
    ("named", "with_price", "refusal"),
    [
        ("nothing", None, UnknownProduct),
        ("the basic", None, UnknownProduct),
        ("gone", None, UnknownProduct),
        ("Twin", None, UnknownProduct),
        ("basic", "nothing", UnknownProduct),
        ("rest", "rest-old", UnknownProduct),
        ("basic", "pro-month", PriceOfAnotherProduct),
        ("many", None, PriceNeeded),
        ("none", None, PriceNeeded),
    ],
)
def test_what_could_mean_several_or_is_not_sold_any_more_means_nothing(
    named: str, with_price: str | None, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        price_in(SOLD, named, with_price)


def test_a_product_that_needs_a_price_says_which_there_are() -> None:
    with pytest.raises(PriceNeeded) as needed:
        price_in(SOLD, "many", None)
    assert needed.value.prices == ("many-month", "many-year")


# --- At the provider ---------------------------------------------------------------------------------------------


def test_all_that_is_sold_is_listed_by_product(desk: BillingDesk) -> None:
    monthly = desk.shop.price(12_34)
    yearly = desk.shop.price(99_00, product=monthly.product, recurring=YEAR)
    desk.shop.sdk.products.update(monthly.product, {"default_price": yearly.id})
    [found] = [one for one in desk.run(lambda billing: billing.catalog.products()) if one.id == monthly.product]
    assert found.default_price == yearly.id
    assert {(one.id, one.amount, one.interval) for one in found.prices} == {
        (monthly.id, Money(12_34, "usd"), "month"),
        (yearly.id, Money(99_00, "usd"), "year"),
    }


def test_what_is_new_is_known_at_once_and_what_is_known_is_not_asked_for_again(desk: BillingDesk) -> None:
    first = desk.shop.price()

    async def use(billing: Billing) -> list[str]:
        found = [(await billing.catalog.price(first.product, None)).id]
        name = unique("Plan")
        new = await asyncio.to_thread(desk.shop.price, product_data={"name": name})
        found.append((await billing.catalog.price(name, None)).id)
        desk.shop.fault(LIST, "refused", times=EVERY_TRY)
        found += [(await billing.catalog.price(wanted, None)).id for wanted in (new.product, first.product)]
        assert found == [first.id, new.id, new.id, first.id]
        with pytest.raises(CatalogUnavailable):
            await billing.catalog.price("nothing that we know", None)
        desk.ahead = KEEP
        with pytest.raises(CatalogUnavailable):
            await billing.catalog.price(first.product, None)
        return found

    assert len(desk.run(use)) == 4


def test_what_is_sold_no_more_is_so_here_after_a_while(desk: BillingDesk) -> None:
    sold: Any = desk.shop.price()

    async def use(billing: Billing) -> None:
        assert (await billing.catalog.price(sold.product, None)).id == sold.id
        await asyncio.to_thread(desk.shop.sdk.prices.update, sold.id, {"active": False})
        assert (await billing.catalog.price(sold.product, None)).id == sold.id
        desk.ahead = KEEP + timedelta(seconds=1)
        with pytest.raises(PriceNeeded):
            await billing.catalog.price(sold.product, None)

    desk.run(use)
