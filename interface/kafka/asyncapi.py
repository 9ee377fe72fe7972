"""The public event contract as an AsyncAPI 3 document, made from the types that the messages are made of."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, get_args, get_type_hints
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct
from msgspec.json import schema_components

from domain.facts import FACTS
from domain.money import Money
from domain.personal import PERSONAL_FIELDS
from interface.kafka import cinema_events, ticketing_events, topics
from interface.kafka.messages import ATTRIBUTES
from interface.kafka.topics import Topic

# What is added raises the second number, a word that changes the third.
VERSION = "1.0.0"
# Of AsyncAPI's bindings to Kafka.
BINDING = "0.5.0"
RULE = """A message may gain fields, a field whose values are listed may gain values, and new kinds of facts and events
may come: who reads them skips what they do not know. No field is renamed, removed or given another type or meaning, and
none that was always there is left out; what would need that becomes a message of a new type beside the old one. A topic
keeps its key."""
DESCRIPTION = f"""What payledger publishes on Kafka.

**Delivery.** Records are written in transactions: a consumer with `isolation.level=read_committed` reads each exactly
once. Records of one key are read in the order in which they happened; those of different keys may be read in any order.

**Compatibility.** {RULE}

**Amounts** of facts are whole minor units of the `currency` beside them. What is personal is not published."""

MinorUnits = Annotated[int, Meta(description="Whole minor units of `currency`.")]
Currency = Annotated[str, Meta(description="ISO 4217, in small letters.", pattern="^[a-z]{3}$")]
Json = dict[str, Any]
# Messages, and the schemas that they refer to.
Found = tuple[list[Json], Json]
_REFERENCE = "#/components/schemas/{name}"


def document(facts_topic: str, cinema_topic: str, ticketing_topic: str) -> Json:
    """The document of a deployment with these topics."""
    schemas: Json = {}
    messages: Json = {}
    channels: Json = {}
    for name, topic, key, found in (
        ("facts", topics.facts(facts_topic), "The stream's id.", _facts()),
        ("cinema", topics.events(cinema_topic), "The booking's id.", _events(cinema_events.EVENTS)),
        ("ticketing", topics.events(ticketing_topic), "The order's id.", _events(ticketing_events.EVENTS)),
    ):
        said, needed = found
        schemas |= needed
        messages |= {component(message["name"]): message | _keyed(key) for message in said}
        channels[name] = _channel(topic, [component(message["name"]) for message in said])
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "payledger", "version": VERSION, "description": DESCRIPTION, "license": {"name": "MIT"}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {f"publish_{name}": _operation(name) for name in channels},
        "components": {"messages": messages, "schemas": schemas},
    }


def component(name: str) -> str:
    """What a message is called inside the document, where names have no colons."""
    return name.replace(":", ".")


# --- Messages ----------------------------------------------------------------------------------------------------


def _facts() -> Found:
    """A message for each kind of fact: a CloudEvent whose body is the fact as it stands in the log."""
    data = {name: _data(name, fact) for name, fact in FACTS.items()}
    _, schemas = schema_components([Body, *data.values()], ref_template=_REFERENCE)
    schemas["FactHeaders"] = _headers(
        {name: {"type": "string", "description": said} for name, said in ATTRIBUTES.items()}
    )
    messages = []
    for name, fact in FACTS.items():
        headers = _narrowed("FactHeaders", {"ce_type": {"const": name}})
        payload = _narrowed("Body", {"type": {"const": name}, "data": _reference(name)})
        messages.append(_message(name, fact, headers, payload))
    return messages, schemas


def _events(events: Mapping[str, type[Struct]]) -> Found:
    _, schemas = schema_components(events.values(), ref_template=_REFERENCE)
    messages = [
        _message(name, event, _headers({"event-type": {"const": name}}), _reference(event.__name__))
        for name, event in events.items()
    ]
    return messages, schemas


def _message(name: str, kind: type[Struct], headers: Json, payload: Json) -> Json:
    # The first sentence of what the type says of itself.
    summary = " ".join((kind.__doc__ or name).split()).partition(". ")[0].rstrip(".") + "."
    return {"name": name, "summary": summary, "headers": headers, "payload": payload}


def _headers(properties: Json) -> Json:
    headers = {**properties, "content-type": {"const": "application/json"}}
    return {"type": "object", "properties": headers, "required": list(headers)}


def _narrowed(schema: str, properties: Json) -> Json:
    """What all have in common, and what is so of one of them."""
    return {"allOf": [_reference(schema), {"type": "object", "properties": properties}]}


def _reference(schema: str) -> Json:
    return {"$ref": _REFERENCE.format(name=schema)}


def _keyed(said: str) -> Json:
    return {"bindings": {"kafka": {"key": {"type": "string", "description": said}, "bindingVersion": BINDING}}}


# --- The body of a fact ------------------------------------------------------------------------------------------


class Body(Struct):
    """What interface/kafka/messages.py writes around a fact."""

    position: Annotated[int, Meta(description="Its place in the log; grows, with gaps.", ge=1)]
    id: Annotated[str, Meta(description="Unique; the same however often it is read.")]
    type: Annotated[str, Meta(description="Which kind of fact it is.")]
    stream: Annotated[UUID, Meta(description="Whose history it belongs to; the key of the record.")]
    version: Annotated[int, Meta(description="Its place in the stream; no gaps.", ge=1)]
    at: Annotated[datetime, Meta(description="When it happened.", tz=True)]
    actor: Annotated[str, Meta(description="Whose wish it was.")]
    correlation_id: Annotated[str, Meta(description="Of the request that led here.")]
    causation_id: Annotated[str | None, Meta(description="What directly led here.")]
    data: dict[str, Any]


def _data(name: str, fact: type[Struct]) -> type[Struct]:
    """A fact's fields as they are published: money as two, and what is personal not at all."""
    hints = get_type_hints(fact, include_extras=True)
    fields: list[Any] = []
    for field, hint in ((field, hints[field]) for field in fact.__struct_fields__ if field not in PERSONAL_FIELDS):
        if hint is Money:
            fields += [(field, MinorUnits), ("currency", Currency)]
        elif UnsetType in get_args(hint):
            fields.append((field, hint, UNSET))
        else:
            fields.append((field, hint))
    return defstruct(name, fields, kw_only=True, namespace={"__doc__": fact.__doc__})


# --- Channels ----------------------------------------------------------------------------------------------------


def _channel(topic: Topic, messages: Iterable[str]) -> Json:
    policy = topic.settings.get("cleanup.policy", "delete")
    settings = {name: int(value) for name, value in topic.settings.items() if name.startswith("retention.")}
    kafka = {"topic": topic.name, "partitions": topic.partitions, "bindingVersion": BINDING}
    return {
        "address": topic.name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": kafka | {"topicConfiguration": {"cleanup.policy": [policy], **settings}}},
    }


def _operation(channel: str) -> Json:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}}
