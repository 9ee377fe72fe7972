"""The public event contract: how a fact looks to those outside.

A message may gain fields; none is renamed, removed or given another meaning without a new event type.
"""

from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct, json, to_builtins

from domain.envelope import Envelope
from domain.facts import NAMES
from domain.money import Money
from domain.personal import PERSONAL_FIELDS

SOURCE = "/payledger"


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
    fields: dict[str, Any] = {}
    for name in fact.__struct_fields__:
        value = getattr(fact, name)
        if isinstance(value, Money):
            fields[name] = value.minor
            fields["currency"] = value.currency
        elif value is not UNSET and (personal or name not in PERSONAL_FIELDS):
            fields[name] = to_builtins(value)
    return fields


def message(envelope: Envelope) -> Message:
    """The record for a stored fact. Its key is the stream, so that a payment's facts stay in order."""
    assert envelope.position is not None  # noqa: S101  only stored facts are published
    body = {
        "position": envelope.position,
        "id": envelope.id,
        "type": NAMES[type(envelope.fact)],
        "stream": str(envelope.stream),
        "version": envelope.version,
        "at": envelope.at,
        "actor": envelope.actor,
        "correlation_id": envelope.correlation,
        "causation_id": envelope.causation,
        "data": data(envelope.fact, personal=False),
    }
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": envelope.id,
        "ce_source": SOURCE,
        "ce_type": NAMES[type(envelope.fact)],
        "ce_subject": str(envelope.stream),
        "ce_time": envelope.at.isoformat(),
        "ce_sequence": str(envelope.position),
        "content-type": "application/json",
    }
    headers = [(name, value.encode()) for name, value in attributes.items()]
    return Message(str(envelope.stream).encode(), json.encode(body), headers, milliseconds(envelope.at))


def milliseconds(at: datetime) -> int:
    """Since 1970, as Kafka stamps records."""
    return int(at.timestamp() * 1000)
