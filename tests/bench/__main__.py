"""`python -m tests.bench [NAME…]`: measure, show, and keep what was measured in bench.json."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from tests.bench import append, catch_up, command, get, growth, messaging, post, rebuild
from tests.bench.bars import Bar, Group, show, write
from tests.bench.lab import Lab

GROUPS: dict[str, Callable[[Lab], Iterator[Bar]]] = {
    "append": append.measure,
    "command": command.measure,
    "catch_up": catch_up.measure,
    "growth": growth.measure,
    "rebuild": rebuild.measure,
    "post": post.measure,
    "get": get.measure,
    "publish": messaging.publish,
    "consume": messaging.consume,
}
KEPT = Path("bench.json")
MIN_WIDTH = 110


def main() -> int:
    """0 also when a bar is missed; 1 when a benchmark failed, or a proof with it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(GROUPS)}; default: all")
    names = parser.parse_args().names
    if unknown := set(names) - GROUPS.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    quick, fsync = (os.environ.get(name, "0") not in {"", "0"} for name in ("QUICK", "FSYNC"))
    console = Console(highlight=False, width=max(MIN_WIDTH, Console().width))
    with Lab(quick=quick, fsync=fsync) as lab:
        machine = lab.machine
        groups = [_measured(name, lab, console) for name in GROUPS if not names or name in names]
    told = ", ".join(f"{name} {value}" for name, value in machine.items())
    show(
        groups,
        f"payledger, measured {'quickly (few repetitions, small sizes)' if quick else 'in full'}: {told}",
        console,
    )
    write(groups, machine, KEPT, quick=quick)
    return 1 if any(group.error or any(bar.broken for bar in group.bars) for group in groups) else 0


def _measured(name: str, lab: Lab, console: Console) -> Group:
    """A benchmark that fails is told in the table, and the others go on."""
    start, bars, error = time.monotonic(), list[Bar](), None
    with console.status(f"measuring {name}"):
        try:
            for bar in GROUPS[name](lab):
                bars.append(bar)
                console.print(f"[dim]{name}: {bar.what}[/dim]")
        except Exception as failure:  # noqa: BLE001  whatever it is
            traceback.print_exc()
            error = f"{type(failure).__name__}: {failure}".partition("\n")[0]
    return Group(name, tuple(bars), time.monotonic() - start, error)


if __name__ == "__main__":
    sys.exit(main())
