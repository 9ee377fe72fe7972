"""The life of a request: authorize, check, claim its key, execute, journal, take over, answer.

Execution is synchronous, so one request is never seen half done by another. Only the injected delays wait, and while
they do the idempotency key is in flight.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from interface.sandbox.stripe_agenda import NOTICES, Agenda, Due, kind_of
from interface.sandbox.stripe_authorization import authorize
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, RefusedError, StripeError
from interface.sandbox.stripe_faults import Fault, Faults, fault_error
from interface.sandbox.stripe_forms import Pairs, decode_form, decode_pairs
from interface.sandbox.stripe_idempotency import Keys, check_key, fingerprint_of
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_journal import Journal, Kept, Record
from interface.sandbox.stripe_kept_events import KeptEvents
from interface.sandbox.stripe_lists import expand
from interface.sandbox.stripe_renewals import play
from interface.sandbox.stripe_routes import Route, find_route
from interface.sandbox.stripe_store import Change, Entry, Store, entry_of
from interface.sandbox.stripe_validation import validator

MAX_ADVANCE_S = 10 * 366 * 24 * 3600
MAX_MOMENTS = 1_000_000

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
        self._kept_events = KeptEvents(self.store)
        self.pending = self._kept_events.pending
        self.event_added: Callable[[], None] | None = None
        self._release_as_refund = release_as_refund
        self._advance_s = 0
        self._agenda = Agenda()
        self._journal = Journal(directory)
        for record in self._journal.replay():
            self._take_over(record, [entry_of(bytes(raw), NOTICES) for raw in record.put])
        self.keys.forget_expired(self.now)

    # Clock

    @property
    def now(self) -> int:
        """Unix seconds: real time plus what the clock was advanced by."""
        return int(time.time()) + self._advance_s

    def advance(self, until: int, at_most: int) -> int:
        """Turn the clock forward, and let happen what is due by then, or the first `at_most` of it; returns how many.

        The clock goes from one due moment to the next together with what happens there, so that it is never ahead of
        it, whenever the process dies.
        """
        played = self.play_due(until, at_most)
        if played < at_most or not self.due_by(until):
            self._commit([], advance_s=max(0, until - self.now))
        self.keys.forget_expired(self.now)
        return played

    def due_by(self, until: int) -> bool:
        first = self._agenda.first()
        return first is not None and first.at <= until

    def play_due(self, until: int | None = None, at_most: int = MAX_MOMENTS) -> int:
        """What is due by now, or by then: each at its own moment, and as a change of its own."""
        played = 0
        while played < at_most and self.due_by(self.now if until is None else until):
            due = self._agenda.take()
            try:
                played += self._play(due)
            except Exception:
                self._agenda.put_back(due)
                raise
        return played

    def _play(self, due: Due) -> bool:
        at = max(due.at, self.now) if due.what in NOTICES.values() else due.at  # nobody is told in the past
        change = Change(self.store, at)
        found = change.find(kind_of(due.what), due.wanted)
        if found is None or not self._agenda.still(due, found):
            return False
        play(Call(change, {}, (), self.own_url, self._release_as_refund), due, found)
        self._commit(change.entries(), advance_s=max(0, due.at - self.now))
        return True

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
        self.play_due()
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
            nobody_delivers = self.event_added is None
            untold = self._kept_events.outdated(self.now) if nobody_delivers else []
            record = Record([msgspec.Raw(entry.raw) for entry in entries], kept, advance_s, untold)
            self._journal.append(record)
            self._take_over(record, entries)

    def _take_over(self, record: Record, entries: list[Entry]) -> None:
        for entry in entries:
            self.store.apply(entry)
            found = entry.found
            self._agenda.learn(found)
            if found["object"] == "event":
                self._kept_events.add(found)
                if self.event_added is not None:
                    self.event_added()
        self._kept_events.told(record.sent)
        if record.kept is not None:
            self.keys.add(record.kept)
        if record.advance_s is not None:
            self._advance_s += record.advance_s
        self._kept_events.forget_old()

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
        return _encode(expand(change, result, expansions))
    return next((entry.raw for entry in entries if entry.found is result), None) or _encode(result)


def _check(incoming: Incoming, pairs: Pairs) -> _Checked:
    route, ids = find_route(incoming.method, incoming.path)
    params: Json = validator(route.params)(decode_form(pairs), "")
    return _Checked(route, ids, params, params.get("expand") or [])
