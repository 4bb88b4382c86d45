"""``python -m rnem.child PID ARGUMENTS``: the command line as a child of process PID, with which it ends.

A command that is killed takes along the trainings and chapters that it started, so that it finds their locks free when
it is given again. Linux only; elsewhere such a child works on to its end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1


def start(*arguments: str, **options) -> subprocess.Popen:
    """Start ``rnem ARGUMENTS``; ``options`` are Popen's. It ends when the thread that calls this does."""
    return subprocess.Popen([sys.executable, "-m", "rnem.child", str(os.getpid()), *arguments], **options)


def _follow(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before this line
            sys.exit(f"process {parent}, which started this one, has ended")


if __name__ == "__main__":
    _follow(int(sys.argv[1]))
    del sys.argv[1]
    from rnem.cli import main

    sys.exit(main())
