"""Requests checked against the parameter types that the Stripe SDK itself is generated with.

`stripe.params` holds a TypedDict for every endpoint. Each is compiled once, on first use, into a tree of small
checks that also turn form text into integers and booleans. Two liberties of those types are taken back, because
Stripe's API does: `Literal[…] | str` is the listed words only, and an unknown parameter is refused.
(pydantic's TypeAdapter cannot read them without patching: their annotations name types only imported while type
checking, and its errors on such unions name no single parameter.)
"""

import importlib
import re
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, ForwardRef, Literal, NotRequired, Required, Union, get_args, get_origin

from stripe._request_options import RequestOptions
from typing_extensions import is_typeddict

from interface.sandbox.stripe_errors import Json, refused

MAX_METADATA_KEYS = 50
MAX_METADATA_KEY_CHARS = 40
MAX_METADATA_VALUE_CHARS = 500
MAX_TEXT_CHARS = 5_000
MAX_INTEGER_DIGITS = 18

Check = Callable[[Any, str], Any]

_INTEGER = re.compile(rf"-?\d{{1,{MAX_INTEGER_DIGITS}}}")

# Stripe's API takes cards in `payment_method_data`, too, which the SDK's types leave out.
_WITH_CARDS = frozenset(f"PaymentIntent{verb}ParamsPaymentMethodData" for verb in ("Create", "Confirm", "Update"))


@cache
def validator(name: str) -> Check:
    """The check for e.g. `payment_intent_create`, built from `stripe.params._payment_intent_create_params`."""
    return _hash(_params_type(name, "".join(word.title() for word in name.split("_")) + "Params"))


def _params_type(module: str, name: str) -> type:
    found: type = getattr(importlib.import_module(f"stripe.params._{module}_params"), name)
    return found


@cache
def _hash(typed: type) -> Check:
    """A check for a TypedDict; members are compiled when first met, since the types are large and nest deeply."""
    hints = {name: hint for name, hint in typed.__annotations__.items() if name not in RequestOptions.__annotations__}
    if typed.__name__ in _WITH_CARDS:
        cards = _params_type("payment_method_create", "PaymentMethodCreateParams").__annotations__
        card = _params_type("payment_method_create", "PaymentMethodCreateParamsCard")
        hints |= {"type": cards["type"], "card": card}
    required = [name for name in hints if name in typed.__required_keys__]  # type: ignore[attr-defined]
    scope = vars(importlib.import_module(typed.__module__))
    checks: dict[str, Check] = {}

    def check(value: Any, path: str) -> Json:
        if not isinstance(value, dict):
            raise refused("Invalid object", param=path)
        result: Json = {}
        for name, inner in value.items():
            where = f"{path}[{name}]" if path else name
            if (found := checks.get(name)) is None:
                if name not in hints:
                    raise refused(f"Received unknown parameter: {where}", code="parameter_unknown", param=where)
                found = checks[name] = _metadata if name == "metadata" else _compile(hints[name], scope)
            result[name] = found(inner, where)
        for name in required:
            if name not in result:
                where = f"{path}[{name}]" if path else name
                raise refused(f"Missing required param: {where}.", code="parameter_missing", param=where)
        return result

    return check


def _compile(hint: Any, scope: dict[str, Any]) -> Check:
    if isinstance(hint, ForwardRef | str):
        return _compile(_read(hint, scope), scope)
    origin = get_origin(hint)
    if origin in (NotRequired, Required, typing.NotRequired, typing.Required):
        return _compile(get_args(hint)[0], scope)
    if origin in (Union, types.UnionType):
        return _union(get_args(hint), scope)
    if origin is Literal:
        return _words(get_args(hint))
    if origin is list:
        return _list(_compile(get_args(hint)[0], scope))
    if origin is dict:
        return _map(_compile(get_args(hint)[1], scope))
    if is_typeddict(hint):
        return _hash(hint)
    return _SCALARS.get(hint, _anything)


def _read(hint: Any, scope: dict[str, Any]) -> Any:
    """An annotation that is still text is read; it is the SDK's own source code, never input."""
    if not isinstance(hint, ForwardRef | str):
        return hint
    return eval(hint if isinstance(hint, str) else hint.__forward_arg__, scope, {})  # noqa: S307 - see above


