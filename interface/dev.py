"""`payledger dev`: the whole system on one machine, in the foreground, with its data in one folder."""

import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import psycopg
from msgspec import Struct
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from application.stripe_events import ENABLED
from interface import walk
from interface.bootstrap import clock
from interface.migrations import migrate
from interface.sandbox.folder import FolderInUseError, free_port, lock_folder, remembered_port
from interface.sandbox.postgres import Postgres
from interface.sandbox.service import Process, ServiceError
from interface.sandbox.supervisor import Supervisor
from interface.settings import MIN_SECRET_BYTES
from interface.tokens import SCOPES, mint

TOKEN_LIFETIME = timedelta(days=365)
DEVELOPER = "developer"
# A key in form only: the stand-in checks that it is a test key, and nothing else.
STAND_IN_KEY = "sk_test_standin"
LOOPBACK = "127.0.0.1"
PICTURE_WIDTH = 84

console = Console(stderr=True, highlight=False)


class Handle(Struct, frozen=True):
    """What tools need to know of a running system: `DIR/dev.json`."""

    url: str
    database_url: str
    kafka: str
    stripe: str
    token: str
    pids: dict[str, int]


def run(port: int, data: Path, *, with_demo: bool) -> int:
    """Start everything, say so, and stay until told to stop. Answers the exit status."""

    def stay(handle: Handle, supervisor: Supervisor) -> None:
        if with_demo:
            _walk(handle, Console())
        walk.invite(handle.url, data, Console())
        supervisor.wait(lambda pids: _write(data, handle, pids))
        console.print("stopping; the data stays in", str(data))

    return _with_system(port, data, stay)


def demo(data: Path, picture: Path | None = None) -> int:
    """Walk a payment through the service that runs from this folder; if none does, through one of its own."""
    shown = Console(record=picture is not None, width=PICTURE_WIDTH if picture else None)
    handle = running(data)
    status = _with_system(free_port(), data, lambda started, _: _walk(started, shown)) if handle is None else 0
    if handle is not None:
        _walk(handle, shown)
    if picture is not None:
        # Without the web fonts that the template would have a viewer fetch.
        template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        shown.save_svg(str(picture), title="make run", code_format=template)
    return status


def _walk(handle: Handle, shown: Console) -> None:
    walk.walk(handle.url, handle.token, handle.kafka, shown)


def _with_system(port: int, data: Path, use: Callable[[Handle, Supervisor], None]) -> int:
    """Start the system, use it, stop it. The handle is there as long as the system is."""
    try:
        with lock_folder(data), Supervisor(data) as supervisor:
            try:
                use(_start(supervisor, port, data), supervisor)
            finally:
                (data / "dev.json").unlink(missing_ok=True)
    except (FolderInUseError, ServiceError, walk.WalkFailed, psycopg.Error, OSError) as error:
        console.print("payledger could not go on:", str(error), markup=False, style="red")
        return 1
    return 0


