"""Payments as a shop makes them: drawn by chance from a seed, decided by the domain, written by the mapper."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import count
from struct import pack
from typing import Any
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent
from msgspec.structs import replace
from psycopg import Cursor

from application.event_store import Ledger
from application.stored_form import row_hash
from domain.envelope import NO_PREVIOUS, Envelope
from domain.facts import of_payment
from domain.money import Money
from domain.payment import evolve
from domain.payment_commands import (
    Authorize,
    Capture,
    Outcome,
    RecordAuthorized,
    RecordCaptured,
    RecordFailed,
    RecordRefunded,
    Refund,
    Wish,
)
from domain.payment_decisions import decide
from domain.payment_facts import Card, Failure
from interface.bootstrap import PROJECTIONS
from projections import payment_status
from tests.bench.lab import TABLE, WORKERS, Lab, connect, one, open_ledger

PAYMENT_STATUS = next(projection for projection in PROJECTIONS if projection.name == payment_status.NAME)

CUSTOMERS = 1_000
DECLINED, AT_ONCE, REFUNDED, WORDY = 0.05, 0.6, 0.1, 0.3
OPENED = datetime(2026, 1, 1, tzinfo=UTC)
BETWEEN_PAYMENTS = timedelta(seconds=2)
NO_FUNDS = Failure("card_declined", "insufficient_funds", "Your card has insufficient funds.", retryable=True)
VISA = Card("visa", "4242", 12, 2031)
# Payments whose facts lie among each other in the log.
AT_A_TIME = 500


class Shop:
    """An endless row of payments, each a list of envelopes of one stream. The same seed, the same payments."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._numbers = count(1)

    def uuid(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)

    def payment(self) -> list[Envelope]:
        """From first wish to last outcome: mostly captured, some refunded or declined; three facts or so."""
        stream, number, payment = self.uuid(), next(self._numbers), None
        at = OPENED + number * BETWEEN_PAYMENTS
        envelopes: list[Envelope] = []
        for wish, outcome in self._story(number):
            correlation, fingerprint = str(self.uuid()), f"{self._chance.getrandbits(256):064x}"
            for command in (wish, outcome):
                at += timedelta(milliseconds=self._chance.randint(5, 400))
                for fact in decide(payment, command):
                    payment = evolve(payment, fact)
                    envelope = Envelope(
                        stream=stream,
                        version=len(envelopes) + 1,
                        fact=fact,
                        at=at,
                        actor="shop",
                        operation=wish.operation,
                        correlation=correlation,
                        causation=None if command is wish else envelopes[-1].id,
                        fingerprint=fingerprint if command is wish else None,
                        person=payment.customer,
                    )
                    envelopes.append(envelope)
        return envelopes

    def authorized(self) -> list[Envelope]:
        """The first two facts of a payment whose money is reserved and not taken yet."""
        while True:
            begun = self.payment()[:2]
            state = reduce(evolve, (of_payment(envelope.fact) for envelope in begun), None)
            if state is not None and state.capturable:
                return begun

    def _story(self, number: int) -> Iterator[tuple[Wish, Outcome]]:
        chance, operation = self._chance, str(self.uuid())
        amount = Money(chance.randint(5_00, 500_00), chance.choice(("usd", "eur", "gbp")))
        intent, charge, proof = self._name("pi"), self._name("ch"), self._name("req")
        at_once = chance.random() < AT_ONCE
        begun = Authorize(
            operation,
            amount,
            "automatic" if at_once else "manual",
            "pm_card_visa",
            customer=f"customer-{chance.randrange(CUSTOMERS)}",
            order=f"order-{number}",
            description="Two tickets, row 7" if chance.random() < WORDY else None,
        )
        if chance.random() < DECLINED:
            yield begun, RecordFailed(operation, NO_FUNDS, proof, intent)
            return
        until = None if at_once else OPENED + timedelta(days=400)
        yield (
            begun,
            RecordAuthorized(
                operation, amount, at_once, intent, charge, VISA, until, multicapture=False, evidence=proof
            ),
        )
        if not at_once:
            operation = str(self.uuid())
            yield (
                Capture(operation),
                RecordCaptured(operation, amount, final=True, charge=charge, evidence=self._name("req")),
            )
        if chance.random() < REFUNDED:
            operation = str(self.uuid())
            yield Refund(operation), RecordRefunded(operation, amount, self._name("re"), self._name("req"))

    def _name(self, kind: str) -> str:
        return f"{kind}_{self._chance.getrandbits(96):024x}"


# --- In bulk -----------------------------------------------------------------------------------------------------

# Positions between the parts that two processes fill; gaps in the log are legal.
SLACK = 100_000
_COPY_HEADER, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), pack(">h", -1)


def fill(lab: Lab, url: str, facts: int, *, read_model: bool) -> int:
    """Bring an empty database to about that many facts, and the payments' rows if asked; answer how many it has."""
    parts = WORKERS if facts > SLACK else 1
    share = facts // parts
    filling = [
        lab.elsewhere(_fill, url, seed, share, 1 + seed * (share + SLACK), read_model=read_model)
        for seed in range(parts)
    ]
    for part in filling:
        part.result()
    with connect(url) as conn:
        sequence = f"pg_get_serial_sequence('{TABLE}', 'notification_id')"
        last = one(conn, f"SELECT setval({sequence}, (SELECT max(notification_id) FROM {TABLE}))")
        if read_model:
            query = "INSERT INTO checkpoints (projection, position) VALUES (%s, %s)"
            conn.execute(query, (payment_status.NAME, last))
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
        return one(conn, f"SELECT count(*) FROM {TABLE}")


def _fill(url: str, seed: int, facts: int, position: int, *, read_model: bool) -> None:
    shop, last = Shop(seed), position + facts
    with open_ledger(url) as ledger, connect(url) as conn, conn.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        while position < last:
            rows = _placed([row for _ in range(AT_A_TIME) for row in written(ledger, shop.payment())], position)
            with conn.transaction():
                _copy(cursor, rows)
                if read_model:
                    PAYMENT_STATUS.apply(conn, [ledger.envelope(row) for row in rows])
            position += len(rows)


def written(ledger: Ledger, payment: Sequence[Envelope]) -> list[StoredEvent]:
    """The rows of one stream, each chained to the one before it."""
    tail, rows = NO_PREVIOUS, []
    for envelope in payment:
        row = ledger.mapper.to_stored_event(replace(envelope, previous=tail))
        tail = row_hash(row)
        rows.append(row)
    return rows


def _placed(rows: list[StoredEvent], position: int) -> list[Notification]:
    """In an order in which streams take turns, at positions from `position` on."""
    in_turn = sorted(rows, key=lambda row: row.originator_version)
    return [
        Notification(row.originator_id, row.originator_version, row.topic, row.state, place)
        for place, row in enumerate(in_turn, position)
    ]


def _copy(cursor: Cursor[Any], rows: Sequence[Notification]) -> None:
    columns = "originator_id, originator_version, topic, state, notification_id"
    with cursor.copy(f"COPY {TABLE} ({columns}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
        copy.write(_COPY_HEADER + b"".join(map(_copied, rows)) + _COPY_END)


def _copied(row: Notification) -> bytes:
    """A row as COPY's binary format has it: the number of columns, then each with its length before it."""
    assert isinstance(row.originator_id, UUID)
    name = row.topic.encode()
    return b"".join(
        (
            pack(">hi16siq", 5, 16, row.originator_id.bytes, 8, row.originator_version),
            pack(">i", len(name)),
            name,
            pack(">i", len(row.state)),
            row.state,
            pack(">iq", 8, row.id),
        )
    )
