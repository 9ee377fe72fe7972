"""What tests that start processes ask about them."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def runs(pid: int) -> bool:
    """Whether the process still runs. A zombie does not: nobody may be there to reap an orphan."""
    if sys.platform == "linux":
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
    else:
        argv = ["ps", "-o", "stat=", "-p", str(pid)]
        state = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() or "Z"
    return not state.startswith(("Z", "X"))


def eventually(condition: Callable[[], bool], patience_s: float = 10) -> None:
    """Wait until the condition holds; fail when it does not in time.

    Asked often at first and then seldom, so that asking takes no time from what is waited for.
    """
    began_s = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began_s
        assert waited_s < patience_s, "it did not happen in time"
        time.sleep(min(max(waited_s / 10, 0.01), 0.2))
