"""Card numbers that are no test numbers: handed to Stripe where that was asked for, refused elsewhere, kept nowhere."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from unittest.mock import patch

import httpx
import pytest
import stripe
from stripe import _util

from application.gateway import Unknown
from application.stripe_gateway import StripeGateway
from application.stripe_methods import NotAllowed, RawCard, of_card
from domain.payment_facts import Failure
from interface.services import Services
from interface.settings import SettingsInvalid, read
from interface.web.contracts.cinema_cards import CardDetails, method_for
from interface.web.contracts.cinema_words import code_of
from tests.faults import stand_in
from tests.given import NOON
from tests.system import System, running
from tests.test_contract_cinema import VISA, Cinema, card, files_of

# The stand-in knows these, and the ledger does not: to it they are like anybody's.
PREPAID, DINERS, DISCOVER = "5105105105105100", "3056930009020004", "6011000990139424"
# Nobody's card in test mode: right in form, and not a test number. And one whose check digit is wrong.
SOMEBODYS, MISTYPED = "4012888888881881", "4242424242424241"
KEY = "sk_test_raw"
T = TypeVar("T")
errors: Any = stripe  # its errors have no types


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with stand_in() as url:
        yield url


def use(url: str, ask: Callable[[StripeGateway], Awaitable[T]], key: str = KEY) -> T:
    async def run() -> T:
        gateway = StripeGateway(key, url)
        try:
            return await ask(gateway)
        finally:
            await gateway.close()

    return asyncio.run(run())


def made(url: str, number: str, *, key: str = KEY, code: str = "123", month: int = 12, year: int = 2040) -> Any:
    return use(url, lambda gateway: gateway.method_of(RawCard(number, month, year, code)), key)


def methods(url: str) -> list[dict[str, Any]]:
    return list(httpx.get(f"{url}/_sandbox/state").json()["payment_methods"])


# --- A payment method of a number --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [PREPAID, "3056 9300 0902 0004", "6011-0009-9013-9424"])
def test_a_number_becomes_a_payment_method_of_stripes(url: str, number: str) -> None:
    name = made(url, number)
    (method,) = (one for one in methods(url) if one["id"] == name)
    assert (method["card"]["last4"], method["card"]["exp_year"]) == (number[-4:], 2040)
    assert method["card"]["checks"]["cvc_check"] == "pass"


@pytest.mark.parametrize(("number", "code"), [(SOMEBODYS, "card_declined"), (MISTYPED, "incorrect_number")])
def test_a_number_that_stripe_refuses_says_why_without_the_number(url: str, number: str, code: str) -> None:
    refused = made(url, number)
    assert isinstance(refused, Failure)
    assert refused.code == code
    assert not any(letter.isdigit() for letter in refused.message)


def test_what_stripe_says_of_a_card_is_not_repeated_with_digits_in_it() -> None:
    async def post(*_: object, **card: object) -> Any:
        raise errors.CardError(f"no such card: {card}", "number", "incorrect_number", json_body={"error": {}})

    refused = asyncio.run(of_card(RawCard(PREPAID, 12, 2040, ""), post))
    assert refused == Failure("incorrect_number", None, "the card was refused", retryable=False)


@pytest.mark.parametrize(
    ("number", "cvc", "code"),
    [("", "", "invalid_number"), ("42" * 12, "", "invalid_number"), ("4٢42424242424242", "", "invalid_number")]
    + [(PREPAID, cvc, "invalid_cvc") for cvc in ("1", "12345", "abc", PREPAID[:4] + " ")],
)
def test_what_cannot_be_a_card_is_not_even_sent(url: str, number: str, cvc: str, code: str) -> None:
    before = len(methods(url))
    refused = made(url, number, code=cvc)
    assert isinstance(refused, Failure)
    assert (refused.code, len(methods(url))) == (code, before)


def test_a_reply_that_is_lost_makes_no_second_payment_method(url: str) -> None:
    before = len(methods(url))
    httpx.post(f"{url}/_sandbox/faults", json={"match": "POST /v1/payment_methods", "mode": "reply_lost", "times": 1})
    assert made(url, PREPAID).startswith("pm_")
    assert len(methods(url)) == before + 1


def test_an_outage_is_not_known_and_a_refusal_of_ours_is_not_the_cards(url: str) -> None:
    assert isinstance(made("http://127.0.0.1:9", PREPAID), Unknown)
    assert isinstance(made(url, PREPAID, key="not-a-key"), NotAllowed)
    no = {"match": "POST /v1/payment_methods", "mode": "error", "status": 400, "times": 1}
    httpx.post(f"{url}/_sandbox/faults", json=no).raise_for_status()
    assert isinstance(made(url, PREPAID), NotAllowed), "as from an account that may not send numbers"


# --- Which numbers are taken -------------------------------------------------------------------------------------


class Asked:
    """A gateway that remembers nothing but that it was asked."""

    def __init__(self, answer: str | Failure | NotAllowed | Unknown = "pm_new") -> None:
        self.answer, self.times = answer, 0

    async def method_of(self, _: RawCard) -> str | Failure | NotAllowed | Unknown:
        self.times += 1
        return self.answer


def chosen(gateway: Asked, number: str, *, key: str, raw: bool, away_s: float | None = None) -> str:
    """The payment method, or the contract's code for the refusal, or that nothing is known."""
    services = SimpleNamespace(
        settings=SimpleNamespace(stripe_api_key=key, stripe_raw_cards=raw),
        gateway=gateway,
        breaker=SimpleNamespace(unavailable_s=lambda: away_s),
        clock=lambda: NOON,
    )
    details = CardDetails(number, 12, 2040, "123", "Ada")
    answer = asyncio.run(method_for("credit_card", details, cast(Services, services)))
    return answer if isinstance(answer, str) else "Unknown" if isinstance(answer, Unknown) else code_of(answer)


