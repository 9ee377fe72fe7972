"""The storage format, byte by byte. A golden file that no longer matches means: rows of yesterday are read differently.

`python -m tests.test_stored_form` writes the files of `tests/golden/facts` anew. A test run never does; and a file that
has been released is not to be changed but to be kept, with an upcaster that still reads it.
"""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import Notification, StoredEvent
from msgspec import Raw, Struct, json
from msgspec.structs import replace

from application.stored_form import FactMapper, UnreadableFact, row_hash
from application.upcasting import FORMS
from domain.customer_facts import (
    CardRefused,
    CardRemoved,
    CardUpdated,
    CardUpdateStarted,
    CustomerCreated,
    CustomerRefused,
    CustomerRegistered,
    NameAdded,
    NameClaimed,
)
from domain.envelope import NO_PREVIOUS, Envelope
from domain.facts import FACTS, NAMES, Fact
from domain.money import Money
from domain.order_facts import KeyClaimed, OrderCancelled, OrderPaid, OrderPlaced
from domain.payment_facts import (
    ActionRequired,
    AuthorizationStarted,
    Authorized,
    Captured,
    CaptureStarted,
    Card,
    DisputeLost,
    DisputeOpened,
    DisputeWon,
    Expired,
    Failed,
    Failure,
    NextAction,
    Refunded,
    RefundStarted,
    Voided,
    VoidStarted,
)
from domain.personal import split
from domain.subscription_facts import (
    CancellationRefused,
    CancellationRequested,
    CancellationScheduled,
    ChangeRefused,
    ChangeRequested,
    InvoiceRefunded,
    InvoiceVoided,
    RenewalFailed,
    ResumeRefused,
    ResumeRequested,
    StatusMoved,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionRefused,
    SubscriptionRenewed,
    SubscriptionRequested,
    SubscriptionResumed,
    SubscriptionStarted,
)

GOLDEN = Path(__file__).parent / "golden/facts"
STREAM = UUID("0b5a3c1e-7d7f-5f0a-9a64-2f6f0a9d1c55")
AT = datetime(2026, 11, 3, 12, 30, 15, 250_000, tzinfo=UTC)
EUR_1 = Money(1_00, "eur")
OPERATION = "4f8b6a52-0c27-5f3e-8d1a-3a7a52d1c0de"
CUSTOMER = UUID("9a1b6a1d-51f2-5b0e-8c77-0d1f3f6f8a10")
JANUARY_31 = datetime(2026, 1, 31, 9, tzinfo=UTC)
FEBRUARY_28 = datetime(2026, 2, 28, 9, tzinfo=UTC)
MARCH_31 = datetime(2026, 3, 31, 9, tzinfo=UTC)
DECLINED = Failure("card_declined", "insufficient_funds", "Your card has insufficient funds.", retryable=True)

