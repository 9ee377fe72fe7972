"""Amounts in major units (`100.99`), as some contracts say them: exactly, or not at all."""

import re
from decimal import Decimal

from msgspec import Raw

from domain.errors import InvalidAmount, UnknownCurrency
from domain.money import EXPONENTS, Money

# A JSON number without an exponent; fifteen digits are more than Stripe moves.
_PLAIN = re.compile(r"(0|[1-9][0-9]{0,14})(?:\.([0-9]+))?")


def from_major(text: Raw | bytes | str, currency: str) -> Money:
    """The money that a JSON number means. Raises InvalidAmount or UnknownCurrency."""
    said = text if isinstance(text, str) else bytes(text).decode()
    if currency not in EXPONENTS:
        raise UnknownCurrency(currency=currency)
    digits = EXPONENTS[currency]
    plain = _PLAIN.fullmatch(said.strip())
    if plain is None:
        raise InvalidAmount(amount="it", reason="must be a plain number above zero, without an exponent")
    if len(plain[2] or "") > digits:
        raise InvalidAmount(
            amount="it", reason=f"has more than the {digits} digits after the point that {currency} has"
        )
    minor = int(Decimal(plain[0]).scaleb(digits))
    if minor == 0:
        raise InvalidAmount(amount="it", reason="must be above zero")
    return Money(minor, currency)


def to_major(money: Money) -> Raw:
    """As a JSON number with the currency's digits."""
    return Raw(f"{money.major():.{EXPONENTS[money.currency]}f}".encode())
