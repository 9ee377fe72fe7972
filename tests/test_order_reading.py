"""What messages about orders say: exactly, or by name of the field what is wrong with them."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.order_messages import Announced, Message, NotOurs, Reading, Unreadable
from domain.money import Money
from domain.order import Cancel, Place
from interface.kafka.order_reading import MAX_BODY_BYTES, reader
from tests.order_intake_side import Headers, Sent, cancelled, created

SAMPLES = Path(__file__).parent / "samples"
SAMPLE = "5f1b6c2e-0d0a-4f58-9d2a-1f7e6f6b9a10"
IS_CREATED: Headers = (("event-type", b"order:created"),)
SECRET = "alice@example.com"


def read(sent: Sent, currency: str = "usd") -> Reading:
    return reader(currency)(Message("orders", 0, 7, *sent))


def reason(sent: Sent) -> str:
    found = read(sent)
    assert isinstance(found, Unreadable)
    return found.reason


def command(sent: Sent, currency: str = "usd") -> Place | Cancel:
    found = read(sent, currency)
    assert isinstance(found, Announced)
    return found.command


def test_what_the_announcer_sends_is_read() -> None:
    body, gone = ((SAMPLES / f"order.{what}.json").read_bytes() for what in ("created", "cancelled"))
    key = SAMPLE.encode()
    assert command(Sent(key, body, IS_CREATED)) == Place(SAMPLE, 0, "user_42", Money(20_00, "usd"), "created")
    assert command(Sent(key, gone, (("event-type", b"order:cancelled"),))) == Cancel(SAMPLE, 1)


@given(st.decimals("0.01", "999999.99", places=2))
def test_a_price_is_read_to_the_cent(price: Decimal) -> None:
    place = command(created("o", price=f"{price:f}"))
    assert isinstance(place, Place)
    assert place.price.major() == price


def test_a_price_has_the_digits_of_its_currency() -> None:
    assert command(created("o", price="20.120"), "kwd") == Place("o", 0, "user_42", Money(20_120, "kwd"), "created")
    assert command(created("o", price="20"), "jpy") == Place("o", 0, "user_42", Money(20, "jpy"), "created")


@pytest.mark.parametrize("price", ["1e3", "-1", "0", "0.00", "20.001", '"20"', "null", "[]", "99999999999999"])
def test_a_price_that_cannot_be_charged_is_named(price: str) -> None:
    assert reason(created("o", price=price)).startswith("ticket.price: ")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"id": None}, "id: is missing"),
        ({"id": ""}, "id: "),
        ({"id": "x" * 201}, "id: "),
        ({"id": "a\nb"}, "id: "),
        ({"id": 7}, "id: "),
        ({"version": None}, "version: is missing"),
        ({"version": -1}, "version: "),
        ({"version": 2**53}, "version: "),
        ({"version": 1.5}, "version: "),
        ({"version": True}, "version: "),
        ({"status": SECRET}, "status: "),
        ({"userId": None}, "userId: is missing"),
        ({"userId": [SECRET]}, "userId: "),
        ({"ticket": None}, "ticket: is missing"),
        ({"ticket": {"id": SECRET}}, "ticket.price: is missing"),
        ({"ticket": SECRET}, "ticket: "),
    ],
)
def test_a_field_that_is_wrong_is_named_and_never_quoted(changed: dict[str, Any], field: str) -> None:
    said = reason(created("o", **changed))
    assert said.startswith(field)
    assert SECRET not in said


@pytest.mark.parametrize("body", [None, b"", b"null", b"[]", b"\xff", b'{"id": "o"', b"[" * 5_000])
def test_what_is_no_json_object_is_unreadable(body: bytes | None) -> None:
    assert reason(Sent(b"o", body, IS_CREATED)).startswith("body: ")


def test_a_body_that_is_too_large_is_not_read() -> None:
    large = created("o", note="x" * MAX_BODY_BYTES)
    assert reason(large) == "body: larger than 65,536 bytes"
    assert reason(large._replace(headers=())) == "body: larger than 65,536 bytes"


def test_fields_that_nobody_asked_for_are_not_looked_at() -> None:
    assert command(created("o", expiresAt=[1], more={"x": 1})) == command(created("o", expiresAt=None))


def test_the_events_name_may_stand_in_the_body() -> None:
    sent = created("o", type="order:created")._replace(headers=())
    assert command(sent) == command(created("o"))


@pytest.mark.parametrize(
    "sent",
    [
        Sent(b"o", b"not JSON", (("event-type", b"order:shipped"),)),
        Sent(None, None, (("event-type", b"\xff"),)),
        Sent(b"o", b'{"type": "order:shipped", "id": 7}'),
        Sent(b"o", b'{"type": "order:created"}', (("event-type", b"expiration:complete"),)),
    ],
)
def test_other_events_are_not_ours(sent: Sent) -> None:
    assert isinstance(read(sent), NotOurs)


@pytest.mark.parametrize(
    "sent",
    [
        Sent(b"o", b'{"id": "o"}'),
        Sent(b"o", b'{"id": "o"}', (*IS_CREATED, ("event-type", b"order:cancelled"))),
        Sent(b"o", b'{"id": "o", "type": 7}'),
    ],
)
def test_what_does_not_say_which_event_it_is_is_unreadable(sent: Sent) -> None:
    assert "type: " in reason(sent)


def test_a_key_that_is_another_orders_is_refused_and_none_is_not() -> None:
    assert read(created("o")._replace(key=b"p")) == Unreadable("key: is not the order's id", "o")
    assert command(created("o")._replace(key=None)) == command(created("o"))


def test_an_unreadable_message_names_its_order_if_it_can() -> None:
    assert read(created("o", version=-1)) == Unreadable("version: is not what it should be", "o")


@pytest.mark.parametrize(
    ("headers", "correlation"),
    [
        ((), None),
        ((("message-id", b"m-1"),), "m-1"),
        ((("correlation-id", b"c-1"), ("ce_id", b"e-1")), "e-1"),
        ((("message-id", b"with space"),), None),
        ((("message-id", b"x" * 201),), None),
        ((("message-id", b"\xff"),), None),
    ],
)
def test_a_messages_id_is_its_correlation(headers: Headers, correlation: str | None) -> None:
    sent = cancelled("o")
    found = read(sent._replace(headers=(*sent.headers, *headers)))
    assert isinstance(found, Announced)
    assert found.correlation == correlation
