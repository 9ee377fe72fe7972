"""What in a fact is personal: free text that somebody may have typed about somebody.

It is kept sealed with the person's own key, apart from the fact, so that destroying the key erases it while the fact,
its hash and its place in history stay as they are.
"""

from typing import Any, TypeVar

from msgspec import Struct, convert, structs, to_builtins

PERSONAL_FIELDS = frozenset({"description", "metadata", "reason"})

F = TypeVar("F", bound=Struct)


class Sealed(Struct, frozen=True):
    """The personal fields of one fact, for whoever holds the person's key. `version` is the fact's in its stream."""

    person: str
    version: int
    box: bytes


def split(fact: F) -> tuple[F, dict[str, Any]]:
    """The fact without its personal fields, and those that said something, as JSON values."""
    personal = {
        name: to_builtins(value)
        for name in fact.__struct_fields__
        if name in PERSONAL_FIELDS and (value := getattr(fact, name))
    }
    blank = {field.name: _blank(field) for field in structs.fields(fact) if field.name in personal}
    return (structs.replace(fact, **blank), personal) if personal else (fact, personal)


def joined(fact: F, personal: dict[str, Any]) -> F:
    """The fact with its personal fields again."""
    types = {field.name: field.type for field in structs.fields(fact) if field.name in personal}
    return structs.replace(fact, **{name: convert(personal[name], types[name]) for name in types})


def _blank(field: structs.FieldInfo) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default
