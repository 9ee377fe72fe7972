"""Appending two facts: ours, the library's safe recorder, its fast one that loses facts, and bare `pgbench`.

Then a storm: as many writers with a live reader behind them, and how many facts the reader never saw.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from threading import Event, Thread
from typing import Literal, cast
from urllib.parse import urlsplit

from eventsourcing.postgres import PostgresApplicationRecorder, PostgresFactory
from msgspec.structs import replace

from application.event_store import Ledger
from domain.envelope import NO_PREVIOUS, Envelope
from interface.sandbox.postgres_programs import find_programs
from tests.bench.bars import Bar, Limit, Series, interleaved
from tests.bench.lab import TABLE, Lab, connect, one, open_ledger
from tests.bench.payments import Shop, written

Recorder = Literal["ours", "library", "unsafe"]

# --- Sizes -------------------------------------------------------------------------------------------------------

WRITERS = (1, 8, 32)
JUDGED = (8, 32)
PREPARED = 200
WARM_S = 0.3
# Measuring goes on, however slow the machine, until so many were made.
MIN_APPENDS = 50
LOOK_S = 0.01
READ_AT_ONCE = 1_000

# --- Measure -----------------------------------------------------------------------------------------------------


def measure(lab: Lab) -> Iterator[Bar]:
    rounds, seconds, transactions = lab.size(5, 2), 3 if not lab.quick else 0.25, lab.size(20_000, 3_000)
    with lab.database() as ours, lab.database() as library, lab.database() as unsafe, lab.database() as bare:
        for writers in WRITERS:
            rates = interleaved(
                {
                    "ours": partial(_appends, lab, ours, "ours", writers, seconds),
                    "library": partial(_appends, lab, library, "library", writers, seconds),
                    "unsafe": partial(_appends, lab, unsafe, "unsafe", writers, seconds),
                    "pgbench": partial(_pgbench, bare, writers, transactions),
                },
                rounds,
            )
            yield from _bars(writers, rates)
    for writers in JUDGED[lab.quick :]:
        yield from _storms(lab, writers, 10 if not lab.quick else 1)


def _bars(writers: int, rates: Mapping[str, Series]) -> Iterator[Bar]:
    many = f"{writers} writer{'s' if writers > 1 else ''}"
    judged = writers in JUDGED
    told = ", ".join(f"{name} {series.median:,.0f}" for name, series in rates.items())
    over = {name: rates["ours"].over(series) for name, series in rates.items()}
    yield Bar(
        what=f"append, {many}: ours / library's default",
        series=over["library"],
        limit=Limit("≥", 4) if judged else None,
        told=f"appends/s: {told}",
    )
    yield Bar(
        what=f"append, {many}: ours / pgbench",
        series=Series(tuple(100 * value for value in over["pgbench"].values)),
        unit="%",
        limit=Limit("≥", 40, "%") if judged else None,
    )
    yield Bar(what=f"append, {many}: ours / library's fast mode", series=over["unsafe"])


def _storms(lab: Lab, writers: int, seconds: float) -> Iterator[Bar]:
    skipped, written_, rate = _storm(lab, "ours", writers, seconds)
    yield Bar(
        what=f"storm, {writers} writers: facts a live reader skipped",
        series=Series((skipped,)),
        unit="",
        limit=Limit("≤", 0, ""),
        told=f"of {written_:,} facts at {rate:,.0f} appends/s, reader included",
        proof=True,
    )
    skipped, written_, rate = _storm(lab, "unsafe", writers, seconds)
    yield Bar(
        what=f"storm, {writers} writers: skipped in the library's fast mode",
        series=Series((skipped,)),
        unit="",
        told=f"of {written_:,} facts at {rate:,.0f} appends/s",
    )


# --- Writers -----------------------------------------------------------------------------------------------------


def _appends(lab: Lab, url: str, recorder: Recorder, writers: int, seconds: float) -> float:
    """Appends a second, by threads of one process as in the service."""
    return lab.elsewhere(append_for, url, recorder, writers, seconds).result()


def append_for(url: str, recorder: Recorder, writers: int, seconds: float) -> float:
    """Append from so many threads for so long, each payment new; answer how many a second.

    What they do before that, until every connection is there and warm, is not counted.
    """
    with open_ledger(url, writers) as ledger:
        _use(ledger, recorder)
        done, counts = Event(), [0] * writers
        shop = Shop(time.time_ns())
        begun = [shop.authorized() for _ in range(PREPARED)]

        def write(number: int) -> None:
            ids = Shop(time.time_ns() + number)
            while not done.is_set():
                ledger.append(_renamed(begun[counts[number] % PREPARED], ids), NO_PREVIOUS)
                counts[number] += 1

        threads = [Thread(target=write, args=(number,)) for number in range(writers)]
        for thread in threads:
            thread.start()
        time.sleep(WARM_S)
        before, start = sum(counts), time.perf_counter()
        while time.perf_counter() - start < seconds or sum(counts) - before < MIN_APPENDS:
            time.sleep(LOOK_S)
        total, took = sum(counts) - before, time.perf_counter() - start
        done.set()
        for thread in threads:
            thread.join()
    return total / took


def _renamed(payment: list[Envelope], ids: Shop) -> list[Envelope]:
    """The same facts of another payment."""
    stream = ids.uuid()
    return [replace(envelope, stream=stream) for envelope in payment]


def _use(ledger: Ledger, recorder: Recorder) -> None:
    """Put one of the library's recorders in the place of ours; everything around it stays the same."""
    if recorder == "ours":
        return
    datastore = cast(PostgresFactory, ledger.factory).datastore
    datastore.enable_db_functions = recorder == "unsafe"
    library = PostgresApplicationRecorder(datastore, events_table_name=TABLE)
    library.create_table()
    ledger.recorder = library  # type: ignore[assignment]  # the one thing that differs


