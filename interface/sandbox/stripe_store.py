"""All objects, as the JSON bytes they are answered with, and the unit of work that changes them.

Objects are kept encoded: a reader decodes a private copy, so nothing can be half changed. A `Change` collects what
one request does; nothing of it is seen before `Store.apply`, which runs after the journal has it.
"""

from collections import defaultdict, deque
from collections.abc import Container, Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec

from interface.sandbox.stripe_errors import Json, missing
from interface.sandbox.stripe_ids import new_id

OBJECTS = (
    "payment_intent",
    "charge",
    "refund",
    "dispute",
    "customer",
    "payment_method",
    "token",
    "balance_transaction",
    "product",
    "price",
    "subscription",
    "invoice",
    "invoiceitem",
    "invoice_payment",
    "setting",
    "event",
)

NOUNS = {"payment_method": "PaymentMethod"}  # what Stripe calls it in "No such …"; others by their own name

SUBSCRIPTION_OF_INVOICE = "parent.subscription_details.subscription"

# Which members of an object name the object it hangs on, for lists that must not read everything.
_PARENTS = {
    "charge": ("payment_intent",),
    "refund": ("charge", "payment_intent"),
    "dispute": ("charge", "payment_intent"),
    "balance_transaction": ("source",),
    "payment_method": ("customer",),
    "price": ("product",),
    "subscription": ("customer",),
    "invoice": (SUBSCRIPTION_OF_INVOICE, "customer"),
    "invoiceitem": (SUBSCRIPTION_OF_INVOICE,),
    "invoice_payment": ("invoice", "payment.payment_intent"),
}


class Entry(NamedTuple):
    """One object as it is stored: the bytes, and the members that tables and lists are kept by."""

    found: Json
    raw: bytes


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Store:
    """Tables by kind of object, in order of creation."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, bytes]] = {kind: {} for kind in OBJECTS}
        self._children: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)

    def get(self, kind: str, wanted: str) -> Json | None:
        """A fresh copy."""
        raw = self._tables[kind].get(wanted)
        return None if raw is None else _decode(raw)

    def raw(self, kind: str) -> Iterator[bytes]:
        yield from self._tables[kind].values()

    def raw_one(self, kind: str, wanted: str) -> bytes:
        """The bytes of an object that is there."""
        return self._tables[kind][wanted]

    def newest_first(self, kind: str, equal: Json, after: str | None = None) -> Iterator[Json]:
        """Copies of those objects whose members equal the given values, newest first. Inner ones are `outer.inner`.

        `after`: only those older than this one, which is there; the newer ones are passed without a look into them.
        """
        table = self._tables[kind]
        parent = next((name for name in _PARENTS.get(kind, ()) if name in equal), None)
        ids = table if parent is None else self._children[kind, parent, equal[parent]]
        needles = [_encode({name.rpartition(".")[2]: value})[1:-1] for name, value in equal.items()]
        older = reversed(ids)
        if after is not None:
            deque(takewhile(after.__ne__, older), maxlen=0)
        for wanted in older:
            raw = table[wanted]
            if all(needle in raw for needle in needles):  # cheap, and decides nothing but what is worth decoding
                found = _decode(raw)
                if all(member(found, name) == value for name, value in equal.items()):
                    yield found

    def forget(self, kind: str, wanted: str) -> None:
        """An object that nothing hangs on."""
        del self._tables[kind][wanted]

    def count(self, kind: str, parent: str, of: str) -> int:
        return len(self._children[kind, parent, of])

    def apply(self, entry: Entry) -> None:
        """Take over one object, new or changed."""
        found = entry.found
        kind, wanted = found["object"], found["id"]
        self._tables[kind][wanted] = entry.raw
        for name in _PARENTS.get(kind, ()):
            if isinstance(parent := member(found, name), str):
                self._children[kind, name, parent][wanted] = None


class Change:
    """What one request reads and writes. `now` is the stand-in's clock in Unix seconds."""

    def __init__(self, store: Store, now: int, request: Json | None = None, api_version: str = "") -> None:
        self.store = store
        self.now = now
        self._request = request or {"id": None, "idempotency_key": None}
        self._api_version = api_version
        self._seen: dict[tuple[str, str], Json] = {}
        self._written: dict[tuple[str, str], Json] = {}
        self._events: list[Entry] = []

    def find(self, kind: str, wanted: str) -> Json | None:
        """The object as this change sees it; the same copy every time."""
        if (seen := self._seen.get((kind, wanted))) is not None:
            return seen
        if (found := self.store.get(kind, wanted)) is not None:
            self._seen[kind, wanted] = found
        return found

    def get(self, kind: str, wanted: str, param: str, *, status: int = 404) -> Json:
        """The object, or Stripe's `resource_missing`."""
        found = self.find(kind, wanted)
        if found is None or found.get("deleted"):
            raise missing(NOUNS.get(kind, kind), wanted, param, status=status)
        return found

    def related(self, kind: str, name: str, of: str) -> Iterator[Json]:
        """The objects whose member names another one, newest first, as this change sees them."""
        written = [found for (table, _), found in self._written.items() if table == kind and member(found, name) == of]
        yield from (found for found in reversed(written) if self.store.get(kind, found["id"]) is None)
        for stored in self.store.newest_first(kind, {name: of}):
            yield self._seen.setdefault((kind, stored["id"]), stored)

    def put(self, found: Json) -> Json:
        """Write an object; later changes to this very dict are written too."""
        key = (found["object"], found["id"])
        self._seen[key] = self._written[key] = found
        return found

    def emit(self, kind: str, found: Json, previous: Json | None = None) -> None:
        """Record an event with a snapshot of the object as it is now."""
        data: Json = {"object": found}
        if previous:
            data["previous_attributes"] = previous
        event = {
            "id": new_id("evt_"),
            "object": "event",
            "api_version": self._api_version or None,
            "created": self.now,
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": self._request,
            "type": kind,
        }
        self._events.append(Entry(event, _encode(event)))

    def entries(self) -> list[Entry]:
        """Everything written, objects before events, encoded as it is now."""
        return [*(Entry(found, _encode(found)) for found in self._written.values()), *self._events]


def member(found: Json, name: str) -> Any:
    """A member of an object by its name, or `outer.inner`; None where there is none."""
    if "." not in name:
        return found.get(name)
    inner: Any = found
    for step in name.split("."):
        inner = inner.get(step) if isinstance(inner, dict) else None
    return inner


class _Head(msgspec.Struct):
    object: str
    id: str
    created: int = 0
    type: Any = None


_decode_head = msgspec.json.Decoder(_Head).decode


def entry_of(raw: bytes, read_in_full: Container[str] = ()) -> Entry:
    """An entry read back from the journal. Most of it are events: other types than these are read by their head."""
    head = _decode_head(raw)
    if head.object == "event" and head.type not in read_in_full:
        return Entry(msgspec.structs.asdict(head), raw)
    return Entry(_decode(raw), raw)
