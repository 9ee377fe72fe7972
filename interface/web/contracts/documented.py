"""What the OpenAPI document says of the contracts' routes, which read and write their bodies themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litestar.openapi.spec import (
    Example,
    OpenAPI,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Reference,
    RequestBody,
    Schema,
)
from msgspec import Struct, json

from interface.web.problems import MEDIA_TYPE

JSON = "application/json"
_COMPONENTS = "#/components/schemas/"
# Amounts are read as they are written, without a float in between, so their type says nothing.
_AMOUNTS = {"amount", "refund_amount"}
_AMOUNT = {"type": "number", "exclusiveMinimum": 0, "description": "In major units, as `100.99`."}

_bodies = set[type[Struct]]()


class Body(Struct, frozen=True):
    """A request or an answer: its shape (a Struct, or the name of one that the document has), and an example."""

    shape: type[Struct] | str
    example: Mapping[str, Any] | None = None
    said: str = "done"
    media_type: str = JSON

    def content(self) -> dict[str, OpenAPIMediaType]:
        name = self.shape if isinstance(self.shape, str) else self.shape.__name__
        examples: dict[str, Example | Reference] = {}
        if self.example is not None:
            examples["example"] = Example(value=dict(self.example))
        return {self.media_type: OpenAPIMediaType(schema=Reference(f"{_COMPONENTS}{name}"), examples=examples)}


def told(answers: Mapping[int, Body | Sequence[Body]], takes: Body | None = None) -> type[Operation]:
    """An operation that takes this body, if any, and gives these answers by status and no others."""
    each = {status: [found] if isinstance(found, Body) else list(found) for status, found in answers.items()}
    named = [*(body for bodies in each.values() for body in bodies), *([takes] if takes else [])]
    _bodies.update(body.shape for body in named if not isinstance(body.shape, str))

    @dataclass
    class Told(Operation):
        def __post_init__(self) -> None:
            if takes is not None:
                self.request_body = RequestBody(takes.content(), required=True)
            self.responses = {str(status): _response(bodies) for status, bodies in each.items()}

    return Told


def problems(*statuses: int) -> dict[int, Body]:
    """Refusals that all contracts share, as problem documents."""
    return {status: Body("Problem", _problem(status), _SAID[status], MEDIA_TYPE) for status in statuses}


def complete(document: OpenAPI) -> None:
    """Add the shapes that were named above."""
    ordered = sorted(_bodies, key=lambda shape: shape.__name__)
    _, found = json.schema_components(ordered, ref_template=_COMPONENTS + "{name}")
    for name, shape in found.items():
        untyped = [field for field in _AMOUNTS if shape["properties"].get(field) == {}]
        shape["properties"] |= dict.fromkeys(untyped, _AMOUNT)
        document.components.schemas[name] = _Ready(shape)


class _Ready(Schema):
    """A schema as somebody else has written it."""

    def __init__(self, written: dict[str, Any]) -> None:
        super().__init__()
        self._written = written

    def to_schema(self) -> dict[str, Any]:
        return self._written


def _response(bodies: Sequence[Body]) -> OpenAPIResponse:
    """One of these bodies; those of one media type are told as alternatives."""
    content: dict[str, OpenAPIMediaType] = {}
    for body in bodies:
        for media_type, part in body.content().items():
            content[media_type] = _either(content[media_type], part) if media_type in content else part
    return OpenAPIResponse(description=" · ".join(body.said for body in bodies), content=content)


def _either(one: OpenAPIMediaType, other: OpenAPIMediaType) -> OpenAPIMediaType:
    schemas = [part.schema for part in (one, other) if part.schema is not None]
    examples = {f"{len(one.examples or {})}.{name}": example for name, example in (other.examples or {}).items()}
    return OpenAPIMediaType(schema=Schema(any_of=schemas), examples={**(one.examples or {}), **examples})


_SAID = {
    400: "a field is wrong; each is named",
    401: "no bearer token, or not a valid one",
    402: "the card was declined",
    403: "the token lacks the scope this needs",
    404: "there is no such charge",
    409: "not now, or not in this state",
    413: "the body is too large",
    422: "cannot be granted as asked",
    429: "more than the limit; see Retry-After and X-RateLimit-*",
    503: "the ledger or the provider cannot answer now; the same request may be sent again",
}


def _problem(status: int) -> dict[str, Any]:
    name = _SAID[status].partition(";")[0]
    return {"type": f"urn:payledger:problem:{status}", "title": name, "status": status, "detail": _SAID[status]}
