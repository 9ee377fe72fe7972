"""How much processor time the processes of a running system have used. Linux; elsewhere nothing is told."""

import os
from collections.abc import Mapping
from pathlib import Path

Seconds = dict[str, float]


def used(pids: Mapping[str, int]) -> Seconds:
    """Seconds of processor time so far, by name, children included."""
    families: dict[int, list[int]] = {}
    times: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        families.setdefault(int(fields[1]), []).append(pid)
        times[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def family(pid: int) -> float:
        return times.get(pid, 0.0) + sum(family(child) for child in families.get(pid, ()))

    return {name: family(pid) for name, pid in pids.items()}


def per_request(before: Seconds, after: Seconds, requests: int) -> str:
    """Milliseconds of processor time that one request cost in each process, the dearest first."""
    costs = {name: 1000 * (after[name] - before[name]) / max(1, requests) for name in after if name in before}
    dearest = sorted(costs.items(), key=lambda cost: -cost[1])
    return ", ".join(f"{name} {cost:.2f}" for name, cost in dearest if cost >= 0.005)
