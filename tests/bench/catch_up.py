"""How fast `payment_status` follows the log: catching up from nothing, and live behind a steady writer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from application.event_store import Ledger
from domain.envelope import NO_PREVIOUS
from interface.bootstrap import FOLDING, collect_seldom, log_reader
from interface.signals import Bell, listen
from projections import payment_status
from projections.engine import CHANNEL, MAX_BATCH, Engine, checkpoint
from tests.bench.bars import Bar, Limit, Series, interleaved, quantile
from tests.bench.lab import TABLE, Lab, connect, one, open_ledger, settings_for
from tests.bench.payments import PAYMENT_STATUS, Shop, fill

# --- Sizes -------------------------------------------------------------------------------------------------------

FACTS, QUICK_FACTS = 250_000, 30_000
ROUNDS, QUICK_ROUNDS = 5, 2
LIVE_FACTS_A_SECOND = 1_000
LIVE_S, QUICK_LIVE_S = 20, 2
LIVE_WRITERS = 4
LOOK_S = 0.005
PATIENCE_S = 300

# --- Measure -----------------------------------------------------------------------------------------------------


def measure(lab: Lab) -> Iterator[Bar]:
    with lab.database() as url:
        facts = fill(lab, url, lab.size(FACTS, QUICK_FACTS), read_model=False)
        rates = interleaved(
            {
                "caught up": lambda: facts / lab.elsewhere(catch_up, url).result(),
                "decoded": lambda: facts / lab.elsewhere(_read, url, decode=True).result(),
                "read": lambda: facts / lab.elsewhere(_read, url, decode=False).result(),
            },
            lab.size(ROUNDS, QUICK_ROUNDS),
        )
    told = ", ".join(f"{name} {series.median:,.0f}" for name, series in rates.items())
    yield Bar(
        what="catch-up of payment_status",
        series=rates["caught up"],
        unit="facts/s",
        limit=Limit("≥", 50_000, "facts/s"),
        told=f"facts/s: {told}",
    )
    share = Series(tuple(100 * value for value in rates["caught up"].over(rates["read"]).values))
    yield Bar(what="the same / only reading the rows", series=share, unit="%")
    with lab.database() as url:
        lags = _live(lab, url, lab.size(LIVE_S, QUICK_LIVE_S))
    yield Bar(
        what=f"live lag at {LIVE_FACTS_A_SECOND:,} facts/s: p99",
        series=Series((quantile(lags, 0.99),)),
        unit="ms",
        limit=Limit("≤", 100, "ms"),
        told=f"median {quantile(lags, 0.5):.1f} ms, longest {max(lags):.1f} ms, of {len(lags):,} appends",
    )


# --- From nothing ------------------------------------------------------------------------------------------------


def catch_up(url: str) -> float:
    """Bring `payment_status` from nothing to the end of the log, as the product does; the seconds it took."""
    collect_seldom(FOLDING)
    with connect(url) as conn:
        conn.execute("TRUNCATE payment_status, checkpoints")
        last = one(conn, f"SELECT max(notification_id) FROM {TABLE}")
        with open_ledger(url) as ledger:
            engine = Engine(PAYMENT_STATUS, log_reader(ledger), url)
            thread = Thread(target=engine.run)
            start = time.perf_counter()
            thread.start()
            while checkpoint(conn, payment_status.NAME) < last and time.perf_counter() - start < PATIENCE_S:
                time.sleep(LOOK_S)
            took = time.perf_counter() - start
            engine.stop()
            thread.join()
        assert checkpoint(conn, payment_status.NAME) == last, "the read model did not reach the end of the log"
        assert not one(conn, "SELECT count(*) FROM parked"), "a stream was parked"
    return took


def _read(url: str, *, decode: bool) -> float:
    """Read the log from beginning to end in batches of the engine's size; the seconds it took."""
    collect_seldom(FOLDING)
    with open_ledger(url) as ledger:
        facts, start, position = log_reader(ledger), time.perf_counter(), 0
        if decode:
            while found := facts(position, MAX_BATCH):
                position = found[-1].position or 0
        else:
            while rows := ledger.read(position, MAX_BATCH):
                position = rows[-1].id
        return time.perf_counter() - start


# --- Live --------------------------------------------------------------------------------------------------------


def _live(lab: Lab, url: str, seconds: int) -> list[float]:
    """Milliseconds from the end of an append until its facts are in the read model, for each append."""
    with _projecting(url):
        return lab.elsewhere(lags, url, seconds).result()


@contextmanager
def _projecting(url: str) -> Iterator[None]:
    """`payledger project` in a process of its own, as it is deployed."""
    command = [sys.executable, "-m", "interface.cli", "project"]
    with subprocess.Popen(
        command, env=os.environ | settings_for(url), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready"), "payledger project did not start"
            yield
        finally:
            process.terminate()


def lags(url: str, seconds: int) -> list[float]:
    """Append at a steady pace, and hear from the engine how far it is."""
    ended: list[tuple[int, float]] = []
    heard: list[tuple[int, float]] = []
    bell, stopping = Bell(url), Event()

    def hear(said: str) -> None:
        name, _, position = said.partition(" ")
        if name == payment_status.NAME:
            heard.append((int(position), time.perf_counter()))

    listener = Thread(target=listen, args=(url, CHANNEL, hear, stopping))
    listener.start()
    bell.start()
    with open_ledger(url, LIVE_WRITERS, bell.ring) as ledger:
        writers = [Thread(target=_write, args=(ledger, number, seconds, ended)) for number in range(LIVE_WRITERS)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    deadline = time.perf_counter() + PATIENCE_S
    while max(heard, default=(0,))[0] < max(ended)[0] and time.perf_counter() < deadline:
        time.sleep(LOOK_S)
    stopping.set()
    bell.stop()
    listener.join()
    return _matched(sorted(ended), heard)


def _write(ledger: Ledger, number: int, seconds: int, ended: list[tuple[int, float]]) -> None:
    shop, pause = Shop(time.time_ns() + number), 2 * LIVE_WRITERS / LIVE_FACTS_A_SECOND
    due = time.perf_counter() + pause * number / LIVE_WRITERS
    for _ in range(int(seconds / pause)):
        payment = shop.authorized()
        time.sleep(max(0.0, due - time.perf_counter()))
        position = ledger.append(payment, NO_PREVIOUS).envelopes[-1].position
        ended.append((position or 0, time.perf_counter()))
        due += pause


def _matched(ended: list[tuple[int, float]], heard: list[tuple[int, float]]) -> list[float]:
    """For each append the first word of a read model at or past it; both in order of position."""
    lags, words = [], iter(heard)
    reached, at = next(words)
    for position, appended_at in ended:
        while reached < position:
            reached, at = next(words)
        lags.append(max(0.0, at - appended_at) * 1000)
    return lags


if __name__ == "__main__":
    catch_up(sys.argv[1])
