"""The read model of customers: the same rows however the log lies and is cut, sealed, parked and rebuilt."""

import os
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from application.event_store import Ledger
from application.privacy import Keys
from domain.customer_facts import NameClaimed
from domain.envelope import Envelope
from domain.facts import Fact
from domain.subscription import Subscription
from domain.subscription_facts import SubscriptionFact
from interface.bootstrap import READ_MODELS
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from projections import customers, open_operations
from projections.customer_rows import CUSTOMER, SUBSCRIPTION, At, Kind, opened, read_row
from projections.engine import ReadModel
from projections.rebuild import Outcome, Rebuild, drop_old
from tests.billing_logs import (
    any_log,
    batches,
    box_opened,
    customer_of,
    history,
    of,
    subscription_of,
    unboxed,
)
from tests.billing_side import BillingSide
from tests.given import CAPTURED
from tests.given_customer import ADA, REGISTERING, WITH_CARD, card_updated, created, email_added, registered
from tests.given_subscription import ACTIVE, PAST_DUE, renewed
from tests.processes import eventually
from tests.read_side import running
from tests.recovery_side import migrated

TABLES = customers.MODEL.tables
GRACE = "grace@example.org"
KEYS = Keys(masters=(os.urandom(32),), chance=os.urandom)
INDEXES = "SELECT tablename, indexname FROM pg_indexes WHERE tablename = ANY(%s) ORDER BY indexname"


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


