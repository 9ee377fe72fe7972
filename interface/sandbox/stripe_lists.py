"""Lists with Stripe's paging, search, and the expansion of ids into objects."""

import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any

import msgspec

from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, invalid, missing, refused
from interface.sandbox.stripe_kept_events import EVENTS_KEPT_S
from interface.sandbox.stripe_objects import listed
from interface.sandbox.stripe_store import Change

MAX_LIMIT = 100
DEFAULT_LIMIT = 10
MAX_EXPANSIONS = 20
MAX_EXPANSION_DEPTH = 4

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def lister(kind: str, *equal: str, where: Callable[[Call, Json], bool] | None = None) -> Callable[[Call], Json]:
    """The endpoint that lists objects of a kind, filtered by the named members, by `where` and by `created`."""

    def list_objects(call: Call) -> Json:
        wanted = {name: call.params[name] for name in equal if name in call.params}
        stored = call.change.store.newest_first(kind, wanted, call.params.get("starting_after"))
        found = (one for one in stored if "deleted" not in one)
        if where is not None:
            found = (one for one in found if where(call, one))
        return _page(call, kind, _created_within(call.params.get("created"), found))

    return list_objects


def list_events(call: Call) -> Json:
    """Newest first, 30 days back; `type` may end in `.*`."""
    patterns = call.params.get("types") or ([call.params["type"]] if "type" in call.params else [])
    chosen = re.compile("|".join(re.escape(p).replace(r"\*", ".*") for p in patterns) or ".*")
    oldest = max(call.now - EVENTS_KEPT_S, _since(call.params.get("created")))
    stored = call.change.store.newest_first("event", {}, call.params.get("starting_after"))
    kept = takewhile(lambda event: event["created"] >= oldest, stored)
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
    data = list(islice(found, limit + 1))
    return listed(data[:limit], url, more=len(data) > limit)


def _limit(params: Json) -> int:
    limit: int = params.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        code = "parameter_invalid_integer"
        raise refused(f"This value must be between 1 and {MAX_LIMIT}.", code=code, param="limit")
    return limit


def _since(created: Any) -> int:
    """No event of before that is asked for, and they stand in the order of their times."""
    since: int = max(created.get("gte", 0), created.get("gt", 0)) if isinstance(created, dict) else created or 0
    return since


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


def searcher(kind: str, *searchable: str) -> Callable[[Call], Json]:
    """The endpoint that searches objects of a kind: `metadata['k']:'v'` and the named members, joined by AND.

    Stripe's own index lags up to a minute; this does not.
    """

    def search(call: Call) -> Json:
        metadata, members = _parse(call.params["query"], searchable)
        limit = _limit(call.params)
        found = (
            one
            for one in call.change.store.newest_first(kind, members)
            if "deleted" not in one and all(one["metadata"].get(name) == text for name, text in metadata.items())
        )
        if (page := call.params.get("page")) is not None:
            cursor = _cursor(page)
            for one in found:
                if one["id"] == cursor:
                    break
        data = list(islice(found, limit + 1))
        more = len(data) > limit
        following = urlsafe_b64encode(data[limit - 1]["id"].encode()).decode() if more else None
        rest = {"has_more": more, "next_page": following, "url": f"/v1/{kind}s/search"}
        return {"object": "search_result", "data": data[:limit], **rest}

    return search


def _cursor(page: str) -> str:
    try:
        return b64decode(page, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise invalid("Invalid page: use the next_page of an earlier answer.", param="page") from None


def _parse(query: str, searchable: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    metadata: dict[str, str] = {}
    members: dict[str, str] = {}
    at = 0
    while clause := _CLAUSE.match(query, at):
        text = re.sub(r"\\(.)", r"\1", clause["text"])
        if clause["key"] is not None:
            metadata[clause["key"]] = text
        elif clause["name"] in searchable:
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
    "default_price": "price",
    "invoice": "invoice",
    "latest_invoice": "invoice",
    "price": "price",
    "product": "product",
    "subscription": "subscription",
}

# Members that are there only when they are asked for, the newest ones: the kind of the objects, and how they name their
# owner.
_INCLUDED = {
    ("charge", "refunds"): ("refund", "charge"),
    ("invoice", "payments"): ("invoice_payment", "invoice"),
    ("invoice", "confirmation_secret"): ("invoice_payment", "invoice"),
}


def expand(change: Change, answer: Json, paths: list[str]) -> Json:
    """The answer with objects in place of ids; a copy throughout, since what was written is still to be stored."""
    if len(paths) > MAX_EXPANSIONS:
        raise refused(f"You cannot expand more than {MAX_EXPANSIONS} properties.", param="expand")
    expanded = _copied(answer)
    for path in paths:
        steps = path.split(".")
        if len(steps) > MAX_EXPANSION_DEPTH + 1:
            raise refused(f"You cannot expand more than {MAX_EXPANSION_DEPTH} levels of a property.", param="expand")
        _expand(change, expanded, steps, path)
    return expanded


def _copied(found: Json) -> Json:
    copied: Json = msgspec.json.decode(msgspec.json.encode(found))
    return copied


def _expand(change: Change, found: Any, steps: list[str], path: str) -> None:
    if not steps or found is None:
        return
    if isinstance(found, list):
        for item in found:
            _expand(change, item, steps, path)
        return
    if isinstance(found, dict) and found.get("deleted"):
        return  # what is left of it has no members to expand
    name, rest = steps[0], steps[1:]
    included = _INCLUDED.get((found.get("object", ""), name)) if isinstance(found, dict) else None
    if not isinstance(found, dict) or (name not in found and included is None):
        raise refused(f"This property cannot be expanded ({path}).", param="expand[0]")
    value = found.get(name)
    if isinstance(value, str):
        found[name] = _object(change, name, value, path)
    elif name == "confirmation_secret":
        found[name] = _secret(change, found)
    elif included is not None:
        kind, owner = included
        inner = [_copied(one) for one in change.related(kind, owner, found["id"])]
        url, more = f"/v1/{found['object']}s/{found['id']}/{name}", len(inner) > DEFAULT_LIMIT
        found[name] = listed(inner[:DEFAULT_LIMIT], url, more=more)
    _expand(change, found.get(name), rest, path)


def _secret(change: Change, invoice: Json) -> Json | None:
    """With which a customer's browser confirms the payment of an invoice."""
    payment = next(change.related("invoice_payment", "invoice", invoice["id"]), None)
    if payment is None:
        return None
    intent = change.get("payment_intent", payment["payment"]["payment_intent"], "payment_intent")
    return {"client_secret": intent["client_secret"], "type": "payment_intent"}


def _object(change: Change, name: str, wanted: str, path: str) -> Any:
    if name not in _EXPANDABLE:
        raise refused(f"This property cannot be expanded ({path}).", param="expand[0]")
    kind = "refund" if wanted.startswith("re_") else _EXPANDABLE[name]
    found = change.find(kind, wanted)
    return wanted if found is None else _copied(found)
