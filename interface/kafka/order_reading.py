"""What a message on the topic of orders says: `order:created`, `order:cancelled`, or nothing that is for us.

The event's name is the header `event-type`, or the field `type` of the body. Fields that are not listed here are not
looked at. A reason names the field that is wrong, never what is in it.
"""

import re
from collections.abc import Callable
from typing import Annotated

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError, field, json

from application.order_messages import Announced, Message, NotOurs, Reading, Unreadable
from application.orders import order_stream
from domain.errors import InvalidAmount, InvalidMoney
from domain.money import chargeable
from domain.order import Cancel, Place
from domain.order_facts import OrderStatus
from interface.web.contracts.amounts import from_major

CREATED, CANCELLED = "order:created", "order:cancelled"
TYPE = "event-type"
# Whose message it is in its sender's books, in the order in which they are looked for.
IDS = ("message-id", "ce_id", "correlation-id")
MAX_BODY_BYTES = 64 * 1024
MAX_VERSION = 2**53 - 1
_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,200}")
_FIELD = re.compile(r"`\$\.?([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")

# As an order's id on the other ways in (interface/web/requests.py); `$` alone would let a line feed stand behind it.
Reference = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Version = Annotated[int, Meta(ge=0, le=MAX_VERSION)]


class _Named(Struct):
    """Which order, and which event if no header says so. What it is not is told by the types that say more."""

    type: str | None = None


class _Ticket(Struct):
    price: Raw


class _Created(Struct):
    id: Reference
    version: Version
    status: OrderStatus
    user: Reference = field(name="userId")
    ticket: _Ticket


class _Cancelled(Struct):
    id: Reference
    version: Version


class _Id(Struct):
    id: Reference


_named, _id = json.Decoder(_Named), json.Decoder(_Id)
_created, _cancelled = json.Decoder(_Created), json.Decoder(_Cancelled)


def reader(currency: str) -> Callable[[Message], Reading]:
    """Prices are in major units of `currency`."""

    def read(message: Message) -> Reading:
        body = message.value or b""
        try:
            event = _event(message, body)
            if event not in {CREATED, CANCELLED}:
                return NotOurs()
            if len(body) > MAX_BODY_BYTES:
                return Unreadable(f"body: larger than {MAX_BODY_BYTES:,} bytes")
            command = _place(body, currency) if event == CREATED else _cancel(body)
        except (DecodeError, InvalidMoney, _Wrong) as error:
            return Unreadable(_reason(error), _order(body))
        if message.key is not None and message.key != command.order.encode():
            return Unreadable("key: is not the order's id", command.order)
        return Announced(command, order_stream(command.order), _correlation(message))

    return read


class _Wrong(Exception):  # noqa: N818  it carries its reason
    pass


def _event(message: Message, body: bytes) -> str | None:
    named = {value for name, value in message.headers if name == TYPE}
    if len(named) > 1:
        raise _Wrong(f"{TYPE}: is said twice, differently")
    if named:
        return named.pop().decode(errors="replace")
    if len(body) > MAX_BODY_BYTES:
        raise _Wrong(f"body: larger than {MAX_BODY_BYTES:,} bytes")
    event = _named.decode(body).type
    if event is None:
        raise _Wrong(f"{TYPE}: neither a header nor the body's `type` says it")
    return event


def _place(body: bytes, currency: str) -> Place:
    said = _created.decode(body)
    price = from_major(said.ticket.price, currency)
    return Place(said.id, said.version, said.user, chargeable(price.minor, price.currency), said.status)


def _cancel(body: bytes) -> Cancel:
    said = _cancelled.decode(body)
    return Cancel(said.id, said.version)


def _order(body: bytes) -> str | None:
    """Which order it is about, if at least that can be read."""
    if len(body) > MAX_BODY_BYTES:
        return None
    try:
        return _id.decode(body).id
    except (DecodeError, RecursionError):
        return None


def _correlation(message: Message) -> str | None:
    headers = dict(message.headers)
    found = next((headers[name] for name in IDS if name in headers), b"")
    return found.decode() if _PRINTABLE.fullmatch(found) else None


def _reason(error: Exception) -> str:
    match error:
        case _Wrong():
            return str(error)
        case InvalidAmount():
            return f"ticket.price: {error.reason}"
        case InvalidMoney():
            return f"ticket.price: {type(error).__name__}"
        case ValidationError():
            said = str(error)
            missing, where = _MISSING.search(said), _FIELD.search(said)
            path = [where[1]] if where and where[1] else []
            if missing:
                return f"{'.'.join([*path, missing[1]])}: is missing"
            return f"{path[0] if path else 'body'}: is not what it should be"
        case _:
            return "body: is not JSON"
