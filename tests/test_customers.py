"""The use cases of a customer, on a real log and with the stand-in behind the SDK, which loses what it is told to."""

import asyncio
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest

from application.billing_desk import Billing
from application.customers import CustomerNotFound, name_stream
from application.payments import NAMESPACE, KeyReused, ProviderUnavailable
from application.settlement import KEY_LIFETIME, OVER_AFTER, NotLearned
from application.streams import Done
from application.stripe_billing_lookups import StripeBillingLookups
from domain.calendar import month_end
from domain.customer import Customer, card_expires_before, email_name
from domain.customer_facts import CardRefused
from domain.errors import AlreadyNamed, CustomerBusy, CustomerNotReady, InvalidName, NameTaken
from interface.sandbox.postgres import Postgres
from tests.billing_desk_side import (
    CALLER,
    EVERY_TRY,
    MASTERCARD,
    NAMES_KEY,
    VISA,
    BillingDesk,
    Gone,
    Life,
    desk_on,
    everything,
    second_ledger,
    unique,
)
from tests.test_stripe_billing_standin import DAY_S

CLAIMS = 20
NEW_KEY = b"n" * 32
REFUSED, EXPIRED, POOR_NOW = (
    "pm_card_chargeDeclined",
    "pm_card_chargeDeclinedExpiredCard",
    "pm_card_chargeDeclinedInsufficientFunds",
)
CREATE = "POST /v1/customers"
# A wish takes fewer steps than this.
MANY = 40


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BillingDesk]:
    with desk_on(postgres, tmp_path_factory.mktemp("stripe")) as desk:
        yield desk


@pytest.fixture
def desk(shared: BillingDesk) -> Iterator[BillingDesk]:
    with shared.for_a_test() as desk:
        yield desk


def email() -> str:
    return f"{unique('ada')}@example.org"


def found(desk: BillingDesk, name: str) -> UUID:
    async def find(billing: Billing) -> UUID:
        return (await billing.customers.find(name)).stream

    return desk.run(find)


def made(desk: BillingDesk, *streams: UUID) -> list[Any]:
    """The provider's customers that were made for these of ours."""
    wanted = {str(stream) for stream in streams}
    return [one for one in desk.shop.state()["customers"] if one["metadata"].get("payledger_stream") in wanted]


# --- Names -------------------------------------------------------------------------------------------------------


def test_either_name_finds_the_customer(desk: BillingDesk) -> None:
    user, mail = unique("user"), email()
    done = desk.register(user, mail.upper())
    assert (done.outcome, done.replayed, done.story.known.status) == ("done", False, "active")
    assert found(desk, user) == found(desk, mail) == done.story.stream
    for names in ((user, None), (None, mail), (user, mail)):
        again = desk.register(*names)
        assert (again.story.stream, again.replayed) == (done.story.stream, True)
    [at_stripe] = made(desk, done.story.stream)
    assert at_stripe["email"] == mail


@pytest.mark.parametrize("first", ["user", "email"])
def test_a_name_that_is_new_is_added_to_the_customer_that_the_other_one_names(desk: BillingDesk, first: str) -> None:
    user, mail = unique("user"), email()
    before = desk.register(user, None) if first == "user" else desk.register(None, mail)
    done = desk.register(user, mail)
    assert done.story.stream == before.story.stream == found(desk, user) == found(desk, mail)
    assert (done.story.known.user, done.story.known.emails) == (user, (mail,))
    assert len(made(desk, done.story.stream)) == 1


def test_the_names_of_two_customers_do_not_become_one_customer(desk: BillingDesk) -> None:
    user, other, mail = unique("user"), unique("user"), email()
    holder = desk.register(other, mail).story.stream
    desk.register(user)
    with pytest.raises(NameTaken):
        desk.register(user, mail)
    with pytest.raises(AlreadyNamed):
        desk.register(unique("user"), mail)
    assert found(desk, mail) == holder


def test_nobody_is_known_by_a_name_that_was_not_claimed(desk: BillingDesk) -> None:
    with pytest.raises(CustomerNotFound):
        found(desk, email())
    for names in ((None, None), ("a@b", None), (None, "nobody"), ("", None)):
        with pytest.raises(InvalidName):
            desk.register(*names)


