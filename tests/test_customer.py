"""What may be decided about a customer and the names it is known by, row by row of the decision table."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import settings, strategies
from msgspec import json

from domain.customer import (
    MAX_NAME_LENGTH,
    Customer,
    Name,
    card_expires_before,
    email_name,
    evolve_name,
    name_of,
    names_in,
    user_name,
)
from domain.customer_commands import AddName, CustomerCommand, Register, UpdateCard
from domain.customer_decisions import MAX_EMAILS, MAX_OPERATIONS, claim, decide
from domain.customer_facts import CustomerFact, NameClaimed
from domain.errors import (
    AlreadyNamed,
    AlreadyRegistered,
    CustomerBusy,
    CustomerNotReady,
    InvalidName,
    NameTaken,
    OutcomeMismatch,
    Refusal,
    TooManyNames,
    TooManyUpdates,
)
from domain.payment_facts import Card
from domain.personal import joined, split
from tests.given import NO_FUNDS, VISA
from tests.given_customer import (
    ACTIVE,
    ADA,
    MASTERCARD,
    NO_SUCH_EMAIL,
    REFUSED,
    REGISTERING,
    UPDATING,
    WITH_CARD,
    card_refused,
    card_removed,
    card_started,
    card_updated,
    confirm_card,
    confirm_created,
    confirm_refused,
    created,
    email_added,
    fold,
    given,
    refused,
    registered,
    told_card_is_gone,
    user_added,
)

SOMEBODY, SOMEBODY_ELSE = UUID(int=7), UUID(int=8)

# Every state a customer can be in, by name.
STATES: dict[str, tuple[CustomerFact, ...]] = {
    "registering": REGISTERING,
    "refused": REFUSED,
    "registering again": (*REFUSED, registered("reg_2")),
    "active": ACTIVE,
    "updating": UPDATING,
    "with a card": WITH_CARD,
    "refused a card": (*UPDATING, card_refused()),
    "without its card": (*WITH_CARD, card_removed()),
}


def customer(*facts: CustomerFact) -> Customer:
    folded = fold(facts)
    assert folded is not None
    return folded


# --- Register ----------------------------------------------------------------------------------------------------


def test_somebody_becomes_a_customer() -> None:
    given().when(Register("reg_1", "user-7", ADA)).then(registered()).stands(
        "registering", user="user-7", email=ADA, provider_customer=None, card=None
    )


def test_one_name_is_enough() -> None:
    given().when(Register("reg_1", user="user-7")).then(registered(email=None)).stands("registering", email=None)
    given().when(Register("reg_1", email=ADA)).then(registered(user=None)).stands("registering", user=None)


def test_nobody_is_no_customer() -> None:
    given().when(Register("reg_1")).refused(InvalidName)


@pytest.mark.parametrize("history", STATES.values(), ids=STATES)
def test_registering_twice_decides_nothing_new(history: tuple[CustomerFact, ...]) -> None:
    given(*history).when(Register("reg_1", "user-7", ADA)).decides_nothing()


@pytest.mark.parametrize("name", sorted(set(STATES) - {"refused"}))
def test_a_customer_is_registered_once(name: str) -> None:
    given(*STATES[name]).when(Register("reg_9", "user-7", ADA)).refused(AlreadyRegistered)


def test_the_provider_makes_its_customer() -> None:
    given(*REGISTERING).when(confirm_created()).then(created()).stands("active", provider_customer="cus_1")


def test_the_provider_may_not_want_it_and_another_attempt_may_be_made() -> None:
    given(*REGISTERING).when(confirm_refused("reg_1", NO_SUCH_EMAIL)).then(refused()).stands(
        "refused", failure=NO_SUCH_EMAIL
    )
    again = registered("reg_2", email="ada@example.com")
    given(*REFUSED).when(Register("reg_2", "user-7", "ada@example.com")).then(again).stands(
        "registering", failure=None, email="ada@example.com", emails=(ADA, "ada@example.com")
    )
    given(*REFUSED, again).when(confirm_created("reg_2")).then(created("reg_2")).stands("active")


def test_another_attempt_is_about_the_same_user() -> None:
    given(*REFUSED).when(Register("reg_2", "user-8")).refused(AlreadyNamed, kind="user")


@pytest.mark.parametrize(
    "command",
    [
        AddName("name_1", ADA),
        UpdateCard("card_1", "pm_1"),
        confirm_created(),
        confirm_card(),
        confirm_card(None),
        confirm_refused("reg_1", NO_SUCH_EMAIL),
        told_card_is_gone(),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_but_registering_can_begin_a_customer(command: CustomerCommand) -> None:
    given().when(command).refused(CustomerNotReady, command=type(command).__name__, status="none")


# --- Names -------------------------------------------------------------------------------------------------------


def test_a_name_with_an_at_is_an_email_and_any_other_a_users_id() -> None:
    assert name_of("user-7") == Name("user", "user-7")
    assert name_of("Ada@Example.org") == Name("email", "ada@example.org")


def test_an_email_is_one_name_however_it_is_typed() -> None:
    composed, decomposed = "andré@example.org", "Andre\u0301@EXAMPLE.org"
    assert email_name(composed) == email_name(decomposed)


def test_a_users_id_is_taken_letter_by_letter() -> None:
    assert user_name("User-7") != user_name("user-7")


TOO_LONG = "u" * (MAX_NAME_LENGTH + 1)


@pytest.mark.parametrize("text", ["", " ", "a b", " a", "a\n", "a\u200b", "a\x00", TOO_LONG], ids=repr)
def test_what_cannot_be_seen_or_told_apart_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName) as user:
        user_name(text)
    with pytest.raises(InvalidName) as email:
        email_name(f"{text}@{text}")
    assert (user.value.kind, email.value.kind) == ("user", "email")


@pytest.mark.parametrize("text", ["ada", "@", "ada@", "@example.org", "ada@lovelace@example.org"])
def test_an_email_is_somebody_at_somewhere(text: str) -> None:
    given().when(Register("reg_1", email=text)).refused(InvalidName, kind="email")


def test_a_users_id_is_never_taken_for_an_email() -> None:
    given().when(Register("reg_1", user=ADA)).refused(InvalidName, kind="user")


def test_a_refused_name_is_not_told() -> None:
    """It may be somebody's, and a refusal is logged."""
    with pytest.raises(InvalidName) as caught:
        email_name("ada lovelace@example.org")
    assert "ada" not in str(vars(caught.value))