def running(data: Path) -> Handle | None:
    """The handle of the system that runs from this folder, if one does."""
    if not _held_by_another(data):
        return None
    try:
        return Handle(**json.loads((data / "dev.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def jwt_secret(data: Path) -> str:
    """The secret this folder's tokens are signed with."""
    named = os.environ.get("JWT_SECRET_KEY", "").split(",")[0].strip()
    return named or _secret(data, "jwt.key")


def _secret(data: Path, name: str) -> str:
    """32 random bytes in hex; made at first use, readable by their owner alone."""
    file = data / name
    if not file.exists():
        data.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
            out.write(secrets.token_hex(MIN_SECRET_BYTES))
    return file.read_text().strip()


# --- Start -------------------------------------------------------------------------------------------------------


def _start(supervisor: Supervisor, port: int, data: Path) -> Handle:
    """Start the stand-ins that the environment does not replace, then our own processes; write the handle."""
    with console.status("starting the database") as status:
        database_url = os.environ.get("DATABASE_URL") or _postgres(supervisor, data)
        status.update("preparing the database")
        migrate(database_url)
        status.update("starting the stand-ins")
        kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or _broker(supervisor, data)
        stripe_key, stripe_url = _stripe(supervisor, data, port)
        status.update("starting the service")
        env = _environment(port, data, database_url, kafka, stripe_key, stripe_url)
        supervisor.start([_ours(command, env) for command in ("api", "project", "publish", "consume", "recover")])
    token = mint(jwt_secret(data), DEVELOPER, SCOPES, clock(), TOKEN_LIFETIME)
    handle = Handle(f"http://{LOOPBACK}:{port}", database_url, kafka, stripe_url or "", token, {})
    return _write(data, handle, supervisor.pids)


def _postgres(supervisor: Supervisor, data: Path) -> str:
    postgres = Postgres(data, remembered_port(data, "postgres"))
    supervisor.start([postgres])
    return postgres.url


def _broker(supervisor: Supervisor, data: Path) -> str:
    port = remembered_port(data, "broker")
    supervisor.start([_stand_in("broker", port, data)])
    return f"{LOOPBACK}:{port}"


def _stripe(supervisor: Supervisor, data: Path, api_port: int) -> tuple[str, str | None]:
    """The key and address of Stripe: the real one when a key is given, else the stand-in's."""
    key = os.environ.get("STRIPE_API_KEY")
    if key:
        return key, os.environ.get("STRIPE_API_BASE")
    port = remembered_port(data, "stripe")
    hook = f"http://{LOOPBACK}:{api_port}/webhooks/stripe"
    env = {
        "STRIPE_WEBHOOK_URL": hook,
        "STRIPE_WEBHOOK_SECRET": _webhook_secret(data).split(",")[0],
        "STRIPE_WEBHOOK_EVENTS": ",".join(ENABLED),
    }
    supervisor.start([_stand_in("stripe", port, data, env)])
    return STAND_IN_KEY, f"http://{LOOPBACK}:{port}"


def _webhook_secret(data: Path) -> str:
    return os.environ.get("STRIPE_WEBHOOK_SECRET") or f"whsec_{_secret(data, 'webhook.key')}"


def _stand_in(name: str, port: int, data: Path, env: Mapping[str, str] | None = None) -> Process:
    program = [sys.executable, "-m", f"interface.sandbox.{name}", "--port", str(port), "--data", str(data / name)]
    return Process(name, program, env or {})


def _ours(command: str, env: Mapping[str, str]) -> Process:
    return Process(command, [sys.executable, "-m", "interface.cli", command], env)


def _environment(
    port: int, data: Path, database_url: str, kafka: str, stripe_key: str, stripe_url: str | None
) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "STRIPE_API_KEY": stripe_key,
        "STRIPE_API_BASE": stripe_url or "",
        "STRIPE_WEBHOOK_SECRET": _webhook_secret(data),
        "JWT_SECRET_KEY": os.environ.get("JWT_SECRET_KEY") or jwt_secret(data),
        "ENCRYPTION_KEY": os.environ.get("ENCRYPTION_KEY") or _secret(data, "encryption.key"),
        "PAYMENT_SERVICE_PORT": str(port),
        "PUBLIC_URL": os.environ.get("PUBLIC_URL", f"http://{LOOPBACK}:{port}"),
    }


def _write(data: Path, handle: Handle, pids: dict[str, int]) -> Handle:
    current = Handle(handle.url, handle.database_url, handle.kafka, handle.stripe, handle.token, pids)
    aside = data / "dev.json.new"
    aside.touch(mode=0o600)
    aside.write_text(json.dumps({name: getattr(current, name) for name in Handle.__struct_fields__}, indent=2) + "\n")
    aside.replace(data / "dev.json")
    return current


def _held_by_another(data: Path) -> bool:
    if not data.exists():
        return False
    try:
        with lock_folder(data):
            return False
    except FolderInUseError:
        return True
