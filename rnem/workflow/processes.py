"""Several commands of ``rnem`` in parallel, each a process of its own; they end when this process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

Task = TypeVar("Task")


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    tasks: Iterable[Task], jobs: int, command: Callable[[Task], list[str]], variables: dict[str, str]
) -> Iterator[tuple[Task, str, float]]:
    """``rnem COMMAND`` for each task, ``jobs`` at a time, in their order: (task, problem, seconds) as each ends.

    The problem is one line, "" where there is none; standard output is thrown away. ``variables``: of the children's
    environment, beside or instead of this process'. Whatever ends this generator ends the children too.
    """
    environment = {**os.environ, **variables, "RNEM_ENDS_WITH_ITS_INPUT": "1"}  # see rnem.__main__
    running: set[subprocess.Popen] = set()
    stopped = threading.Event()

    def work(task: Task) -> tuple[Task, str, float]:
        begun, words = time.monotonic(), [sys.executable, "-m", "rnem", *command(task)]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=environment
            ) as process,
        ):
            running.add(process)
            if stopped.is_set():  # this one began while the others were being ended
                process.terminate()
            code = process.wait()
            running.discard(process)
            errors.seek(0)
            return task, _problem(code, errors.read().decode(errors="replace")), time.monotonic() - begun

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(work, task) for task in tasks]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stopped.set()
            for process in list(running):
                process.terminate()  # its locks are free when the pool's threads have waited for it


def _problem(code: int, said: str) -> str:
    """Return what a process that ended with this code said was wrong, or ""."""
    if code < 0:
        return f"its process was killed by signal {-code}"
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    return "" if code == 0 else last or f"exit code {code}, and no message"
