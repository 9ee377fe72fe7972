"""`POST /v1/payments`, Stripe's stand-in and all on this machine: how many, how fast, and with a slow Stripe."""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from statistics import median

import msgspec

from tests.bench.bars import Bar, Limit, Series
from tests.bench.lab import Lab
from tests.bench.load import Load, Question, drive
from tests.bench.processes import per_request, used

# --- Sizes -------------------------------------------------------------------------------------------------------

FEW, SOME, MANY = 8, 32, 500
SLOW_MS = 300
ROUNDS, QUICK_ROUNDS = 4, 1
RAMP_S = 0.5

Asked = tuple[Load, str]

# --- Measure -----------------------------------------------------------------------------------------------------


def measure(lab: Lab) -> Iterator[Bar]:
    seconds = 8 if not lab.quick else 2
    _asked(lab, FEW, 1)
    few, some, many = list[Asked](), list[Asked](), list[Asked]()
    for _ in range(lab.size(ROUNDS, QUICK_ROUNDS)):
        few.append(_asked(lab, FEW, seconds))
        some.append(_asked(lab, SOME, seconds))
        # The many move in waves, as they all began at once: a wave to begin with, then some whole ones.
        wave_s = SLOW_MS / 1000 + MANY / some[-1][0].rate
        many.append(_asked(lab, MANY, max(seconds, 2 * wave_s), wave_s, slow=True))
    best = max(_rates(few), _rates(some), key=lambda series: series.median)
    yield Bar(
        what=f"POST /v1/payments, {FEW} callers",
        series=_rates(few),
        unit="/s",
        limit=Limit("≥", 400, "/s"),
        told=f"{few[-1][1]}; {SOME} callers {_rates(some).median:,.0f}/s",
    )
    yield Bar(
        what="its latency, less the stand-in's own answer time: median",
        series=Series(tuple(median(load.times) - median(load.probed) for load, _ in few)),
        unit="ms",
        limit=Limit("≤", 10, "ms"),
        told=f"all {median(few[-1][0].times):.1f} ms, stand-in {median(few[-1][0].probed):.1f} ms under the same load",
    )
    yield Bar(
        what=f"Stripe at {SLOW_MS} ms, {MANY} callers / the best at 0 ms",
        series=Series(tuple(100 * value for value in _rates(many).over(best).values)),
        unit="%",
        limit=Limit("≥", 90, "%"),
        told=f"{_rates(many).median:,.0f}/s / {best.median:,.0f}/s; median latency {median(many[-1][0].times):,.0f} ms",
    )
    statuses = sum((load.statuses for load, _ in few + some + many), Counter[int]())
    wrong = statuses.total() - statuses[201]
    yield Bar(
        what="answers that were not 201",
        series=Series((wrong,)),
        unit="",
        limit=Limit("≤", 0, ""),
        told=f"of {statuses.total():,}",
        proof=True,
    )


def _rates(found: list[Asked]) -> Series:
    return Series(tuple(load.rate for load, _ in found))


# --- Load --------------------------------------------------------------------------------------------------------


def _asked(lab: Lab, callers: int, seconds: float, ramp_s: float = RAMP_S, *, slow: bool = False) -> Asked:
    """The load, and what a request of it cost each process in processor time."""
    system = lab.system
    with system.slow_stripe("POST /v1/payment_intents", SLOW_MS) if slow else nullcontext():
        before = used(system.pids)
        load = lab.elsewhere(
            drive,
            [payment(system.url, system.token)],
            callers,
            seconds,
            ramp_s,
            None if slow else _probe(system.stripe),
        ).result()
        after = used(system.pids)
    asked = sum(load.statuses.values())
    own = f"asking {1000 * load.cpu_s / asked:.2f}"
    return load, f"processor ms a request: {per_request(before, after, asked)}, {own}"


def payment(url: str, token: str) -> Question:
    body = {
        "amount": 100_99,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "capture": "manual",
        "customer": "customer-1",
        "order": "order-1",
    }
    return Question(f"{url}/v1/payments", token, msgspec.json.encode(body))


def _probe(stripe: str) -> Question:
    """What the service asks of Stripe for one payment, asked directly: so long the stand-in itself takes."""
    form = (
        b"amount=10099&currency=usd&capture_method=manual&payment_method=pm_card_visa&confirm=true"
        b"&automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never"
        b"&metadata[payledger_payment]=probe&expand[0]=latest_charge"
        b"&payment_method_options[card][request_multicapture]=if_available"
    )
    kind = "application/x-www-form-urlencoded"
    return Question(f"{stripe}/v1/payment_intents", "sk_test_standin", form, kind)