SAMPLES: tuple[Fact, ...] = (
    AuthorizationStarted(
        operation=OPERATION,
        attempt=1,
        amount=Money(100_99, "usd"),
        capture="manual",
        payment_method="pm_card_visa",
        customer="customer-7",
        order=None,
        description='Zwei Plätze, "Parkett" 🎭',
        metadata={"seat": "12A", "row": "F"},
    ),
    ActionRequired(OPERATION, "pi_1", NextAction("redirect_to_url", "https://hooks.stripe.com/3ds/1"), "req_2"),
    Authorized(
        operation=OPERATION,
        amount=Money(100_99, "usd"),
        payment_intent="pi_1",
        charge="ch_1",
        card=Card(brand="visa", last4="4242", exp_month=12, exp_year=2030),
        expires_at=datetime(2026, 11, 10, 12, 30, 15, tzinfo=UTC),
        multicapture=True,
        evidence="evt_3",
    ),
    CaptureStarted(OPERATION, EUR_1, final=False, reason="first parcel"),
    Captured(OPERATION, EUR_1, final=False, charge="ch_1", evidence="req_5"),
    VoidStarted(OPERATION, reason=None),
    Voided(OPERATION, EUR_1, "req_7"),
    RefundStarted(OPERATION, Money(500, "jpy"), reason="returned"),
    Refunded(OPERATION, Money(500, "jpy"), "re_1", "req_9"),
    Failed(
        OPERATION, "capture", Failure("card_declined", "do_not_honor", "Declined.", retryable=False), "req_10", "pi_1"
    ),
    Expired(Money(5_120, "kwd"), "evt_11"),
    DisputeOpened("dp_1", Money(100_99, "usd"), "fraudulent", "req_12"),
    DisputeWon("dp_1", "req_13"),
    DisputeLost("dp_1", "req_14"),
    NameClaimed(CUSTOMER),
    CustomerRegistered(OPERATION, user="user-7", email="ada@example.org"),
    CustomerCreated(OPERATION, "cus_1", "req_17"),
    CustomerRefused(OPERATION, Failure("email_invalid", None, "Invalid email address.", retryable=False), "req_18"),
    NameAdded(OPERATION, user=None, email="ada.lovelace@example.org"),
    CardUpdateStarted(OPERATION, "tok_visa"),
    CardUpdated(OPERATION, "pm_1", Card("visa", "4242", 12, 2030), "Xt5EWLLDS7FJjR1c", "req_21"),
    CardRefused(OPERATION, DECLINED, "req_22"),
    CardRemoved("evt_23"),
    SubscriptionRequested(OPERATION, CUSTOMER, "prod_1", "price_1", quantity=2, trial_days=14),
    SubscriptionStarted(
        operation=OPERATION,
        subscription="sub_1",
        product="prod_1",
        price="price_1",
        quantity=2,
        amount=Money(20_00, "eur"),
        interval="month",
        interval_count=1,
        anchor=JANUARY_31,
        trial_end=None,
        status="active",
        period_start=JANUARY_31,
        period_end=FEBRUARY_28,
        as_of=JANUARY_31,
        evidence="req_25",
    ),
    SubscriptionRefused(OPERATION, DECLINED, "req_26"),
    ChangeRequested(OPERATION, "prod_1", "price_2", quantity=3),
    SubscriptionChanged(
        operation=None,
        product="prod_1",
        price="price_2",
        quantity=3,
        amount=Money(300_00, "eur"),
        interval="year",
        interval_count=1,
        anchor=FEBRUARY_28,
        trial_end=JANUARY_31,
        period_start=FEBRUARY_28,
        period_end=MARCH_31,
        as_of=AT,
        evidence="evt_28",
    ),
    ChangeRefused(OPERATION, DECLINED, "req_29"),
    CancellationRequested(OPERATION, at_period_end=True),
    CancellationScheduled(OPERATION, ends_at=MARCH_31, as_of=AT, evidence="req_31"),
    SubscriptionCancelled(None, at=MARCH_31, cause="requested", evidence="evt_32"),
    CancellationRefused(OPERATION, DECLINED, "req_33"),
    ResumeRequested(OPERATION),
    SubscriptionResumed(OPERATION, as_of=AT, evidence="req_35"),
    ResumeRefused(OPERATION, DECLINED, "req_36"),
    SubscriptionRenewed("in_1", Money(20_00, "eur"), FEBRUARY_28, MARCH_31, "evt_37"),
    RenewalFailed("in_2", Money(20_00, "eur"), 2, AT, DECLINED, FEBRUARY_28, MARCH_31, "evt_38"),
    StatusMoved("past_due", as_of=AT, evidence="evt_39"),
    InvoiceVoided("in_2", "evt_40"),
    OrderPlaced("order-9", 0, "customer-7", Money(20_00, "usd"), "created"),
    OrderCancelled("order-9", 1),
    OrderPaid("order-9", UUID("3d5a1c66-5b7e-5a0e-8b46-2a5f1d0c9e77"), Money(20_00, "usd"), "ch_1"),
    InvoiceRefunded("in_1", Money(5_00, "eur"), as_of=AT, evidence="evt_44"),
    KeyClaimed("order-9"),
)
# The facts that a wish leaves behind; all others are what came of one, or happened without us.
WISHES = (
    AuthorizationStarted,
    CaptureStarted,
    VoidStarted,
    RefundStarted,
    NameClaimed,
    CustomerRegistered,
    NameAdded,
    CardUpdateStarted,
    SubscriptionRequested,
    ChangeRequested,
    CancellationRequested,
    ResumeRequested,
)


def envelope_of(fact: Fact) -> Envelope:
    """The fact in an envelope such as its place in a history gives it: a wish has a fingerprint, an outcome a cause."""
    version = SAMPLES.index(fact) + 1
    wish = isinstance(fact, WISHES)
    first = version == 1
    return Envelope(
        stream=STREAM,
        version=version,
        fact=fact,
        at=AT.replace(microsecond=0) if first else AT,
        actor="cinema",
        operation=getattr(fact, "operation", None),
        correlation="req-0af7651916cd43dd",
        causation=None if wish else f"{STREAM}.{version - 1}",
        fingerprint="5e" * 32 if wish else None,
        previous=NO_PREVIOUS if first else bytes(range(32)),
        person="customer-7" if split(fact)[1] else None,
    )


