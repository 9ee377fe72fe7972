"""Becomes another program, which the kernel ends when its parent dies, however the parent dies.

Run as a script: `die_with_parent.py PARENT UID GID PROGRAM ARGUMENT…`; UID and GID -1 mean: stay who we are.
A program of its own and no `preexec_fn`, because that one runs Python between fork and exec, which can
deadlock when the parent has threads. Standard library only: it is started with `-I -S`, outside any package.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def become(parent: int, uid: int, gid: int, argv: list[str]) -> None:
    """Never returns. The signal is SIGINT, which PostgreSQL takes as: roll back, write everything, leave."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which clears it; exec keeps it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent:  # it died before we asked to be told
        sys.exit(1)
    os.execv(argv[0], argv)  # noqa: S606 - becoming another program is what this is for


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
