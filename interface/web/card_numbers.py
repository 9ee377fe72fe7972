"""Card numbers never enter: whatever looks like one is refused before anything is kept of it."""

import re

from msgspec import Struct

# Digits as they stand on a card, with the separators people type, not inside a longer number.
_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")
_CARD = re.compile(r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}")


def fields_with_card_numbers(value: Struct) -> list[str]:
    found = []
    for name in value.__struct_fields__:
        part = getattr(value, name)
        texts = [part] if isinstance(part, str) else [*part, *part.values()] if isinstance(part, dict) else []
        if any(holds_card_number(text) for text in texts):
            found.append(name)
    return found


def holds_card_number(text: str) -> bool:
    """Whether a payment card's number stands in the text: a known issuer's digits whose check digit is right."""
    for match in _DIGITS.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _CARD.fullmatch(digits) and _luhn(digits):
            return True
    return False


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1's check digit."""
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0
