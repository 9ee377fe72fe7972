"""Reads a request strictly and names everything that is wrong with it at once."""

import re
from typing import Any, Literal, get_args, get_origin

import msgspec
from litestar import Request
from litestar.params import HeaderParameter, ParameterKwarg, QueryParameter
from litestar.typing import FieldDefinition
from msgspec import Raw, Struct, structs

from interface.web.card_numbers import fields_with_card_numbers, holds_card_number
from interface.web.problems import FieldError, ProblemError, bad_request, problem
from interface.web.requests import FORMATS

MAX_BODY_BYTES = 64 * 1024
# Wrong parts of a request that are told at once: an answer is not larger than what it answers.
MAX_TOLD = 50
MAX_NAME = 100
_NO_CARD = "a card number must not be sent here"
_AT = re.compile(r" - at `\$(?P<path>.*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")
_WHOLE = re.compile(r"-?[0-9]{1,19}")


async def check_request(request: Request[Any, Any, Any]) -> None:
    """Runs before every handler of `/v1`. Raises ProblemError (400, 413, 415)."""
    parameters = request.route_handler.parsed_fn_signature.parameters
    wrong = _wrong_parameters(request, list(parameters.values()))
    if wrong:
        raise bad_request(*wrong[:MAX_TOLD])
    if "data" not in parameters:
        return
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        said = "the body must be application/json"
        raise ProblemError(problem(415, "unsupported-media-type", said, FieldError(said, header="Content-Type")))
    read(await request.body(), parameters["data"].annotation)


# --- Parameters and headers --------------------------------------------------------------------------------------


def _wrong_parameters(request: Request[Any, Any, Any], parameters: list[FieldDefinition]) -> list[FieldError]:
    wrong, known = [], set()
    for parameter in parameters:
        definition = parameter.kwarg_definition
        if not isinstance(definition, ParameterKwarg):
            continue
        name = definition.name or ""
        if isinstance(definition, QueryParameter):
            known.add(name)
            given = request.query_params.getall(name, [])
            said = "is given more than once" if len(given) > 1 else _said(parameter, definition, given)
            wrong += [FieldError(said, parameter=name)] if said else []
        elif isinstance(definition, HeaderParameter):
            value = request.headers.get(name)
            said = _said(parameter, definition, [] if value is None else [value])
            wrong += [FieldError(said, header=name)] if said else []
    unknown = dict.fromkeys(name for name in request.query_params if name not in known)
    return wrong + [FieldError("is not a known parameter", parameter=_shown(name)) for name in unknown]


def _said(parameter: FieldDefinition, definition: ParameterKwarg, given: list[str]) -> str | None:
    """What is wrong with a parameter's text, as its definition has it."""
    if not given:
        return None if parameter.is_optional or parameter.has_default else "is required"
    text, name = given[0], definition.name
    if parameter.has_inner_subclass_of(int) or parameter.is_subclass_of(int):
        return _number_said(text, definition)
    choices = _choices(parameter.annotation)
    if choices and text not in choices:
        return f"must be one of {', '.join(choices)}"
    if definition.max_length is not None and len(text) > definition.max_length:
        return f"must have at most {definition.max_length} characters"
    if definition.pattern is not None and not re.search(definition.pattern, text):
        return "has a character that cannot stand here" if text else "must not be empty"
    return FORMATS[name](text) if name in FORMATS else None


def _number_said(text: str, definition: ParameterKwarg) -> str | None:
    low, high = definition.ge, definition.le
    whole = int(text) if _WHOLE.fullmatch(text) else None
    if whole is None or (low is not None and whole < low) or (high is not None and whole > high):
        return f"must be a whole number from {low} to {high}"
    return None


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


# --- Bodies ------------------------------------------------------------------------------------------------------


def read(body: bytes, into: type[Struct]) -> Struct:
    """The body as a struct. Raises ProblemError naming each wrong field by its JSON pointer."""
    try:
        value = msgspec.json.decode(body, type=into)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError):
        raise bad_request(*_wrong_fields(body, into)[:MAX_TOLD]) from None
    numbers = fields_with_card_numbers(value)
    if numbers:
        sent_as = {field.name: field.encode_name for field in structs.fields(into)}
        raise bad_request(*(FieldError(_NO_CARD, pointer=f"#/{sent_as[name]}") for name in numbers))
    return value


def _wrong_fields(body: bytes, into: type[Struct]) -> list[FieldError]:
    try:
        msgspec.json.decode(body, type=Raw)
        given = msgspec.json.decode(body, type=dict[str, Raw])
    except msgspec.ValidationError:
        return [FieldError("the body must be a JSON object", pointer="#")]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return [FieldError("the body is not well-formed JSON", pointer="#")]
    fields = {field.encode_name: field for field in structs.fields(into)}
    unknown = [name for name in given if name not in fields] if into.__struct_config__.forbid_unknown_fields else []
    wrong = [FieldError("is not a known field", pointer=f"#/{_escaped(name)}") for name in unknown]
    for name, field in fields.items():
        if name not in given:
            wrong += [FieldError("is required", pointer=f"#/{name}")] if field.required else []
            continue
        try:
            msgspec.json.decode(given[name], type=field.type)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
            wrong.append(_located(name, str(error)))
    return wrong or [FieldError("the body does not have the required form", pointer="#")]


def _located(name: str, message: str) -> FieldError:
    if holds_card_number(message):  # it quotes what it does not know
        return FieldError(_NO_CARD, pointer=f"#/{_escaped(name)}")
    where = _AT.search(message)
    steps = [step["name"] or step["index"] for step in _STEP.finditer(where["path"])] if where else []
    pointer = "/".join(["#", _escaped(name), *(_escaped(step) for step in steps)])
    return FieldError(_AT.sub("", message).replace("`", "'"), pointer=pointer)


def _escaped(name: str) -> str:
    """RFC 6901."""
    return _shown(name).replace("~", "~0").replace("/", "~1")


def _shown(name: str) -> str:
    """A name that a caller has chosen, fit to be repeated."""
    return name[:MAX_NAME] if not holds_card_number(name) else "(a card number)"
