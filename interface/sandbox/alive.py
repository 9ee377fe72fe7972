"""How a child of `payledger dev` learns that its supervisor is gone, even when that was killed with -9.

The supervisor alone holds the write end of a pipe and each child the read end: the kernel closes it, whatever
happens to the supervisor, and a child that reads sees the end of the file.
"""

import os
import signal
import threading

ALIVE_VARIABLE = "PAYLEDGER_ALIVE_FD"
GRACE_S = 3.0


def watch_parent(fd: int | None = None, *, grace_s: float = GRACE_S) -> bool:
    """End this process with SIGTERM when the supervisor ends, and the hard way if that takes over `grace_s`.

    `fd` is the pipe's read end; by default the one the environment names. Without one nobody supervises this
    process, and the answer is False. Raises OSError when there is no such file.
    """
    if fd is None:
        named = os.environ.pop(ALIVE_VARIABLE, None)  # not for our own children: they would not have the file
        if named is None:
            return False
        fd = int(named)
    os.fstat(fd)
    os.set_inheritable(fd, False)  # noqa: FBT003 - positional only
    threading.Thread(target=_watch, args=(fd, grace_s), name="watch-parent", daemon=True).start()
    return True


def _watch(fd: int, grace_s: float) -> None:
    while os.read(fd, 1):  # nobody writes; only the end arrives
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(grace_s)
    os._exit(1)
