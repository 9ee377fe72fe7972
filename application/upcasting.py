"""Older stored forms of facts, brought to the current one when they are read. What is stored is never rewritten.

A fact whose fields change their meaning gets the next form number here and an upcaster from the form before. A field
that is merely added, with a default that is true of older facts, needs neither.
"""

from collections.abc import Callable
from typing import Any

# The number of the current form, for facts that have had more than one.
FORMS = {"Failed": 2}

# Stripe's advice at the time: declines after which the same card may be tried again.
_RETRYABLE_THEN = frozenset({"authentication_required", "insufficient_funds", "processing_error", "try_again_later"})


def upcast(name: str, form: int, fact: dict[str, Any]) -> dict[str, Any]:
    """The fact's fields in the current form. Raises KeyError for a form that never was."""
    current = FORMS.get(name, 1)
    if not 1 <= form <= current:
        raise KeyError(form)
    for older in range(form, current):
        fact = UPCASTERS[name, older](fact)
    return fact


def _failed_1(fact: dict[str, Any]) -> dict[str, Any]:
    """Form 1 did not say whether trying again may help; every caller looked the decline code up for itself."""
    failure = fact["failure"]
    return fact | {"failure": failure | {"retryable": failure.get("decline_code") in _RETRYABLE_THEN}}


UPCASTERS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {("Failed", 1): _failed_1}