seen = strategies.characters(categories=["L", "M", "N", "P", "S"], exclude_characters="@")
words = strategies.text(seen, min_size=1, max_size=12)


@settings(deadline=None)
@for_all(words, words)
def test_a_name_in_its_one_form_is_that_same_name_again(mailbox: str, host: str) -> None:
    for text in (mailbox, f"{mailbox}@{host}"):
        name = name_of(text)
        assert name_of(name.value) == name


def test_a_second_name_is_learned_later() -> None:
    by_user, by_email = (registered(email=None), created()), (registered(user=None), created())
    given(*by_user).when(AddName("name_1", "Ada@Example.org")).then(email_added(ADA)).stands("active", email=ADA)
    given(*by_email).when(AddName("name_1", "user-7")).then(user_added("user-7")).stands("active", user="user-7")


@pytest.mark.parametrize("name", ["user-7", ADA, "ADA@example.org"])
def test_a_name_that_is_known_is_no_news(name: str) -> None:
    given(*ACTIVE).when(AddName("name_1", name)).decides_nothing()


def test_a_user_has_one_id() -> None:
    given(*ACTIVE).when(AddName("name_1", "user-8")).refused(AlreadyNamed, kind="user")


def test_an_email_may_change_and_the_one_before_still_names_its_customer() -> None:
    moved = (*ACTIVE, email_added("ada@example.com"))
    given(*moved).stands("active", email="ada@example.com", emails=(ADA, "ada@example.com"))
    given(*moved).when(AddName("name_2", ADA)).decides_nothing()


def test_a_customer_has_so_many_emails_and_no_more() -> None:
    known = [email_added(f"{number}@example.org", f"name_{number}") for number in range(MAX_EMAILS - 1)]
    given(*ACTIVE, *known).when(AddName("more", "more@example.org")).refused(TooManyNames, limit=MAX_EMAILS)
    given(*ACTIVE, *known[1:]).when(AddName("more", "more@example.org")).then(email_added("more@example.org", "more"))


def test_a_name_can_be_learned_while_the_provider_is_asked() -> None:
    given(*UPDATING).when(AddName("name_1", "ada@example.com")).then(email_added("ada@example.com"))


# --- Claims ------------------------------------------------------------------------------------------------------


def test_what_registers_or_names_a_customer_says_which_names_to_claim() -> None:
    assert names_in(registered()) == (Name("user", "user-7"), Name("email", ADA))
    assert names_in(registered(user=None)) == (Name("email", ADA),)
    assert names_in(registered(email=None)) == (Name("user", "user-7"),)
    assert names_in(user_added("user-7")) == (Name("user", "user-7"),)
    assert names_in(email_added(ADA)) == (Name("email", ADA),)


