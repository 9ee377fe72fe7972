"""Card numbers never enter: whatever looks like one is refused before anything is kept of it."""

import re
import unicodedata
from collections.abc import Iterator

from msgspec import Struct

# Digits in groups, as they stand on a card, with the separators people type.
_ROW = re.compile(r"\d+(?:[\s._\u2010-\u2015-]{1,2}\d+)*")
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,13}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|6(?:011|4[4-9]\d|5\d\d)\d{12}"
)
MAX_DIGITS = 19
# A name that programs give: one in some thousand would pass for a card.
_UUID = re.compile(
    r"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE
)


def fields_with_card_numbers(value: Struct) -> list[str]:
    found = []
    for name in value.__struct_fields__:
        part = getattr(value, name)
        texts = [part] if isinstance(part, str) else [*part, *part.values()] if isinstance(part, dict) else []
        if any(holds_card_number(text) for text in texts):
            found.append(name)
    return found


def holds_card_number(text: str) -> bool:
    """Whether a payment card's number stands in the text: a known issuer's digits whose check digit is right.

    It is made of whole groups of digits, whatever groups stand beside it: an expiry date hides no number. A longer row
    of digits is another kind of number, and so are the digits of a fraction and of a UUID.
    """
    rows = _ROW.finditer(_UUID.sub("#", unicodedata.normalize("NFKC", text)))
    return any(_CARD.fullmatch(digits) and _luhn(digits) for row in rows for digits in _candidates(row[0]))


def _candidates(row: str) -> Iterator[str]:
    parts = re.split(r"(\D+)", row)  # digits, what separates them, digits, …
    for start in range(0, len(parts), 2):
        if start and parts[start - 1] == ".":
            continue
        digits = ""
        for part in parts[start::2]:
            digits += part
            if len(digits) > MAX_DIGITS:
                break
            yield digits


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1's check digit."""
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0
