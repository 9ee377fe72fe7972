"""What in a fact is personal: free text that somebody may have typed about somebody, and where to write to them.

It is kept sealed with the person's own key, apart from the fact, so that destroying the key erases it while the fact,
its hash and its place in history stay as they are.
"""

from functools import cache
from typing import Any, TypeVar

from msgspec import Struct, convert, structs, to_builtins

PERSONAL_FIELDS = frozenset({"description", "email", "metadata", "reason"})

F = TypeVar("F", bound=Struct)


class Sealed(Struct, frozen=True):
    """The personal fields of one fact, for whoever holds the person's key. `version` is the fact's in its stream."""

    person: str
    version: int
    box: bytes


def split(fact: F) -> tuple[F, dict[str, Any]]:
    """The fact without its personal fields, and those that said something, as JSON values."""
    fields = _personal_fields(type(fact))
    personal = {name: to_builtins(value) for name in fields if (value := getattr(fact, name))}
    if not personal:
        return fact, personal
    return structs.replace(fact, **{name: _blank(fields[name]) for name in personal}), personal


def joined(fact: F, personal: dict[str, Any]) -> F:
    """The fact with its personal fields again."""
    fields = _personal_fields(type(fact))
    return structs.replace(fact, **{name: convert(personal[name], fields[name].type) for name in personal})


@cache
def _personal_fields(kind: type[Struct]) -> dict[str, structs.FieldInfo]:
    return {field.name: field for field in structs.fields(kind) if field.name in PERSONAL_FIELDS}


def _blank(field: structs.FieldInfo) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default
