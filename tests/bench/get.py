"""`GET /v1/payments/{id}` over the emptiest route of the same server."""

import time
from collections.abc import Iterator, Sequence

import msgspec

from tests.bench.bars import Bar, Limit, Series, interleaved
from tests.bench.lab import Lab
from tests.bench.load import Question, answers, drive
from tests.bench.post import payment

# --- Sizes -------------------------------------------------------------------------------------------------------

PAYMENTS, QUICK_PAYMENTS = 1_000, 200
ROUNDS, QUICK_ROUNDS = 7, 3
CALLERS = 16
# The read model is there long before this.
SETTLE_S = 1.0

# --- Measure -----------------------------------------------------------------------------------------------------


def measure(lab: Lab) -> Iterator[Bar]:
    system = lab.system
    made = lab.elsewhere(answers, [payment(system.url, system.token)] * lab.size(PAYMENTS, QUICK_PAYMENTS)).result()
    ids = [msgspec.json.decode(body)["id"] for body in made]
    time.sleep(SETTLE_S)
    one = [Question(f"{system.url}/v1/payments/{name}", system.token) for name in ids]
    empty = [Question(f"{system.url}/health", system.token)]
    seconds = 3 if not lab.quick else 0.7
    rates = interleaved(
        {"one": lambda: _rate(lab, one, seconds), "empty": lambda: _rate(lab, empty, seconds)},
        lab.size(ROUNDS, QUICK_ROUNDS),
    )
    yield Bar(
        what="GET /v1/payments/{id} / GET /health",
        series=Series(tuple(100 * value for value in rates["one"].over(rates["empty"]).values)),
        unit="%",
        limit=Limit("≥", 40, "%"),
        told=f"{rates['one'].median:,.0f}/s, {rates['empty'].median:,.0f}/s, {CALLERS} callers",
    )


def _rate(lab: Lab, questions: Sequence[Question], seconds: float) -> float:
    load = lab.elsewhere(drive, questions, CALLERS, seconds).result()
    assert set(load.statuses) == {200}, f"not all were answered: {load.statuses}"
    return load.rate