async def claims(billing: Billing, mail: str, users: list[str | None]) -> list[Done[Customer] | BaseException]:
    wishes = (billing.customers.register(user, mail, CALLER) for user in users)
    return await asyncio.gather(*wishes, return_exceptions=True)


def holders(answers: list[Done[Customer] | BaseException]) -> set[UUID]:
    """Who was told to be known by the name; everybody else was told that it is taken."""
    done = [answer for answer in answers if isinstance(answer, Done)]
    rest = [answer for answer in answers if not isinstance(answer, Done)]
    assert all(isinstance(one, NameTaken | AlreadyNamed) for one in rest), rest
    assert all(answer.outcome == "done" for answer in done)
    return {answer.story.stream for answer in done}


@pytest.mark.parametrize("named", [False, True])
def test_of_many_claims_on_one_email_at_once_one_customer_comes(desk: BillingDesk, *, named: bool) -> None:
    mail, life = email(), Life()
    users = [unique("user") if named else None for _ in range(CLAIMS)]
    answers = desk.run(lambda billing: claims(billing, mail, users), life)
    [holder] = holders(answers)
    assert found(desk, mail) == holder
    assert sum(isinstance(answer, Done) for answer in answers) == (1 if named else CLAIMS)
    # Those who ask for the same meanwhile wait for one call, as calls under one key are in each other's way.
    assert set(life.sent) == {"post /v1/customers"}
    assert len(life.sent) < CLAIMS // 2


@pytest.mark.parametrize("keys", [((NAMES_KEY,), (NAMES_KEY,)), ((NAMES_KEY, NEW_KEY), (NEW_KEY, NAMES_KEY))])
def test_of_two_processes_that_claim_one_email_one_customer_comes(
    desk: BillingDesk, keys: tuple[tuple[bytes, ...], tuple[bytes, ...]]
) -> None:
    """Also while the names' key is being replaced, and one process has the new one in force already."""
    together = Barrier(2)

    def process(ledger: Any, keys: tuple[bytes, ...], mail: str) -> list[Done[Customer] | BaseException]:
        own = BillingDesk(ledger, desk.url, desk.shop, keys)
        together.wait()
        return own.run(lambda billing: claims(billing, mail, [unique("user"), None] * 3))

    with second_ledger(desk.url) as other, ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            mail = email()
            work = [pool.submit(process, *one, mail) for one in zip((desk.ledger, other), keys, strict=True)]
            streams = holders([answer for done in work for answer in done.result()])
            assert streams == {found(desk.beside(keys[0]), mail)}
            assert len(made(desk, *streams)) == 1


def test_a_process_with_the_new_key_finds_who_was_named_under_the_old_one_and_names_it_under_both(
    desk: BillingDesk,
) -> None:
    mail = email()
    stream = desk.register(None, mail).story.stream
    rotated, forgetful = desk.beside((NEW_KEY, NAMES_KEY)), desk.beside((NEW_KEY,))
    assert found(rotated, mail) == stream
    with pytest.raises(CustomerNotFound):
        found(forgetful, mail)
    again = rotated.register(None, mail)
    assert (again.story.stream, again.replayed) == (stream, True)
    assert found(forgetful, mail) == found(desk, mail) == stream
    assert desk.facts(stream) == ["CustomerRegistered", "CustomerCreated"]


def test_an_email_stands_nowhere_in_the_log_and_its_stream_cannot_be_computed_without_the_key(
    desk: BillingDesk,
) -> None:
    mail = email()
    stream = desk.register(unique("user"), mail).story.stream
    with psycopg.connect(desk.url) as conn:
        rows = conn.execute("SELECT originator_id, state FROM ledger_events").fetchall()
    assert stream in {row[0] for row in rows}
    hidden = mail.partition("@")[0]
    assert not any(hidden.encode() in bytes(state) or mail.encode().hex().encode() in bytes(state) for _, state in rows)
    guesses = {mail, hashlib.sha256(mail.encode()).hexdigest(), hashlib.md5(mail.encode()).hexdigest()}
    guessed = {uuid5(NAMESPACE, f"name:email:{guess}") for guess in guesses}
    streams = {one.stream for one in everything(desk.ledger)}
    assert not streams & guessed
    assert not streams & {name_stream(email_name(mail), NEW_KEY)}
    assert name_stream(email_name(mail), NAMES_KEY) in streams


# --- Made once ---------------------------------------------------------------------------------------------------


