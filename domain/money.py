"""Money is a whole number of minor units and a currency.

The digits after the decimal point are ISO 4217's; where Stripe counts differently, the difference is data here
(https://docs.stripe.com/currencies), so that no other file knows about it.
"""

from decimal import Decimal
from typing import Self

from msgspec import Struct

from domain.errors import AmountTooLarge, CurrencyMismatch, InvalidAmount, UnknownCurrency

# A currency takes two digits unless it is named in one of the next two lines (ISO 4217, 2026).
_NO_DIGITS = "bif clp djf gnf isk jpy kmf krw pyg rwf ugx vnd vuv xaf xof xpf"
_THREE_DIGITS = "bhd iqd jod kwd lyd omr tnd"
_TWO_DIGITS = (
    "aed afn all amd aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd btn bwp byn bzd cad cdf chf cny cop "
    "crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gtq gyd hkd hnl htg huf idr ils inr irr "
    "jmd kes kgs khr kpw kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn nad ngn "
    "nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sdg sek sgd shp sle sos srd ssp stn svc syp "
    "szl thb tjs tmt top try ttd twd tzs uah usd uyu uzs ves wst xcd xcg yer zar zmw zwg"
)

EXPONENTS: dict[str, int] = (
    dict.fromkeys(_TWO_DIGITS.split(), 2)
    | dict.fromkeys(_NO_DIGITS.split(), 0)
    | dict.fromkeys(_THREE_DIGITS.split(), 3)
)

# Stripe's own count of digits, where it is not ISO's. Ariary and ouguiya have fifths in theory and none at Stripe;
# króna and Ugandan shilling have none in practice and two zeros at Stripe.
_STRIPE_EXPONENTS = {"mga": 0, "isk": 2, "ugx": 2}
# Stripe takes these in steps of more than one of its units (the last digit of the three is always 0).
_STRIPE_STEPS = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}

# "Amounts may have up to eight digits" at Stripe; the ledger refuses more before anybody is asked.
MAX_STRIPE_AMOUNT = 99_999_999


class Money(Struct, frozen=True, order=False):
    """An amount that is never negative: `minor` whole units of 10^-exponent of `currency` (lower-case ISO 4217).

    Raises InvalidAmount for a negative or non-whole amount and UnknownCurrency for a code that ISO does not list.
    """

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int or self.minor < 0:
            raise InvalidAmount(
                amount=str(self.minor), reason="an amount is a whole number of minor units, never negative"
            )
        if self.currency not in EXPONENTS:
            raise UnknownCurrency(currency=self.currency)

    @classmethod
    def zero(cls, currency: str) -> Self:
        return cls(0, currency)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.minor + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.minor - self._same(other), self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.minor < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.minor <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.minor > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.minor >= self._same(other)

    def __bool__(self) -> bool:
        return self.minor > 0

    def __str__(self) -> str:
        return f"{self.major():f} {self.currency.upper()}"

    def major(self) -> Decimal:
        """The amount in major units, exactly: `Money(10_099, "usd").major() == Decimal("100.99")`."""
        return Decimal(self.minor).scaleb(-EXPONENTS[self.currency])

    def _same(self, other: "Money") -> int:
        if self.currency != other.currency:
            raise CurrencyMismatch(expected=self.currency, given=other.currency)
        return other.minor


def chargeable(minor: int, currency: str) -> Money:
    """Money that a payment can be asked for: more than zero, a known currency, and a size and step Stripe can carry.

    Raises InvalidAmount, AmountTooLarge or UnknownCurrency.
    """
    money = Money(minor, currency)
    if not money:
        raise InvalidAmount(amount=str(minor), reason="an amount to move is more than zero")
    if to_stripe(money) > MAX_STRIPE_AMOUNT:
        raise AmountTooLarge(amount=minor, limit=_scaled(MAX_STRIPE_AMOUNT, -_shift(currency))[0])
    return money


def to_stripe(money: Money) -> int:
    """The integer that Stripe's API calls `amount`. Raises InvalidAmount where Stripe cannot carry the last digits."""
    amount, rest = _scaled(money.minor, _shift(money.currency))
    if rest or amount % _STRIPE_STEPS.get(money.currency, 1):
        raise InvalidAmount(amount=str(money.minor), reason=f"Stripe moves {money.currency} in larger steps")
    return amount


def from_stripe(amount: int, currency: str) -> Money:
    """Stripe's `amount` as money. Raises InvalidAmount where ISO has no digit for it."""
    if currency not in EXPONENTS:
        raise UnknownCurrency(currency=currency)
    if type(amount) is not int:
        raise InvalidAmount(amount=str(amount), reason="Stripe counts in whole numbers")
    minor, rest = _scaled(amount, -_shift(currency))
    if rest:
        raise InvalidAmount(amount=str(amount), reason=f"{currency} has no such fraction")
    return Money(minor, currency)


def _shift(currency: str) -> int:
    """How many digits more Stripe counts than ISO does."""
    return _STRIPE_EXPONENTS.get(currency, EXPONENTS[currency]) - EXPONENTS[currency]


def _scaled(amount: int, digits: int) -> tuple[int, int]:
    """The amount with `digits` more (or fewer) digits, and what does not fit."""
    if digits >= 0:
        return amount * int(10**digits), 0
    return divmod(amount, int(10**-digits))
