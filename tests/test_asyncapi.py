"""The AsyncAPI document says what is really sent, and stays what consumers were promised.

`payledger asyncapi > tests/golden/asyncapi.json` is for the day when a new version of the contract is promised.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import jsonschema_rs
import pytest
from click.testing import CliRunner
from msgspec import UNSET, UnsetType, json
from msgspec.structs import fields, replace

from domain.facts import FACTS, Fact
from domain.money import Money
from domain.order_facts import OrderPaid
from interface.cli import main
from interface.kafka.asyncapi import component, document
from interface.kafka.cinema_events import cinema_messages
from interface.kafka.messages import Message, message
from interface.kafka.ticketing_events import ticketing_messages
from tests.given import CAPTURED, DECLINED
from tests.test_cinema_events import refunded, stored
from tests.test_stored_form import SAMPLES, envelope_of

PROMISED = Path(__file__).parent / "golden" / "asyncapi.json"
TOPICS = ("payments", "movie_app_events", "ticketing.payments")
DOCUMENT = document(*TOPICS)
# What is said for people, and may be said better.
WORDS = {"title", "description", "summary", "info"}


# --- What is sent ------------------------------------------------------------------------------------------------


def variants(fact: Fact) -> Iterator[Fact]:
    """The fact, and the same without each field that may be lacking."""
    yield fact
    for field in fields(type(fact)):
        kinds = get_args(field.type)
        if type(None) in kinds:
            yield replace(fact, **{field.name: None})
        if UnsetType in kinds:
            yield replace(fact, **{field.name: UNSET})


@pytest.mark.parametrize("name", FACTS)
def test_the_message_of_every_kind_of_fact_is_as_the_document_says(name: str) -> None:
    samples = [fact for fact in SAMPLES if type(fact) is FACTS[name]]
    assert samples, f"there is no sample of {name}"
    for sample in samples:
        envelope = replace(envelope_of(sample), position=7)
        for fact in variants(sample):
            for causation in (envelope.causation, None):
                check(name, message(replace(envelope, fact=fact, causation=causation)))


@pytest.mark.parametrize("facts", [CAPTURED, DECLINED, (*CAPTURED, refunded(5))])
def test_what_the_cinema_is_told_is_as_the_document_says(facts: tuple[Any, ...]) -> None:
    history = stored(*facts)
    told = cinema_messages(history, lambda _: history)
    assert told
    for sent in told:
        check(dict(sent.headers)["event-type"].decode(), sent)


@pytest.mark.parametrize("charge", ["ch_1", None])
def test_what_the_ticket_service_is_told_is_as_the_document_says(charge: str | None) -> None:
    payment = uuid4()
    paid = OrderPaid("order-7", payment, Money(20_00, "usd"), charge)
    (sent,) = ticketing_messages([replace(stored(*CAPTURED)[0], fact=paid), *stored(*CAPTURED)])
    check("payment:created", sent)
    assert json.decode(sent.value) == {"id": str(payment), "orderId": "order-7", "stripeId": charge}
    assert (sent.key, dict(sent.headers)["event-type"]) == (b"order-7", b"payment:created")


@pytest.mark.parametrize("lacking", ["id", "at", "data"])
def test_a_message_that_lacks_something_is_not_as_the_document_says(lacking: str) -> None:
    sent = json.decode(message(replace(envelope_of(SAMPLES[0]), position=7)).value)
    del sent[lacking]
    assert not valid(DOCUMENT["components"]["messages"]["AuthorizationStarted"]["payload"], sent)


def check(name: str, sent: Message) -> None:
    """It is valid, and has nothing that the document does not name."""
    said = DOCUMENT["components"]["messages"][component(name)]
    headers = {name: value.decode() for name, value in sent.headers}
    body = json.decode(sent.value)
    for part, found in (("headers", headers), ("payload", body)):
        assert valid(said[part], found), found
        assert found.keys() == properties(resolved(said[part])).keys()
    if "data" in body:
        assert body["data"].keys() <= properties(properties(resolved(said["payload"]))["data"]).keys()


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    """Of an object, also where it is said in parts; of two the narrower."""
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        found |= properties(part)
    return found


def valid(schema: dict[str, Any], instance: Any) -> bool:
    whole = {"allOf": [schema], "components": DOCUMENT["components"]}
    return bool(jsonschema_rs.Draft7Validator(whole, validate_formats=True).is_valid(instance))


# --- The document ------------------------------------------------------------------------------------------------


def test_the_command_prints_the_document_of_the_topics_in_use() -> None:
    printed = CliRunner().invoke(main, ["asyncapi"], env={"KAFKA_TOPIC": "ours"}, catch_exceptions=False)
    assert json.decode(printed.output) == document("ours", *TOPICS[1:])


def test_every_reference_of_the_document_leads_somewhere_and_every_message_has_its_topic() -> None:
    resolved(DOCUMENT)
    for channel, said in DOCUMENT["channels"].items():
        assert DOCUMENT["operations"][f"publish_{channel}"]["channel"] == {"$ref": f"#/channels/{channel}"}
        for name, reference in said["messages"].items():
            assert reference == {"$ref": f"#/components/messages/{name}"}
    told = [name for said in DOCUMENT["channels"].values() for name in said["messages"]]
    assert sorted(told) == sorted(DOCUMENT["components"]["messages"])


def test_nothing_personal_is_in_the_document() -> None:
    published = DOCUMENT["components"]["schemas"]["AuthorizationStarted"]["properties"].keys()
    assert "amount" in published
    assert not published & {"description", "metadata"}


def test_what_consumers_were_promised_still_holds() -> None:
    promised = json.decode(PROMISED.read_bytes())
    for name, before in promised["components"]["messages"].items():
        now = DOCUMENT["components"]["messages"][name]
        for part in ("headers", "payload", "bindings"):
            assert broken(resolved(before[part], promised), resolved(now[part])) == [], name
    for name, channel in promised["channels"].items():
        assert channel["messages"].keys() <= DOCUMENT["channels"][name]["messages"].keys()


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "b"]}, True),
        ({"type": "object", "properties": {"a": {"type": "string", "title": "A"}}, "required": ["a"]}, True),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, False),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": []}, False),
        ({"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}, False),
    ],
)
def test_what_breaks_a_promise_is_noticed(now: dict[str, Any], *, kept: bool) -> None:
    before = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert (broken(before, now) == []) is kept


def broken(before: Any, now: Any, at: str = "") -> list[str]:
    """Where a schema does not say any more what it said: fields, those always there, and listed values may be added."""
    if isinstance(before, dict) and isinstance(now, dict):
        lost = [f"{at}/{name} is gone" for name in before.keys() - now.keys() - WORDS]
        lost += [f"{at}/{name} is new" for name in now.keys() - before.keys() - WORDS if not at.endswith("/properties")]
        shared = (before.keys() & now.keys()) - (set() if at.endswith("/properties") else WORDS)
        return lost + [fault for name in sorted(shared) for fault in broken(before[name], now[name], f"{at}/{name}")]
    if at.endswith(("/required", "/enum")):
        return [] if set(before) <= set(now) else [f"{at} is less"]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [fault for one, other in zip(before, now, strict=True) for fault in broken(one, other, f"{at}[]")]
    return [] if before == now else [f"{at} was {before}"]


def resolved(part: Any, whole: dict[str, Any] = DOCUMENT) -> Any:
    """With what is referred to in the place of each reference. Raises KeyError for one that leads nowhere."""
    if isinstance(part, list):
        return [resolved(one, whole) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        found: Any = whole
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return resolved(found, whole)
    return {name: resolved(value, whole) for name, value in part.items()}