def test_a_claimed_name_is_the_one_that_a_caller_asks_by() -> None:
    facts = decide(None, Register("reg_1", "user-7", "ADA@example.org"))
    claimed = {name for fact in facts if isinstance(fact, type(registered())) for name in names_in(fact)}
    assert claimed == {name_of("user-7"), name_of("Ada@Example.Org")}


def test_a_name_is_claimed_once_by_one_customer() -> None:
    assert claim(None, SOMEBODY) == (NameClaimed(SOMEBODY),)
    assert claim(SOMEBODY, SOMEBODY) == ()
    with pytest.raises(NameTaken):
        claim(SOMEBODY, SOMEBODY_ELSE)


def test_a_claimed_name_names_its_customer() -> None:
    assert evolve_name(None, NameClaimed(SOMEBODY)) == SOMEBODY


def test_a_claim_does_not_hold_the_name() -> None:
    assert json.decode(json.encode(NameClaimed(SOMEBODY))) == {"customer": str(SOMEBODY)}


# --- What is personal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", [registered(), email_added(ADA)], ids=lambda fact: type(fact).__name__)
def test_an_email_is_sealed_and_a_users_id_is_not(fact: CustomerFact) -> None:
    blank, personal = split(fact)
    assert personal == {"email": ADA}
    assert ADA not in json.encode(blank).decode()
    assert joined(blank, personal) == fact


def test_a_customer_whose_email_is_sealed_or_erased_can_still_be_folded() -> None:
    history = (*ACTIVE, email_added("ada@example.com"), card_started(), card_updated())
    erased = customer(*(split(fact)[0] for fact in history))
    assert (erased.user, erased.emails, erased.email, erased.card) == ("user-7", (), None, VISA)


@pytest.mark.parametrize(
    "fact", [created(), refused(), user_added("user-7"), card_started(), card_updated(), card_refused(), card_removed()]
)
def test_nothing_else_of_a_customer_is_personal(fact: CustomerFact) -> None:
    assert split(fact) == (fact, {})


# --- The card ----------------------------------------------------------------------------------------------------


def test_a_card_is_not_a_customers_before_the_provider_says_so() -> None:
    given(*ACTIVE).when(UpdateCard("card_1", "pm_1")).then(card_started()).stands("active", card=None)


def test_a_confirmed_card_is_what_the_customer_pays_with() -> None:
    given(*UPDATING).when(confirm_card()).then(card_updated()).stands(
        "active", card=VISA, payment_method="pm_1", fingerprint="fp_4242", failure=None
    )


def test_a_token_becomes_the_payment_method_that_the_provider_made_of_it() -> None:
    history = (*ACTIVE, card_started(payment_method="tok_visa"))
    given(*history).when(confirm_card()).then(card_updated()).stands("active", payment_method="pm_1")


def test_a_new_card_takes_the_place_of_the_one_before() -> None:
    history = (*WITH_CARD, card_started("card_2", "pm_2"))
    given(*history).stands("active", card=VISA)
    given(*history).when(confirm_card("card_2", "pm_2", MASTERCARD)).then(
        card_updated("card_2", "pm_2", MASTERCARD)
    ).stands("active", card=MASTERCARD, payment_method="pm_2", fingerprint="fp_4444")


def test_a_declined_card_leaves_the_one_before() -> None:
    history = (*WITH_CARD, card_started("card_2", "pm_2"))
    given(*history).when(confirm_refused("card_2", NO_FUNDS)).then(card_refused("card_2")).stands(
        "active", card=VISA, payment_method="pm_1", failure=NO_FUNDS
    )


def test_after_a_declined_card_another_is_tried_and_the_decline_forgotten() -> None:
    declined = (*UPDATING, card_refused())
    given(*declined).when(UpdateCard("card_2", "pm_2")).then(card_started("card_2", "pm_2"))
    given(*declined, card_started("card_2", "pm_1"), card_updated("card_2")).stands("active", failure=None, card=VISA)


@pytest.mark.parametrize("history", [REGISTERING, REFUSED], ids=["registering", "refused"])
def test_a_customer_that_the_provider_does_not_have_has_no_card(history: tuple[CustomerFact, ...]) -> None:
    status = customer(*history).status
    given(*history).when(UpdateCard("card_1", "pm_1")).refused(CustomerNotReady, command="UpdateCard", status=status)
    given(*history).when(confirm_card(None)).refused(CustomerNotReady, command="RecordCard", status=status)
    given(*history).when(told_card_is_gone()).refused(CustomerNotReady, command="RecordCardRemoved", status=status)


