"""The life of a request: authorize, check, claim its key, execute, journal, take over, answer.

Execution is synchronous, so one request is never seen half done by another. Only the injected delays wait, and while
they do the idempotency key is in flight.
"""

import asyncio
import heapq
import logging
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_charges import capture_before
from interface.sandbox.stripe_errors import Json, RefusedError, StripeError, unauthorized
from interface.sandbox.stripe_faults import Fault, Faults
from interface.sandbox.stripe_forms import Pairs, decode_form, decode_pairs
from interface.sandbox.stripe_idempotency import Keys, check_key, fingerprint_of
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_journal import Journal, Kept, Record
from interface.sandbox.stripe_lists import expand
from interface.sandbox.stripe_payments import expire
from interface.sandbox.stripe_routes import Route, find_route
from interface.sandbox.stripe_store import Change, Entry, Store, entry_of
from interface.sandbox.stripe_validation import validator

MAX_ADVANCE_S = 10 * 366 * 24 * 3600

_TEST_KEYS = ("sk_test_", "rk_test_")
_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True, frozen=True)
class Incoming:
    """A request as it came over the wire; header names are matched in any case by the mapping."""

    method: str
    path: str
    query: bytes
    body: bytes
    headers: Mapping[str, str]


@dataclass(slots=True, frozen=True)
class Reply:
    status: int
    body: bytes
    request_id: str
    replayed: bool = False


@dataclass(slots=True, frozen=True)
class _Checked:
    route: Route
    ids: tuple[str, ...]
    params: Json
    expansions: list[str]


class Api:
    """Stripe's API over one data directory."""

    def __init__(self, directory: Path, *, release_as_refund: bool = False) -> None:
        self.store = Store()
        self.keys = Keys()
        self.faults = Faults()
        self.own_url = ""
        # Events that have not been delivered, oldest first, while somebody delivers them.
        self.pending: dict[str, None] = {}
        self.event_added: Callable[[], None] | None = None
        self._release_as_refund = release_as_refund
        self._advance_s = 0
        self._due: list[tuple[int, str]] = []  # a heap of (capture_before, charge)
        self._journal = Journal(directory)
        for record in self._journal.replay():
            self._take_over(record, [entry_of(bytes(raw)) for raw in record.put])
        self.keys.forget_expired(self.now)

    # Clock

    @property
    def now(self) -> int:
        """Unix seconds: real time plus what the clock was advanced by."""
        return int(time.time()) + self._advance_s

    def advance(self, seconds: int) -> int:
        """Turn the clock forward, and let happen what is due by then."""
        self._commit([], advance_s=seconds)
        self.let_expire()
        self.keys.forget_expired(self.now)
        return self.now

    def let_expire(self) -> None:
        """Authorizations whose time is over; each is a change of its own."""
        while self._due and self._due[0][0] <= self.now:
            _, charge = heapq.heappop(self._due)
            change = Change(self.store, self.now)
            expire(change, charge, as_refund=self._release_as_refund)
            self.commit(change)

    # Requests

    async def answer(self, incoming: Incoming, delay_s: float = 0, fault: Fault | None = None) -> Reply:
        """Never raises: what goes wrong is an answer in Stripe's shape."""
        request_id = new_id("req_")
        try:
            return await self._answer(incoming, request_id, delay_s, fault)
        except StripeError as error:
            return Reply(error.status, _encode(error.body), request_id)
        except Exception:  # noqa: BLE001 - a mistake of ours is answered as a provider would, not as a dead socket
            _log.exception("the stand-in failed at %s %s", incoming.method, incoming.path)
            broken = StripeError(500, "api_error", "The stand-in failed; nothing was applied.")
            return Reply(500, _encode(broken.body), request_id)

    async def _answer(self, incoming: Incoming, request_id: str, delay_s: float, fault: Fault | None) -> Reply:
        authorize(incoming.headers.get("Authorization", ""))
        writes = incoming.method == "POST"
        pairs = decode_pairs(incoming.query) + (decode_pairs(incoming.body) if writes else [])
        checked = _check(incoming, pairs)
        key = incoming.headers.get("Idempotency-Key") if writes else None
        fingerprint = ""
        with ExitStack() as stack:
            if key:
                check_key(key)
                fingerprint = fingerprint_of(pairs)
                claim = self.keys.claim(key, incoming.path, fingerprint, self.now)
                if (kept := stack.enter_context(claim)) is not None:
                    return Reply(kept.status, bytes(kept.body), request_id, replayed=True)
            if delay_s:
                await asyncio.sleep(delay_s)
            return self._execute(incoming, checked, request_id, _Keep(key, incoming.path, fingerprint), fault)

    def _execute(
        self, incoming: Incoming, checked: _Checked, request_id: str, keep: "_Keep", fault: Fault | None
    ) -> Reply:
        self.let_expire()
        request: Json = {"id": request_id, "idempotency_key": keep.key}
        change = Change(self.store, self.now, request, incoming.headers.get("Stripe-Version", ""))
        call = Call(change, checked.params, checked.ids, self.own_url, self._release_as_refund)
        try:
            result = checked.route.run(call)
            entries = change.entries()
            status, body = 200, _body(change, result, entries, checked.expansions)
        except RefusedError:
            raise
        except StripeError as error:
            entries = change.entries() if error.applied else []
            status, body = error.status, _encode(error.body)
        if fault is not None and fault.mode == "error" and fault.when == "after":
            status, body = fault.status, _encode(fault_error(fault).body)
        self._commit(entries, kept=keep.kept(status, body, change.now))
        return Reply(status, body, request_id)

    def commit(self, change: Change) -> None:
        """A change that no request asked for."""
        self._commit(change.entries())

    def _commit(self, entries: list[Entry], *, kept: Kept | None = None, advance_s: int | None = None) -> None:
        if entries or kept or advance_s:
            record = Record([msgspec.Raw(entry.raw) for entry in entries], kept, advance_s)
            self._journal.append(record)
            self._take_over(record, entries)

    def _take_over(self, record: Record, entries: list[Entry]) -> None:
        for entry in entries:
            self.store.apply(entry)
            found = entry.found
            if found["object"] == "charge" and (due := capture_before(found)) is not None:
                heapq.heappush(self._due, (due, found["id"]))
            if found["object"] == "event":
                self.pending[found["id"]] = None
                if self.event_added is not None:
                    self.event_added()
        for wanted in record.sent:
            self.pending.pop(wanted, None)
        if record.kept is not None:
            self.keys.add(record.kept)
        if record.advance_s is not None:
            self._advance_s += record.advance_s

    def acknowledge(self, events: list[str]) -> None:
        """These need not be delivered any more."""
        self._journal.append(Record(sent=events))

    def close(self) -> None:
        self._journal.close()


