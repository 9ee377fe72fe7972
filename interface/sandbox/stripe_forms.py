"""`a[b][0]=c` and back: the form encoding of Stripe's requests."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from interface.sandbox.stripe_errors import Json, refused

MAX_PAIRS = 1_000
MAX_DEPTH = 8
MAX_KEY_CHARS = 500

_PART = re.compile(r"\[([^\[\]]*)\]")

Pairs = list[tuple[str, str]]


def decode_pairs(raw: bytes) -> Pairs:
    """The flat pairs of a query or a body; refuses what is not UTF-8 or has too many pairs."""
    if not raw:
        return []
    try:
        parts = raw.decode().split("&")
        if len(parts) > MAX_PAIRS:
            raise refused(f"Invalid request: more than {MAX_PAIRS} parameters.")
        pairs = [part.partition("=") for part in parts if part]
        return [(_unquoted(name), _unquoted(value)) for name, _, value in pairs]
    except UnicodeDecodeError:
        raise refused("Invalid request: parameters must be valid UTF-8.") from None


def _unquoted(text: str) -> str:
    return unquote_plus(text, errors="strict") if "%" in text or "+" in text else text


def decode_form(pairs: Iterable[tuple[str, str]]) -> Json:
    """Nested dicts and lists. `a[]` appends, `a[0]` sets by position, a name given twice keeps the last value."""
    tree: Json = {}
    nested = False
    for name, value in pairs:
        if "[" not in name:
            tree[name] = value
            continue
        nested = True
        path = _path(name)
        node = tree
        for step in path[:-1]:
            inner = node.setdefault(step, {})
            if not isinstance(inner, dict):
                raise refused(f"Invalid request: '{path[0]}' is both a value and a hash.", param=path[0])
            node = inner
        last = path[-1]
        node[str(len(node)) if last == "" else last] = value
    return (
        {name: _lists(value) if value.__class__ is dict else value for name, value in tree.items()} if nested else tree
    )


@lru_cache(maxsize=4_096)
def _path(name: str) -> tuple[str, ...]:
    head, bracket, rest = name.partition("[")
    parts = _PART.findall(bracket + rest)
    whole = head + "".join(f"[{part}]" for part in parts)
    if not head or whole != name or len(parts) > MAX_DEPTH or len(name) > MAX_KEY_CHARS:
        shown = name[:80]
        raise refused(f"Invalid request: cannot read the parameter name '{shown}'.", param=shown)
    if "" in parts[:-1]:
        raise refused(f"Invalid request: give positions in '{name}', such as '[0]'.", param=head)
    return head, *parts


def _lists(node: Json) -> Any:
    """A hash whose keys are exactly the positions 0…n-1 is a list."""
    inner = _inner_lists(node)
    if inner and all(name.isdigit() for name in inner):
        ordered = sorted(inner, key=int)
        if [int(name) for name in ordered] == list(range(len(ordered))):
            return [inner[name] for name in ordered]
    return inner


def _inner_lists(node: Json) -> Json:
    return {name: _lists(value) if value.__class__ is dict else value for name, value in node.items()}
