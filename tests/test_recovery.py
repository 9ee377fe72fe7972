"""Leases on operations that were interrupted, and the read model that tells which those are."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from application.recovery import (
    FIRST_WAIT,
    KEEP,
    LEASE,
    LONGEST_WAIT,
    MAX_REASON,
    Lease,
    forget,
    give_back,
    let_go,
    pause,
    take,
)
from application.stripe_client import OPERATION_DEADLINE_S
from domain.envelope import Envelope
from domain.errors import Refusal
from domain.facts import of_payment
from domain.payment import Payment
from domain.payment_commands import Capture, PaymentCommand, Refund, Void
from domain.payment_decisions import decide
from domain.payment_facts import PaymentFact
from interface.sandbox.postgres import Postgres
from projections import open_operations
from projections.open_operations import OpenOperation, due, oldest
from tests.given import (
    NOON,
    action_required,
    authorize,
    authorized,
    capture_started,
    captured,
    captured_by_hand,
    confirm_action_required,
    confirm_authorized,
    confirm_captured,
    confirm_expired,
    confirm_failed,
    confirm_refunded,
    confirm_voided,
    failed,
    fold,
    refund_started,
    started,
    told_of_dispute,
    told_of_reversal,
    usd,
    void_started,
    voided_by_hand,
)
from tests.recovery_side import migrated, on

A_MOMENT = timedelta(microseconds=1)
OPERATION = "cap_1"


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """Nothing is open, and nobody tries."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("TRUNCATE open_operations, operation_tries")
    return server


def take_at(url: str, payment: UUID, now: datetime) -> Lease | None:
    return on(url, lambda conn: take(conn, payment, OPERATION, now))


def taken(url: str, payment: UUID, now: datetime = NOON) -> Lease:
    lease = take_at(url, payment, now)
    assert lease is not None
    return lease


