"""``python -m rnem``: the command line; as a child of rnem.workflow.processes it ends when its parent ends."""

import os
import signal
import sys
import threading


def _end_with_input() -> None:
    """Wait for the end of standard input, which nobody writes to, and end this process."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ.pop("RNEM_ENDS_WITH_ITS_INPUT", None):
    threading.Thread(target=_end_with_input, daemon=True).start()

from rnem.cli.main import main  # noqa: E402, torch is imported while the parent is already watched

sys.exit(main())
