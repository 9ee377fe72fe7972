"""Money is whole minor units of a known currency, and Stripe's special cases are known by name."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies
from msgspec import ValidationError, json

from domain.errors import AmountTooLarge, CurrencyMismatch, InvalidAmount, InvalidMoney, UnknownCurrency
from domain.money import EXPONENTS, MAX_STRIPE_AMOUNT, Money, chargeable, from_stripe, to_stripe
from tests.given import eur, usd


def listed(codes: str) -> set[str]:
    return set(codes.split())


# The tables are written out a second time, from ISO 4217 and from Stripe's page on currencies, not from the code.
ISO_NO_DIGITS = listed("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF")
ISO_THREE_DIGITS = listed("BHD IQD JOD KWD LYD OMR TND")
STRIPE_NO_DIGITS = listed("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF")
STRIPE_THREE_DIGITS_ENDING_IN_0 = listed("BHD JOD KWD OMR TND")
STRIPE_TWO_DIGITS_ENDING_IN_00 = listed("ISK UGX")
STRIPE_TAKES = listed(
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CLP CNY COP "
    "CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR ISK JMD "
    "JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN "
    "NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD "
    "SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW"
)
STRIPE_STEP = dict.fromkeys(STRIPE_THREE_DIGITS_ENDING_IN_0, 10) | dict.fromkeys(STRIPE_TWO_DIGITS_ENDING_IN_00, 100)

currencies = strategies.sampled_from(sorted(EXPONENTS))
codes = [pytest.param(code.lower(), id=code) for code in sorted(code.upper() for code in EXPONENTS)]


# --- Currencies --------------------------------------------------------------------------------------------------


def test_the_digits_of_every_currency_are_those_of_iso_4217() -> None:
    expected = {code.lower(): 0 for code in ISO_NO_DIGITS} | {code.lower(): 3 for code in ISO_THREE_DIGITS}
    assert {code: digits for code, digits in EXPONENTS.items() if digits != 2} == expected
    assert all(len(code) == 3 and code.islower() for code in EXPONENTS)


def test_every_currency_that_stripe_takes_and_iso_lists_is_known() -> None:
    assert {code.lower() for code in STRIPE_TAKES} <= set(EXPONENTS)


@pytest.mark.parametrize("code", codes)
def test_one_major_unit_is_counted_at_stripe_as_stripe_documents(code: str) -> None:
    digits = 2
    if code.upper() in STRIPE_NO_DIGITS:
        digits = 0
    elif code.upper() in ISO_THREE_DIGITS:
        digits = 3
    one = Money(10 ** EXPONENTS[code], code)
    assert to_stripe(one) == 10**digits
    assert from_stripe(10**digits, code) == one


@pytest.mark.parametrize(
    ("money", "amount"),
    [
        (Money(10_99, "usd"), 1099),
        (Money(1099, "jpy"), 1099),
        (Money(5, "isk"), 500),  # no digits in ISO, two zeros at Stripe
        (Money(5, "ugx"), 500),
        (Money(5_00, "mga"), 5),  # two digits in ISO, none at Stripe
        (Money(5_120, "kwd"), 5120),  # three digits, the last one 0
        (Money(10_01, "huf"), 1001),  # only payouts go in whole hundreds, a charge does not
        (Money(10_01, "twd"), 1001),
        (Money(1_001, "iqd"), 1001),  # three digits, and not among those that Stripe rounds
    ],
)
def test_money_travels_to_stripe_and_back(money: Money, amount: int) -> None:
    assert to_stripe(money) == amount
    assert from_stripe(amount, money.currency) == money


@pytest.mark.parametrize("money", [Money(5_125, code.lower()) for code in sorted(STRIPE_THREE_DIGITS_ENDING_IN_0)])
def test_a_third_digit_that_stripe_cannot_carry_is_refused_not_rounded(money: Money) -> None:
    with pytest.raises(InvalidAmount):
        to_stripe(money)
    with pytest.raises(InvalidAmount):
        chargeable(money.minor, money.currency)


def test_a_fraction_of_an_ariary_is_refused_not_rounded() -> None:
    with pytest.raises(InvalidAmount):
        to_stripe(Money(5_01, "mga"))


@pytest.mark.parametrize("code", ["isk", "ugx"])
def test_a_fraction_that_iso_does_not_know_is_refused_not_rounded(code: str) -> None:
    with pytest.raises(InvalidAmount):
        from_stripe(501, code)


@given(minor=strategies.integers(min_value=0, max_value=10**12), currency=currencies)
def test_what_goes_to_stripe_comes_back_the_same(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    try:
        amount = to_stripe(money)
    except InvalidAmount:
        assert currency == "mga" or currency.upper() in STRIPE_STEP
    else:
        assert amount % STRIPE_STEP.get(currency.upper(), 1) == 0
        assert from_stripe(amount, currency) == money


@given(amount=strategies.integers(min_value=0, max_value=MAX_STRIPE_AMOUNT), currency=currencies)
def test_what_comes_from_stripe_goes_back_the_same(amount: int, currency: str) -> None:
    step = STRIPE_STEP.get(currency.upper(), 1)
    whole = amount - amount % step
    assert to_stripe(from_stripe(whole, currency)) == whole


# --- What is no money --------------------------------------------------------------------------------------------

NO_AMOUNTS = [1.0, 10.99, float("nan"), float("inf"), True, False, -1, "100", None, Decimal(1), b"1"]


@pytest.mark.parametrize("minor", NO_AMOUNTS, ids=repr)
def test_only_a_whole_number_of_units_is_an_amount(minor: Any) -> None:
    with pytest.raises(InvalidAmount) as refusal:
        Money(minor, "usd")
    assert refusal.value.amount == str(minor)


@pytest.mark.parametrize("minor", NO_AMOUNTS, ids=repr)
def test_only_a_whole_number_of_units_can_be_asked_for(minor: Any) -> None:
    with pytest.raises(InvalidAmount):
        chargeable(minor, "usd")


@pytest.mark.parametrize("currency", ["isk", "mga", "usd"])
@pytest.mark.parametrize("amount", [1.0, 100.0, True, -100], ids=repr)
def test_only_a_whole_number_is_believed_of_stripe(amount: Any, currency: str) -> None:
    with pytest.raises(InvalidAmount):
        from_stripe(amount, currency)


@pytest.mark.parametrize("currency", ["", "USD", "us", "usdt", "xxx", "btc", " usd", "zzz"])
def test_a_currency_that_iso_does_not_list_is_refused(currency: str) -> None:
    for make in (Money, chargeable, from_stripe):
        with pytest.raises(UnknownCurrency) as refusal:
            make(1_00, currency)
        assert refusal.value.currency == currency


@pytest.mark.parametrize("written", ["10.99", "-1", "true", '"100"', "null", "1099.5"])
def test_an_amount_that_arrives_as_json_is_judged_alike(written: str) -> None:
    with pytest.raises((ValidationError, InvalidMoney)):
        json.decode(f'{{"minor":{written},"currency":"usd"}}', type=Money)


def test_nothing_is_money_but_cannot_be_asked_for() -> None:
    assert not Money.zero("usd")
    with pytest.raises(InvalidAmount):
        chargeable(0, "usd")


@pytest.mark.parametrize(
    ("currency", "limit"),
    [("usd", 99_999_999), ("jpy", 99_999_999), ("isk", 999_999), ("ugx", 999_999), ("mga", 99_999_999_00)],
)
def test_the_largest_amount_is_what_stripe_writes_in_eight_digits(currency: str, limit: int) -> None:
    assert chargeable(limit, currency).minor == limit
    step = 100 if currency == "mga" else 1
    with pytest.raises(AmountTooLarge) as refusal:
        chargeable(limit + step, currency)
    assert (refusal.value.amount, refusal.value.limit) == (limit + step, limit)


def test_the_largest_amount_in_three_digits_ends_in_0() -> None:
    assert chargeable(99_999_990, "kwd").minor == 99_999_990
    with pytest.raises(AmountTooLarge):
        chargeable(100_000_000, "kwd")


@given(minor=strategies.integers(), currency=currencies)
def test_money_that_can_be_asked_for_can_be_carried_by_stripe(minor: int, currency: str) -> None:
    try:
        money = chargeable(minor, currency)
    except InvalidMoney:
        return
    assert 0 < to_stripe(money) <= MAX_STRIPE_AMOUNT
    assert from_stripe(to_stripe(money), currency) == money


# --- Sums --------------------------------------------------------------------------------------------------------


@given(strategies.integers(0, 10**12), strategies.integers(0, 10**12), currencies)
def test_money_adds_and_compares_as_its_units_do(left: int, right: int, currency: str) -> None:
    a, b = Money(left, currency), Money(right, currency)
    assert (a + b).minor == left + right
    assert (a + b) - b == a
    assert (a < b, a <= b, a > b, a >= b, a == b) == (
        left < right,
        left <= right,
        left > right,
        left >= right,
        left == right,
    )


def test_money_is_never_less_than_nothing() -> None:
    with pytest.raises(InvalidAmount):
        usd(1) - usd(2)


def test_two_currencies_do_not_meet_in_one_sum() -> None:
    sums = (
        lambda: usd(1) + eur(1),
        lambda: usd(1) - eur(1),
        lambda: usd(1) < eur(1),
        lambda: usd(1) <= eur(1),
        lambda: usd(1) > eur(1),
        lambda: usd(1) >= eur(1),
    )
    for mixed in sums:
        with pytest.raises(CurrencyMismatch) as refusal:
            mixed()
        assert (refusal.value.expected, refusal.value.given) == ("usd", "eur")
    assert usd(1) != eur(1)


@pytest.mark.parametrize(
    ("money", "major", "sentence"),
    [
        (Money(100_99, "usd"), Decimal("100.99"), "100.99 USD"),
        (Money(1, "usd"), Decimal("0.01"), "0.01 USD"),
        (Money(500, "jpy"), Decimal(500), "500 JPY"),
        (Money(1_250, "kwd"), Decimal("1.250"), "1.250 KWD"),
        (Money(10**12, "usd"), Decimal(10**10), "10000000000.00 USD"),
    ],
)
def test_money_is_spoken_of_in_major_units_exactly(money: Money, major: Decimal, sentence: str) -> None:
    assert money.major() == major
    assert str(money) == sentence


@given(minor=strategies.integers(0, 10**18), currency=currencies)
def test_a_whole_ledger_of_money_is_spoken_of_exactly(minor: int, currency: str) -> None:
    digits = EXPONENTS[currency]
    assert int(str(Money(minor, currency)).split()[0].replace(".", "")) == minor
    assert len(str(Money(minor, currency)).split()[0].partition(".")[2]) == digits