class Envelopes:
    """A vault that anybody can open: what it seals is marked with whom and what it is about."""

    def seal(self, person: str, about: bytes, plain: bytes) -> bytes:
        return b"%s|%s|%s" % (person.encode(), about.hex().encode(), plain)

    def open(self, person: str, about: bytes, box: bytes) -> bytes | None:
        mark = self.seal(person, about, b"")
        return box.removeprefix(mark) if box.startswith(mark) else None


class Golden(Struct):
    topic: str
    state: Raw


def line(stored: StoredEvent) -> bytes:
    return b'{"topic":"%s","state":%s}\n' % (stored.topic.encode(), stored.state)


def golden_path(fact: Fact) -> Path:
    return GOLDEN / f"{NAMES[type(fact)]}.json"


facts = pytest.mark.parametrize("fact", SAMPLES, ids=lambda fact: type(fact).__name__)
mapper = FactMapper(Envelopes())


# --- Golden files ------------------------------------------------------------------------------------------------


@facts
def test_a_fact_is_written_as_it_always_was(fact: Fact) -> None:
    assert line(mapper.to_stored_event(envelope_of(fact))) == golden_path(fact).read_bytes()


@facts
def test_a_fact_written_long_ago_is_read_as_it_was_meant(fact: Fact) -> None:
    golden = json.decode(golden_path(fact).read_bytes(), type=Golden)
    envelope = envelope_of(fact)
    stored = StoredEvent(STREAM, envelope.version, golden.topic, bytes(golden.state))
    assert mapper.opened(mapper.to_domain_event(stored)) == envelope


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.form?.json")), ids=lambda path: path.name)
def test_a_fact_in_an_older_form_is_read_as_it_was_meant(path: Path) -> None:
    golden = json.decode(path.read_bytes(), type=Golden)
    envelope = next(envelope_of(fact) for fact in SAMPLES if NAMES[type(fact)] == golden.topic)
    assert mapper.to_domain_event(StoredEvent(STREAM, envelope.version, golden.topic, bytes(golden.state))) == envelope


def test_every_older_form_has_a_golden_file() -> None:
    older = {f"{name}.form{form}.json" for name, current in FORMS.items() for form in range(1, current)}
    assert {path.name for path in GOLDEN.glob("*.form?.json")} == older


def test_every_stored_name_has_a_golden_file_and_every_golden_file_a_name() -> None:
    current = {path.name for path in GOLDEN.iterdir()} - {path.name for path in GOLDEN.glob("*.form?.json")}
    assert current == {f"{name}.json" for name in FACTS}
    assert {NAMES[type(fact)] for fact in SAMPLES} == set(FACTS)


def test_a_stored_name_stands_for_one_fact() -> None:
    assert {NAMES[kind]: kind for kind in NAMES} == FACTS


def test_a_stored_name_is_a_word_and_not_a_place_in_the_code() -> None:
    assert all(name.isalpha() for name in FACTS)


def test_a_row_of_the_log_is_read_with_its_position() -> None:
    stored = mapper.to_stored_event(envelope_of(SAMPLES[4]))
    row = Notification(stored.originator_id, stored.originator_version, stored.topic, stored.state, id=77)
    assert mapper.to_domain_event(row) == replace(envelope_of(SAMPLES[4]), position=77)


def test_a_moment_is_the_same_moment_in_any_zone() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=-5)))
    read = mapper.to_domain_event(mapper.to_stored_event(replace(envelope_of(SAMPLES[4]), at=elsewhere)))
    assert read.at == AT
    assert read.at.utcoffset() is not None


# --- What cannot be read -----------------------------------------------------------------------------------------


def row(topic: str, state: bytes) -> Notification:
    return Notification(STREAM, 3, topic, state, id=42)


def test_an_unknown_name_is_told_with_its_position() -> None:
    with pytest.raises(UnreadableFact, match=r"'Rewarded' at position 42 .* no such name"):
        mapper.to_domain_event(row("Rewarded", GOOD))


def test_a_form_of_the_future_is_told_with_its_position() -> None:
    with pytest.raises(UnreadableFact, match="'Captured' at position 42 "):
        mapper.to_domain_event(row("Captured", GOOD.replace(b'"operation"', b'"form":7,"operation"')))


