"""What `/v1` accepts: bodies, headers and query parameters, and how they become wishes."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from litestar.openapi.spec import Example
from litestar.params import HeaderParameter, QueryParameter
from msgspec import Meta, Struct

from domain.money import MAX_STRIPE_AMOUNT
from domain.payment_facts import CaptureMethod
from interface.web.problems import FieldError, bad_request

# Isk and ugx have fewer digits here than at Stripe, ariary has more: the exact limit is the domain's to name.
MAX_AMOUNT = MAX_STRIPE_AMOUNT * 100
# Stripe takes 50 entries; two of them are ours.
MAX_METADATA = 48
MAX_PAGE = 100
DEFAULT_PAGE = 20
MAX_KEY_LENGTH = 255
MAX_VERSIONS = 10

# `$` alone would let a line feed stand behind it.
END = r"$(?!\n)"
NO_CONTROLS = r"^[^\x00-\x1f\x7f]*" + END

Amount = Annotated[int, Meta(ge=1, le=MAX_AMOUNT, description="Whole minor units (cents), at least 1.")]
Reference = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_CONTROLS)]
Text = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00]*" + END)]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^(?!payledger_)[^\[\]\x00]*" + END)]
Metadata = Annotated[dict[MetadataKey, Text], Meta(max_length=MAX_METADATA)]


class AuthorizeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A payment to authorize, and to capture at once with `automatic`.

    `payment_method` is a Stripe payment method (`pm_…`) or token (`tok_…`), never a card number.
    """

    amount: Amount
    currency: Annotated[str, Meta(pattern="^[a-z]{3}" + END, description="ISO 4217, lower case.")]
    payment_method: Annotated[str, Meta(pattern="^(pm|tok)_[A-Za-z0-9_]+" + END, max_length=200)]
    capture: CaptureMethod
    customer: Reference | None = None
    order: Reference | None = None
    description: Text | None = None
    metadata: Metadata = {}


class MovementBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A capture or refund: of `amount`, or of all that is left."""

    amount: Amount | None = None
    reason: Text | None = None


class VoidBody(Struct, frozen=True, forbid_unknown_fields=True):
    reason: Text | None = None


AUTHORIZE_EXAMPLES = [
    Example(
        summary="reserve 100.99 USD for an order",
        value={
            "amount": 10099,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "capture": "manual",
            "order": "order_7",
        },
    )
]
MOVEMENT_EXAMPLES = [Example(summary="60.00 of it", value={"amount": 6000}), Example(summary="all of it", value={})]
VOID_EXAMPLES = [Example(summary="release the reserve", value={"reason": "the booking failed"})]

IdempotencyKey = Annotated[
    str,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        pattern=r"^[\x21-\x7e]+" + END,
        description="The caller's name for this wish: the same key and body are carried out once, however often sent.",
    ),
]
IfMatch = Annotated[
    str | None,
    HeaderParameter(name="If-Match", description="Only if the payment is at this version (its ETag).", max_length=200),
]
After = Annotated[
    int | None,
    QueryParameter(
        name="after", ge=0, le=2**63 - 1, description="Wait until the answer includes this Ledger-Position (bounded)."
    ),
]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_PAGE, description="Entries on a page.")]
Cursor = Annotated[str | None, QueryParameter(name="cursor", max_length=400, description="From `next_cursor`.")]

_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
_VERSION = re.compile(r'(?:W/)?"(\d{1,18})"')


def versions(if_match: str | None) -> frozenset[int] | None:
    """The versions an If-Match header names, or None for any. Raises ProblemError."""
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [_VERSION.fullmatch(tag.strip()) for tag in if_match.split(",")[: MAX_VERSIONS + 1]]
    if len(tags) > MAX_VERSIONS or not all(tags):
        raise bad_request(FieldError('must be versions such as "3", or *', header="If-Match"))
    return frozenset(int(tag[1]) for tag in tags if tag)


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time with its offset, once it is known to be one."""
    return datetime.fromisoformat(text) if text is not None else None


def _moment_said(text: str) -> str | None:
    said = "must be a time with its offset, such as 2026-11-20T12:00:00Z"
    try:
        return None if _RFC_3339.fullmatch(text) and datetime.fromisoformat(text).astimezone(UTC).year else said
    except (ValueError, OverflowError):
        return said


def written_cursor(created_at: datetime, name: UUID | str) -> str:
    """Where a page ended, opaque to callers."""
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {name}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """What `written_cursor` wrote. Raises ValueError for anything else."""
    if cursor is None:
        return None
    text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    at, _, name = text.partition(" ")
    created_at = datetime.fromisoformat(at)
    if created_at.tzinfo is None or not name or "\x00" in name:
        raise ValueError(cursor)
    return created_at, name


def read_uuid_cursor(cursor: str | None) -> tuple[datetime, UUID] | None:
    """A cursor of a list whose entries are named by a UUID. Raises ProblemError."""
    read = read_cursor(cursor)
    try:
        return (read[0], UUID(read[1])) if read else None
    except ValueError:
        raise bad_request(FieldError("is not a cursor of this list", parameter="cursor")) from None


def _cursor_said(text: str) -> str | None:
    try:
        read_cursor(text)
    except ValueError:
        return "is not a cursor of this list"
    return None


# Texts whose form is more than a pattern, by the name of their parameter: what is wrong with one, if anything.
FORMATS: dict[str | None, Callable[[str], str | None]] = {
    "from": _moment_said,
    "to": _moment_said,
    "cursor": _cursor_said,
}