# --- A live reader -----------------------------------------------------------------------------------------------


def _storm(lab: Lab, recorder: Recorder, writers: int, seconds: float) -> tuple[int, int, float]:
    """Facts that a live reader skipped, facts written, appends a second. Raises AssertionError if order was lost."""
    with lab.database() as url, open_ledger(url) as ledger:
        _use(ledger, recorder)
        over, seen = Event(), list[int]()

        def follow() -> None:
            while True:
                last_look = over.is_set()
                rows = ledger.read(seen[-1] if seen else 0, READ_AT_ONCE)
                seen.extend(row.id for row in rows)
                if last_look and not rows:
                    return

        reader = Thread(target=follow)
        reader.start()
        try:
            rate = _appends(lab, url, recorder, writers, seconds)
        finally:
            over.set()
            reader.join()
        assert all(before < after for before, after in zip(seen, islice(seen, 1, None), strict=False))
        with connect(url) as conn:
            facts = one(conn, f"SELECT count(*) FROM {TABLE}")
        return facts - len(seen), facts, rate


# --- pgbench -----------------------------------------------------------------------------------------------------

_TWO_ROWS = """\\set r random(1, 9223372036854775806)
INSERT INTO {table} (originator_id, originator_version, topic, state) VALUES
(md5(:r::text)::uuid, 1, '{one.topic}', '\\x{a}'), (md5(:r::text)::uuid, 2, '{two.topic}', '\\x{b}')
RETURNING notification_id;
"""


def _pgbench(url: str, clients: int, transactions: int) -> float:
    """Transactions a second of two such rows, sent by PostgreSQL's own load generator."""
    with open_ledger(url) as ledger:
        first, second = written(ledger, Shop(0).authorized())
    place = urlsplit(url)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_TWO_ROWS.format(table=TABLE, one=first, two=second, a=first.state.hex(), b=second.state.hex()))
        script.flush()
        load = [f"--client={clients}", f"--jobs={min(2, clients)}", f"--transactions={transactions // clients}"]
        server = [f"--host={place.hostname}", f"--port={place.port}", f"--username={place.username}", place.path[1:]]
        done = subprocess.run(
            [
                find_programs() / "pgbench",
                "--no-vacuum",
                "--protocol=prepared",
                f"--file={script.name}",
                *load,
                *server,
            ],
            env={"PGPASSWORD": place.password or "", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        )
    tps = next(line for line in done.stdout.splitlines() if line.startswith("tps = "))
    return float(tps.split()[2])