def _union(members: tuple[Any, ...], scope: dict[str, Any]) -> Check:
    """`''` unsets; words beat free text; a hash or list is told from text by its form, not by trying."""
    members = tuple(_read(m, scope) for m in members)
    words = [word for m in members if get_origin(m) is Literal for word in get_args(m)]
    emptyable = "" in words
    words = [word for word in words if word != ""]
    hashes = [_compile(m, scope) for m in members if is_typeddict(m) or get_origin(m) in (dict, list)]
    scalars = [m for m in members if m in _SCALARS and not (words and m is str)]
    plain = [*([_words(tuple(words))] if words else []), *(_SCALARS[m] for m in scalars)]

    def check(value: Any, path: str) -> Any:
        if value == "" and emptyable:
            return None
        options = hashes if isinstance(value, dict | list) else plain
        if not options:
            raise refused("Invalid object" if hashes else "Invalid string: must not be a hash", param=path)
        if words and value in words:
            return value
        return options[-1](value, path)

    return check


def _words(words: tuple[Any, ...]) -> Check:
    allowed = [str(word) for word in words if word != ""]

    def check(value: Any, path: str) -> Any:
        if value == "" and "" in words:
            return None
        if value not in allowed:
            listed = allowed[0] if len(allowed) == 1 else f"{', '.join(allowed[:-1])}, or {allowed[-1]}"
            raise refused(f"Invalid {path}: must be one of {listed}", param=path)
        return value

    return check


def _list(item: Check) -> Check:
    def check(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise refused("Invalid array", param=path)
        return [item(inner, f"{path}[{at}]") for at, inner in enumerate(value)]

    return check


def _map(item: Check) -> Check:
    def check(value: Any, path: str) -> Json:
        if not isinstance(value, dict):
            raise refused("Invalid object", param=path)
        return {name: item(inner, f"{path}[{name}]") for name, inner in value.items()}

    return check


def _metadata(value: Any, path: str) -> dict[str, str] | None:
    """Up to 50 keys of 40 characters with values of 500; an empty value removes its key, `''` removes all."""
    if value == "":
        return None
    if isinstance(value, list):  # keys "0", "1", … arrive looking like a list
        value = {str(at): inner for at, inner in enumerate(value)}
    if not isinstance(value, dict):
        raise refused("Invalid object", param=path)
    if len(value) > MAX_METADATA_KEYS:
        raise refused(f"Metadata can have up to {MAX_METADATA_KEYS} keys.", param=path)
    for name, text in value.items():
        where = f"{path}[{name}]"
        if not isinstance(text, str):
            raise refused("Metadata values must be strings.", param=where)
        if len(name) > MAX_METADATA_KEY_CHARS:
            raise refused(f"Metadata keys can have up to {MAX_METADATA_KEY_CHARS} characters.", param=where)
        if len(text) > MAX_METADATA_VALUE_CHARS:
            raise refused(f"Metadata values can have up to {MAX_METADATA_VALUE_CHARS} characters.", param=where)
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise refused("Invalid string: must not be a hash", param=path)
    if value == "":
        raise refused(
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a parameter;"
            f" however '{path}' cannot be unset. You should remove '{path}' from your request or supply a"
            " non-empty value.",
            code="parameter_invalid_empty",
            param=path,
        )
    if len(value) > MAX_TEXT_CHARS:
        raise refused(f"Invalid string: at most {MAX_TEXT_CHARS} characters", param=path)
    return value


def _integer(value: Any, path: str) -> int:
    if not isinstance(value, str) or not _INTEGER.fullmatch(value):
        shown = value[:40] if isinstance(value, str) else "a hash"
        raise refused(f"Invalid integer: {shown}", code="parameter_invalid_integer", param=path)
    return int(value)


def _boolean(value: Any, path: str) -> bool:
    if value not in ("true", "false"):
        raise refused("Invalid boolean: must be true or false", param=path)
    return bool(value == "true")


def _anything(value: Any, _path: str) -> Any:
    return value


_SCALARS: dict[Any, Check] = {str: _text, int: _integer, bool: _boolean, float: _text}