def test_a_customer_is_made_once_although_every_reply_is_lost(desk: BillingDesk) -> None:
    mail = email()
    desk.shop.fault(CREATE, "reply_lost", times=EVERY_TRY)
    first = desk.register(None, mail)
    assert (first.outcome, first.story.known.status) == ("open", "registering")
    again = desk.register(None, mail)
    assert (again.outcome, again.replayed) == ("open", True)
    with pytest.raises(CustomerNotReady):
        desk.card(first.story.stream, VISA)
    desk.shop.control.delete("/faults")
    assert desk.settle("customer", first.story.stream, first.operation) is None
    assert desk.who(first.story.stream).provider_customer == desk.at_stripe(first.story.stream)["id"]


def test_a_registration_that_was_refused_may_be_tried_again(desk: BillingDesk) -> None:
    user, mail = unique("user"), email()
    desk.shop.fault(CREATE, "error", status=400)
    refused = desk.register(user)
    assert (refused.outcome, refused.story.known.status) == ("failed", "refused")
    assert made(desk, refused.story.stream) == []
    done = desk.register(user, mail)
    assert (done.outcome, done.story.stream, done.replayed) == ("done", refused.story.stream, False)
    assert (done.story.known.emails, done.story.known.failure) == ((mail,), None)
    assert len(made(desk, done.story.stream)) == 1
    assert found(desk, mail) == done.story.stream


def test_a_name_that_comes_while_the_customer_is_being_made_changes_nothing_of_the_request(desk: BillingDesk) -> None:
    user, mail, later = unique("user"), email(), email()
    desk.shop.fault(CREATE, "reply_lost", times=EVERY_TRY)
    assert desk.register(user, mail).outcome == "open"
    desk.shop.control.delete("/faults")
    done = desk.register(user, later)
    assert (done.outcome, done.story.known.emails) == ("done", (mail, later))
    assert desk.at_stripe(done.story.stream)["email"] == mail


@pytest.mark.parametrize("then", ["recovery", "the caller"])
def test_a_registration_outlives_its_process_wherever_that_ends(desk: BillingDesk, then: str) -> None:
    for ends_before in range(1, MANY):
        user, mail, life = unique("user"), email(), Life(ends_before)
        try:
            desk.run(lambda billing, user=user, mail=mail: billing.customers.register(user, mail, CALLER), life)  # type: ignore[misc]
        except Gone:
            pass
        else:
            break
        if then == "recovery":
            begun = _begun(desk, user)
            if begun is None:
                continue
            [(operation, _)] = desk.who(begun).in_flight() or [(None, None)]
            assert operation is None or desk.settle("customer", begun, operation) is None
        else:
            assert desk.register(user, mail).outcome == "done"
        assert desk.who(found(desk, mail)).status == "active"
        assert found(desk, user) == found(desk, mail)
        assert len(made(desk, found(desk, user))) == 1
    assert 5 < ends_before < MANY - 1


def _begun(desk: BillingDesk, user: str) -> UUID | None:
    try:
        return found(desk, user)
    except CustomerNotFound:
        return None


def test_nothing_is_begun_while_the_provider_does_not_answer(desk: BillingDesk) -> None:
    user, customer = unique("user"), desk.customer()
    before = len(everything(desk.ledger))
    with pytest.raises(ProviderUnavailable):
        desk.run(lambda billing: billing.customers.register(user, None, CALLER), broken=True)
    with pytest.raises(ProviderUnavailable):
        desk.run(lambda billing: billing.customers.update_card(customer, MASTERCARD, None, CALLER), broken=True)
    assert len(everything(desk.ledger)) == before
    # What was done is answered, and a name takes nobody's consent.
    again = desk.run(lambda billing: billing.customers.update_card(customer, VISA, None, CALLER), broken=True)
    assert (again.outcome, again.replayed) == ("done", True)
    named = desk.who(customer).user
    done = desk.run(lambda billing: billing.customers.register(named, email(), CALLER), broken=True)
    assert (done.outcome, len(done.story.known.emails)) == ("done", 1)