@dataclass(slots=True, frozen=True)
class _Keep:
    key: str | None
    path: str
    fingerprint: str

    def kept(self, status: int, body: bytes, now: int) -> Kept | None:
        if not self.key:
            return None
        return Kept(self.key, self.path, self.fingerprint, status, msgspec.Raw(body), now)


def _body(change: Change, result: Json, entries: list[Entry], expansions: list[str]) -> bytes:
    """The answer; what was just encoded for the journal is not encoded again."""
    if expansions:
        expanded = dict(result)
        expand(change, expanded, expansions)
        return _encode(expanded)
    return next((entry.raw for entry in entries if entry.found is result), None) or _encode(result)


def authorize(header: str) -> None:
    """Bearer, or Basic with the key as the user. Any test key will do; the stand-in has one account."""
    scheme, _, secret = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            secret = b64decode(secret).decode().partition(":")[0]
        except ValueError:
            secret = ""
    if not secret.strip():
        raise unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using"
            " Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
    if not secret.strip().startswith(_TEST_KEYS):
        raise unauthorized("Invalid API Key provided: the stand-in takes keys that begin with sk_test_ or rk_test_.")


def _check(incoming: Incoming, pairs: Pairs) -> _Checked:
    route, ids = find_route(incoming.method, incoming.path)
    params: Json = validator(route.params)(decode_form(pairs), "")
    return _Checked(route, ids, params, params.get("expand") or [])


def fault_error(fault: Fault) -> StripeError:
    """The error that a fault answers with."""
    if fault.status == 429:
        return RefusedError(429, "invalid_request_error", "Request rate limit exceeded. (injected)", code="rate_limit")
    if fault.status == 402:
        return RefusedError(
            402, "card_error", "Your card was declined.", code="card_declined", decline_code="generic_decline"
        )
    kind = "api_error" if fault.status >= 500 else "invalid_request_error"
    return RefusedError(fault.status, kind, "An injected error: sorry, something went wrong on the sandbox's end.")
