"""Announcements of orders into the log: once each, in order, whatever is repeated, overtaken or cannot be read.

A batch, how far it was read, what waits and what is parked are stored in one transaction. Inside it the orders are
loaded by one query and decided on in memory (application/order_desk.py).

Batches of different consumers go beside each other: they share the turn. Where messages wait or are parked, somebody
else may at this moment take in what they wait for, or bring their lane back; there the turn is taken alone.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from application.event_store import Ledger
from application.log_transaction import LogTransaction, log_transaction
from application.order_desk import Desk, Story
from application.order_messages import Announced, Message, Read, Reading, Unreadable
from application.order_offsets import Counts, Move, advance, hold
from application.order_parking import Parked, Seal, discard, fail_again, in_lane_of, lanes, park, take_back
from application.order_waiting import end, keep, waiting
from application.orders import order_stream
from application.privacy import Keys

TURN = 0x6F726472

Told = tuple[Message, Reading, UUID]


class NotParked(Exception):  # noqa: N818  it says what is so
    """There is no such message."""


class _Alone(Exception):  # noqa: N818  it asks for something
    """The turn has to be taken alone."""


class Retried(Struct, frozen=True):
    """So many messages of a lane have been taken in, in their order, so many stay; `reason`: why the next does."""

    taken: int
    stay: int
    reason: str = ""


class OrderIntake:
    """One instance a process; its methods block. `read` tells what a message says."""

    def __init__(self, ledger: Ledger, keys: Keys, read: Read) -> None:
        self._ledger = ledger
        self._seal = Seal(keys)
        self._read = read

    def take(self, messages: Sequence[Message], moves: Sequence[Move], now: datetime) -> Counts:
        """Store what messages say and how far they were read, all or nothing; count what became of them.

        Raises Deposed, TooManyParked, StreamMoved or StoreUnavailable.
        """
        return self._take([self._told(message) for message in messages], moves, now)

    def refuse(self, message: Message, move: Move, reason: str, now: datetime) -> Counts:
        """Park a message that cannot be taken in although it can be read. Raises what `take` does."""
        _, reading, _ = self._told(message)
        order = reading.command.order if isinstance(reading, Announced) else None
        return self._take([_placed(message, Unreadable(reason, order))], [move], now)

    def retry(self, parked_id: int, now: datetime) -> Retried:
        """Take in what waits in the lane of that message, in order, up to one that fails again.

        Raises NotParked, SealUnknown, StreamMoved or StoreUnavailable.
        """
        with log_transaction(self._ledger) as log:
            _take_turn(log, alone=True)
            return self._settle(log, in_lane_of(log.conn, parked_id), now)

    def discard(self, parked_id: int, who: str, why: str, now: datetime) -> Retried:
        """Give that message up and take in what waited behind it. Raises what `retry` does."""
        with log_transaction(self._ledger) as log:
            _take_turn(log, alone=True)
            lane = in_lane_of(log.conn, parked_id)
            if not lane:
                raise NotParked
            discard(log.conn, parked_id, who, why, now)
            rest = [one for one in lane if one.id != parked_id]
            return self._settle(log, rest, now) if rest else Retried(0, 0)

    def _told(self, message: Message) -> Told:
        try:
            reading = self._read(message)
        except Exception as error:  # noqa: BLE001  what breaks its reader must not hold up the others
            reading = Unreadable(f"body: its reader fails with {type(error).__name__}")
        return _placed(message, reading)

    def _take(self, told: Sequence[Told], moves: Sequence[Move], now: datetime) -> Counts:
        try:
            return self._take_once(told, moves, now, alone=False)
        except _Alone:
            return self._take_once(told, moves, now, alone=True)

    def _take_once(self, told: Sequence[Told], moves: Sequence[Move], now: datetime, *, alone: bool) -> Counts:
        with log_transaction(self._ledger) as log:
            _take_turn(log, alone=alone)
            hold(log.conn, moves)
            aside = lanes(log.conn)
            desk = _desk(log, told, aside, now)
            counts: Counts = Counter()
            for message, reading, lane in told:
                counts[message.partition, desk.take(message, reading, lane)] += 1
            if not alone and (desk.waits or desk.aside):
                raise _Alone
            self._store(log, desk, now)
            if desk.aside:
                park(log.conn, desk.aside, self._seal, now)
            advance(log.conn, moves, counts, now)
        return counts

    def _settle(self, log: LogTransaction, lane: Sequence[Parked], now: datetime) -> Retried:
        if not lane:
            raise NotParked
        told = [self._told(self._seal.open(one)) for one in lane]
        desk = _desk(log, told, lanes(log.conn) - {lane[0].lane}, now)
        for message, reading, _ in told:
            desk.take(message, reading, lane[0].lane)
        self._store(log, desk, now)
        taken = lane[: len(lane) - len(desk.aside)]
        take_back(log.conn, taken)
        if not desk.aside:
            return Retried(len(taken), 0)
        fail_again(log.conn, lane[len(taken)], desk.aside[0].reason)
        return Retried(len(taken), len(desk.aside), desk.aside[0].reason)

    def _store(self, log: LogTransaction, desk: Desk, now: datetime) -> None:
        log.append(desk.appends)
        if desk.waits:
            keep(log.conn, desk.waits, now)
        if desk.waited:
            end(log.conn, desk.waited)


def _placed(message: Message, reading: Reading) -> Told:
    """With the lane it is in."""
    if isinstance(reading, Announced):
        return message, reading, reading.lane
    if isinstance(reading, Unreadable) and reading.order is not None:
        return message, reading, order_stream(reading.order)
    return message, reading, message.lane


def _take_turn(log: LogTransaction, *, alone: bool) -> None:
    """Until the transaction ends. It comes before every other lock, so that nobody waits in a circle."""
    query = "SELECT pg_advisory_xact_lock(%s)" if alone else "SELECT pg_advisory_xact_lock_shared(%s)"
    log.conn.execute(query, (TURN,), prepare=True)


def _desk(log: LogTransaction, told: Sequence[Told], aside: set[UUID], now: datetime) -> Desk:
    """With all that the messages are about, as it stands."""
    streams = list({reading.lane for _, reading, _ in told if isinstance(reading, Announced)})
    stories = {stream: Story.of(loaded) for stream, loaded in log.load(streams).items()} if streams else {}
    return Desk(stories, waiting(log.conn, streams) if streams else {}, aside, now)
