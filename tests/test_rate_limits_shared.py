"""Limits and refused tokens hold for a caller, whichever of several API processes answers."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from tempfile import TemporaryFile
from typing import IO
from uuid import uuid4

import httpx
import pytest

from interface.dev import STAND_IN_KEY
from interface.sandbox.folder import free_port
from interface.tokens import mint
from tests.processes import eventually
from tests.system import ANSWER_S, CHECKOUT, START_S, STOP_S, System, problem

HOUR = timedelta(hours=1)
# A window that no test fills, so that the other one is what refuses.
WIDE = "1000000"
MINUTE = {"RATE_LIMIT_PER_MINUTE": "4", "RATE_LIMIT_PER_10_SECONDS": WIDE}
TEN_SECONDS = {"RATE_LIMIT_PER_MINUTE": WIDE, "RATE_LIMIT_PER_10_SECONDS": "3"}
CLICKS = 40

Two = list[httpx.Client]


def environment(system: System, **settings: str) -> dict[str, str]:
    """What `payledger api` needs to belong to a system that runs."""
    return {
        **os.environ,
        "DATABASE_URL": system.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": system.kafka,
        "STRIPE_API_KEY": STAND_IN_KEY,
        "STRIPE_API_BASE": system.stripe,
        "STRIPE_WEBHOOK_SECRET": f"whsec_{secret(system, 'webhook.key')}",
        "JWT_SECRET_KEY": secret(system, "jwt.key"),
        "ENCRYPTION_KEY": secret(system, "encryption.key"),
        "PAYMENT_SERVICE_PORT": str(free_port()),
        **settings,
    }


def secret(system: System, name: str) -> str:
    return (system.data / name).read_text().strip()


@contextmanager
def one_more_api(system: System, **settings: str) -> Iterator[httpx.Client]:
    """An API process of its own on a system's database, until the end of the block."""
    with TemporaryFile() as output, api(environment(system, **settings), output) as client:
        yield client


