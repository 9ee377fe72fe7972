"""Every operation, every await point, every fault: afterwards the ledger and Stripe say the same, whatever the order.

`FAULT_SEED=123 pytest tests/test_faults.py` plays one seed. What each guard is for is shown by processes that lack it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from application.event_store import Loaded
from application.gateway import AnyInstruction, Instruction, Unknown
from application.history import History
from application.inbox import Event
from application.payment_stream import Context
from application.settlement import Settlement
from domain.envelope import Envelope
from domain.payment_commands import Outcome, RecordCaptured, RecordFailed, RecordRefunded, RecordVoided
from domain.payment_decisions import decide
from domain.payment_facts import Failure, PaymentFact
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from tests.fault_differences import Played, played
from tests.fault_runs import MATRIX
from tests.faults import Gateway, Parts, Streams, stand_in

ONE = os.environ.get("FAULT_SEED")
# A planted bug has as many runs to be found in, beginning where money is at stake.
FIRST = MATRIX.index(("authorize", "call", "killed before"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with stand_in() as url:
        yield url


@pytest.fixture(scope="module")
def log_url(postgres: Postgres) -> str:
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE faults")
    url = postgres.url.rpartition("/")[0] + "/faults"
    migrate(url)
    return url


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What is left open is what this is about."""
    caplog.set_level("CRITICAL", "application")


def told(runs: Sequence[Played]) -> str:
    return "\n" + "\n".join(str(run) for run in runs if run.differences)


def test_after_any_fault_at_any_await_point_the_ledger_and_stripe_say_the_same(url: str, log_url: str) -> None:
    runs = played(url, log_url, [int(ONE)] if ONE else range(len(MATRIX)))
    assert not any(run.differences for run in runs), told(runs)
    missed = set(MATRIX) - {run.struck for run in runs}
    assert ONE or not missed, "each class of fault has struck"
    assert not {run.struck for run in runs if run.slow}, "everything has healed within a minute"


# --- Planted bugs ------------------------------------------------------------------------------------------------


class IntentAfterwards(Streams):
    """The intent is only remembered, and recorded together with the outcome."""

    _kept: tuple[History, tuple[PaymentFact, ...], str | None] | None = None

    async def append(
        self,
        history: History,
        facts: tuple[PaymentFact, ...],
        context: Context,
        operation: str | None = None,
        asked: str | None = None,
    ) -> History:
        if asked:
            self._kept = history, facts, asked
            told = tuple(
                Envelope(
                    stream=history.stream,
                    version=history.version + number,
                    fact=fact,
                    at=self.points.provider.clock(),
                    actor=context.actor,
                    operation=operation,
                    correlation=context.correlation,
                    causation=None,
                    fingerprint=asked,
                    position=1,
                )
                for number, fact in enumerate(facts, 1)
            )
            return history.followed_by(Loaded(told, history.tail))
        if self._kept is not None:
            (history, intent, asked), self._kept = self._kept, None
            facts = intent + facts
        return await super().append(history, facts, context, operation, asked)


class RandomKey(Gateway):
    """Every call has a key of its own."""

    async def _post(self, path: str, params: object, instruction: Instruction, step: str = ""):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return await super()._post(path, params, instruction, step + uuid4().hex)


class KeyForEver(Settlement):
    """A key is sent again however old it is."""

    def key_lives(self, history: History, operation: str) -> bool:
        return history.started(operation) is not None


class OutcomeFirst(Settlement):
    """The outcome is recorded before the provider has answered."""

    async def perform(self, history: History, operation: str, context: Context) -> History:
        assert history.payment is not None
        wished = history.payment.operations[operation]
        hoped: dict[str, Outcome] = {
            "capture": RecordCaptured(operation, wished.amount, wished.final, "ch_hoped", "req_hoped"),
            "void": RecordVoided(operation, "req_hoped"),
            "refund": RecordRefunded(operation, wished.amount, "re_hoped", "req_hoped"),
        }
        if wished.kind not in hoped:
            return await super().perform(history, operation, context)
        facts = decide(history.payment, hoped[wished.kind])
        recorded = await self._streams.append(history, facts, context, operation)
        await super().perform(history, operation, context)
        return recorded


class FailureGuessed(Gateway):
    """No answer is taken for a no."""

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        outcome = await super().perform(instruction)
        if isinstance(outcome, Unknown):
            guess = Failure(outcome.reason, None, "no answer", retryable=True)
            return RecordFailed(instruction.operation, guess, "req_guessed")
        return outcome


def without_key(event: Event) -> Event:
    """Whatever is delivered again is taken for new."""
    return Event(**{name: getattr(event, name) for name in event.__struct_fields__} | {"event_id": uuid4().hex})


@pytest.mark.skipif(ONE is not None, reason="one seed is played")
@pytest.mark.parametrize(
    "planted",
    [
        replace(Parts(), streams=IntentAfterwards),
        replace(Parts(), gateway=RandomKey),
        replace(Parts(), settlement=KeyForEver),
        replace(Parts(), settlement=OutcomeFirst),
        replace(Parts(), gateway=FailureGuessed),
        replace(Parts(), event_as=without_key),
    ],
    ids=[
        "the intent is not written",
        "random key",
        "old key",
        "outcome before reply",
        "guessed failure",
        "no inbox key",
    ],
)
def test_a_planted_bug_is_caught(url: str, log_url: str, planted: Parts) -> None:
    runs = played(url, log_url, range(FIRST, FIRST + len(MATRIX)), planted, until_found=True)
    assert any(run.differences for run in runs), "somebody noticed"