def tries(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT fence, attempts, held_until, next_try, reason FROM operation_tries").fetchall()


# --- Leases ------------------------------------------------------------------------------------------------------


def test_of_two_workers_one_gets_an_operation(url: str) -> None:
    payment = uuid4()
    assert taken(url, payment) == Lease(payment, OPERATION, 1, 1)
    assert take_at(url, payment, NOON) is None
    assert take_at(url, payment, NOON + LEASE - A_MOMENT) is None


def test_an_operation_that_is_being_taken_by_another_is_not_taken_as_well(url: str) -> None:
    """Both at the very same time: the second waits for the first to commit, and then finds it held."""
    payment = uuid4()
    for fence, now in ((1, NOON), (2, NOON + LEASE)):
        with psycopg.connect(url) as first:
            held = first.execute(
                "INSERT INTO operation_tries AS held VALUES (%s, %s, 1, 1, %s, %s, '') ON CONFLICT (payment, operation)"
                " DO UPDATE SET fence = held.fence + 1, held_until = excluded.held_until RETURNING fence",
                (payment, OPERATION, now + LEASE, now),
            ).fetchone()
            assert held == (fence,)

            async def second(conn: AsyncConnection[Any], now: datetime = now) -> Lease | None:
                await conn.execute("SET lock_timeout = '50ms'")
                return await take(conn, payment, OPERATION, now)

            with pytest.raises(psycopg.errors.LockNotAvailable):
                on(url, second)
            first.commit()
            assert on(url, second) is None


def test_a_worker_that_died_is_taken_over_when_its_lease_has_ended(url: str) -> None:
    payment = uuid4()
    taken(url, payment)
    assert taken(url, payment, NOON + LEASE) == Lease(payment, OPERATION, 2, 2)


def test_a_lease_outlasts_a_call_to_the_provider() -> None:
    assert timedelta(seconds=OPERATION_DEADLINE_S) < LEASE


def test_what_a_deposed_worker_says_is_not_heard(url: str) -> None:
    payment = uuid4()
    deposed = taken(url, payment)
    holder = taken(url, payment, NOON + LEASE)
    before = tries(url)
    late = NOON + LEASE + timedelta(seconds=1)
    on(url, lambda conn: give_back(conn, deposed, "no answer", late, FIRST_WAIT))
    on(url, lambda conn: give_back(conn, deposed, None, late, FIRST_WAIT))
    assert tries(url) == before
    assert take_at(url, payment, late) is None
    on(url, lambda conn: give_back(conn, holder, None, late, FIRST_WAIT))
    assert tries(url) == []


def test_what_was_given_back_is_tried_again_when_its_time_has_come(url: str) -> None:
    payment = uuid4()
    lease = taken(url, payment)
    on(url, lambda conn: give_back(conn, lease, "no answer", NOON, timedelta(seconds=4)))
    assert take_at(url, payment, NOON + timedelta(seconds=4) - A_MOMENT) is None
    assert taken(url, payment, NOON + timedelta(seconds=4)) == Lease(payment, OPERATION, 2, 2)


def test_why_it_was_given_back_is_kept_up_to_a_limit(url: str) -> None:
    lease = taken(url, uuid4())
    on(url, lambda conn: give_back(conn, lease, "x" * (MAX_REASON + 1), NOON, FIRST_WAIT))
    assert tries(url)[0][-1] == "x" * MAX_REASON


def test_what_its_own_worker_let_go_of_is_not_waited_for(url: str) -> None:
    payment = uuid4()
    on(url, lambda conn: let_go(conn, payment, OPERATION, "reply lost", NOON))
    assert take_at(url, payment, NOON + FIRST_WAIT - A_MOMENT) is None
    assert taken(url, payment, NOON + FIRST_WAIT) == Lease(payment, OPERATION, 1, 1)


def test_what_is_held_is_not_let_go_of_by_anybody_else(url: str) -> None:
    payment = uuid4()
    taken(url, payment)
    before = tries(url)
    on(url, lambda conn: let_go(conn, payment, OPERATION, "reply lost", NOON + timedelta(seconds=5)))
    assert tries(url) == before


def test_one_operation_is_not_held_for_another(url: str) -> None:
    payment = uuid4()
    taken(url, payment)
    assert on(url, lambda conn: take(conn, payment, "cap_2", NOON)) == Lease(payment, "cap_2", 1, 1)
    assert taken(url, uuid4()).fence == 1


def test_the_pause_doubles_up_to_a_limit() -> None:
    assert [pause(attempts).total_seconds() for attempts in range(1, 7)] == [2, 4, 8, 16, 20, 20]
    assert pause(0) == FIRST_WAIT
    assert pause(10**9) == LONGEST_WAIT
    assert pause(3, timedelta(minutes=10), timedelta(hours=1)) == timedelta(hours=1)


def test_what_is_left_of_operations_that_ended_is_dropped_after_a_day(url: str) -> None:
    still_open, ended = uuid4(), uuid4()
    project(url, *history(still_open, started(OPERATION)))
    for payment in (still_open, ended):
        on(url, lambda conn, payment=payment: let_go(conn, payment, OPERATION, "", NOON))  # type: ignore[misc]
    on(url, lambda conn: forget(conn, NOON + FIRST_WAIT + KEEP))
    assert len(tries(url)) == 2
    on(url, lambda conn: forget(conn, NOON + FIRST_WAIT + KEEP + A_MOMENT))
    assert len(tries(url)) == 1
    assert [one.payment for one in found(url)] == [still_open]


# --- Which operations are open? ----------------------------------------------------------------------------------


def history(payment: UUID, *facts: PaymentFact, at: datetime = NOON) -> list[Envelope]:
    """The facts as they lie in the log, a second apart; each says who began it."""
    return [
        Envelope(
            stream=payment,
            version=version,
            fact=fact,
            at=at + timedelta(seconds=version - 1),
            actor="cinema",
            operation=getattr(fact, "operation", None),
            correlation=f"request-{version}",
            causation=None,
            fingerprint=None,
            position=version,
        )
        for version, fact in enumerate(facts, 1)
    ]


def project(url: str, *envelopes: Envelope) -> None:
    with psycopg.connect(url) as conn:
        assert open_operations.apply(conn, envelopes) == []


def found(url: str) -> list[OpenOperation]:
    return on(url, oldest)


def at_work(url: str, now: datetime = NOON, *, abandoned: datetime = NOON, patient: datetime = NOON) -> list[str]:
    return [one.operation for one in on(url, lambda conn: due(conn, now, abandoned, patient, 100))]


def test_an_operation_is_open_from_its_start_to_its_end(url: str) -> None:
    payment = uuid4()
    begun, *ends = history(payment, started("auth_1"), authorized("auth_1"), capture_started("cap_1", 40_00))
    project(url, begun)
    (one,) = found(url)
    assert (one.payment, one.operation, one.kind, one.amount, one.currency) == (
        payment,
        "auth_1",
        "authorize",
        100_00,
        "usd",
    )
    assert (one.waiting, one.actor, one.correlation, one.started_at, one.attempts, one.next_try) == (
        False,
        "cinema",
        "request-1",
        NOON,
        0,
        None,
    )
    project(url, *ends)
    assert [(one.operation, one.kind, one.amount) for one in found(url)] == [("cap_1", "capture", 40_00)]


def test_a_release_that_is_open_names_no_amount(url: str) -> None:
    project(url, *history(uuid4(), started(), authorized(), void_started()))
    assert [(one.operation, one.kind, one.amount, one.currency) for one in found(url)] == [
        ("void_1", "void", None, None)
    ]


def test_facts_that_are_applied_again_change_nothing(url: str) -> None:
    log = history(uuid4(), started(), action_required())
    project(url, *log)
    before = found(url)
    project(url, *log)
    assert found(url) == before


Open = dict[tuple[UUID, str], tuple[str, bool, datetime]]


def commands(random: Random) -> PaymentCommand:
    """A wish or something learned, of any operation at any time."""
    name = f"op_{random.randrange(6)}"
    minor = random.choice([10_00, 40_00, 100_00])
    any_of: list[PaymentCommand] = [
        authorize(name),
        Capture(name, minor),
        Void(name),
        Refund(name, minor),
        confirm_action_required(name),
        confirm_authorized(name, multicapture=True),
        confirm_authorized(name, taken_at_once=True),
        confirm_captured(name, usd(minor), final=random.random() < 0.5),
        confirm_voided(name),
        confirm_refunded(name, usd(minor)),
        confirm_failed(name),
        confirm_failed(name, too_late=True),
        confirm_expired(),
        captured_by_hand(f"by_hand_{name}", minor, final=False),
        voided_by_hand(f"by_hand_{name}"),
        told_of_dispute(),
        told_of_reversal(name),
    ]
    return random.choice(any_of)


def any_history(random: Random) -> tuple[PaymentFact, ...]:
    payment: Payment | None = None
    facts: tuple[PaymentFact, ...] = ()
    for _ in range(random.randrange(1, 60)):
        try:
            new = decide(payment, commands(random))
        except Refusal:
            continue
        payment = fold(new, payment)
        facts += new
    return facts


def open_of(log: Sequence[Envelope]) -> Open:
    """What is open by the domain's own fold."""
    facts: dict[UUID, list[PaymentFact]] = {}
    begun: dict[tuple[UUID, str], datetime] = {}
    for envelope in log:
        facts.setdefault(envelope.stream, []).append(of_payment(envelope.fact))
        if envelope.operation:
            begun.setdefault((envelope.stream, envelope.operation), envelope.at)
    rows: Open = {}
    for stream, history_ in facts.items():
        payment = fold(history_)
        assert payment is not None
        for name, operation in payment.operations.items():
            if operation.outcome == "open":
                waiting = payment.status == "requires_action" and name == payment.authorization
                rows[stream, name] = (operation.kind, waiting, begun[stream, name])
    return rows


@pytest.mark.parametrize("seed", range(40))
def test_any_histories_in_any_batches_leave_open_what_the_payments_say_is_open(url: str, seed: int) -> None:
    random = Random(seed)
    histories = [history(uuid4(), *any_history(random)) for _ in range(6)]
    log: list[Envelope] = []
    while any(histories):
        log.append(random.choice([one for one in histories if one]).pop(0))
    cut = 0
    while cut < len(log):
        batch = log[cut : cut + random.choice([1, 2, 5, 20, 200])]
        project(url, *batch)
        cut += len(batch)
        rows = {(one.payment, one.operation): (one.kind, one.waiting, one.started_at) for one in found(url)}
        assert rows == open_of(log[:cut])


# --- Which are to be tried now? ----------------------------------------------------------------------------------


def test_an_operation_that_nobody_has_tried_is_left_to_its_worker_for_a_while(url: str) -> None:
    project(url, *history(uuid4(), started()))
    assert at_work(url, abandoned=NOON) == []
    assert at_work(url, abandoned=NOON + A_MOMENT) == ["auth_1"]


def test_a_cardholder_is_given_more_time(url: str) -> None:
    project(url, *history(uuid4(), started(), action_required()))
    assert at_work(url, abandoned=NOON + A_MOMENT, patient=NOON) == []
    assert at_work(url, abandoned=NOON, patient=NOON + A_MOMENT) == ["auth_1"]


def test_an_operation_that_was_tried_is_due_when_its_time_has_come_and_nobody_holds_it(url: str) -> None:
    payment = uuid4()
    project(url, *history(payment, started("auth_1"), authorized("auth_1"), capture_started(OPERATION)))
    lease = taken(url, payment)
    later = NOON + timedelta(hours=1)
    assert at_work(url, NOON + LEASE - A_MOMENT, abandoned=later) == []
    assert at_work(url, NOON + LEASE, abandoned=later) == [OPERATION]
    on(url, lambda conn: give_back(conn, lease, "no answer", NOON, timedelta(seconds=4)))
    assert at_work(url, NOON + timedelta(seconds=4) - A_MOMENT, abandoned=later) == []
    assert at_work(url, NOON + timedelta(seconds=4), abandoned=NOON - timedelta(days=1)) == [OPERATION]
    (one,) = found(url)
    assert (one.attempts, one.reason, one.next_try) == (1, "no answer", NOON + timedelta(seconds=4))


def test_what_its_own_worker_let_go_of_is_due_at_once(url: str) -> None:
    payment = uuid4()
    project(url, *history(payment, started(), authorized(), capture_started(OPERATION)))
    on(url, lambda conn: let_go(conn, payment, OPERATION, "reply lost", NOON))
    assert at_work(url, NOON + FIRST_WAIT, abandoned=NOON - timedelta(days=1)) == [OPERATION]


def test_the_longest_waiting_come_first_and_no_more_than_asked_for(url: str) -> None:
    for minutes, name in ((2, "op_2"), (0, "op_0"), (3, "op_3")):
        project(url, *history(uuid4(), started(name), at=NOON + timedelta(minutes=minutes)))
    payment = uuid4()
    project(url, *history(payment, started(OPERATION)))
    lease = taken(url, payment)
    on(url, lambda conn: give_back(conn, lease, "no answer", NOON, timedelta(minutes=1)))
    later = NOON + timedelta(hours=1)
    assert at_work(url, later, abandoned=later) == ["op_0", OPERATION, "op_2", "op_3"]
    first = on(url, lambda conn: due(conn, later, later, later, 2))
    assert [one.operation for one in first] == ["op_0", OPERATION]
    assert [one.operation for one in found(url)][-2:] == ["op_2", "op_3"]
    assert len(on(url, lambda conn: oldest(conn, 3))) == 3


def test_an_operation_that_has_ended_is_never_due(url: str) -> None:
    payment = uuid4()
    taken(url, payment)
    ended = (failed("auth_1"), started("auth_2", attempt=2), authorized("auth_2"), *captured(OPERATION))
    project(url, *history(payment, started(), *ended, refund_started("re_1"), failed("re_1", "refund")))
    later = NOON + timedelta(days=1)
    assert at_work(url, later, abandoned=later, patient=later) == []
