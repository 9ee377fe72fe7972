"""Lists with Stripe's paging, search, and the expansion of ids into objects."""

import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any

from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, invalid, missing, refused
from interface.sandbox.stripe_objects import listed
from interface.sandbox.stripe_store import Change

MAX_LIMIT = 100
DEFAULT_LIMIT = 10
MAX_EXPANSIONS = 20
MAX_EXPANSION_DEPTH = 4
EVENTS_KEPT_S = 30 * 24 * 3600

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def lister(kind: str, *equal: str) -> Callable[[Call], Json]:
    """The endpoint that lists objects of a kind, filtered by the named members and by `created`."""

    def list_objects(call: Call) -> Json:
        wanted = {name: call.params[name] for name in equal if name in call.params}
        found = (one for one in call.change.store.newest_first(kind, wanted) if "deleted" not in one)
        return _page(call, kind, _created_within(call.params.get("created"), found))

    return list_objects


def list_events(call: Call) -> Json:
    """Newest first, 30 days back; `type` may end in `.*`."""
    patterns = call.params.get("types") or ([call.params["type"]] if "type" in call.params else [])
    chosen = re.compile("|".join(re.escape(p).replace(r"\*", ".*") for p in patterns) or ".*")
    oldest = call.now - EVENTS_KEPT_S
    kept = takewhile(lambda event: event["created"] >= oldest, call.change.store.newest_first("event", {}))
    found = (event for event in kept if chosen.fullmatch(event["type"]))
    return _page(call, "event", _created_within(call.params.get("created"), found))


def _page(call: Call, kind: str, found: Iterator[Json]) -> Json:
    limit = _limit(call.params)
    after, before = call.params.get("starting_after"), call.params.get("ending_before")
    for name, cursor in (("starting_after", after), ("ending_before", before)):
        if cursor is not None and call.change.find(kind, cursor) is None:
            raise missing(kind, cursor, name, status=400)
    url = f"/v1/{kind}s"
    if before is not None:
        newer = list(takewhile(lambda item: item["id"] != before, found))
        return listed(newer[-limit:], url, more=len(newer) > limit)
    if after is not None:
        for item in found:
            if item["id"] == after:
                break
    data = list(islice(found, limit + 1))
    return listed(data[:limit], url, more=len(data) > limit)


def _limit(params: Json) -> int:
    limit: int = params.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        code = "parameter_invalid_integer"
        raise refused(f"This value must be between 1 and {MAX_LIMIT}.", code=code, param="limit")
    return limit


def _created_within(created: Any, found: Iterable[Json]) -> Iterator[Json]:
    if created is None:
        return iter(found)
    bounds = created if isinstance(created, dict) else {"gte": created, "lte": created}
    return (o for o in found if all(_COMPARE[name](o["created"], bound) for name, bound in bounds.items()))


# Search

_CLAUSE = re.compile(
    r"""\s*(?:metadata\[(["'])(?P<key>.*?)\1\]|(?P<name>\w+))\s*:\s*(["'])(?P<text>(?:\\.|(?!\4).)*)\4\s*"""
)
_AND = re.compile(r"(?i:AND)(?=\s)")
_SEARCHABLE = ("currency", "customer", "status")


def search_intents(call: Call) -> Json:
    """`metadata['k']:'v'` and a few members, joined by AND. Stripe's own index lags up to a minute; this does not."""
    metadata, members = _parse(call.params["query"])
    limit = _limit(call.params)
    found = (
        intent
        for intent in call.change.store.newest_first("payment_intent", members)
        if all(intent["metadata"].get(name) == text for name, text in metadata.items())
    )
    if (page := call.params.get("page")) is not None:
        cursor = _cursor(page)
        for intent in found:
            if intent["id"] == cursor:
                break
    data = list(islice(found, limit + 1))
    more = len(data) > limit
    following = urlsafe_b64encode(data[limit - 1]["id"].encode()).decode() if more else None
    rest = {"has_more": more, "next_page": following, "url": "/v1/payment_intents/search"}
    return {"object": "search_result", "data": data[:limit], **rest}


def _cursor(page: str) -> str:
    try:
        return b64decode(page, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise invalid("Invalid page: use the next_page of an earlier answer.", param="page") from None


def _parse(query: str) -> tuple[dict[str, str], dict[str, str]]:
    metadata: dict[str, str] = {}
    members: dict[str, str] = {}
    at = 0
    while clause := _CLAUSE.match(query, at):
        text = re.sub(r"\\(.)", r"\1", clause["text"])
        if clause["key"] is not None:
            metadata[clause["key"]] = text
        elif clause["name"] in _SEARCHABLE:
            members[clause["name"]] = text
        else:
            raise invalid(f"Field `{clause['name']}` is an unsupported search field.", param="query")
        at = clause.end()
        if at == len(query):
            return metadata, members
        if (joined := _AND.match(query, at)) is None:
            break
        at = joined.end()
    raise invalid("We were unable to parse your search query.", param="query")


# Expansion

_EXPANDABLE = {
    "latest_charge": "charge",
    "charge": "charge",
    "payment_method": "payment_method",
    "customer": "customer",
    "payment_intent": "payment_intent",
    "balance_transaction": "balance_transaction",
    "default_payment_method": "payment_method",
    "source": "charge",
}


def expand(change: Change, answer: Json, paths: list[str]) -> None:
    """Replace ids by objects, in place. The answer must have been written to the journal's record before."""
    if len(paths) > MAX_EXPANSIONS:
        raise refused(f"You cannot expand more than {MAX_EXPANSIONS} properties.", param="expand")
    for path in paths:
        steps = path.split(".")
        if len(steps) > MAX_EXPANSION_DEPTH + 1:
            raise refused(f"You cannot expand more than {MAX_EXPANSION_DEPTH} levels of a property.", param="expand")
        _expand(change, answer, steps, path)


def _expand(change: Change, found: Any, steps: list[str], path: str) -> None:
    if not steps or found is None:
        return
    if isinstance(found, list):
        for item in found:
            _expand(change, item, steps, path)
        return
    name, rest = steps[0], steps[1:]
    if not isinstance(found, dict) or (name not in found and name != "refunds"):
        raise refused(f"This property cannot be expanded ({path}).", param="expand[0]")
    value = found.get(name)
    if isinstance(value, str):
        found[name] = _object(change, name, value, path)
    elif name == "refunds" and found.get("object") == "charge":
        refunds = list(change.store.newest_first("refund", {"charge": found["id"]}))
        found[name] = listed(refunds, f"/v1/charges/{found['id']}/refunds", more=False)
    _expand(change, found.get(name), rest, path)


def _object(change: Change, name: str, wanted: str, path: str) -> Any:
    if name not in _EXPANDABLE:
        raise refused(f"This property cannot be expanded ({path}).", param="expand[0]")
    kind = "refund" if wanted.startswith("re_") else _EXPANDABLE[name]
    found = change.find(kind, wanted)
    return wanted if found is None else dict(found)
