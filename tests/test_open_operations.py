"""Which operations of customers and subscriptions are open, beside those of payments; and a database from before."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import psycopg
import pytest

from domain.customer import Customer
from domain.envelope import Envelope
from domain.facts import Fact
from domain.subscription import Subscription
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from projections import open_operations
from projections.customer_rows import CUSTOMER, SUBSCRIPTION
from projections.open_operations import OpenOperation, due, oldest
from tests.billing_logs import any_log, batches, customer_of, history, subscription_of
from tests.given import NOON, authorized, started
from tests.given_customer import (
    UPDATING,
    WITH_CARD,
    card_refused,
    card_removed,
    card_updated,
    created,
    email_added,
    refused,
    registered,
)
from tests.given_subscription import (
    ACTIVE,
    CHANGING,
    PENDING,
    RESUMING,
    began,
    cancel_refused,
    cancel_requested,
    change_refused,
    changed,
    ended,
    not_begun,
    renewed,
    requested,
    resume_refused,
    resumed,
    scheduled,
)
from tests.recovery_side import migrated, on

BEFORE = """
ALTER TABLE open_operations DROP COLUMN aggregate, DROP COLUMN id;
DROP TABLE customers, customer_names, subscriptions;
DELETE FROM schema_migrations WHERE name = '0006_customers.sql';
CREATE TABLE open_operations__next (LIKE open_operations INCLUDING ALL);
INSERT INTO open_operations VALUES
    ('00000000-0000-0000-0000-000000000001', 'auth_1', 'authorize', 100, 'usd', false, 'app', 'request-1', now(), 1);
INSERT INTO open_operations__next SELECT * FROM open_operations;
"""


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """Nothing is open."""
    emptied(server)
    return server


def project(url: str, *envelopes: Envelope) -> None:
    with psycopg.connect(url) as conn:
        assert open_operations.apply(conn, envelopes) == []


def found(url: str) -> list[OpenOperation]:
    return on(url, oldest)


def emptied(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("TRUNCATE open_operations, operation_tries")


def left(url: str, *facts: Fact) -> list[tuple[str, str, str]]:
    """What a stream with these facts leaves open: aggregate, operation, kind. In one batch and one by one."""
    log = history(uuid4(), *facts)
    told: list[list[tuple[str, str, str]]] = []
    for cut in ([log], [[envelope] for envelope in log]):
        emptied(url)
        for batch in cut:
            project(url, *batch)
        told.append(sorted((one.aggregate, one.operation, one.kind) for one in found(url)))
    assert told[0] == told[1]
    return told[0]


# --- From start to end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "key", "ends"),
    [
        ((registered(),), ("customer", "reg_1", "register"), (created(), refused())),
        (UPDATING, ("customer", "card_1", "card"), (card_updated(), card_refused())),
        (PENDING, ("subscription", "start_1", "subscribe"), (began(), not_begun())),
        (CHANGING, ("subscription", "change_1", "change"), (changed(), change_refused())),
        (
            (*ACTIVE, cancel_requested()),
            ("subscription", "cancel_1", "cancel"),
            (ended(), scheduled(), cancel_refused()),
        ),
        (RESUMING, ("subscription", "resume_1", "resume"), (resumed(), resume_refused())),
    ],
    ids=lambda value: value[2] if isinstance(value, tuple) and isinstance(value[-1], str) else "",
)
def test_an_operation_is_open_from_its_start_to_any_of_its_ends(
    url: str, begun: Sequence[Fact], key: tuple[str, str, str], ends: Sequence[Fact]
) -> None:
    assert left(url, *begun) == [key]
    assert [left(url, *begun, end) for end in ends] == [[]] * len(ends)


def test_what_nobody_asked_for_here_ends_no_operation(url: str) -> None:
    assert left(url, *UPDATING, card_updated(None), card_removed()) == [("customer", "card_1", "card")]
    without_us = (changed(None), scheduled(None), resumed(None), renewed("in_2"))
    assert left(url, *CHANGING, *without_us) == [("subscription", "change_1", "change")]


def test_the_end_of_a_subscription_ends_the_wish_for_it_and_no_other(url: str) -> None:
    wished = (*ACTIVE, cancel_requested("cancel_7"))
    assert left(url, *wished, ended(None, cause="payment_failed")) == []
    assert left(url, *CHANGING, ended(None)) == [("subscription", "change_1", "change")]


def test_the_end_of_one_subscription_is_not_that_of_another(url: str) -> None:
    ends, lasts = uuid4(), uuid4()
    project(url, *history(ends, *ACTIVE, cancel_requested()), *history(lasts, *ACTIVE, cancel_requested()))
    project(url, *history(ends, *ACTIVE, cancel_requested(), ended(None)))
    assert [one.payment for one in found(url)] == [lasts]


def test_a_name_is_added_at_once_and_an_attempt_begun_again_is_open(url: str) -> None:
    assert left(url, *WITH_CARD, email_added("grace@example.org")) == []
    assert left(url, registered(), refused(), registered("reg_2")) == [("customer", "reg_2", "register")]
    assert left(url, requested(), not_begun(), requested("start_2")) == [("subscription", "start_2", "subscribe")]


def test_facts_that_are_applied_again_change_nothing(url: str) -> None:
    log = history(uuid4(), *RESUMING) + history(uuid4(), *UPDATING)
    project(url, *log)
    before = found(url)
    assert len(before) == 2
    project(url, *log)
    assert found(url) == before


def open_of(log: Sequence[Envelope]) -> set[tuple[str, UUID, str, str, datetime]]:
    """What is open of customers and subscriptions by the domain's own fold, and since when."""
    rows: set[tuple[str, UUID, str, str, datetime]] = set()
    for stream in {envelope.stream for envelope in log}:
        own = [envelope for envelope in log if envelope.stream == stream]
        state: Customer | Subscription
        if type(own[0].fact) in CUSTOMER.facts:
            aggregate, state = "customer", customer_of(own)
        elif type(own[0].fact) in SUBSCRIPTION.facts:
            aggregate, state = "subscription", subscription_of(own)
        else:
            continue
        begun = {envelope.operation: envelope.at for envelope in reversed(own)}
        rows |= {(aggregate, stream, name, op.kind, begun[name]) for name, op in state.in_flight()}
    return rows


