"""Reads a request body strictly and names everything that is wrong with it at once."""

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.params import ParameterKwarg
from litestar.typing import FieldDefinition
from msgspec import Struct, structs

from interface.web.problems import FieldError, ProblemError, bad_request, problem

MAX_BODY_BYTES = 64 * 1024
_AT = re.compile(r" - at `\$(?P<path>.*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")
# Digits as they stand on a card, with the separators people type, not inside a longer number.
_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")
_CARD = re.compile(r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}")


async def check_request(request: Request[Any, Any, Any]) -> None:
    """Runs before every handler of `/v1`. Raises ProblemError (400, 413, 415)."""
    parameters = request.route_handler.parsed_fn_signature.parameters
    known = {name for parameter in parameters.values() if (name := _query_name(parameter))}
    unknown = [
        FieldError("is not a known parameter", parameter=name[:100])
        for name in request.query_params
        if name not in known
    ]
    if unknown:
        raise bad_request(*unknown)
    if "data" not in parameters:
        return
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        said = "the body must be application/json"
        raise ProblemError(problem(415, "unsupported-media-type", said, FieldError(said, header="Content-Type")))
    read(await request.body(), parameters["data"].annotation)


def _query_name(parameter: FieldDefinition) -> str | None:
    definition = parameter.kwarg_definition
    return definition.query if isinstance(definition, ParameterKwarg) else None


def read(body: bytes, into: type[Struct]) -> Struct:
    """The body as a struct. Raises ProblemError naming each wrong field by its JSON pointer."""
    try:
        value = msgspec.json.decode(body, type=into)
    except msgspec.ValidationError:
        raise bad_request(*_wrong_fields(body, into)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise bad_request(FieldError("the body is not well-formed JSON", pointer="#")) from None
    numbers = [
        FieldError("a card number must not be sent here", pointer=f"#/{name}") for name in _with_card_number(value)
    ]
    if numbers:
        raise bad_request(*numbers)
    return value


def _wrong_fields(body: bytes, into: type[Struct]) -> list[FieldError]:
    given = msgspec.json.decode(body)
    if not isinstance(given, dict):
        return [FieldError("the body must be a JSON object", pointer="#")]
    fields = {field.encode_name: field for field in structs.fields(into)}
    wrong = [FieldError("is not a known field", pointer=f"#/{_escaped(name)}") for name in given if name not in fields]
    for name, field in fields.items():
        if name not in given:
            if field.required:
                wrong.append(FieldError("is required", pointer=f"#/{name}"))
            continue
        try:
            msgspec.convert(given[name], field.type)
        except msgspec.ValidationError as error:
            wrong.append(_located(name, str(error)))
    return wrong or [FieldError("the body does not have the required form", pointer="#")]


def _located(name: str, message: str) -> FieldError:
    where = _AT.search(message)
    steps = [step["name"] or step["index"] for step in _STEP.finditer(where["path"])] if where else []
    pointer = "/".join(["#", _escaped(name), *(_escaped(step) for step in steps)])
    return FieldError(_AT.sub("", message).replace("`", "'"), pointer=pointer)


def _escaped(name: str) -> str:
    """RFC 6901, and short enough to repeat."""
    return name[:100].replace("~", "~0").replace("/", "~1")


# --- Card numbers never enter ------------------------------------------------------------------------------------


def _with_card_number(value: Struct) -> list[str]:
    found = []
    for name in value.__struct_fields__:
        part = getattr(value, name)
        texts = [part] if isinstance(part, str) else [*part, *part.values()] if isinstance(part, dict) else []
        if any(holds_card_number(text) for text in texts):
            found.append(name)
    return found


def holds_card_number(text: str) -> bool:
    """Whether a payment card's number stands in the text: a known issuer's digits whose check digit is right."""
    for match in _DIGITS.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _CARD.fullmatch(digits) and _luhn(digits):
            return True
    return False


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1's check digit."""
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0
