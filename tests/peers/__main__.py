"""`python -m tests.peers [kafka] [stripe] [postgres]`: the tests again, beside the real services; default: all three.

What a machine lacks is said and left out. What is there and fails is an error.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import grimp

from interface.sandbox.postgres_programs import PROGRAMS_VARIABLE, find_system_programs
from tests.brokers import UNDER_TEST
from tests.peers import beside_stripe_mock, real_kafka, stripe_mock

ADDRESS = "KAFKA_BOOTSTRAP_SERVERS"
LIMIT_S = 40 * 60  # for one of them; all of them take a quarter of an hour on two cores that are free
# A broker of Java's that is killed needs seconds to come back.
PATIENT = "--timeout=300"
STRIPE_TESTS = (
    "tests/test_stripe_gateway.py",
    "tests/test_stripe_standing.py",
    "tests/test_stripe_billing.py",
    "tests/test_stripe_billing_lookups.py",
    "tests/test_bare_charges.py",
    "tests/test_raw_cards.py",
    "tests/peers/requests_seldom_sent.py",
)
ALL_TESTS = ("--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder")


class NotHereError(Exception):
    """The real service cannot be had on this machine; the message says what is missing."""


def kafka() -> bool:
    """All tests that have their broker from tests/brokers.py, directly or through a helper, against Apache Kafka."""
    users = grimp.build_graph("tests").find_downstream_modules("tests.brokers")
    files = [
        f"tests/{name}.py" for name in sorted(user.rpartition(".")[2] for user in users) if name.startswith("test_")
    ]
    with _broker() as address:
        return _pass(PATIENT, *files, **{UNDER_TEST: address})


def stripe() -> bool:
    """What the adapters ask of Stripe, against Stripe's own description of its API."""
    given = os.environ.get(beside_stripe_mock.URL)
    if not given:
        _have("stripe-mock", stripe_mock.missing_tools(), stripe_mock.install)
    with nullcontext(given) if given else stripe_mock.running() as url:
        return _pass("-p", "tests.peers.beside_stripe_mock", *STRIPE_TESTS, **{beside_stripe_mock.URL: url})


def postgres() -> bool:
    """The whole suite on the system's PostgreSQL."""
    programs = find_system_programs()
    if programs is None:
        raise NotHereError("the system has no PostgreSQL beside the wheel's")
    subprocess.run([programs / "postgres", "--version"], check=True)
    return _pass(*ALL_TESTS, **{PROGRAMS_VARIABLE: str(programs)})


PEERS: dict[str, Callable[[], bool]] = {"kafka": kafka, "stripe": stripe, "postgres": postgres}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(PEERS)}; default: all")
    names = parser.parse_args().names
    if unknown := set(names) - PEERS.keys():
        parser.error(f"there is no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    came_to = {name: _run(name) for name in PEERS if not names or name in names}
    print("\n" + "\n".join(f"{name:9} {said}" for name, said in came_to.items()))  # noqa: T201
    return 1 if any(said.startswith("FAILED") for said in came_to.values()) else 0


def _run(name: str) -> str:
    print(f"\n── {name} " + "─" * 60, flush=True)  # noqa: T201
    began_s = time.monotonic()
    try:
        word = "passed" if PEERS[name]() else "FAILED"
    except NotHereError as error:
        return f"not run: {error}"
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        word = f"FAILED: {error}"
    return f"{word} in {time.monotonic() - began_s:.0f} s"


@contextmanager
def _broker() -> Iterator[str]:
    """The one of KAFKA_BOOTSTRAP_SERVERS, or one that lives as long as the tests."""
    if given := os.environ.get(ADDRESS):
        yield given
        return
    _have("Apache Kafka", real_kafka.missing_tools(), real_kafka.install)
    with tempfile.TemporaryDirectory(prefix="payledger-kafka-", ignore_cleanup_errors=True) as folder:
        broker = real_kafka.RealKafka(Path(folder) / "data")
        try:
            yield broker.address
        finally:
            broker.kill()


def _have(what: str, missing: list[str], install: Callable[[], None]) -> None:
    """Raises NotHereError."""
    if missing:
        raise NotHereError(f"{what} needs {' and '.join(missing)}, or an address in the environment")
    try:
        install()
    except (OSError, subprocess.SubprocessError) as error:
        raise NotHereError(f"{what} cannot be fetched now ({error})") from error


def _pass(*arguments: str, **environment: str) -> bool:
    """Whether these tests pass. The rest of the environment names no real service."""
    inherited = {name: value for name, value in os.environ.items() if name != ADDRESS}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, env=inherited | environment, check=False, timeout=LIMIT_S).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
