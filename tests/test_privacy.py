"""What is personal is sealed with the person's own key: unreadable at rest, gone when the key is gone."""

import os
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest

from application.event_store import Ledger
from application.privacy import Keys, Vault
from domain.envelope import NO_PREVIOUS, Envelope
from domain.money import Money
from domain.payment_facts import AuthorizationStarted, CaptureStarted, PaymentFact
from domain.personal import PERSONAL_FIELDS, joined, split
from interface.bootstrap import log_reader
from interface.migrations import migrate
from projections import payment_status
from tests.given import NOON

SECRET = "Frau Lovelace, Zimmer 12"
NOTE = {"guest": "ada@example.org"}
KEYS = Keys(masters=(os.urandom(32),), chance=os.urandom)


@pytest.fixture
def vault_url(database_url: str) -> str:
    migrate(database_url)
    return database_url


@pytest.fixture
def ledger(vault_url: str) -> Iterator[Ledger]:
    with Ledger(vault_url, KEYS) as ledger:
        yield ledger


def begun(customer: str | None = "ada") -> AuthorizationStarted:
    amount = Money(10_00, "usd")
    return AuthorizationStarted("op_1", 1, amount, "manual", "pm_card_visa", customer, None, SECRET, NOTE)


def envelope(stream: UUID, fact: PaymentFact, version: int = 1, person: str = "ada") -> Envelope:
    return Envelope(
        stream=stream,
        version=version,
        fact=fact,
        at=NOON,
        actor="hotel",
        operation="op_1",
        correlation="request-1",
        causation=None,
        fingerprint=None,
        person=person,
    )


def stored(ledger: Ledger, *facts: PaymentFact, person: str = "ada") -> UUID:
    stream = uuid4()
    ledger.append([envelope(stream, fact, version, person) for version, fact in enumerate(facts, 1)], NO_PREVIOUS)
    return stream


def everything_in(url: str) -> bytes:
    """Every column of every table, as bytes."""
    with psycopg.connect(url) as conn:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        dumps = [conn.execute(f"SELECT * FROM {name}".encode()).fetchall() for (name,) in tables]
    return b"".join(cell if isinstance(cell, bytes) else str(cell).encode() for d in dumps for row in d for cell in row)


def forget(url: str, person: str) -> None:
    with psycopg.connect(url) as conn:
        assert conn.execute("DELETE FROM person_keys WHERE person = %s", (person,)).rowcount == 1


def test_a_fact_comes_back_with_what_was_personal_in_it(ledger: Ledger) -> None:
    second = CaptureStarted("op_2", Money(5_00, "usd"), final=True, reason="asked by Ada")
    stream = stored(ledger, begun(), second)
    assert [found.fact for found in ledger.load(stream).envelopes] == [begun(), second]


def test_nothing_personal_stands_in_the_store_in_the_clear(ledger: Ledger, vault_url: str) -> None:
    stored(ledger, begun())
    with psycopg.connect(vault_url) as conn:
        facts = log_reader(ledger)(0, 10)
        payment_status.apply(conn, [fact for fact in facts if isinstance(fact, Envelope)])
    held = everything_in(vault_url)
    assert b"pm_card_visa" in held, "the rest is there"
    for text in (SECRET, NOTE["guest"], "Lovelace"):
        assert text.encode() not in held


def test_a_reader_of_the_log_sees_the_fact_without_it(ledger: Ledger, vault_url: str) -> None:
    stored(ledger, begun())
    with Ledger(vault_url) as without_keys:
        (found,) = log_reader(without_keys)(0, 10)
    assert isinstance(found, Envelope)
    assert isinstance(found.fact, AuthorizationStarted)
    assert (found.fact.description, found.fact.metadata, found.fact.amount) == (None, {}, Money(10_00, "usd"))
    assert without_keys.opened(found).fact == found.fact, "without keys there is nothing to open it with"


def test_a_missing_key_reads_as_erased_and_the_rest_stays(ledger: Ledger, vault_url: str) -> None:
    hers, his = stored(ledger, begun()), stored(ledger, begun("babbage"), person="babbage")
    tail = ledger.load(hers).tail
    forget(vault_url, "ada")
    with Ledger(vault_url, KEYS) as later:
        loaded = later.load(hers)
        (erased,), (kept,) = loaded.envelopes, later.load(his).envelopes
    assert isinstance(erased.fact, AuthorizationStarted)
    assert (erased.fact.description, erased.fact.metadata) == (None, {})
    assert erased.fact.amount == Money(10_00, "usd")
    assert loaded.tail == tail, "the chain still holds"
    assert kept.fact == begun("babbage")


def test_a_sealed_fact_opens_nowhere_else(ledger: Ledger, vault_url: str) -> None:
    one, other = stored(ledger, begun()), stored(ledger, begun())
    with psycopg.connect(vault_url) as conn:
        conn.execute(
            "UPDATE ledger_events SET state = (SELECT state FROM ledger_events WHERE originator_id = %s)"
            " WHERE originator_id = %s",
            (one, other),
        )
    (moved,) = ledger.load(other).envelopes
    assert isinstance(moved.fact, AuthorizationStarted)
    assert moved.fact.description is None


def test_keys_outlive_the_rotation_of_the_key_that_wraps_them(ledger: Ledger, vault_url: str) -> None:
    stream = stored(ledger, begun())
    rotated = Keys(masters=(os.urandom(32), *KEYS.masters), chance=os.urandom)
    with Ledger(vault_url, rotated) as later:
        assert later.load(stream).envelopes[0].fact == begun()
        fresh = stored(later, begun("new"), person="new")
    with Ledger(vault_url, Keys(masters=rotated.masters[:1], chance=os.urandom)) as latest:
        assert latest.load(fresh).envelopes[0].fact == begun("new")
        (lost,) = latest.load(stream).envelopes
        assert isinstance(lost.fact, AuthorizationStarted)
        assert lost.fact.description is None, "its wrapping key is gone"


def test_two_processes_make_one_key_for_a_person(vault_url: str) -> None:
    with Ledger(vault_url, KEYS) as one, Ledger(vault_url, KEYS) as other:
        assert isinstance(one.vault, Vault)
        assert isinstance(other.vault, Vault)
        box = one.vault.seal("ada", b"here", b"text")
        assert other.vault.open("ada", b"here", box) == b"text"
        assert one.vault.open("ada", b"here", other.vault.seal("ada", b"here", b"again")) == b"again"


def test_the_same_text_is_never_sealed_the_same_way(ledger: Ledger) -> None:
    assert isinstance(ledger.vault, Vault)
    assert len({ledger.vault.seal("ada", b"here", b"text") for _ in range(50)}) == 50


def test_splitting_and_joining_loses_nothing() -> None:
    bare, personal = split(begun())
    assert set(personal) <= PERSONAL_FIELDS
    assert joined(bare, personal) == begun()
    plain = CaptureStarted("op_2", Money(5_00, "usd"), final=True)
    assert split(plain) == (plain, {})
