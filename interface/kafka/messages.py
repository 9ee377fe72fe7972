"""The public event contract: how a fact looks to those outside.

A message may gain fields; none is renamed, removed or given another meaning without a new event type.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

from msgspec import UNSET, Struct, json, to_builtins

from domain.envelope import Envelope
from domain.facts import NAMES
from domain.money import Money
from domain.personal import PERSONAL_FIELDS

SOURCE = "/payledger"
# The attributes of a CloudEvent that every fact has, and what they say.
ATTRIBUTES = {
    "ce_specversion": "Of CloudEvents.",
    "ce_id": "Unique; the same however often it is read.",
    "ce_source": "Where it comes from.",
    "ce_type": "Which kind of fact it is.",
    "ce_subject": "The stream.",
    "ce_time": "When it happened, RFC 3339.",
    "ce_sequence": "Its place in the log.",
}
_SPECVERSION = ("ce_specversion", b"1.0")
_SOURCE = ("ce_source", SOURCE.encode())
_JSON = ("content-type", b"application/json")
_encode = json.Encoder().encode


class Message(Struct, frozen=True):
    """One Kafka record; of a fact, CloudEvents 1.0 in binary mode: its attributes are headers."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


def data(fact: Struct, *, personal: bool) -> dict[str, Any]:
    """A fact's fields as JSON values; money becomes whole minor units beside their currency.

    Without `personal`, what somebody may have typed about somebody stays in the ledger, where it can be erased.
    """
    names = fact.__struct_fields__ if personal else _public_names(type(fact))
    fields: dict[str, Any] = to_builtins(_fields(fact, names))
    return fields


def message(envelope: Envelope) -> Message:
    """The record for a stored fact. Its key is the stream, so that a payment's facts stay in order."""
    assert envelope.position is not None  # noqa: S101  only stored facts are published
    kind, stream = type(envelope.fact), str(envelope.stream)
    name, fact_id = NAMES[kind], f"{stream}.{envelope.version}"
    body = {
        "position": envelope.position,
        "id": fact_id,
        "type": name,
        "stream": stream,
        "version": envelope.version,
        "at": envelope.at,
        "actor": envelope.actor,
        "correlation_id": envelope.correlation,
        "causation_id": envelope.causation,
        "data": _fields(envelope.fact, _public_names(kind)),
    }
    key = stream.encode()
    headers = [
        _SPECVERSION,
        ("ce_id", fact_id.encode()),
        _SOURCE,
        ("ce_type", name.encode()),
        ("ce_subject", key),
        ("ce_time", envelope.at.isoformat().encode()),
        ("ce_sequence", str(envelope.position).encode()),
        _JSON,
    ]
    return Message(key, _encode(body), headers, milliseconds(envelope.at))


def _fields(fact: Struct, names: Iterable[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in names:
        value = getattr(fact, name)
        if isinstance(value, Money):
            fields[name] = value.minor
            fields["currency"] = value.currency
        elif value is not UNSET:
            fields[name] = value
    return fields


@cache
def _public_names(kind: type[Struct]) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name not in PERSONAL_FIELDS)


def milliseconds(at: datetime) -> int:
    """Since 1970, as Kafka stamps records."""
    return int(at.timestamp() * 1000)