def test_a_card_waits_for_the_card_in_flight() -> None:
    given(*UPDATING).when(UpdateCard("card_2", "pm_2")).refused(CustomerBusy, operation="card_1", kind="card")


def test_the_same_card_may_be_given_again() -> None:
    """What became of a card at its issuer since is known only by asking."""
    given(*WITH_CARD).when(UpdateCard("card_2", "pm_1")).then(card_started("card_2"))


def test_a_card_that_was_changed_at_the_provider_is_learned_once() -> None:
    found = card_updated(None, "pm_2", MASTERCARD)
    given(*WITH_CARD).when(confirm_card(None, "pm_2", MASTERCARD)).then(found).stands("active", card=MASTERCARD)
    given(*WITH_CARD, found).when(confirm_card(None, "pm_2", MASTERCARD)).decides_nothing()
    given(*WITH_CARD).when(confirm_card(None)).decides_nothing()


def test_a_card_whose_dates_the_issuer_renewed_is_news() -> None:
    renewed = Card(VISA.brand, VISA.last4, VISA.exp_month, VISA.exp_year + 4)
    given(*WITH_CARD).when(confirm_card(None, card=renewed)).then(card_updated(None, card=renewed))


def test_a_card_seen_at_the_provider_leaves_the_update_in_flight_open() -> None:
    seen = customer(*UPDATING, card_updated(None))
    assert [name for name, _ in seen.in_flight()] == ["card_1"]


def test_a_card_that_was_taken_away_is_gone() -> None:
    given(*WITH_CARD).when(told_card_is_gone()).then(card_removed()).stands(
        "active", card=None, payment_method=None, fingerprint=None
    )
    given(*WITH_CARD, card_removed()).when(told_card_is_gone()).decides_nothing()
    given(*ACTIVE).when(told_card_is_gone()).decides_nothing()


# When it runs out


@pytest.mark.parametrize(
    ("month", "year", "first_moment_without"),
    [(12, 2030, datetime(2031, 1, 1, tzinfo=UTC)), (2, 2028, datetime(2028, 3, 1, tzinfo=UTC))],
)
def test_a_card_is_good_to_the_end_of_its_month(month: int, year: int, first_moment_without: datetime) -> None:
    paying = customer(*UPDATING, card_updated(card=Card("visa", "4242", month, year)))
    assert card_expires_before(paying, first_moment_without)
    assert card_expires_before(paying, first_moment_without + timedelta(days=1))
    assert not card_expires_before(paying, first_moment_without - timedelta(microseconds=1))


def test_no_card_cannot_run_out() -> None:
    assert not card_expires_before(customer(*ACTIVE), datetime(9999, 12, 31, tzinfo=UTC))


def test_a_refused_card_is_not_a_card_that_runs_out() -> None:
    declined = customer(*WITH_CARD, card_started("card_2"), card_refused("card_2"))
    assert declined.failure == NO_FUNDS
    assert not card_expires_before(declined, datetime(2030, 12, 31, tzinfo=UTC))


# --- Asking twice, and outcomes that do not fit ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "command"),
    [
        (UPDATING, UpdateCard("card_1", "pm_1")),
        (WITH_CARD, UpdateCard("card_1", "pm_1")),
        ((*UPDATING, card_refused()), UpdateCard("card_1", "pm_1")),
        ((*ACTIVE, email_added("ada@example.com")), AddName("name_1", "ada@example.com")),
        (ACTIVE, confirm_created()),
        (REFUSED, confirm_refused("reg_1", NO_SUCH_EMAIL)),
        (WITH_CARD, confirm_card()),
        ((*UPDATING, card_refused()), confirm_refused("card_1", NO_FUNDS)),
        ((*WITH_CARD, card_started("card_2"), card_updated("card_2", "pm_2", MASTERCARD)), confirm_card()),
    ],
)
def test_what_is_asked_or_heard_twice_decides_nothing_new(
    history: tuple[CustomerFact, ...], command: CustomerCommand
) -> None:
    given(*history).when(command).decides_nothing()


@pytest.mark.parametrize("history", STATES.values(), ids=STATES)
@pytest.mark.parametrize(
    "outcome",
    [confirm_created("none"), confirm_card("none"), confirm_refused("none", NO_FUNDS)],
    ids=lambda outcome: type(outcome).__name__,
)
def test_an_outcome_of_nothing_that_was_asked_is_not_recorded(
    history: tuple[CustomerFact, ...], outcome: CustomerCommand
) -> None:
    given(*history).when(outcome).refused(OutcomeMismatch, operation="none")


