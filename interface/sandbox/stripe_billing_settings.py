"""What the account has chosen for failed payments; told and changed at `/_sandbox/billing`, kept like any object."""

from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_faults import BadControlError
from interface.sandbox.stripe_store import Change, Store

MAX_RETRIES = 8
MAX_RETRY_DAYS = 60

_KEY = ("setting", "billing")
# A retry comes so many days after the attempt before it; `then` is the subscription's status after the last one.
_DEFAULTS: Json = {"retry_days": [3, 5, 7], "then": "canceled", "invoice": "open"}
_WORDS = {"then": ("canceled", "unpaid", "past_due"), "invoice": ("open", "uncollectible")}


def billing_settings(store: Store) -> Json:
    """The settings in force."""
    kept = store.get(*_KEY) or {}
    return {name: kept.get(name, value) for name, value in _DEFAULTS.items()}


def change_billing_settings(change: Change, given: object) -> Json:
    """Takes over those settings that are given. Raises BadControlError."""
    if not isinstance(given, dict):
        raise BadControlError("body", "a JSON object is needed")
    for name, value in given.items():
        if name == "retry_days":
            _check_days(value)
        elif name not in _WORDS:
            raise BadControlError(str(name), "unknown field")
        elif value not in _WORDS[name]:
            raise BadControlError(name, f"one of {', '.join(_WORDS[name])} is needed")
    settings = billing_settings(change.store) | given
    change.put({"object": _KEY[0], "id": _KEY[1], **settings})
    return settings


def _check_days(value: object) -> None:
    whole = isinstance(value, list) and all(type(days) is int and 1 <= days <= MAX_RETRY_DAYS for days in value)
    if not whole or len(value) > MAX_RETRIES:  # type: ignore[arg-type]
        raise BadControlError("retry_days", f"up to {MAX_RETRIES} whole numbers from 1 to {MAX_RETRY_DAYS} are needed")