@contextmanager
def api(given: Mapping[str, str], output: IO[bytes]) -> Iterator[httpx.Client]:
    """An API process with this environment, which writes what it logs there."""
    command = [sys.executable, "-m", "interface.cli", "api"]
    with (
        subprocess.Popen(command, cwd=CHECKOUT, env=given, stdout=output, stderr=subprocess.STDOUT) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{given['PAYMENT_SERVICE_PORT']}", timeout=ANSWER_S) as client,
    ):
        try:
            eventually(lambda: process.poll() is not None or is_up(client), START_S)
            output.seek(0)
            assert process.poll() is None, output.read().decode()
            yield client
        finally:
            process.terminate()
            process.wait(STOP_S)


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def at_once(*starting: AbstractContextManager[httpx.Client]) -> Iterator[list[httpx.Client]]:
    """Processes that take their time to start, started at the same time."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        yield list(pool.map(stack.enter_context, starting))


def two(system: System, settings: Mapping[str, str]) -> AbstractContextManager[list[httpx.Client]]:
    return at_once(*(one_more_api(system, **settings) for _ in range(2)))


@pytest.fixture(scope="module")
def counting(system: System) -> Iterator[Two]:
    """Two processes behind proxies of ours that let a caller ask four times a minute."""
    with two(system, MINUTE | {"TRUSTED_PROXIES": "127.0.0.0/8, 10.0.0.0/8"}) as processes:
        yield processes


@pytest.fixture(scope="module")
def counting_briefly(system: System) -> Iterator[Two]:
    """Two that trust nobody and let a caller ask three times in ten seconds."""
    with two(system, TEN_SECONDS) as processes:
        yield processes


def bearer(system: System, subject: str | None = None, jti: str | None = None) -> dict[str, str]:
    """A caller that nobody has counted yet."""
    name = subject or f"caller-{uuid4()}"
    scopes = ("read:payment", "write:payment")
    token = mint(secret(system, "jwt.key"), name, scopes, datetime.now(UTC), HOUR, jti=jti or str(uuid4()))
    return {"Authorization": f"Bearer {token}"}


def at_door_of(client: httpx.Client, address: str) -> httpx.Client:
    """A caller of the same process who comes from that address."""
    return httpx.Client(
        base_url=client.base_url, timeout=ANSWER_S, transport=httpx.HTTPTransport(local_address=address)
    )


def asked(client: httpx.Client, caller: dict[str, str]) -> httpx.Response:
    return client.get("/v1/orders", headers=caller)


# --- Limits ------------------------------------------------------------------------------------------------------


def refused_past(allowed: int, window_s: int, system: System, processes: Two) -> None:
    """Ask both in turn: as often as it is allowed, and twice more."""
    began_s = time.time()
    ada = bearer(system)
    answers = [asked(client, ada) for client in islice(cycle(processes), allowed + 2)]
    told = [
        (answer.status_code, answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"])
        for answer in answers
    ]
    granted = [(200, str(allowed), str(left)) for left in reversed(range(allowed))]
    assert told == granted + [(429, str(allowed), "0")] * 2
    refused = answers[allowed:]
    for answer in refused:
        assert problem(answer, 429)["type"].endswith("too-many-requests")
        assert 1 <= int(answer.headers["Retry-After"]) <= window_s
    resets = {int(answer.headers["X-RateLimit-Reset"]) for answer in answers}
    assert len(resets) == 1, "both name the same moment, when the first request leaves the window"
    assert began_s + window_s <= resets.pop() <= time.time() + window_s + 1
    for client in processes:
        assert asked(client, bearer(system)).status_code == 200, "nobody else is refused for it"


def test_what_one_process_has_counted_in_a_minute_another_counts_on(system: System, counting: Two) -> None:
    refused_past(4, 60, system, counting)


def test_what_one_process_has_counted_in_ten_seconds_another_counts_on(system: System, counting_briefly: Two) -> None:
    refused_past(3, 10, system, counting_briefly)


def test_clicks_on_both_processes_at_once_are_counted_together(system: System, counting: Two) -> None:
    ada = bearer(system)
    with ThreadPoolExecutor(CLICKS) as clicks:
        answers = clicks.map(lambda client: asked(client, ada).status_code, islice(cycle(counting), CLICKS))
        assert Counter(answers) == {200: 4, 429: CLICKS - 4}


def test_tokens_of_one_caller_share_its_limit(system: System, counting: Two) -> None:
    name = f"caller-{uuid4()}"
    answers = [asked(client, bearer(system, name)).status_code for client in islice(cycle(counting), 5)]
    assert answers == [200] * 4 + [429]


def test_who_has_no_token_is_counted_by_address_whatever_it_says_that_it_forwards(
    system: System, counting_briefly: Two
) -> None:
    guesses = [{"X-Forwarded-For": f"203.0.113.{number}", "Authorization": f"Bearer {uuid4()}"} for number in range(5)]
    address = f"127.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(2, 255)}"  # nobody else's
    with ExitStack() as stack:
        two_doors = [stack.enter_context(at_door_of(client, address)) for client in counting_briefly]
        answers = [asked(door, guess) for door, guess in zip(cycle(two_doors), guesses, strict=False)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 2
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0", "0"]
    assert asked(counting_briefly[0], bearer(system)).status_code == 200


def test_behind_our_own_proxies_the_address_that_they_name_is_counted(counting: Two) -> None:
    for _ in range(2):
        client = f"2001:db8::{uuid4().hex[:4]}"
        told = [client, f"198.51.100.7, {client}", f"{client}, 10.1.2.3", f"nonsense, {client}, 127.0.0.9"]
        hops = [{"X-Forwarded-For": one} for one in (*told, client, client)]
        answers = [asked(process, hop).status_code for process, hop in zip(cycle(counting), hops, strict=False)]
        assert answers == [401] * 4 + [429] * 2


def test_who_looks_after_the_service_is_not_counted(counting: Two) -> None:
    for path in ("/health", "/ready", "/metrics", "/schema/openapi.json"):
        assert {counting[0].get(path).status_code for _ in range(6)} == {200}, path


def test_a_process_whose_limits_are_off_lets_everybody_and_counts_nobody(system: System, counting: Two) -> None:
    ada = bearer(system)
    for _ in range(10):
        answer = asked(system.http, ada)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    assert asked(counting[0], ada).headers["X-RateLimit-Remaining"] == "3"


# --- Tokens ------------------------------------------------------------------------------------------------------


def test_a_token_taken_back_at_one_process_is_refused_there_at_once_and_soon_by_others(
    system: System, counting: Two
) -> None:
    here, there, jti = system.http, counting[0], str(uuid4())

    def shown(client: httpx.Client) -> httpx.Response:
        return asked(client, bearer(system, jti=jti))  # by a caller that nobody has counted

    assert [shown(client).status_code for client in (here, there)] == [200, 200]
    taken_back = here.post(f"/v1/tokens/{jti}/invalidation", json={}, headers=bearer(system, jti=jti))
    assert taken_back.status_code == 200
    assert problem(shown(here), 401)["detail"] == "the token was invalidated"
    eventually(lambda: shown(there).status_code == 401)
    with one_more_api(system, RATE_LIMIT="off") as later:
        assert shown(later).status_code == 401, "and at once by a process that starts later"
