"""Every setting, from the environment. What is missing or wrong is named, all at once, and its value never shown."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from domain.money import EXPONENTS
from interface.rate_limits import Limit

MIN_SECRET_BYTES = 32
ENCRYPTION_KEY_BYTES = 32
DEFAULT_PORT = 8003
MAX_RATE = 1_000_000
_WHOLE = re.compile(r"[0-9]{1,9}")
_ORIGIN = re.compile(r"https?://[^\s/?#@]+")
_ADDRESS = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?")
# Kafka's own rule, but for names of dots alone.
TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")


class SettingsInvalid(Exception):  # noqa: N818  it says what is so
    """The service cannot start with these settings."""


class Settings(Struct, frozen=True, kw_only=True):
    """`sweep_s`: how often the provider's own list is read for events that were never delivered.

    `stripe_api_base` and `public_url` are for stand-ins and return addresses; None means Stripe's own, and none.
    With `stripe_raw_cards` card numbers that callers hand over go to Stripe; otherwise only its test numbers are taken.
    Without `rate_limits` callers may ask as often as they like; `trusted_proxies` may say whom they speak for.
    """

    database_url: str
    stripe_api_key: str
    stripe_api_base: str | None
    stripe_raw_cards: bool
    stripe_webhook_secrets: tuple[str, ...]
    sweep_s: int
    kafka_bootstrap_servers: str
    traces_endpoint: str | None
    kafka_topic: str
    cinema_topic: str
    cinema_events_reason: bool
    ticketing_topic: str
    orders_topic: str
    orders_group: str
    jwt_secret_keys: tuple[str, ...]
    jwt_key_set: str | None
    jwt_issuer: str | None
    jwt_audience: str | None
    encryption_keys: tuple[bytes, ...]
    default_currency: str
    rate_limits: tuple[Limit, ...]
    trusted_proxies: tuple[Network, ...]
    cors_origins: tuple[str, ...]
    host: str
    port: int
    public_url: str | None
    max_threads: int


def read(environ: Mapping[str, str]) -> Settings:
    """Raises SettingsInvalid naming each setting that is missing or wrong."""
    given = _Given(environ)
    settings = Settings(
        database_url=_database_url(given),
        stripe_api_key=given.required("STRIPE_API_KEY"),
        stripe_api_base=given.address("STRIPE_API_BASE"),
        stripe_raw_cards=given.switch("STRIPE_RAW_CARDS", default="off"),
        stripe_webhook_secrets=_webhook_secrets(given),
        sweep_s=given.number("STRIPE_SWEEP_S", 60, 3_600),
        kafka_bootstrap_servers=given.required("KAFKA_BOOTSTRAP_SERVERS"),
        traces_endpoint=given.address("OTEL_EXPORTER_OTLP_ENDPOINT"),
        kafka_topic=given.topic("KAFKA_TOPIC", "payments"),
        cinema_topic=given.topic("CINEMA_TOPIC", "movie_app_events"),
        cinema_events_reason=given.switch("CINEMA_EVENTS_REASON", default="off"),
        ticketing_topic=given.topic("TICKETING_TOPIC", "ticketing.payments"),
        orders_topic=given.topic("ORDERS_TOPIC", "orders"),
        orders_group=given.topic("ORDERS_GROUP", "payledger"),
        jwt_secret_keys=_jwt_secrets(given),
        jwt_key_set=given.optional("JWT_JWKS"),
        jwt_issuer=given.optional("JWT_ISSUER"),
        jwt_audience=given.optional("JWT_AUDIENCE"),
        encryption_keys=_encryption_keys(given),
        default_currency=_currency(given),
        rate_limits=_rate_limits(given),
        trusted_proxies=tuple(
            given.each("TRUSTED_PROXIES", ipaddress.ip_network, "addresses or networks, with commas")
        ),
        cors_origins=tuple(
            given.each("CORS_ORIGINS", _origin, "origins such as https://shop.example, with commas, or *")
        ),
        host=given.optional("PAYMENT_SERVICE_HOST") or "127.0.0.1",
        port=given.number("PAYMENT_SERVICE_PORT", DEFAULT_PORT, 65_535),
        public_url=(given.address("PUBLIC_URL") or "").rstrip("/") or None,
        max_threads=given.number("MAX_THREADS", 8, 64),
    )
    if given.problems:
        raise SettingsInvalid("; ".join(given.problems))
    return settings


# --- What is wrong is collected ----------------------------------------------------------------------------------


class _Given:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def optional(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def required(self, name: str) -> str:
        value = self.optional(name)
        if value is None:
            self.problems.append(f"{name} is not set")
        return value or ""

    def number(self, name: str, default: int, largest: int) -> int:
        text = self.optional(name) or str(default)
        if not _WHOLE.fullmatch(text) or not 1 <= int(text) <= largest:
            self.problems.append(f"{name} must be a whole number from 1 to {largest}")
            return default
        return int(text)

    def switch(self, name: str, *, default: str) -> bool:
        value = self.optional(name) or default
        if value not in {"on", "off"}:
            self.problems.append(f"{name} must be on or off")
        return value == "on"

    def address(self, name: str) -> str | None:
        value = self.optional(name)
        if value is not None and not _ADDRESS.fullmatch(value):
            self.problems.append(f"{name} must be an http(s) address, without a query or a password")
        return value

    def topic(self, name: str, default: str) -> str:
        value = self.optional(name) or default
        if not TOPIC.fullmatch(value):
            self.problems.append(f"{name} must be letters, digits, dots, underscores and hyphens")
        return value

    def each(self, name: str, read_one: Callable[[str], T], form: str) -> list[T]:
        """A list with commas."""
        try:
            return [read_one(part.strip()) for part in (self.optional(name) or "").split(",") if part.strip()]
        except ValueError:
            self.problems.append(f"{name} must be {form}")
            return []


# --- Settings that have a form -----------------------------------------------------------------------------------


def _database_url(given: _Given) -> str:
    text = given.required("DATABASE_URL")
    try:
        parts = {name for name, value in conninfo_to_dict(text).items() if value}
    except ProgrammingError:
        parts = set()
    if not {"host", "user", "dbname"} <= parts:
        given.problems.append(
            "DATABASE_URL must name a host, a user and a database: postgresql://user:password@host:5432/name"
        )
    return text


def _webhook_secrets(given: _Given) -> tuple[str, ...]:
    secrets = tuple(secret.strip() for secret in given.required("STRIPE_WEBHOOK_SECRET").split(","))
    if not all(secrets):  # against an empty one anybody can sign
        given.problems.append("STRIPE_WEBHOOK_SECRET must not be empty (several, for rotation, with commas)")
    return secrets


def _jwt_secrets(given: _Given) -> tuple[str, ...]:
    # Where others sign with keys of a set, no secret of ours is needed.
    text = given.optional("JWT_SECRET_KEY") if given.optional("JWT_JWKS") else given.required("JWT_SECRET_KEY")
    secrets = tuple(filter(None, (secret.strip() for secret in (text or "").split(","))))
    if text and not (secrets and all(len(secret.encode()) >= MIN_SECRET_BYTES for secret in secrets)):
        given.problems.append(
            f"JWT_SECRET_KEY must have at least {MIN_SECRET_BYTES} bytes (several, for rotation, with commas)"
        )
    return secrets


def _encryption_keys(given: _Given) -> tuple[bytes, ...]:
    text = given.required("ENCRYPTION_KEY")
    try:
        keys = tuple(bytes.fromhex(part) for part in text.split(",") if part.strip())
    except ValueError:
        keys = ()
    if text and not (keys and all(len(key) == ENCRYPTION_KEY_BYTES for key in keys)):
        given.problems.append(
            f"ENCRYPTION_KEY must be {ENCRYPTION_KEY_BYTES} bytes in hex (several, for rotation, with commas)"
        )
    return keys


def _currency(given: _Given) -> str:
    """Of contracts that name none."""
    currency = (given.optional("DEFAULT_CURRENCY") or "usd").lower()
    if currency not in EXPONENTS:
        given.problems.append("DEFAULT_CURRENCY must be an ISO 4217 currency")
    return currency


def _rate_limits(given: _Given) -> tuple[Limit, ...]:
    limits = (
        Limit(given.number("RATE_LIMIT_PER_MINUTE", 100, MAX_RATE), 60),
        Limit(given.number("RATE_LIMIT_PER_10_SECONDS", 20, MAX_RATE), 10),
    )
    return limits if given.switch("RATE_LIMIT", default="on") else ()


def _origin(text: str) -> str:
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError(text)
    return text
