"""A setting that is wrong is named before anything starts, and its value is never shown."""

import subprocess
import sys
from ipaddress import ip_network
from typing import Any

import pytest

from interface.rate_limits import Limit
from interface.settings import Settings, SettingsInvalid, read
from tests.system import CHECKOUT, System
from tests.test_rate_limits_shared import environment

START_S = 60
GOOD = {
    "DATABASE_URL": "postgresql://ledger:hidden@db.example:5432/ledger",
    "STRIPE_API_KEY": "sk_test_hidden",
    "STRIPE_WEBHOOK_SECRET": "whsec_hidden",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092",
    "JWT_SECRET_KEY": "hidden and long enough to sign with",
    "ENCRYPTION_KEY": "ab" * 32,
}
NO_NUMBERS = ("none", "1.5", "-1", "0", "1e3", "½", "1 000", "9" * 5_000)
NO_ADDRESSES = ("ledger.example", "ftp://ledger.example", "https://", "https://user:word@ledger.example", "https://a b")
NO_TOPICS = ("ticketing:payments", "..", "two words", "zahlungén", "t" * 250)


def settings(**changed: str) -> Settings:
    return read(GOOD | changed)


def wrong(name: str, *values: str) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}={value[:30]!r}") for value in values]


# --- What is wrong is named --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", ["", "  "])
def test_a_setting_that_is_needed_is_missed_by_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"{name} is not set"):
        settings(**{name: value})
    with pytest.raises(SettingsInvalid, match=f"{name} is not set"):
        read({other: given for other, given in GOOD.items() if other != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *wrong("DATABASE_URL", "nonsense", "mysql://u@h/n", "postgresql://u@/n", "postgresql://h/n"),
        *wrong("STRIPE_WEBHOOK_SECRET", ",", "whsec_a,", "whsec_a,,whsec_b", ", whsec_a"),
        *wrong("STRIPE_RAW_CARDS", "ON", "yes", "1"),
        *wrong("STRIPE_SWEEP_S", *NO_NUMBERS, "3601"),
        *wrong("STRIPE_API_BASE", *NO_ADDRESSES),
        *wrong("PUBLIC_URL", *NO_ADDRESSES),
        *wrong("OTEL_EXPORTER_OTLP_ENDPOINT", *NO_ADDRESSES),
        *wrong("KAFKA_TOPIC", *NO_TOPICS),
        *wrong("CINEMA_TOPIC", *NO_TOPICS),
        *wrong("ORDERS_TOPIC", *NO_TOPICS),
        *wrong("ORDERS_GROUP", *NO_TOPICS),
        *wrong("TICKETING_TOPIC", *NO_TOPICS),
        *wrong("CINEMA_EVENTS_REASON", "ON", "yes", "1"),
        *wrong("JWT_SECRET_KEY", "short", f"{'long enough' * 4},short", "x" * 31, ",", " , "),
        *wrong("ENCRYPTION_KEY", "ab", "zz" * 32, "ab" * 31, "ab" * 33, f"{'ab' * 32},ab", ",", ",,"),
        *wrong("DEFAULT_CURRENCY", "xxx", "us", "dollars", "$"),
        *wrong("RATE_LIMIT", "ON", "yes", "true", "1", "0"),
        *wrong("RATE_LIMIT_PER_MINUTE", *NO_NUMBERS, "1000001"),
        *wrong("RATE_LIMIT_PER_10_SECONDS", *NO_NUMBERS, "1000001"),
        *wrong("TRUSTED_PROXIES", "proxy.example", "*", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1,x", "300.0.0.1"),
        *wrong("CORS_ORIGINS", "market.example", "null", "ftp://a", "http://", "https://a/", "https://a,b"),
        *wrong("CORS_ORIGINS", "https://u@a", "https://a?b", "https://a b", "https://a,**"),
        *wrong("PAYMENT_SERVICE_PORT", *NO_NUMBERS, "65536"),
        *wrong("MAX_THREADS", *NO_NUMBERS, "65"),
    ],
)
def test_a_value_that_cannot_be_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsInvalid) as raised:
        settings(**{name: value})
    said = str(raised.value)
    assert said.startswith(f"{name} must "), said
    assert "hidden" not in said
    assert len(value) < 4 or value not in said


def test_everything_that_is_wrong_is_told_at_once() -> None:
    names = ["JWT_SECRET_KEY", "RATE_LIMIT", "TRUSTED_PROXIES", "PAYMENT_SERVICE_PORT"]
    with pytest.raises(SettingsInvalid) as raised:
        settings(**dict.fromkeys(names, "x"), STRIPE_API_KEY="")
    assert [said.split()[0] for said in str(raised.value).split("; ")] == ["STRIPE_API_KEY", *names]


def test_the_service_does_not_start_and_says_why(system: System) -> None:
    given = environment(system, RATE_LIMIT="perhaps", TRUSTED_PROXIES="everybody", ENCRYPTION_KEY="c0ffee")
    ended, said = start(given)
    assert ended == 1
    for name in ("RATE_LIMIT must", "TRUSTED_PROXIES must", "ENCRYPTION_KEY must"):
        assert name in said
    assert not {"perhaps", "everybody", "c0ffee", "Traceback"} & set(said.replace("'", " ").split())


def start(given: dict[str, str]) -> tuple[int, str]:
    """How `payledger api` ends that cannot start, and what it says."""
    command = [sys.executable, "-m", "interface.cli", "api"]
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=given, capture_output=True, text=True, timeout=START_S, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


# --- What is right is understood ---------------------------------------------------------------------------------


def test_without_more_the_limits_are_those_of_the_contract_and_nobody_is_trusted() -> None:
    plain = settings()
    assert plain.rate_limits == (Limit(100, 60), Limit(20, 10))
    assert (plain.trusted_proxies, plain.cors_origins) == ((), ())
    assert (plain.host, plain.port, plain.default_currency) == ("127.0.0.1", 8003, "usd")


def test_limits_are_settings_and_can_be_left_off() -> None:
    assert settings(RATE_LIMIT_PER_MINUTE="7", RATE_LIMIT_PER_10_SECONDS="3").rate_limits == (
        Limit(7, 60),
        Limit(3, 10),
    )
    assert settings(RATE_LIMIT="off", RATE_LIMIT_PER_MINUTE="7").rate_limits == ()
    assert settings(RATE_LIMIT=" on ").rate_limits == settings(RATE_LIMIT="").rate_limits


def test_proxies_and_origins_are_lists() -> None:
    given = settings(
        TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1,2001:db8::/32", CORS_ORIGINS="https://a.example,http://b:80 ,"
    )
    assert given.trusted_proxies == tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")))
    assert given.cors_origins == ("https://a.example", "http://b:80")
    assert settings(CORS_ORIGINS="*").cors_origins == ("*",)


def test_where_others_sign_no_secret_of_ours_is_needed() -> None:
    given = settings(JWT_JWKS="https://issuer.example/keys", JWT_SECRET_KEY="")
    assert (given.jwt_key_set, given.jwt_secret_keys) == ("https://issuer.example/keys", ())


def test_secrets_that_are_being_replaced_are_all_kept() -> None:
    first, second = "the first that is long enough to sign", "the second that is long enough too"
    assert settings(JWT_SECRET_KEY=f"{first},{second}").jwt_secret_keys == (first, second)
    assert settings(STRIPE_WEBHOOK_SECRET="whsec_a, whsec_b").stripe_webhook_secrets == ("whsec_a", "whsec_b")
    assert settings(ENCRYPTION_KEY=f"{'ab' * 32},{'cd' * 32}").encryption_keys == (b"\xab" * 32, b"\xcd" * 32)
