"""`payment_status` built anew from a long log: the time it takes, and the most memory it holds."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.bars import Bar, Limit, Series
from tests.bench.lab import Lab, settings_for
from tests.bench.payments import fill

# --- Sizes -------------------------------------------------------------------------------------------------------

FACTS, QUICK_FACTS = 1_000_000, 50_000
MAX_S, MAX_MIB = 60, 300
LOOK_S = 0.02

# --- Measure -----------------------------------------------------------------------------------------------------


def measure(lab: Lab) -> Iterator[Bar]:
    with lab.database() as url:
        facts = fill(lab, url, lab.size(FACTS, QUICK_FACTS), read_model=True)
        seconds, mib = _run(url)
    scaled = f" ({facts:,} facts, scaled up)" if lab.quick else ""
    yield Bar(
        what=f"rebuild of {FACTS:,} facts{scaled}",
        series=Series((seconds * FACTS / facts,)),
        unit="s",
        limit=Limit("≤", MAX_S, "s"),
        told=f"{facts / seconds:,.0f} facts/s, by {' '.join(_command('')[2:])}",
    )
    yield Bar(what="most memory it held", series=Series((mib,)), unit="MiB", limit=Limit("≤", MAX_MIB, "MiB"))


def _run(url: str) -> tuple[float, float]:
    """Seconds, and the peak of its resident memory in MiB."""
    start, peak = time.monotonic(), 0.0
    with subprocess.Popen(_command(url), env=os.environ | settings_for(url), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _peak_mib(process.pid))
            time.sleep(LOOK_S)
    assert process.returncode == 0, f"it ended with status {process.returncode}"
    return time.monotonic() - start, peak


def _command(url: str) -> list[str]:
    """The rebuild as users start it; while there is none, the engine from an empty checkpoint."""
    if importlib.util.find_spec("projections.rebuild"):
        return [sys.executable, "-m", "interface.cli", "rebuild", "payment_status"]
    return [sys.executable, "-m", "tests.bench.catch_up", url]


def _peak_mib(pid: int) -> float:
    """Linux keeps a high-water mark; elsewhere nothing is told."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
