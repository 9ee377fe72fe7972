"""Every setting, from the environment. A missing or impossible one is named, all at once, and its value never shown."""

from collections.abc import Mapping

from msgspec import Struct
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

MIN_SECRET_BYTES = 32
ENCRYPTION_KEY_BYTES = 32
DEFAULT_PORT = 8003


class SettingsInvalid(Exception):  # noqa: N818  it says what is so
    """The service cannot start with these settings."""


class Settings(Struct, frozen=True, kw_only=True):
    """`stripe_api_base` and `public_url` are for stand-ins and return addresses; None means Stripe's own, and none."""

    database_url: str
    stripe_api_key: str
    stripe_api_base: str | None
    kafka_bootstrap_servers: str
    kafka_topic: str
    jwt_secret_keys: tuple[str, ...]
    encryption_keys: tuple[bytes, ...]
    host: str
    port: int
    public_url: str | None
    max_threads: int


def read(environ: Mapping[str, str]) -> Settings:
    """Raises SettingsInvalid naming each setting that is missing or wrong."""
    problems: list[str] = []

    def required(name: str) -> str:
        value = environ.get(name, "").strip()
        if not value:
            problems.append(f"{name} is not set")
        return value

    def number(name: str, default: int, largest: int) -> int:
        text = environ.get(name, "").strip() or str(default)
        if not text.isdecimal() or not 1 <= int(text) <= largest:
            problems.append(f"{name} must be a whole number from 1 to {largest}")
            return default
        return int(text)

    secrets = tuple(filter(None, (key.strip() for key in required("JWT_SECRET_KEY").split(","))))
    if any(len(key.encode()) < MIN_SECRET_BYTES for key in secrets):
        problems.append(
            f"JWT_SECRET_KEY must have at least {MIN_SECRET_BYTES} bytes (several, for rotation, with commas)"
        )
    encryption_keys = []
    for text in required("ENCRYPTION_KEY").split(","):
        try:
            encryption_keys.append(bytes.fromhex(text.strip()))
        except ValueError:
            encryption_keys.append(b"")
    if any(len(key) != ENCRYPTION_KEY_BYTES for key in encryption_keys):
        problems.append(
            f"ENCRYPTION_KEY must be {ENCRYPTION_KEY_BYTES} bytes in hex (several, for rotation, with commas)"
        )
    if not {"host", "user", "dbname"} <= _parts(environ.get("DATABASE_URL", "")):
        problems.append(
            "DATABASE_URL must name a host, a user and a database: postgresql://user:password@host:5432/name"
        )
    settings = Settings(
        database_url=required("DATABASE_URL"),
        stripe_api_key=required("STRIPE_API_KEY"),
        stripe_api_base=environ.get("STRIPE_API_BASE") or None,
        kafka_bootstrap_servers=required("KAFKA_BOOTSTRAP_SERVERS"),
        kafka_topic=environ.get("KAFKA_TOPIC") or "payments",
        jwt_secret_keys=secrets,
        encryption_keys=tuple(encryption_keys),
        host=environ.get("PAYMENT_SERVICE_HOST") or "127.0.0.1",
        port=number("PAYMENT_SERVICE_PORT", DEFAULT_PORT, 65_535),
        public_url=(environ.get("PUBLIC_URL") or "").rstrip("/") or None,
        max_threads=number("MAX_THREADS", 8, 64),
    )
    if problems:
        raise SettingsInvalid("; ".join(problems))
    return settings


def _parts(database_url: str) -> set[str]:
    try:
        return {name for name, value in conninfo_to_dict(database_url).items() if value}
    except ProgrammingError:
        return set()
