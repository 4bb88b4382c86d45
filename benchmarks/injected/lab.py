"""Where faults are injected: caches and a book of one chapter to damage, and real processes to kill.

Every command is a process of its own, forked from one that has torch loaded: it can be killed by its number, waits for
real locks and fills real disks, but starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rnem.runs import store
from rnem.runs.config import RunConfig
from rnem.runs.experiments import named
from rnem.runs.files import MANIFEST

NAME = "smoke-balls4mass-rnn"
UPDATES = named(NAME).training.updates
"""Of each run: one checkpoint, at half of them, and the end. As many as the name says, or no chapter takes the run."""
BYSTANDER, VICTIM = (named(NAME).replace(seed=seed, updates=UPDATES) for seed in (0, 1))
"""The finished run that no fault may cost, and the one that is hit."""
TRAIN = ("train", NAME, "--seed", "1", "--updates", str(UPDATES), "--threads", "1", "--accelerator", "cpu", "--quiet")
PATIENCE = 300.0
"""Seconds until a process that should have done something is given up."""
BOOK = {
    "_config.yml": "title: A book\n",
    "book/_toc.yml": "format: jb-book\nroot: intro\nchapters:\n  - file: chapters/small\n",
    "book/chapters/small.md": f"""\
---
kernelspec: {{name: python3, display_name: Python 3}}
rnem: {{runs: [{NAME}]}}
---
# A chapter

```{{code-cell}} ipython3
import os, signal

if wish := os.environ.get("FAULT"):
    exec(wish)
print("it ran")
```
""",
}


@dataclass(frozen=True)
class Said:
    """How a command ended, and what its user saw."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line, which is the one that counts."""
        if self.code < 0:
            return f"nothing (ended by signal {-self.code})"
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1] if lines else "nothing"


class Command:
    """``rnem …`` in a process (and process group) of its own."""

    def __init__(self, lab: Lab, words: tuple[str, ...], patch: Callable[[], None] | None, variables: dict) -> None:
        self.out, self.err = lab.new_file("out"), lab.new_file("err")
        self.lab, self.written = lab, (self.out, self.err)
        variables = {"RNEM_DATA": lab.data, "RNEM_BOOK": lab.folder / "book", **variables}
        arguments = (words, patch, {name: str(value) for name, value in variables.items()}, self.out, self.err)
        self.process = _processes().Process(target=_command, args=arguments)
        self.process.start()

    def kill(self, number: int = signal.SIGKILL, group: bool = False) -> None:
        os.killpg(self.process.pid, number) if group else os.kill(self.process.pid, number)

    def until(self, what: Callable[[], object]) -> None:
        """Wait for a state that this command brings about."""
        self.wait_for(lambda: what() or not self.process.is_alive())
        assert what(), f"it ended too early: {self.wait()}"

    @staticmethod
    def wait_for(what: Callable[[], object]) -> None:
        """A state, not a time."""
        deadline = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.002)

    def wait(self) -> Said:
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "it never ended"
        said = Said(self.process.exitcode, self.out.read_text(), self.err.read_text())
        self.lab.said.append(said)
        return said


def _command(words: tuple[str, ...], patch, variables: dict[str, str], out: Path, err: Path) -> None:
    """In the new process."""
    with contextlib.suppress(PermissionError):
        os.setsid()
    os.environ.update(variables)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    import tqdm

    from rnem.cli.main import main

    tqdm.tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process leaves behind
    if patch is not None:
        patch()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    sys.exit(main(words))


PRELOADED = [
    "rnem.cli.main", "rnem.training.train", "rnem.book.chapters", "rnem.workflow.campaign", "rnem.runs.archive",
    "rnem.evaluation.evaluate", "rnem.analysis.curves", "papermill", "nbclient", "jupyter_client", "pytest", "tqdm",
    "unittest.mock",
]  # fmt: skip
"""What every process finds imported."""


