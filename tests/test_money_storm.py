"""No money is moved twice and none is lost: seeded faults by the thousand, and `kill -9` of everything under load.

`make torture` plays 2,000 seeds and kills all processes 20 times; the suite, a few (tests/torture.py).
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from unittest.mock import patch

import pytest

from interface.migrations import migrate
from tests.fault_differences import played
from tests.fault_runs import MATRIX
from tests.faults import stand_in
from tests.money_storm import MANNERS, Load, differences, heal, tried
from tests.system import System, running
from tests.torture import SIZE

# A stand-in for so many runs: it lists all it has.
RUNS_EACH = 100
PATIENCE_S = 120
# Of what callers are told between two kills.
ENOUGH = 12


@pytest.fixture(scope="module")
def tally() -> Iterator[Counter[str]]:
    """What both storms moved, said in one line."""
    tally: Counter[str] = Counter()
    yield tally
    said = f"wishes {tally['wishes']:,}, Stripe movements {tally['movements']:,}, differences: {tally['differences']}"
    print(f"\n{tally['runs']:,} fault runs, {tally['kills']} kills of everything: {said}")  # noqa: T201


def test_whatever_fails_wherever_the_ledger_and_stripe_say_the_same(
    database_url: str, tally: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "application")
    migrate(database_url)
    found = []
    seeds = range(len(MATRIX), len(MATRIX) + SIZE.fault_runs)
    for first in range(0, len(seeds), RUNS_EACH):
        # Every other one shows a release as Stripe may, as a refund that moved nothing.
        with stand_in(*["--release-as-refund"] * (first // RUNS_EACH % 2)) as url:
            runs = played(url, database_url, seeds[first : first + RUNS_EACH])
        found += [str(run) for run in runs if run.differences]
        tally["runs"] += len(runs)
        tally["wishes"] += sum(run.wishes for run in runs)
        tally["movements"] += sum(run.movements for run in runs)
    tally["differences"] += len(found)
    assert not found, "\n".join(found)


@pytest.fixture
def victim() -> Iterator[System]:
    """A system that reads Stripe's list of events often, as webhooks are dropped."""
    with patch.dict(os.environ, STRIPE_SWEEP_S="2"), running() as system:
        yield system


def test_killing_everything_under_load_loses_nothing_and_moves_nothing_twice(
    victim: System, tally: Counter[str]
) -> None:
    chance = Random(SIZE.kills)
    with Load(victim, seed=SIZE.kills) as load:
        for _ in range(SIZE.kills):
            deliver(victim, chance.choice(MANNERS))
            load.go_on(ENOUGH, PATIENCE_S)
            for name in chance.sample(sorted(victim.pids), 2):
                with suppress(ProcessLookupError):
                    os.kill(victim.pids[name], signal.SIGKILL)
            load.go_on(chance.randrange(3), PATIENCE_S)
            victim.kill_everything()
            victim.start()
        load.go_on(ENOUGH, PATIENCE_S)
    heal(victim, PATIENCE_S, hasten=SIZE.kills == 1)
    found, movements = differences(victim, load.customers)
    tally.update(kills=SIZE.kills, wishes=load.wishes, movements=movements, differences=len(found))
    assert not found, "\n".join(found)
    assert tried(load.customers)["done"] > ENOUGH * SIZE.kills


def deliver(system: System, manner: str) -> None:
    """How webhooks arrive from now on, where that can be told to the stand-in."""
    told = system._control.post(f"{system.stripe}/_sandbox/webhooks", json={"mode": manner, "percent": 30})
    assert told.status_code == 200, told.text