def test_an_outcome_of_another_kind_than_was_asked_is_not_recorded() -> None:
    given(*REGISTERING).when(confirm_card("reg_1")).refused(OutcomeMismatch, expected="register", confirmed="card")
    given(*UPDATING).when(confirm_created("card_1")).refused(OutcomeMismatch, expected="card", confirmed="register")


def test_a_wish_that_made_two_customers_at_the_provider_is_for_a_person_to_look_at() -> None:
    given(*ACTIVE).when(confirm_created(provider_customer="cus_2")).refused(
        OutcomeMismatch, operation="reg_1", expected="cus_1", confirmed="cus_2"
    )


# --- Limits, and the fold ----------------------------------------------------------------------------------------


def busy(count: int) -> tuple[CustomerFact, ...]:
    """A customer of `count` operations, one of them a card in flight."""
    tries: list[CustomerFact] = []
    for place in range(count - 2):
        tries += (card_started(f"card_{place}"), card_refused(f"card_{place}"))
    return (*ACTIVE, *tries, card_started("last"))


@pytest.mark.parametrize("wish", [Register("more", ADA), AddName("more", "a@b.c"), UpdateCard("more", "pm_1")])
def test_a_customer_takes_so_many_operations_and_no_more(wish: CustomerCommand) -> None:
    given(*busy(MAX_OPERATIONS)).when(wish).refused(TooManyUpdates, limit=MAX_OPERATIONS)


def test_a_customer_at_its_limit_still_learns_the_outcome_and_knows_its_wishes() -> None:
    full = busy(MAX_OPERATIONS)
    given(*full).when(confirm_card("last")).then(card_updated("last")).stands("active", card=VISA)
    given(*full).when(UpdateCard("last", "pm_1")).decides_nothing()
    given(*busy(MAX_OPERATIONS - 1), card_refused("last")).when(UpdateCard("more", "pm_1")).then(card_started("more"))


def test_the_past_is_never_refused() -> None:
    """Facts that no decision would allow today still fold, or yesterday's streams would no longer load."""
    for history in STATES.values():
        late = (card_started("late"), card_updated("late"), card_removed(), user_added("user-9"), registered("later"))
        given(*history, *late, created("later", "cus_9")).stands("active", user="user-7", provider_customer="cus_9")


def test_a_history_that_does_not_begin_is_corrupt() -> None:
    with pytest.raises(AssertionError, match="begins with CustomerRegistered"):
        fold([created()])


# --- Any command at any time -------------------------------------------------------------------------------------

operations = strategies.sampled_from(["reg_1", "reg_2", "card_1", "card_2", "card_3", "name_1", "unknown"])
methods = strategies.sampled_from([("pm_1", VISA), ("pm_2", MASTERCARD)])
commands = strategies.one_of(
    strategies.builds(Register, operations, strategies.sampled_from(["user-7", "user-8", None]), strategies.just(ADA)),
    strategies.builds(AddName, operations, strategies.sampled_from(["user-7", "user-8", ADA, "ada@example.com"])),
    strategies.builds(UpdateCard, operations, strategies.sampled_from(["pm_1", "pm_2"])),
    strategies.builds(confirm_created, operations, strategies.sampled_from(["cus_1", "cus_1", "cus_2"])),
    strategies.builds(confirm_refused, operations, strategies.just(NO_FUNDS)),
    strategies.builds(lambda name, method: confirm_card(name, *method), operations | strategies.none(), methods),
    strategies.just(told_card_is_gone()),
)


@settings(deadline=None, max_examples=300)
@for_all(strategies.lists(commands, max_size=40))
def test_no_order_of_commands_breaks_what_is_promised_of_a_customer(wanted: list[CustomerCommand]) -> None:
    known: Customer | None = None
    facts: tuple[CustomerFact, ...] = ()
    ended: dict[str, str] = {}
    for command in [Register("reg_1", "user-7"), *wanted]:
        try:
            new = decide(known, command)
        except Refusal:
            continue
        facts, known = facts + new, fold(new, known)
        assert known is not None
        assert decide(known, command) == (), "asked again, it decided something new"
        assert fold(facts) == known, "the whole history gives the present"
        for name, operation in known.operations.items():
            assert ended.setdefault(name, operation.outcome) in {operation.outcome, "open"}, "an outcome changed"
            ended[name] = operation.outcome
        assert len(known.in_flight()) <= 1
        assert (known.status == "active") == (known.provider_customer is not None)
        assert known.card is None or known.status == "active"
        assert known.user == "user-7"
        assert len(set(known.emails)) == len(known.emails)
    assert len({fact.provider_customer for fact in facts if isinstance(fact, type(created()))}) <= 1