@pytest.mark.parametrize("seed", range(40))
def test_any_log_in_any_batches_leaves_open_what_the_domain_says_is_open(url: str, seed: int) -> None:
    random = Random(seed)
    log = any_log(random)
    query = "SELECT aggregate, payment, operation, kind, started_at FROM open_operations WHERE aggregate <> 'payment'"
    with psycopg.connect(url, autocommit=True) as conn:
        for batch in batches(random, log):
            assert open_operations.apply(conn, batch) == []
            assert set(conn.execute(query).fetchall()) == open_of(log[: (batch[-1].position or 0)])


# --- Which are to be tried now? ----------------------------------------------------------------------------------


def test_all_that_is_due_is_told_with_what_it_is_one_of(url: str) -> None:
    payment, customer, subscription = uuid4(), uuid4(), uuid4()
    project(url, *history(payment, started()), *history(customer, *UPDATING), *history(subscription, *CHANGING))
    later = NOON + timedelta(hours=1)
    told = on(url, lambda conn: due(conn, later, later, later, 100))
    assert [(one.aggregate, one.payment, one.operation) for one in told] == [
        ("payment", payment, "auth_1"),
        ("customer", customer, "card_1"),
        ("subscription", subscription, "change_1"),
    ]
    assert [(one.amount, one.currency, one.waiting) for one in told[1:]] == [(None, None, False)] * 2
    assert [one.actor for one in told] == ["app"] * 3


# --- A database from before --------------------------------------------------------------------------------------


def test_what_was_open_before_customers_were_is_of_payments_and_goes_on(database_url: str) -> None:
    migrate(database_url)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(BEFORE)
    assert migrate(database_url) == ["0006_customers.sql"]
    (known,) = found(database_url)
    assert (known.aggregate, known.payment, known.kind) == ("payment", UUID(int=1), "authorize")
    with psycopg.connect(database_url, autocommit=True) as conn:
        for suffix in ("", "__next"):
            open_operations.apply(conn, history(uuid4(), *UPDATING), suffix)
            query = f"SELECT aggregate, operation FROM open_operations{suffix} ORDER BY operation"
            assert conn.execute(query.encode()).fetchall() == [("payment", "auth_1"), ("customer", "card_1")]
    project(database_url, *history(UUID(int=1), started(), authorized())[1:])
    assert [one.operation for one in found(database_url)] == ["card_1"]
