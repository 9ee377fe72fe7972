"""What customers do over the years, as the seed draws it: here, and elsewhere (in the provider's portal)."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from msgspec import Struct

from application.catalog import CatalogUnavailable
from application.payment_stream import Context
from application.payments import ProviderUnavailable
from application.streams import Done
from application.subscriptions import Wanted
from domain.errors import Refusal
from projections import customers
from projections.customer_rows import SubscriptionAt
from tests.billing_years import World
from tests.billing_years_elsewhere import elsewhere, out
from tests.severed_billing import FATES, Killed
from tests.test_stripe_billing_standin import MONTH, YEAR

# Attach like any card. To the last of these no money goes back; the other ones are declined whenever they are charged.
GOOD = ("tok_visa", "tok_mastercard", "pm_card_amex", "pm_card_discover", "pm_card_refundFail")
POOR = ("tok_chargeCustomerFail", "pm_card_chargeCustomerFail")
# Is not even attached.
REFUSED = "pm_card_chargeDeclined"
QUARTER = {"interval": "month", "interval_count": 3}
# Most is sold by the month.
OFFERS = ((9_99, MONTH), (24_00, MONTH), (31_25, MONTH), (99_00, YEAR), (27_00, QUARTER))
PRODUCTS = 3
# Of a customer in a step: that it does anything; of an act: that it is begun here and cut short; done elsewhere.
ACTS, CUT, ELSEWHERE = 0.2, 0.2, 0.2
# Of what was cut short: settled while its key lives, and not only at the next step.
SOON = 0.5


class Person(Struct):
    """A customer from `begins` on, first with a trial of so many days."""

    user: str
    begins: datetime
    trial_days: int
    stream: UUID | None = None
    provider: str = ""


class People:
    """All customers of a world, what is sold to them by product, and for how many months each price is."""

    def __init__(self, world: World, persons: list[Person]) -> None:
        self.world = world
        self.persons = persons
        self.prices = [self._offered(f"Product {number}") for number in range(PRODUCTS)]
        self.months = {price.id: _months(price.recurring) for prices in self.prices for price in prices}
        self._numbers = count(1)
        self._acts: list[tuple[int, Callable[[Person, SubscriptionAt], Awaitable[None]]]] = [
            (8, self._another_card),
            (6, self._expiring_card),
            (8, self._change),
            (5, self._cancel),
            (4, self._another_product),
        ]

    def _offered(self, name: str) -> list[Any]:
        product = self.world.shop.sdk.products.create({"name": name})
        return [self.world.shop.price(amount, recurring, product=product.id) for amount, recurring in OFFERS]

    # --- The course of things ------------------------------------------------------------------------------------

    async def begin(self, person: Person) -> None:
        world, context = self.world, self._context()
        email = f"{person.user}@example.com"
        await self._tried(lambda: world.billing.customers.register(person.user, email, context))
        await world.settle()
        story = (await world.billing.customers.register(person.user, None, context)).story
        person.stream, person.provider = story.stream, story.known.provider_customer or ""
        assert person.provider
        await self._card(person, world.rng.choice(GOOD))
        await world.settle()
        await self._subscribe(person, person.trial_days)

    async def live_on(self) -> None:
        self.world.follow()
        for person in self.persons:
            if person.stream is not None and self.world.rng.random() < ACTS:
                await self._act(person)

    async def _act(self, person: Person) -> None:
        assert person.stream is not None
        found = await customers.subscriptions_of(self.world.conn, person.stream, None, customers.MAX_PAGE)
        living = [at for at in found if at.state.status not in {"cancelled", "refused", "pending"}]
        if not living:
            await self._return(person)
            return
        at = self.world.rng.choice(living)
        if self.world.rng.random() < ELSEWHERE:
            elsewhere(self.world, person.provider, at, self._any_price())
        elif at.state.payment_status == "failed" and self.world.rng.random() < 0.6:
            await self._repair(person, at)
        elif at.state.ends_at is not None and self.world.rng.random() < 0.6:
            await self._resume(at)
        else:
            weights, acts = zip(*self._acts, strict=True)
            await self.world.rng.choices(acts, weights)[0](person, at)

    # --- Acts ----------------------------------------------------------------------------------------------------

    async def _return(self, person: Person) -> None:
        """Whoever had nothing left to pay with brings a card."""
        await self._card(person, self.world.rng.choice(GOOD))
        await self._subscribe(person, 0)

    async def _subscribe(self, person: Person, trial_days: int) -> None:
        price, stream = self._any_price(), person.stream
        assert stream is not None
        wanted = Wanted(price.product, price.id, self.world.rng.randint(1, 3), trial_days)
        await self._tried(lambda: self.world.billing.subscriptions.begin(stream, wanted, self._name(), self._context()))

    async def _another_product(self, person: Person, _: SubscriptionAt) -> None:
        await self._subscribe(person, self.world.rng.choice((0, 0, 14)))

    async def _another_card(self, person: Person, _: SubscriptionAt) -> None:
        chance = self.world.rng.random()
        await self._card(person, self.world.rng.choice(POOR if chance < 0.3 else GOOD) if chance < 0.85 else REFUSED)

    async def _expiring_card(self, person: Person, _: SubscriptionAt) -> None:
        """The networks tell of a new expiry: next month, or in a few years."""
        assert person.stream is not None
        method = (await self.world.billing.customers.load(person.stream)).known.payment_method
        if method is not None:
            until = self.world.clock() + timedelta(days=self.world.rng.choice((10, 40, 900, 1500)))
            told = {"exp_month": until.month, "exp_year": until.year}
            self.world.shop.control.post(f"/cards/{method}", json=told).raise_for_status()
            self.world.counted["cards reissued"] += 1

    async def _repair(self, person: Person, at: SubscriptionAt) -> None:
        """A good card, and what is owed is paid by hand, at times."""
        await self._card(person, self.world.rng.choice(GOOD))
        latest = at.state.latest_invoice
        if latest is not None and self.world.rng.random() < 0.5:
            out(self.world, lambda: self.world.shop.sdk.invoices.pay(latest[0]))

    async def _change(self, _: Person, at: SubscriptionAt) -> None:
        price = self._any_price()
        product, named = self.world.rng.choice(((price.product, price.id), (None, None)))
        quantity = self.world.rng.choice((None, 1, 2, 5))
        change = self.world.billing.subscriptions.change
        await self._tried(lambda: change(at.id, product, named, quantity, self._name(), self._context()))

    async def _cancel(self, _: Person, at: SubscriptionAt) -> None:
        cancel, later = self.world.billing.subscriptions.cancel, self.world.rng.random() < 0.8
        await self._tried(lambda: cancel(at.id, self._name(), self._context(), at_period_end=later))

    async def _resume(self, at: SubscriptionAt) -> None:
        if self.world.rng.random() < 0.4:
            name, kept = at.state.provider_subscription, {"cancel_at_period_end": False}
            out(self.world, lambda: self.world.shop.sdk.subscriptions.update(name, kept))
        else:
            resume = self.world.billing.subscriptions.resume
            await self._tried(lambda: resume(at.id, self._name(), self._context()))

    # --- Asking us -----------------------------------------------------------------------------------------------

    async def _card(self, person: Person, token: str) -> None:
        stream = person.stream
        assert stream is not None
        update = self.world.billing.customers.update_card
        await self._tried(lambda: update(stream, token, self._name(), self._context()))

    async def _tried(self, wish: Callable[[], Awaitable[Done[Any]]]) -> None:
        """A wish; now and then the call that it leads to is cut short."""
        world = self.world
        cut = world.severed.fate = world.rng.choice(FATES) if world.rng.random() < CUT else None
        try:
            done = await wish()
        except Killed:
            world.counted["killed"] += 1
        except (ProviderUnavailable, CatalogUnavailable, Refusal) as error:
            world.counted[f"refused: {type(error).__name__}"] += 1
        else:
            world.counted[f"wishes {done.outcome}"] += 1
        unused, world.severed.fate = world.severed.fate, None
        if cut and not unused and world.rng.random() < SOON:
            await world.settle()

    def _any_price(self) -> Any:
        return self.world.rng.choice(self.world.rng.choice(self.prices))

    def _name(self) -> str:
        return f"wish-{next(self._numbers)}"

    def _context(self) -> Context:
        return Context("years", f"request-{next(self._numbers)}")


def _months(recurring: Any) -> int:
    return int(recurring.interval_count) * (12 if recurring.interval == "year" else 1)


# --- Who they are -------------------------------------------------------------------------------------------------

# The days that some months lack are always among the first ones.
FIRST_DAYS = ((1, 31), (2, 29), (1, 29), (3, 31), (1, 30), (4, 30), (2, 28), (3, 1))
JOINING = timedelta(days=120)


def persons(world: World, number: int, year: int) -> list[Person]:
    """So many, who begin in the first months of a leap year."""
    made = []
    for index in range(number):
        if index < len(FIRST_DAYS):
            begins = datetime(year, *FIRST_DAYS[index], tzinfo=UTC)
        else:
            begins = datetime(year, 1, 1, tzinfo=UTC) + JOINING * world.rng.random()
        begins = begins.replace(hour=world.rng.randrange(24), minute=world.rng.randrange(60), second=0, microsecond=0)
        made.append(Person(f"user-{index}", begins, world.rng.choice((0, 0, 7, 30))))
    return sorted(made, key=lambda person: person.begins)