@pytest.mark.parametrize(
    ("key", "raw", "number", "expected", "asked"),
    [
        ("sk_test_1", False, VISA, "pm_card_visa", 0),
        ("sk_test_1", False, PREPAID, "INVALID_CARD", 0),
        ("sk_test_1", True, VISA, "pm_card_visa", 0),
        ("sk_test_1", True, PREPAID, "pm_new", 1),
        ("sk_live_1", False, VISA, "PAYMENT_GATEWAY_ERROR", 0),
        ("sk_live_1", False, PREPAID, "PAYMENT_GATEWAY_ERROR", 0),
        ("sk_live_1", True, VISA, "pm_new", 1),
        ("sk_live_1", True, PREPAID, "pm_new", 1),
    ],
)
def test_numbers_go_to_stripe_only_where_that_was_asked_for(
    key: str, number: str, expected: str, asked: int, *, raw: bool
) -> None:
    assert chosen(gateway := Asked(), number, key=key, raw=raw) == expected
    assert gateway.times == asked


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Failure("incorrect_number", None, "no", retryable=False), "INVALID_CARD"),
        (Failure("card_declined", "insufficient_funds", "no", retryable=False), "INSUFFICIENT_FUNDS"),
        (NotAllowed(), "PAYMENT_GATEWAY_ERROR"),
        (Unknown("timeout"), "Unknown"),
    ],
)
def test_what_stripe_says_of_a_number_has_a_code_of_the_contract(answer: Any, expected: str) -> None:
    assert chosen(Asked(answer), PREPAID, key="sk_live_1", raw=True) == expected


def test_nobody_waits_for_a_provider_that_does_not_answer() -> None:
    assert chosen(gateway := Asked(), PREPAID, key="sk_live_1", raw=True, away_s=1.0) == "Unknown"
    assert gateway.times == 0


def test_the_setting_is_on_or_off() -> None:
    with pytest.raises(SettingsInvalid, match="STRIPE_RAW_CARDS must be on or off"):
        read({"STRIPE_RAW_CARDS": "perhaps"})


# --- The number is nowhere ---------------------------------------------------------------------------------------


@pytest.fixture
def talkative(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The SDK is asked to log everything, in both of its ways."""
    logger = logging.getLogger("stripe")
    kept, log = list(logger.filters), stripe.log
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "stripe")
    with patch.object(_util, "STRIPE_LOG", "debug"):
        yield caplog
    logger.filters[:], stripe.log = kept, log


def test_the_sdk_logs_no_body_however_it_is_asked_to(
    url: str, talkative: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in (PREPAID, SOMEBODYS, MISTYPED):
        made(url, number)
    told = capfd.readouterr()
    for text in (talkative.text, told.out + told.err):
        assert "Request to Stripe api" in text, "it still says that it asks"
        assert not any(number in text for number in (PREPAID, SOMEBODYS, MISTYPED))


def test_without_the_guard_the_sdk_would_have_logged_it(
    url: str, talkative: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with patch("application.stripe_client.keep_bodies_out_of_logs"):
        logging.getLogger("stripe").filters.clear()
        made(url, PREPAID)
    assert PREPAID in talkative.text
    assert PREPAID in capfd.readouterr().err


def test_a_card_is_shown_as_nothing() -> None:
    shown = f"{RawCard(PREPAID, 12, 2040, '123')!r} {CardDetails(PREPAID, 12, 2040, '123', 'Ada')!s}"
    assert not any(letter.isdigit() for letter in shown)


@pytest.fixture(scope="module")
def taking_cards() -> Iterator[System]:
    with patch.dict(os.environ, STRIPE_RAW_CARDS="on", STRIPE_LOG="debug"), running() as system:
        yield system


def test_a_number_that_is_taken_pays_and_is_kept_nowhere(taking_cards: System) -> None:
    numbers = (DINERS, DISCOVER, SOMEBODYS, MISTYPED)
    for number in (DINERS, DISCOVER):
        cinema = Cinema(taking_cards)
        assert cinema.process(card_details=card(number)).status_code == 200
        assert cinema.process(card_details=card(number)).status_code == 409, "paid once"
    for number in (SOMEBODYS, MISTYPED):
        answer = Cinema(taking_cards).process(card_details=card(number))
        assert (answer.status_code, answer.json()["status"]) == (400, "failed")
        assert number not in answer.text
    with taking_cards.fault("POST /v1/payment_methods", "error", status=500, times=0):
        assert Cinema(taking_cards).process(card_details=card(DINERS)).status_code == 502
    told = [path.read_bytes() for path in (*files_of(taking_cards.data), taking_cards.output)]
    told.append(taking_cards.http.get("/metrics").content)
    assert any(b"Request to Stripe api" in text for text in told)
    for number in numbers:
        assert not any(number.encode() in text for text in told)