@pytest.fixture
def rows(server: str) -> Iterator[Connection[Any]]:
    """The tables, empty."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("TRUNCATE customers, customer_names, subscriptions")
        yield conn


@pytest.fixture
def side(database_url: str) -> Iterator[BillingSide]:
    migrate(database_url)
    with Ledger(database_url, KEYS) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield BillingSide(database_url, ledger, conn)


def stored(conn: Connection[Any], table: str, kind: Kind[Any]) -> dict[UUID, At[Any]]:
    query = SQL("SELECT id, state, version, position, created_at, updated_at FROM {}").format(Identifier(table))
    return {row[0]: read_row(kind, row) for row in conn.execute(query)}


def everything(conn: Connection[Any]) -> list[list[tuple[Any, ...]]]:
    return [conn.execute(SQL("SELECT * FROM {} ORDER BY id").format(Identifier(table))).fetchall() for table in TABLES]


# --- Folding -----------------------------------------------------------------------------------------------------


def expected(log: Sequence[Envelope], kind: Kind[Any]) -> dict[UUID, At[Any]]:
    """What the rows should hold, by the domain alone."""
    found: dict[UUID, At[Any]] = {}
    for stream in {envelope.stream for envelope in log if type(envelope.fact) in kind.facts}:
        own = [envelope for envelope in log if envelope.stream == stream]
        found[stream] = At(
            stream,
            customer_of(own) if kind is CUSTOMER else subscription_of(own),
            len(own),
            own[-1].position or 0,
            own[0].at,
            own[-1].at,
            tuple(envelope.sealed for envelope in own if envelope.sealed),
        )
    return found


@pytest.mark.parametrize("seed", range(30))
def test_any_log_in_any_batches_leaves_what_the_domain_folds(rows: Connection[Any], seed: int) -> None:
    random = Random(seed)
    log = any_log(random)
    for batch in batches(random, log):
        assert customers.apply(rows, batch) == []
        told = log[: (batch[-1].position or 0)]
        assert stored(rows, "customers", CUSTOMER) == expected(told, CUSTOMER)
        assert stored(rows, "subscriptions", SUBSCRIPTION) == expected(told, SUBSCRIPTION)
        names = {envelope.stream: envelope.fact.customer for envelope in told if isinstance(envelope.fact, NameClaimed)}
        assert dict(rows.execute("SELECT id, customer FROM customer_names").fetchall()) == names
    cut = everything(rows)
    rows.execute("TRUNCATE customers, customer_names, subscriptions")
    customers.apply(rows, log)
    assert everything(rows) == cut, "to the byte, as a rebuild compares them"


@pytest.mark.parametrize("seed", range(10))
def test_facts_that_were_applied_before_change_nothing(rows: Connection[Any], seed: int) -> None:
    random = Random(seed)
    log = any_log(random)
    customers.apply(rows, log)
    before = everything(rows)
    for _ in range(5):
        begin = random.randrange(len(log))
        assert customers.apply(rows, log[begin : begin + random.randrange(1, len(log))]) == []
        assert everything(rows) == before
    assert customers.apply(rows, log) == []
    assert everything(rows) == before


def test_the_columns_that_are_searched_by_hold_what_was_folded(rows: Connection[Any]) -> None:
    customer, subscription = uuid4(), uuid4()
    log = history(customer, registered(), created()) + history(subscription, *of(customer, *PAST_DUE))
    customers.apply(rows, log)
    found = rows.execute("SELECT id, provider_customer, user_id FROM customers").fetchall()
    assert found == [(customer, "cus_1", "user-7")]
    query = "SELECT id, customer, provider_subscription, status FROM subscriptions"
    assert rows.execute(query).fetchall() == [(subscription, customer, "sub_1", "past_due")]


def test_of_two_claims_on_one_name_the_later_holds_in_one_batch_and_in_two(rows: Connection[Any]) -> None:
    first, second = uuid4(), uuid4()
    for cuts in ([2], [1, 1]):
        name = uuid4()
        log = history(name, NameClaimed(first), NameClaimed(second))
        for size in cuts:
            customers.apply(rows, log[:size])
            log = log[size:]
        customers.apply(rows, history(name, NameClaimed(first)))
        assert rows.execute("SELECT customer FROM customer_names WHERE id = %s", (name,)).fetchone() == (second,)


# --- What is personal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_what_is_opened_knows_every_email_in_the_order_the_domain_has_them(rows: Connection[Any], seed: int) -> None:
    log = any_log(Random(seed))
    customers.apply(rows, log)
    for stream, at in stored(rows, "customers", CUSTOMER).items():
        assert at.state.emails == ()
        whole = customer_of([unboxed(envelope) for envelope in log if envelope.stream == stream])
        assert opened(at, box_opened).state == whole


def test_an_email_is_nowhere_in_the_tables_and_opens_until_its_owner_is_erased(side: BillingSide) -> None:
    customer = side.customer(registered(), created(), email_added(GRACE))
    side.follow()
    told = b"".join(row[-1] for row in everything(side.conn)[0])
    assert b"cus_1" in told, "the rest is there"
    assert not [text for text in (ADA, GRACE) if text.encode() in told]
    at = stored(side.conn, "customers", CUSTOMER)[customer]
    assert [box.version for box in at.sealed] == [1, 3]
    assert opened(at, side.ledger.personal).state.emails == (ADA, GRACE)
    side.conn.execute("DELETE FROM person_keys WHERE person = %s", (str(customer),))
    with Ledger(side.url, KEYS) as later:
        assert opened(at, later.personal).state.emails == ()


# --- Setting aside -----------------------------------------------------------------------------------------------


def test_a_stream_that_does_not_fit_is_set_aside_and_holds_nobody_up(
    side: BillingSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evolve_most(subscription: Subscription | None, fact: SubscriptionFact) -> Subscription:
        if type(fact).__name__ == "StatusMoved":
            raise ValueError("not today")
        return SUBSCRIPTION.evolve(subscription, fact)

    customer = side.customer(*REGISTERING)
    aside, fine = side.subscription(customer, *PAST_DUE), side.subscription(customer, *ACTIVE)
    side.log(customer, created())
    monkeypatch.setattr(customers, "SUBSCRIPTION", Kind(SUBSCRIPTION.facts, evolve_most, SUBSCRIPTION.kept))
    side.follow()
    (parked,) = side.parked()
    assert (parked.projection, parked.stream) == (customers.NAME, aside)
    found = stored(side.conn, "subscriptions", SUBSCRIPTION)
    assert {stream: at.version for stream, at in found.items()} == {aside: len(PAST_DUE) - 1, fine: len(ACTIVE)}
    assert stored(side.conn, "customers", CUSTOMER)[customer].state.status == "active"
    side.log(aside, renewed("in_2"))
    side.follow()
    assert stored(side.conn, "subscriptions", SUBSCRIPTION)[aside].version == len(PAST_DUE) - 1
    monkeypatch.setattr(customers, "SUBSCRIPTION", SUBSCRIPTION)
    assert side.retry(aside, customers.MODEL)
    assert stored(side.conn, "subscriptions", SUBSCRIPTION)[aside].version == len(PAST_DUE) + 1
    assert side.parked() == []


@pytest.mark.parametrize(
    "facts", [(created(),), (registered(), card_updated("card_1")), (registered(), *CAPTURED, created())]
)
def test_a_history_that_is_none_stands_as_before_what_does_not_fit(
    rows: Connection[Any], facts: tuple[Fact, ...]
) -> None:
    stream, other = uuid4(), uuid4()
    (failure,) = customers.apply(rows, history(stream, *facts) + history(other, *WITH_CARD))
    assert failure.stream == stream
    found = stored(rows, "customers", CUSTOMER)
    assert found[other].version == len(WITH_CARD)
    assert [at.version for at in found.values() if at.id == stream] == [1] * (facts[0] == registered())


# --- Rebuild -----------------------------------------------------------------------------------------------------


def logged(side: BillingSide, log: Sequence[Envelope]) -> None:
    """What was decided goes into the log, stream by stream as it lay."""
    for envelope in log:
        side.log(envelope.stream, unboxed(envelope).fact)


def rebuilt(side: BillingSide, model: ReadModel) -> Outcome:
    return Rebuild(model, side.read, side.url, "test").run(lambda *_: None)


@pytest.mark.parametrize("model", [customers.MODEL, open_operations.MODEL], ids=lambda model: model.name)
def test_a_rebuild_equals_what_served_and_serves_on(side: BillingSide, model: ReadModel) -> None:
    for seed in range(3):
        logged(side, any_log(Random(seed)))
    side.catch_up(model, limit=7)
    before, indexes = side.all_rows(*model.tables), side.conn.execute(INDEXES, (list(model.tables),)).fetchall()
    assert all(before), "each of the tables has something to compare"
    for _ in range(2):
        outcome = rebuilt(side, model)
        assert (outcome.switched, outcome.differing, outcome.rows) == (True, 0, sum(map(len, before)))
        assert side.all_rows(*model.tables) == before
        assert side.conn.execute(INDEXES, (list(model.tables),)).fetchall() == indexes
    for seed in range(3, 6):
        logged(side, any_log(Random(seed)))
    with running(side.engine(model)):
        eventually(lambda: side.checkpoint(model.name) == side.end)
    after = side.all_rows(*model.tables)
    assert all(len(more) > len(less) for more, less in zip(after, before, strict=True))
    assert rebuilt(side, model).differing == 0
    assert drop_old(side.conn, model) == [f"{table}__old" for table in model.tables]


def test_a_rebuild_tells_a_row_that_is_not_as_the_log_has_it(side: BillingSide) -> None:
    name = side.log(uuid4(), NameClaimed(side.customer(*REGISTERING)))
    side.follow()
    side.conn.execute("UPDATE customer_names SET customer = %s", (uuid4(),))
    outcome = rebuilt(side, customers.MODEL)
    assert (outcome.switched, outcome.examples) == (False, (str(name),))


def test_customers_are_among_the_read_models_that_processes_keep() -> None:
    assert customers.MODEL in READ_MODELS