@pytest.mark.parametrize("arrived", [True, False])
def test_an_old_key_is_never_sent_again_and_a_look_tells_what_became_of_it(desk: BillingDesk, *, arrived: bool) -> None:
    mail = email()
    desk.shop.fault(CREATE, "reply_lost" if arrived else "refused", times=EVERY_TRY)
    begun = desk.register(None, mail)
    stream = begun.story.stream
    assert begun.outcome == "open"
    desk.shop.control.delete("/faults")
    for age in (KEY_LIFETIME, OVER_AFTER - timedelta(minutes=1), OVER_AFTER + timedelta(minutes=1)):
        desk.ahead, life = age, Life()
        desk.run(lambda billing: billing.customers.register(None, mail, CALLER), life)
        assert life.sent == []
        reason = desk.settle("customer", stream, begun.operation)
        known = desk.who(stream)
        if arrived:
            assert (reason, known.status) == (None, "active")
        elif age < OVER_AFTER:
            assert (reason, known.status) == ("the provider has not told", "registering")
        else:
            assert known.status == "refused"
            assert known.failure is not None
            assert known.failure.code == "not_carried_out"
    assert len(made(desk, stream)) == (1 if arrived else 0)
    assert desk.register(None, mail).story.known.status == "active"
    assert len(made(desk, stream)) == 1


# --- Cards -------------------------------------------------------------------------------------------------------


def token(desk: BillingDesk, number: str = "5555555555554444", **expiry: str) -> str:
    """A card token that can be used once."""
    card = {"number": number, "exp_month": "12", "exp_year": "2040", "cvc": "123", **expiry}
    name: str = desk.shop.sdk.tokens.create({"card": card}).id
    return name


def default(desk: BillingDesk, customer: UUID) -> str:
    name: str = desk.at_stripe(customer)["invoice_settings"]["default_payment_method"]
    return name


def test_a_new_card_pays_what_is_due_from_now_on(desk: BillingDesk) -> None:
    customer = desk.customer(VISA)
    subscription = desk.subscribed(customer).story
    done = desk.card(customer, token(desk))
    assert done.outcome == "done"
    known = done.story.known
    assert known.card is not None
    assert (known.card.brand, known.card.last4, known.card.exp_year) == ("mastercard", "4444", 2040)
    assert known.fingerprint
    assert default(desk, customer) == known.payment_method
    desk.shop.advance(40 * DAY_S)
    state = desk.shop.state()
    [invoice] = [
        one for one in state["invoices"]
        if one["customer"] == known.provider_customer and one["billing_reason"] == "subscription_cycle"
    ]  # fmt: skip
    assert (invoice["status"], subscription.known.status) == ("paid", "active")
    paid = [one for one in state["charges"] if one["customer"] == known.provider_customer]
    assert paid[-1]["payment_method"] == known.payment_method != paid[0]["payment_method"]


def test_a_card_that_is_declined_leaves_the_one_before(desk: BillingDesk) -> None:
    customer = desk.customer(VISA)
    before = desk.who(customer)
    for method, code in ((REFUSED, "card_declined"), (EXPIRED, "expired_card")):
        done = desk.card(customer, method)
        assert (done.outcome, done.story.known.payment_method) == ("failed", before.payment_method)
        assert done.story.known.failure is not None
        assert done.story.known.failure.code == code
        assert done.story.known.card == before.card
    assert default(desk, customer) == before.payment_method


def test_a_card_that_is_about_to_expire_is_taken_and_told_from_one_that_is_good_for_years(desk: BillingDesk) -> None:
    now = desk.now()
    this_month = token(desk, exp_month=str(now.month), exp_year=str(now.year))
    customer = desk.customer(None)
    soon = desk.card(customer, this_month)
    assert (soon.outcome, soon.story.known.failure) == ("done", None)
    end = month_end(now.year, now.month)
    assert card_expires_before(soon.story.known, end)
    assert not card_expires_before(soon.story.known, end - timedelta(seconds=1))
    assert not card_expires_before(desk.card(customer, token(desk)).story.known, end)


def test_a_token_is_used_once_and_by_one_customer(desk: BillingDesk) -> None:
    mine, theirs, once = desk.customer(VISA), desk.customer(VISA), token(desk)
    assert desk.card(mine, once).outcome == "done"
    done = desk.card(theirs, once)
    assert done.outcome == "failed"
    assert done.story.known.failure is not None
    assert done.story.known.failure.code == "token_already_used"
    assert default(desk, theirs) == done.story.known.payment_method


