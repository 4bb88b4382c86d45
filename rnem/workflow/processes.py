"""The command line as child processes of this one, several at a time, with which they end.

They are forked from a server that has imported torch and what trainings and chapters need, so that each begins at once
instead of after five seconds of imports (on Linux; elsewhere each imports them anew). A command that is killed takes
them along, so that it finds their locks free when it is given again.
"""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Task = TypeVar("Task")
_PRELOADED = ["rnem.cli.main", "rnem.training.train", "rnem.book.chapters", "papermill"]
"""What every child finds imported; none of it may touch a GPU, since that cannot be forked."""


def run(
    tasks: Iterable[Task], jobs: int, command: Callable[[Task], list[str]], variables: dict[str, str]
) -> Iterator[tuple[Task, str, float]]:
    """``rnem COMMAND`` for each task, ``jobs`` at a time, in their order: (task, problem, seconds) as each ends.

    The problem is one line, "" where there is none; standard output is thrown away. ``variables``: of the children's
    environment, beside or instead of this process'. Whatever ends this generator ends the children too.
    """
    waiting, running = list(tasks), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                child = _Child(command(waiting[0]), variables)
                running[child.process.sentinel] = waiting.pop(0), child
            for sentinel in multiprocessing.connection.wait(running):
                task, child = running.pop(sentinel)
                yield task, child.problem(), time.monotonic() - child.begun
    finally:
        for _, child in running.values():
            child.process.terminate()
        for _, child in running.values():
            child.process.join()  # its locks are free when this one ends


class _Child:
    """A command in a process of its own."""

    def __init__(self, arguments: list[str], variables: dict[str, str]) -> None:
        self.begun = time.monotonic()
        self.errors = tempfile.NamedTemporaryFile(prefix="rnem-errors-")  # noqa: SIM115, it goes with this object
        environment = dict(os.environ) | variables
        self.process = _context().Process(target=_work, args=(arguments, environment, os.getcwd(), self.errors.name))
        self.process.start()

    def problem(self) -> str:
        """What went wrong with the process that ended, or ""."""
        self.process.join()
        code = self.process.exitcode
        if code == 0:
            return ""
        if code < 0:
            return f"its process was killed by signal {-code}"
        lines = Path(self.errors.name).read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}, and no message")


@functools.cache
def _context() -> multiprocessing.context.BaseContext:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _work(arguments: list[str], environment: dict[str, str], folder: str, errors: str) -> None:
    """In the new process."""
    threading.Thread(target=_follow, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for path, number in ((os.devnull, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process leaves behind
    sys.argv = ["rnem", *arguments]
    runpy.run_module("rnem", run_name="__main__")  # as python -m rnem does


def _follow() -> None:
    """Wait for the end of the process that started this one, and end too."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)