def test_garbage_in_an_older_form_is_told_with_its_position() -> None:
    failed = mapper.to_stored_event(envelope_of(SAMPLES[9])).state.replace(b'"form":2,', b"")
    with pytest.raises(UnreadableFact, match="'Failed' at position 42 "):
        mapper.to_domain_event(row("Failed", failed.replace(b'"failure":{', b'"failure":null,"other":{')))


GOOD = mapper.to_stored_event(envelope_of(SAMPLES[4])).state
BAD: dict[str, bytes] = {
    "nothing": b"",
    "half": GOOD[: len(GOOD) // 2],
    "no text": b"\xff\xfe\x00",
    "no text inside": GOOD.replace(b"cinema", b"\xff\xfe\x00cin"),
    "no object": b"[1, 2]",
    "another fact": mapper.to_stored_event(envelope_of(SAMPLES[5])).state,
    "no actor": GOOD.replace(b'"actor"', b'"aktor"'),
    "a fraction of a cent": GOOD.replace(b'"minor":100', b'"minor":100.5'),
    "less than nothing": GOOD.replace(b'"minor":100', b'"minor":-100'),
    "a currency that is none": GOOD.replace(b'"eur"', b'"eux"'),
    "a moment without a zone": GOOD.replace(b'250000Z"', b'250000"'),
    "a hash that is none": GOOD.replace(bytes(range(32)).hex().encode(), b"zz"),
    "a hash with spaces": GOOD.replace(bytes(range(32)).hex().encode(), b"  " + b"00" * 31),
    "a hash and spaces": GOOD.replace(bytes(range(32)).hex().encode(), bytes(range(32)).hex().encode() + b"  "),
    "half a hash": GOOD.replace(bytes(range(32)).hex().encode(), b"00" * 16),
}


@pytest.mark.parametrize("state", BAD.values(), ids=BAD)
def test_garbage_is_told_with_its_position(state: bytes) -> None:
    assert state != GOOD
    with pytest.raises(UnreadableFact, match="'Captured' at position 42"):
        mapper.to_domain_event(row("Captured", state))


def test_a_row_that_was_not_read_from_the_log_has_no_position_to_tell() -> None:
    with pytest.raises(UnreadableFact, match="at position None"):
        mapper.to_domain_event(StoredEvent(STREAM, 3, "Rewarded", GOOD))


# --- The hash of a row -------------------------------------------------------------------------------------------

ROW = StoredEvent(STREAM, 5, "Captured", b'{"amount":100}')


def test_the_hash_of_a_row_is_what_it_always_was() -> None:
    """Computed once by hand: 16 bytes of stream, 8 of version, 4 and the name, 8 and the state, big-endian."""
    assert row_hash(ROW).hex() == "fe1d506bc26341b35233cb1186d1955c4bb974c07fda6e9948df8e420a2f5e0f"


def changed(**fields: Any) -> StoredEvent:
    parts = {name: getattr(ROW, name) for name in ("originator_id", "originator_version", "topic", "state")}
    return StoredEvent(**(parts | fields))


@pytest.mark.parametrize(
    "other",
    [
        changed(originator_id=UUID(int=STREAM.int ^ 1)),
        changed(originator_version=6),
        changed(originator_version=5 + 2**32),
        changed(topic="captured"),
        changed(topic="Captures"),
        changed(state=b'{"amount":101}'),
        changed(state=b'{"amount": 100}'),
        changed(state=b""),
        changed(topic='Captured{"amount"', state=b":100}"),
        changed(topic="Capture", state=b'd{"amount":100}'),
        changed(topic="", state=b'Captured{"amount":100}'),
    ],
    ids=repr,
)
def test_a_row_that_differs_in_anything_has_another_hash(other: StoredEvent) -> None:
    assert row_hash(other) != row_hash(ROW)


def test_the_position_of_a_row_is_not_part_of_its_hash() -> None:
    """It is drawn when the row is inserted, after its bytes are made, and a restored log may number anew."""
    assert row_hash(Notification(STREAM, 5, "Captured", b'{"amount":100}', id=1)) == row_hash(ROW)


def write_golden_files() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for fact in SAMPLES:
        golden_path(fact).write_bytes(line(mapper.to_stored_event(envelope_of(fact))))


if __name__ == "__main__":
    write_golden_files()