def test_the_same_token_again_is_the_same_wish(desk: BillingDesk) -> None:
    customer, once = desk.customer(None), token(desk)
    first, again = desk.card(customer, once), desk.card(customer, once)
    assert (first.replayed, again.replayed, again.operation) == (False, True, first.operation)
    assert again.outcome == "done"
    assert desk.facts(customer)[-2:] == ["CardUpdateStarted", "CardUpdated"]


def test_who_goes_back_to_the_card_before_pays_with_it_again(desk: BillingDesk) -> None:
    customer = desk.customer(None)
    first, second = (desk.shop.sdk.payment_methods.create({"type": "card", "card": {"token": one}}).id
                     for one in (token(desk), token(desk, "4242424242424242")))  # fmt: skip
    for method in (first, second, first):
        done = desk.card(customer, method)
        assert (done.outcome, done.replayed, done.story.known.payment_method) == ("done", False, method)
        assert default(desk, customer) == method


def test_the_same_card_again_is_a_new_wish_when_another_has_come_in_its_place(desk: BillingDesk) -> None:
    customer, sdk = desk.customer(None), desk.shop.sdk
    mine, portal = (sdk.payment_methods.create({"type": "card", "card": {"token": token(desk)}}).id for _ in range(2))
    assert desk.card(customer, mine).outcome == "done"
    at_stripe = desk.at_stripe(customer)["id"]
    sdk.payment_methods.attach(portal, {"customer": at_stripe})
    sdk.customers.update(at_stripe, {"invoice_settings": {"default_payment_method": portal}})
    desk.run(lambda billing: billing.customers.look(customer, CALLER))
    assert desk.who(customer).payment_method == portal
    done = desk.card(customer, mine)
    assert (done.outcome, done.replayed, done.story.known.payment_method) == ("done", False, mine)
    assert default(desk, customer) == mine


def test_a_card_that_was_refused_for_now_may_be_tried_again_and_one_for_good_is_not(desk: BillingDesk) -> None:
    customer = desk.customer(VISA)
    tries = [desk.card(customer, method) for method in (POOR_NOW, POOR_NOW, REFUSED, REFUSED)]
    assert [done.outcome for done in tries] == ["failed"] * 4
    assert [done.replayed for done in tries] == [False, False, False, True]
    assert desk.facts(customer).count(CardRefused.__name__) == 3


def test_a_key_with_another_card_is_refused(desk: BillingDesk) -> None:
    customer, name = desk.customer(None), unique("op")
    assert desk.card(customer, VISA, name).outcome == "done"
    assert desk.card(customer, VISA, name).replayed
    with pytest.raises(KeyReused):
        desk.card(customer, MASTERCARD, name)
    assert desk.beside((NEW_KEY, NAMES_KEY)).card(customer, VISA, name).replayed


def test_two_cards_at_once_without_a_key_are_two_wishes(desk: BillingDesk) -> None:
    customer = desk.customer(None)

    async def both(billing: Billing) -> list[Any]:
        wishes = (billing.customers.update_card(customer, card, None, CALLER) for card in (VISA, MASTERCARD) * 5)
        return await asyncio.gather(*wishes, return_exceptions=True)

    answers = desk.run(both)
    assert all(isinstance(answer, Done | CustomerBusy) for answer in answers), answers
    done = [answer for answer in answers if isinstance(answer, Done)]
    assert done
    assert all(answer.outcome == "done" for answer in done)
    assert default(desk, customer) == desk.who(customer).payment_method


STEPS = (
    "POST /v1/payment_methods",
    "POST /v1/payment_methods/*/attach",
    "POST /v1/customers/*",
)


@pytest.mark.parametrize("step", STEPS)
def test_a_card_is_taken_although_replies_are_lost(desk: BillingDesk, step: str) -> None:
    customer, once = desk.customer(VISA), token(desk)
    desk.shop.fault(step, "reply_lost", times=EVERY_TRY)
    begun = desk.card(customer, once)
    assert begun.outcome == "open"
    with pytest.raises(CustomerBusy):
        desk.card(customer, MASTERCARD)
    desk.shop.control.delete("/faults")
    assert desk.settle("customer", customer, begun.operation) is None
    known = desk.who(customer)
    assert known.card is not None
    assert known.card.last4 == "4444"
    assert default(desk, customer) == known.payment_method
    assert desk.card(customer, once).replayed