@functools.cache
def _processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@dataclass
class Lab:
    """One case's own cache and book; what was finished when it began must be there when it ends."""

    folder: Path
    said: list[Said] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def cache(self) -> Path:
        return self.data / "runs"

    @property
    def checkpoint(self) -> Path:
        return store.work_folder(VICTIM, self.cache) / "checkpoint.safetensors"

    @property
    def victim(self) -> Path:
        return store.folder(VICTIM, self.cache)

    @property
    def notebook(self) -> Path:
        return self.folder / "book" / "chapters" / "small.ipynb"

    def start(self, *words: object, patch: Callable[[], None] | None = None, **variables: object) -> Command:
        return Command(self, tuple(map(str, words)), patch, variables)

    def rnem(self, *words: object, patch: Callable[[], None] | None = None, **variables: object) -> Said:
        return self.start(*words, patch=patch, **variables).wait()

    def new_file(self, kind: str) -> Path:
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{kind}-")
        os.close(handle)
        return Path(name)

    def finish_victim(self) -> None:
        """Put the undisturbed run in place, to be damaged."""
        shutil.copytree(store.folder(VICTIM, undisturbed() / "data" / "runs"), self.victim)

    def forget_victim(self) -> None:
        shutil.rmtree(self.victim)

    def trains_on(self, *words: str) -> bool:
        """The same command again: it succeeds, and gives what an undisturbed training gives."""
        return self.rnem(*TRAIN, *words).code == 0 and self.ends_the_same()

    def ends_the_same(self, config: RunConfig = VICTIM) -> bool:
        """Weights to the last bit, and metrics."""
        undamaged = not store.verify(store.folder(config, self.cache))
        return undamaged and result(config, self.cache) == result(config, undisturbed() / "data" / "runs")

    def lost(self) -> int:
        """Runs that were finished before the fault and are not what they were."""
        before = (undisturbed() / "data" / "runs", self.cache)
        same = len({(store.folder(BYSTANDER, root) / MANIFEST).read_bytes() for root in before}) == 1
        return 0 if same and not store.verify(store.folder(BYSTANDER, self.cache)) else 1

    def clean(self, text: str) -> str:
        """Without what differs from day to day: places, process numbers, hashes."""
        text = text.replace(f"{self.folder}/", "").replace(str(self.folder), ".")
        return re.sub(r"pid \d+ on \S+(?=\))", "pid … on …", re.sub(r"\b[0-9a-f]{64}\b", "…", text))


def result(config: RunConfig, root: Path) -> tuple[str, list[dict]]:
    """Of a finished run: its weights, and its metrics but for the clock, and the mean loss since its process began."""
    run = store.load(config, root)
    metrics = run.metrics().drop(columns=["seconds", "training_loss"])
    return run.manifest["files"]["weights.safetensors"]["sha256"], metrics.to_dict("list")


@functools.cache
def undisturbed() -> Path:
    """A cache with both runs trained and a book with its chapter executed, by commands that nothing disturbed."""
    lab = Lab(Path(tempfile.mkdtemp(prefix="rnem-faults-")))
    for name, text in BOOK.items():
        (lab.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.folder / name).write_text(text)
    (lab.folder / "book" / "intro.md").write_text("# A book\n")
    for words in ((*TRAIN[:3], "0", *TRAIN[4:]), ("chapter", "small"), TRAIN):
        said = lab.rnem(*words)
        assert said.code == 0, said.err
    return lab.folder


@contextlib.contextmanager
def laboratory() -> Iterator[Lab]:
    """A copy of what was undisturbed, without the run that is to be hit."""
    folder = Path(tempfile.mkdtemp(prefix="rnem-fault-"))
    try:
        kept = shutil.ignore_patterns(store.folder(VICTIM).name, ".*-out", ".*-err", ".work")
        shutil.copytree(undisturbed(), folder, ignore=kept, dirs_exist_ok=True)
        yield Lab(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def close() -> None:
    """Remove what :func:`undisturbed` made."""
    if undisturbed.cache_info().currsize:
        shutil.rmtree(undisturbed(), ignore_errors=True)
        undisturbed.cache_clear()


# ---------------------------------------------------------------------------------------------------------------- disks


@contextlib.contextmanager
def mounted(folder: Path, *commands: tuple[str, ...]) -> Iterator[bool]:
    """A file system mounted on a folder by these commands, where this user may; whether it is."""
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    while (
        done < len(commands) and subprocess.run(["mount", *commands[done], folder], capture_output=True).returncode == 0
    ):
        done += 1
    try:
        yield done == len(commands)
    finally:
        if done:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[], None] | None]:
    """A disk that is soon full; where none can be mounted, what makes a process believe so."""
    with mounted(folder, ("-t", "tmpfs", "-o", f"size={size}", "tmpfs")) as there:
        yield None if there else full


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Callable[[], None] | None]:
    """A folder on a disk that cannot be written; where that can't be mounted, what makes a process believe so."""
    with mounted(folder, ("--bind", str(folder)), ("-o", "remount,bind,ro")) as there:
        yield None if there else closed_for_writing


def full() -> None:
    def fail(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    os.fsync = fail


def closed_for_writing() -> None:
    def fail(*arguments, **keywords) -> None:
        raise OSError(30, os.strerror(30))

    os.mkdir = os.open = os.rename = os.replace = fail


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            return