@pytest.mark.parametrize("arrived", [True, False])
def test_a_card_whose_key_is_old_is_looked_for(desk: BillingDesk, *, arrived: bool) -> None:
    customer = desk.customer(VISA)
    desk.shop.fault("POST /v1/customers/*", "reply_lost" if arrived else "refused", times=EVERY_TRY)
    begun = desk.card(customer, MASTERCARD)
    desk.shop.control.delete("/faults")
    desk.ahead, life = OVER_AFTER + timedelta(minutes=1), Life()
    desk.run(lambda billing: billing.settle("customer", customer, begun.operation), life)
    known = desk.who(customer)
    assert life.sent == []
    assert known.operations[begun.operation].outcome == ("done" if arrived else "failed")
    assert known.card is not None
    assert known.card.brand == ("mastercard" if arrived else "visa")
    assert default(desk, customer) == known.payment_method
    if not arrived:  # which is no reason never to try that card again
        assert desk.card(customer, MASTERCARD).outcome == "done"


@pytest.mark.parametrize("then", ["recovery", "the caller"])
def test_a_card_outlives_the_process_wherever_that_ends(desk: BillingDesk, then: str) -> None:
    customer = desk.customer(VISA)
    for ends_before in range(1, MANY):
        once, life = token(desk), Life(ends_before)
        try:
            desk.run(lambda billing, once=once: billing.customers.update_card(customer, once, None, CALLER), life)  # type: ignore[misc]
        except Gone:
            pass
        else:
            break
        if then == "recovery":
            for name, _ in desk.who(customer).in_flight():
                assert desk.settle("customer", customer, name) is None
        else:
            assert desk.card(customer, once).outcome == "done"
            assert once in [getattr(one.fact, "payment_method", None) for one in desk.ledger.load(customer).envelopes]
        known = desk.who(customer)
        assert not known.in_flight()
        assert default(desk, customer) == known.payment_method
    assert 6 < ends_before < MANY - 1


# --- Looking -----------------------------------------------------------------------------------------------------


def test_a_look_that_took_long_does_not_bring_back_the_card_before(
    desk: BillingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer, sdk = desk.customer(VISA), desk.shop.sdk
    at_stripe = desk.at_stripe(customer)["id"]
    portal = sdk.payment_methods.create({"type": "card", "card": {"token": token(desk)}}).id
    sdk.payment_methods.attach(portal, {"customer": at_stripe})
    sdk.customers.update(at_stripe, {"invoice_settings": {"default_payment_method": portal}})
    ask = StripeBillingLookups.customer
    changed: list[str] = []

    async def slowly(self: StripeBillingLookups, *names: Any) -> Any:
        seen = await ask(self, *names)
        if not changed:  # while the answer is on its way, we change it
            changed.append(
                (await asyncio.to_thread(desk.card, customer, "pm_card_amex")).story.known.payment_method or ""
            )
        return seen

    monkeypatch.setattr(StripeBillingLookups, "customer", slowly)
    desk.run(lambda billing: billing.customers.look(customer, CALLER))
    assert desk.who(customer).payment_method == changed[0] == default(desk, customer) != portal


def test_nobody_looks_while_a_card_is_being_changed(desk: BillingDesk) -> None:
    customer = desk.customer(VISA)
    desk.shop.fault("POST /v1/customers/*", "reply_lost", times=EVERY_TRY)
    begun = desk.card(customer, MASTERCARD)
    with pytest.raises(NotLearned):
        desk.run(lambda billing: billing.customers.look(customer, CALLER))
    assert desk.who(customer).operations[begun.operation].outcome == "open"


# --- Erased ------------------------------------------------------------------------------------------------------


def test_a_customer_that_was_erased_has_no_email_and_goes_on(desk: BillingDesk) -> None:
    user, mail = unique("user"), email()
    customer = desk.register(user, mail).story.stream
    with psycopg.connect(desk.url, autocommit=True) as conn:
        conn.execute("DELETE FROM person_keys WHERE person = %s", [str(customer)])
    with second_ledger(desk.url) as ledger:
        other = BillingDesk(ledger, desk.url, desk.shop)
        known = other.who(customer)
        assert (known.emails, known.user, known.status) == ((), user, "active")
        assert other.card(customer, VISA).outcome == "done"
        assert other.register(user).story.stream == customer
        # Who comes back with it is the same customer, and not a second one.
        assert other.register(None, mail).story.stream == customer
        assert other.who(customer).emails == (mail,)
    assert len(made(desk, customer)) == 1
