"""What happens when things go wrong: every fault is injected for real, and then the same command is given again.

    pytest tests/test_faults.py                        # the quick cases; with -m slow the slow ones
    python tests/test_faults.py --write [--only kill]  # the book's table, data/faults.csv: all of its rows, or some

A case says what the user saw, and whether the next call carried on to the weights and metrics of an undisturbed
training, bit by bit. No finished run may be lost. Every command is a process of its own, forked from one that has torch
loaded: it can be killed by its number, waits for real locks and fills real disks, but starts in milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import fnmatch
import functools
import io
import itertools
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest.mock
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

from rnem.analysis import curves
from rnem.book import notebook
from rnem.runs import files, store
from rnem.runs.config import RunConfig
from rnem.runs.experiments import named
from rnem.runs.files import MANIFEST

TABLE = Path(__file__).resolve().parents[1] / "data" / "faults.csv"
NAME = "smoke-balls4mass-rnn"
OTHER, HIT = (named(NAME).replace(seed=seed) for seed in (0, 1))
"""The finished run that no fault may cost, and the one that a fault hits."""
TRAIN = ("train", NAME, "--seed", "1", "--threads", "1", "--accelerator", "cpu", "--quiet")
PRELOADED = [
    "rnem.cli.main", "rnem.training.train", "rnem.book.chapters", "rnem.workflow.campaign", "rnem.runs.archive",
    "rnem.analysis.curves", "papermill", "pytest",
]  # fmt: skip
"""What every process finds imported."""
PATIENCE = 600.0
"""Seconds until a process that should have done something is given up."""
BOOK = {
    "_config.yml": "title: A book\n",
    "book/_toc.yml": "format: jb-book\nroot: intro\nchapters:\n  - file: chapters/small\n",
    "book/intro.md": "# A book\n",
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


# ------------------------------------------------------------------------------------------------- commands and folders


@dataclasses.dataclass(frozen=True)
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

    def expect(self, code: int, sentence: str) -> None:
        """AssertionError where it ended with another code, or its last line does not match."""
        assert self.code == code, f"exit code {self.code} instead of {code}: {self.sentence}"
        assert re.search(sentence, self.sentence), f"not {sentence!r}: {self.sentence}"

    def line(self, sentence: str) -> Said:
        """The same with the line that matches, among others, as the one that counts."""
        found = [each for each in (self.err + self.out).splitlines() if re.match(sentence, each)]
        assert found, f"no {sentence!r}: {self.err}{self.out}"
        return Said(self.code, "", found[0])


class Command:
    """``rnem …`` in a process (and process group) of its own."""

    def __init__(self, folder: Path, words: tuple, patch: Callable[[], None] | None, variables: dict) -> None:
        self.written = [Path(tempfile.mkstemp(dir=folder, prefix=f".said-{kind}-")[1]) for kind in ("out", "err")]
        variables = {"RNEM_DATA": folder / "data", "RNEM_BOOK": folder / "book", **variables}
        arguments = (
            tuple(map(str, words)),
            patch,
            {name: str(value) for name, value in variables.items()},
            self.written,
        )
        self.process = _forked().Process(target=_command, args=arguments)
        self.process.start()

    def kill(self, number: int = signal.SIGKILL) -> Said:
        os.kill(self.process.pid, number)
        return self.wait()

    def until(self, what: Callable[[], object]) -> None:
        """Wait for a state that this command brings about."""
        wait_for(lambda: what() or not self.process.is_alive())
        assert what(), f"it ended too early: {self.wait()}"

    def wait(self) -> Said:
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "it never ended"
        return Said(self.process.exitcode, *(path.read_text() for path in self.written))


def wait_for(what: Callable[[], object]) -> None:
    """A state, not a time."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.002)


@functools.cache
def _forked() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _command(words: tuple[str, ...], patch, variables: dict[str, str], written: list[Path]) -> None:
    """In the new process."""
    with contextlib.suppress(PermissionError):
        os.setsid()
    os.environ.update(variables)
    for number, path in enumerate(written, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    import tqdm

    from rnem.cli.main import main

    tqdm.tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process leaves behind
    if patch is not None:
        patch()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    sys.exit(main(words))


class Place:
    """A folder with a cache and a book of its own, in which one fault is injected."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.cache = folder, folder / "data", folder / "data" / "runs"
        self.hit = store.folder(HIT, self.cache)
        self.checkpoint = store.work_folder(HIT, self.cache) / "checkpoint.safetensors"
        self.notebook = folder / "book" / "chapters" / "small.ipynb"

    def start(self, *words: object, patch: Callable[[], None] | None = None, **variables: object) -> Command:
        return Command(self.folder, words, patch, variables)

    def rnem(self, *words: object, patch: Callable[[], None] | None = None, **variables: object) -> Said:
        return self.start(*words, patch=patch, **variables).wait()

    def training(self) -> Command:
        """A training that has its first checkpoint."""
        command = self.start(*TRAIN)
        command.until(self.checkpoint.exists)
        return command

    def finish(self) -> None:
        """Put the undisturbed run in place, to be damaged."""
        shutil.copytree(store.folder(HIT, undisturbed().cache), self.hit)

    def trains_on(self, *words: str) -> bool:
        """The same command again: it succeeds, and gives what an undisturbed training gives."""
        return self.rnem(*TRAIN, *words).code == 0 and self.ends_the_same()

    def ends_the_same(self) -> bool:
        """Weights to the last bit, and metrics."""
        return not store.verify(self.hit) and result(HIT, self.cache) == result(HIT, undisturbed().cache)

    def executes(self) -> bool:
        """The chapter is executed by the next call, and holds what it printed."""
        done = self.rnem("chapter", "small", "--force")
        return done.code == 0 and "it ran" in str(nbformat.read(self.notebook, as_version=4).cells)

    def lost(self) -> int:
        """Runs that were finished before the fault and are not what they were."""
        before, now = (store.folder(OTHER, root) for root in (undisturbed().cache, self.cache))
        return int(bool(store.verify(now)) or (before / MANIFEST).read_bytes() != (now / MANIFEST).read_bytes())


def result(config: RunConfig, root: Path) -> tuple[str, list[dict]]:
    """Of a finished run: its weights, and its metrics but for the clock, and the mean loss since its process began."""
    run = store.load(config, root)
    metrics = run.metrics().drop(columns=["seconds", "training_loss"])
    return run.manifest["files"]["weights.safetensors"]["sha256"], metrics.to_dict("list")


@functools.cache
def undisturbed() -> Place:
    """A cache with both runs trained and a book with its chapter executed, by commands that nothing disturbed."""
    here = Place(Path(tempfile.mkdtemp(prefix="rnem-faults-")))
    for name, text in BOOK.items():
        (here.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (here.folder / name).write_text(text)
    for words in ((*TRAIN[:3], "0", *TRAIN[4:]), ("chapter", "small"), TRAIN):
        said = here.rnem(*words)
        assert said.code == 0, said.err
    return here


# -------------------------------------------------------------------------------------- files and disks


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit, at a place that its name decides."""
    data = bytearray(path.read_bytes())
    data[random.Random(path.name).randrange(len(data))] ^= 4
    path.write_bytes(data)


DAMAGE = {"cut in half": cut, "has a flipped bit": flip}


@contextlib.contextmanager
def mounted(folder: Path, otherwise: Callable, *commands: tuple[str, ...]) -> Iterator[Callable[[], None] | None]:
    """A file system mounted on a folder by these commands; where that fails, what makes a process believe so."""
    folder.mkdir(parents=True, exist_ok=True)
    tried = (subprocess.run(["mount", *words, folder], capture_output=True).returncode == 0 for words in commands)
    done = list(itertools.takewhile(bool, tried))
    try:
        yield None if len(done) == len(commands) else otherwise
    finally:
        if done:
            subprocess.run(["umount", "--lazy", folder], check=True)


def small_disk(folder: Path, size: str):
    return mounted(folder, full, ("-t", "tmpfs", "-o", f"size={size}", "tmpfs"))


def full() -> None:
    os.fsync = unittest.mock.Mock(side_effect=OSError(28, os.strerror(28)))


def closed() -> None:
    os.mkdir = os.open = os.rename = os.replace = unittest.mock.Mock(side_effect=OSError(30, os.strerror(30)))


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))


# ------------------------------------------------------------------------------------ from within a process


def die_at(moment: int) -> None:
    """Kill this process at its so-manieth update, write, sync, rename or removal."""
    from rnem.training import train

    steps = itertools.count(1)

    def counted(function):
        def call(*arguments, **keywords):
            if next(steps) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    train.draw_batch = counted(train.draw_batch)
    files.write_file = counted(files.write_file)
    for name in ("fsync", "rename", "replace", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def die_with_half_of(name: str) -> None:
    write = files.write_file

    def half(path: Path, data: bytes) -> None:
        if fnmatch.fnmatchcase(path.name, name):
            write(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)

    files.write_file = half


def die_before_tidying() -> None:
    write = store.write_folder

    def last_act(*arguments, **keywords) -> None:
        write(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    store.write_folder = last_act


def pause_until(path: Path) -> None:
    """Let the next training wait after each checkpoint until a file is there."""
    from rnem.training import train

    write = train._Checkpoints.write

    def patient(self, name: str) -> None:
        write(self, name)
        while name == train.CHECKPOINT and not path.exists():
            time.sleep(0.01)

    train._Checkpoints.write = patient


def full_when_saving(filler: Path | None) -> None:
    """When the finished run is to be saved, a file takes what room there is (None: the disk only seems full)."""
    save = store.save

    def late(*arguments, **keywords):
        full() if filler is None else fill(filler)
        return save(*arguments, **keywords)

    store.save = late


def not_finite(update: int) -> None:
    """From this update on the loss of this process is NaN."""
    from rnem.training import train

    draw = train.draw_batch

    def poisoned(config, stream, state, fabric):
        features, *rest = draw(config, stream, state, fabric)
        return (features * float("nan") if state.update >= update else features), *rest

    train.draw_batch = poisoned


def jumping_clock() -> None:
    """The time of day jumps by up to ten years, back and forth, whenever it is asked for."""
    now, gmtime, chance = time.time, time.gmtime, random.Random(0)
    time.time = lambda: now() + chance.uniform(-3e8, 3e8)
    time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)


def three_runs() -> None:
    """The smoke campaign of this process is three runs, of which the first is finished."""
    from rnem.workflow import campaign

    campaign.SEEDS = ((NAME.removeprefix("smoke-"), 3),)


# ---------------------------------------------------------------------------------------------------------------- cases

Happened = tuple[Said, bool]
"""What the user saw, and whether the next call carried on to the undisturbed result."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault, how it is injected, and the function that does so."""

    id: str
    fault: str
    how: str
    inject: Callable[[Place], Happened]
    slow: bool
    """Many processes, or much like another case."""


CASES: dict[str, Case] = {}


def case(fault: str, how: str, *settings, id: str = "", slow: bool = False):
    """A decorator that adds a case; ``settings`` are its function's further arguments."""

    def add(function):
        name = id or function.__name__.replace("_", "-")
        CASES[name] = Case(name, fault, how, lambda here: function(here, *settings), slow)
        return function

    return add


# A training and its cache: kills, two commands at once, disks.


@case("a training is killed", "kill -9 once its first checkpoint is there")
def kill_training(here: Place) -> Happened:
    said = here.training().kill()
    said.expect(-signal.SIGKILL, "nothing")
    return said, here.trains_on()


@case("a training is interrupted", "Ctrl-C once its first checkpoint is there")
def interrupt_training(here: Place) -> Happened:
    said = here.training().kill(signal.SIGINT)
    said.expect(130, "interrupted .training goes on from its last checkpoint")
    return said, here.trains_on()


@case("a training is killed ten times",
      "kill -9 at ten random steps (updates, writes, syncs, renames), restarted each", slow=True)  # fmt: skip
def kill_ten_times(here: Place) -> Happened:
    chance, killed = random.Random(0), []
    while len(killed) < 10:
        said = here.rnem(*TRAIN, patch=functools.partial(die_at, chance.randint(1, 30)))
        if said.code == 0:  # it came to its end first: once more from the beginning
            assert here.ends_the_same()
            shutil.rmtree(here.hit)
        else:
            said.expect(-signal.SIGKILL, "nothing")
            killed.append(said)
    return killed[-1], here.trains_on()


@case("killed while it saves the finished run", "kill -9 with half of weights.safetensors written",
      functools.partial(die_with_half_of, "weights.safetensors"), id="kill-saving")  # fmt: skip
@case("killed while it writes a checkpoint", "kill -9 with half of the checkpoint's temporary file written",
      functools.partial(die_with_half_of, ".checkpoint.safetensors.*.tmp"), id="kill-checkpointing")  # fmt: skip
def kill_writing(here: Place, patch: Callable[[], None]) -> Happened:
    said = here.rnem(*TRAIN, patch=patch)
    said.expect(-signal.SIGKILL, "nothing")
    assert not here.hit.exists()
    return said, here.trains_on() and not list(here.cache.glob(".tmp-*"))


@case("killed right after its run appeared", "kill -9 between the rename and the removal of checkpoints")
def kill_after_rename(here: Place) -> Happened:
    said = here.rnem(*TRAIN, patch=die_before_tidying)
    said.expect(-signal.SIGKILL, "nothing")
    assert here.ends_the_same(), "the finished run is whole"
    return said, here.trains_on()


@case("two commands train one run", "the second starts once the first has a checkpoint")
def two_trainings(here: Place) -> Happened:
    first = here.start(*TRAIN, patch=functools.partial(pause_until, here.folder / "go"))
    first.until(here.checkpoint.exists)
    said = here.rnem(*TRAIN)
    (here.folder / "go").touch()
    said.expect(2, f"{NAME}@1 is being trained by another process .pid {first.process.pid} on ")
    return said, first.wait().code == 0 and here.ends_the_same()


@case("the disk is full at a checkpoint", "the run's work folder on a tmpfs of 64 KB")
def full_at_checkpoint(here: Place) -> Happened:
    with small_disk(here.checkpoint.parent, "64k") as patch:
        said = here.rnem(*TRAIN, patch=patch)
        said.expect(2, "error: checkpoint .* could not be written: No space left on device")
    return said, here.trains_on()


@case("the disk is full at the finished run", "the cache on a tmpfs that fills up when the last update is made")
def full_at_end(here: Place) -> Happened:
    kept = here.folder / "kept"
    shutil.copytree(here.cache, kept)
    with small_disk(here.cache, "4m") as patch:
        shutil.copytree(kept, here.cache, dirs_exist_ok=True)
        filler = None if patch else here.cache / ".filler"
        said = here.rnem(*TRAIN, patch=functools.partial(full_when_saving, filler))
        said.expect(2, "error: run .* could not be written: No space left on device")
        assert here.lost() == 0
        assert not here.hit.exists()
        shutil.rmtree(kept)
        shutil.copytree(here.cache, kept, ignore=shutil.ignore_patterns(".filler"))  # for a disk with room
    shutil.copytree(kept, here.cache, dirs_exist_ok=True)
    return said, here.trains_on()


@case("a read-only cache", "remounted read-only: a training is asked for, and what is there is measured")
def read_only_cache(here: Place) -> Happened:
    with mounted(here.data, closed, ("--bind", str(here.data)), ("-o", "remount,bind,ro")) as patch:
        measured = here.rnem("evaluate", f"{NAME}@0", "--count", 2, "--frames", 4, patch=patch)
        assert measured.code == 0, measured.err
        said = here.rnem(*TRAIN, patch=patch)
        said.expect(2, "error: .*: Read-only file system")
    return said, here.trains_on()


@case("the data folder is a file", "RNEM_DATA names a text file")
def data_is_a_file(here: Place) -> Happened:
    (here.folder / "notes").write_text("not a folder")
    said = here.rnem(*TRAIN, RNEM_DATA=here.folder / "notes")
    said.expect(2, "error: .*notes.*: Not a directory")
    return said, here.trains_on()


# Damaged files of runs, a loss that is not finite, and a clock that jumps.


def damaged_run(here: Place, file: str, damage: Callable[[Path], None]) -> Happened:
    here.finish()
    damage(here.hit / file)
    said = here.rnem("evaluate", f"{NAME}@1", "--count", 2, "--frames", 4)
    said.expect(2, f"error: no finished run of {NAME}@1 in .*; `rnem train {NAME} --seed 1` makes one")
    warned = said.line(rf"warning: left out a broken run: .*{file} (is|was) (truncated|edited)")
    here.rnem("runs", "verify").expect(1, "1 good, 1 broken")
    here.rnem(*TRAIN).expect(2, rf"error: .*{file} (is|was) (truncated|edited).*, or train the run anew with `rnem tra")
    assert (here.hit / file).exists(), "nothing is trained anew, or hidden, unless the user says so"
    return warned, here.trains_on("--again") and bool(list(here.cache.glob(f".broken-0-*/{file}")))


for _file, _how in itertools.product(("config.json", "metrics.csv", "weights.safetensors", MANIFEST), DAMAGE):
    case(f"{_file} of a finished run {_how}", "the file on the disk is changed", _file, DAMAGE[_how],
         id=f"{_file.split('.')[0]}-{_how.split()[-1]}", slow=_how == "cut in half")(damaged_run)  # fmt: skip


@case("a checkpoint cut in half", "a killed training's file is changed", cut, id="checkpoint-half")
@case("a checkpoint has a flipped bit", "a killed training's file is changed", flip, id="checkpoint-bit")
def damaged_checkpoint(here: Place, damage: Callable[[Path], None]) -> Happened:
    here.training().kill()
    damage(here.checkpoint)
    said = here.rnem(*TRAIN)
    said.expect(2, "error: .*checkpoint.safetensors is truncated or was edited: delete it to start again without it")
    here.checkpoint.unlink()
    return said, here.trains_on()


@case("a shorter run's trunk has a flipped bit", "a longer run would go on from it")
def damaged_trunk(here: Place) -> Happened:
    assert here.rnem(*TRAIN, "--updates", "22").code == 0
    flip(store.folder(HIT.replace(updates=22), here.cache) / "trunk.safetensors")
    said = here.rnem(*TRAIN)
    return said.line(r"warning: not extended: .*trunk.safetensors was edited"), said.code == 0 and here.ends_the_same()


@case("a loss that is not finite", "the batch of update 22 is NaN, after the checkpoint of update 20")
def not_finite_loss(here: Place) -> Happened:
    said = here.rnem(*TRAIN, patch=functools.partial(not_finite, 22))
    said.expect(2, rf"error: {NAME}@1: the loss of update 22 is not finite .sequences 176 to 183 of its stream.")
    _, meta = files.read_state(here.checkpoint)
    assert meta["update"] == 20, "the last good checkpoint"
    return said, here.trains_on()


@case("the clock jumps", "time of day off by up to ten years, anew at each look")
def clock(here: Place) -> Happened:
    said = here.rnem(*TRAIN, patch=jumping_clock)
    return said.line("validation: loss "), here.ends_the_same() and here.trains_on()


# Campaigns.

CAMPAIGN = ("campaign", "smoke", "--jobs", "2", "--accelerator", "cpu")


def pid_of_training(here: Place) -> int:
    """The process of the campaign that trains the run, once it has a checkpoint."""
    holder = files.lock_file(here.hit).with_suffix(".pid")
    return int(holder.read_text().split()[0]) if here.checkpoint.exists() and holder.exists() else 0


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def campaign_goes_on(here: Place) -> bool:
    """The same command trains what is missing, to what a training by itself gives."""
    here.rnem(*CAMPAIGN, patch=three_runs).expect(0, "finished; 0 minutes are left|^3 finished, 0 missing")
    return here.ends_the_same() and store.load(HIT.replace(seed=2), here.cache).updates == HIT.training.updates


@case("a campaign is killed", "kill -9 of the command alone, while it trains two runs", slow=True)
def kill_campaign(here: Place) -> Happened:
    command = here.start(*CAMPAIGN, patch=three_runs)
    command.until(lambda: pid_of_training(here))
    process = pid_of_training(here)
    said = command.kill()
    said.expect(-signal.SIGKILL, "nothing")
    wait_for(lambda: is_gone(process))  # it must not train on unseen
    return Said(said.code, "", ""), campaign_goes_on(here)


@case("a worker of a campaign is killed", "kill -9 of one of two trainings", slow=True)
def kill_worker(here: Place) -> Happened:
    command = here.start(*CAMPAIGN, patch=three_runs)
    command.until(lambda: pid_of_training(here))
    os.kill(pid_of_training(here), signal.SIGKILL)
    said = command.wait()
    assert said.code == 1, said
    assert not store.verify(store.folder(HIT.replace(seed=2), here.cache)), "the other run was finished"
    return said.line(f"{NAME}@1: not finished: its process was killed by signal 9"), campaign_goes_on(here)


# Chapters, and what they are made from.


@case("a kernel is killed", "a cell kills its kernel with -9, as the system does when memory runs out",
      "os.kill(os.getpid(), signal.SIGKILL)", id="kernel-killed")  # fmt: skip
@case("a kernel ends", "a cell calls os._exit(3)", "os._exit(3)", id="kernel-exits", slow=True)
def dead_kernel(here: Place, wish: str) -> Happened:
    before = here.notebook.read_bytes()
    said = here.rnem("chapter", "small", "--force", FAULT=wish)
    said.expect(2, "error: chapter small failed in its kernel, which died")
    assert here.notebook.read_bytes() == before, "the old notebook stays"
    return said, here.executes()


@case("`rnem chapter` is killed", "kill -9 while a cell runs")
def kill_chapter(here: Place) -> Happened:
    before, begun = here.notebook.read_bytes(), here.folder / "begun"
    wish = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(3600)"
    command = here.start("chapter", "small", "--force", FAULT=wish)
    command.until(begun.exists)
    said = command.kill()
    said.expect(-signal.SIGKILL, "nothing")
    assert here.notebook.read_bytes() == before, "the old notebook stays"
    return said, here.executes()


def other_letter(path: Path) -> None:
    """A flipped bit in what a cell printed."""
    data = path.read_bytes()
    assert data.count(b"it ran\\n") == 1
    path.write_bytes(data.replace(b"it ran\\n", b"it rao\\n"))


@case("a notebook cut in half", "the published file is changed", cut, "cannot be read", id="notebook-half", slow=True)
@case("a notebook has a flipped bit", "in what a cell printed", other_letter, "edited by hand", id="notebook-bit")
def damaged_notebook(here: Place, damage: Callable[[Path], None], why: str) -> Happened:
    damage(here.notebook)
    said = here.rnem("chapter")
    said.expect(0, f"small +stale +.*{why}")
    return said, here.executes()


@case("the disk is full when a chapter is executed", "its folder on a tmpfs of 64 KB, filled to the last byte")
def full_at_chapter(here: Place) -> Happened:
    kept = {path: path.read_bytes() for path in here.notebook.parent.iterdir()}
    with small_disk(here.notebook.parent, "64k") as patch:
        for path, data in kept.items():
            path.write_bytes(data)
        if patch is None:
            fill(here.notebook.parent / "filler")
        said = here.rnem("chapter", "small", "--force", patch=patch)
        said.expect(2, "error: chapter small could not be written: No space left on device")
        assert here.notebook.read_bytes() == kept[here.notebook], "the old notebook stays"
    return said, here.executes()


@case("two commands execute one chapter", "its notebook is deleted, and both start")
def two_chapters(here: Place) -> Happened:
    here.notebook.unlink()
    counter = here.folder / "counter"
    both = [here.start("chapter", "small", FAULT=f"open({str(counter)!r}, 'a').write('x')") for _ in range(2)]
    said = [command.wait() for command in both]
    assert [each.code for each in said] == [0, 0]
    return said[1], counter.read_text() == "x"  # the second waited, and found it fresh


def measured(here: Place) -> tuple[str, Said]:
    """A measure of the finished run as text, and what is warned of."""
    with notebook.environ(RNEM_DATA=here.data), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = curves.curves(store.load(OTHER), "balls4mass16", count=2, frames=4)
    return table.to_csv(), Said(0, "", "\n".join(f"warning: {warning.message}" for warning in caught))


@case("a measure has a flipped bit", "in the middle of its file")
def damaged_measure(here: Place) -> Happened:
    before, _ = measured(here)
    (path,) = here.data.glob(f"measures/{store.folder(OTHER).name}/curves-*.csv")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    after, said = measured(here)
    said.expect(0, "curves-.*.csv was edited or belongs to another run: it is computed again")
    return said, before == after and measured(here) == (before, Said(0, "", ""))


@case("the disk is full when a measure is kept", "fsync fails")
def full_at_measure(here: Place) -> Happened:
    with unittest.mock.patch.object(os, "fsync", side_effect=OSError(28, os.strerror(28))):
        table, said = measured(here)
    said.expect(0, "warning: not kept: measure .* could not be written: No space left on device")
    return said, measured(here) == (table, Said(0, "", ""))


def videos_file(here: Place) -> tuple[Path, tuple]:
    """A file of videos, and the command that measures a run on it."""
    path = here.folder / "videos.h5"
    assert here.rnem("data", "write", "balls4mass16", "--count", 4, "--frames", 6, "--out", path).code == 0
    return path, ("evaluate", f"{NAME}@0", "--data", path, "--count", 4, "--frames", 6)


@case("a file of videos is cut in half", "the file that a run is measured on")
def videos_half(here: Place) -> Happened:
    path, words = videos_file(here)
    whole, before = path.read_bytes(), here.rnem(*words)
    cut(path)
    said = here.rnem(*words)
    said.expect(2, "error: .*videos.h5")
    path.write_bytes(whole)
    return said, here.rnem(*words) == before


@case("a file of videos has a flipped bit", "ten random bits, one at a time: an error, or the same numbers")
def videos_bit(here: Place) -> Happened:
    path, words = videos_file(here)
    whole, before, chance, seen = path.read_bytes(), here.rnem(*words), random.Random(0), []
    for _ in range(10):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        said = here.rnem(*words)
        assert said.code == 2 or said.out == before.out, "other numbers, and nothing said"
        seen += [said] if said.code else []
    path.write_bytes(whole)
    return seen[-1] if seen else before, here.rnem(*words) == before


# Archives; what is in a hostile one is tried in test_archive.py.


def packed(here: Place) -> Path:
    """The undisturbed run in a tar file, as another machine sends it."""
    path = here.folder / "runs.tar"
    assert here.rnem("runs", "pack", f"{NAME}@1", "--out", path, RNEM_DATA=undisturbed().data).code == 0
    return path


def merges(here: Place, path: Path) -> bool:
    return here.rnem("runs", "merge", path).code == 0 and here.ends_the_same()


@case("an archive with ../", "`rnem runs merge` of a good run and this",
      "../../evil-0123456789/config.json", b"{}", tarfile.REGTYPE, "is no file of a", id="archive-path")  # fmt: skip
@case("an archive with a link", "`rnem runs merge` of a good run and this",
      f"{NAME}-0123456789/config.json", b"", tarfile.SYMTYPE, "is a link", id="archive-link")  # fmt: skip
@case("an archive with a pickle", "`rnem runs merge` of a good run and this", f"{NAME}-0123456789/weights.pkl",
      pickle.dumps({"w": 1}), tarfile.REGTYPE, "no file of a run", id="archive-pickle")  # fmt: skip
def archive_with(here: Place, name: str, data: bytes, kind: bytes, sentence: str) -> Happened:
    shutil.copy(packed(here), here.folder / "evil.tar")
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(data), kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    with tarfile.open(here.folder / "evil.tar", "a") as tar:
        tar.addfile(member, io.BytesIO(data))
    said = here.rnem("runs", "merge", here.folder / "evil.tar")
    said.expect(2, f"error: .*evil.tar is refused: .*{sentence}")
    assert not here.hit.exists(), "nothing of it entered"
    assert not (here.folder / "evil-0123456789").exists()
    return said, merges(here, here.folder / "runs.tar")


@case("an archive whose weights do not match the manifest", "a bit of the weights flipped inside the tar file")
def archive_bit(here: Place) -> Happened:
    path = packed(here)
    with tarfile.open(path) as tar:
        place = tar.getmember(f"{here.hit.name}/weights.safetensors")
    data = bytearray(path.read_bytes())
    data[place.offset_data + place.size // 2] ^= 1
    (here.folder / "evil.tar").write_bytes(data)
    said = here.rnem("runs", "merge", here.folder / "evil.tar").line(f"{here.hit.name}: refused: weights.* was edited")
    assert said.code == 1
    assert not here.hit.exists()
    return said, merges(here, path)


@case("an archive that was cut off", "half of the file")
def archive_half(here: Place) -> Happened:
    path = packed(here)
    shutil.copy(path, here.folder / "half.tar")
    cut(here.folder / "half.tar")
    said = here.rnem("runs", "merge", here.folder / "half.tar")
    said.expect(2, "error: .*half.tar is (cut off|no whole tar file)")
    assert not here.hit.exists()
    return said, merges(here, path)


@case("an archive with another run of the same config", "the run here was made on another day")
def archive_conflict(here: Place) -> Happened:
    path = packed(here)
    here.finish()
    own = {file.name: file.read_bytes() for file in here.hit.iterdir() if file.name != MANIFEST}
    manifest = files.seal(own, store.load(HIT, here.cache).manifest | {"created": "2018-04-30T00:00:00Z"})[MANIFEST]
    (here.hit / MANIFEST).write_bytes(manifest)
    said = here.rnem("runs", "merge", path).line(f"{here.hit.name}: conflict: ")
    assert said.code == 1
    assert (here.hit / MANIFEST).read_bytes() == manifest, "what is here stays"
    return said, here.trains_on()


@case("a merge is killed", "kill -9 at each of its writes, syncs and renames, one after the other", slow=True)
def kill_merge(here: Place) -> Happened:
    path = packed(here)
    for moment in itertools.count(1):
        said = here.rnem("runs", "merge", path, patch=functools.partial(die_at, moment))
        if said.code == 0:
            break
        said.expect(-signal.SIGKILL, "nothing")
        assert not here.hit.exists() or here.ends_the_same(), "whole or absent"
        killed = said
    return killed, moment > 5 and merges(here, path) and not list(here.cache.glob(".tmp-*"))


@case("the disk is full when runs are merged", "the cache on a tmpfs that has no room for another run")
def full_at_merge(here: Place) -> Happened:
    path, kept = packed(here), {file: file.read_bytes() for file in here.cache.rglob("*") if file.is_file()}
    with small_disk(here.cache, "512k") as patch:
        for file, data in kept.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if patch is None:
            fill(here.cache / ".filler")
        said = here.rnem("runs", "merge", path, patch=patch)
        said.expect(2, "error: .* could not be written: No space left on device")
        assert here.lost() == 0
        assert not here.hit.exists()
    return said, merges(here, path)


@case("two commands merge one archive", "both start at once")
def two_merges(here: Place) -> Happened:
    path = packed(here)
    both = [here.start("runs", "merge", path) for _ in range(2)]
    first, second = sorted((command.wait() for command in both), key=lambda said: said.out)  # "added" comes first
    for said, state in ((first, "added"), (second, "already here")):
        assert (said.code, said.out) == (0, f"{here.hit.name}: {state}\n1 {state}\n"), said
    return second, here.ends_the_same()


@case("the disk is full when runs are packed", "the file on a tmpfs of 16 KB, where an older one is")
def full_at_pack(here: Place) -> Happened:
    folder = here.folder / "stick"
    words = ("runs", "pack", "--out", folder / "runs.tar")
    with small_disk(folder, "16k") as patch:
        (folder / "runs.tar").write_bytes(b"older")
        said = here.rnem(*words, patch=patch)
        said.expect(2, "error: archive .*runs.tar could not be written: No space left on device")
        assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("runs.tar", b"older")]
    return said, here.rnem(*words).code == 0


@case("an archive that is not the one that was meant", "`rnem runs merge --sha256` with the hash of another file")
def archive_hash(here: Place) -> Happened:
    path = packed(here)
    said = here.rnem("runs", "merge", path, "--sha256", "0" * 64)
    said.expect(2, "error: .*runs.tar has the SHA-256 [0-9a-f]{64}, not 0{64}")
    assert not here.hit.exists()
    return said, merges(here, path)


# ------------------------------------------------------------------------------------------------------ tests and table


def injected(name: str) -> dict[str, object]:
    """A row of the table; AssertionError where the user saw something else than the case says."""
    each, here = CASES[name], Place(Path(tempfile.mkdtemp(prefix="rnem-fault-")))
    try:
        ignored = shutil.ignore_patterns(store.folder(HIT).name, ".said-*", ".work")
        shutil.copytree(undisturbed().folder, here.folder, ignore=ignored, dirs_exist_ok=True)
        said, carried_on = each.inject(here)
        tracebacks = sum("Traceback" in path.read_text(errors="replace") for path in here.folder.glob(".said-*"))
        # Without what differs from day to day: places, process numbers, hashes.
        seen = said.sentence.replace(f"{here.folder}/", "").replace(str(here.folder), ".")
        seen = re.sub(r"pid \d+ on \S+(?=\))", "pid … on …", re.sub(r"\b[0-9a-f]{64}\b", "…", seen))
        found = {"seen": seen, "exit_code": said.code, "tracebacks": tracebacks, "lost_runs": here.lost()}
        return {"id": name, "fault": each.fault, "injected": each.how, **found, "carried_on": carried_on}
    finally:
        shutil.rmtree(here.folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def tidy():
    yield
    if undisturbed.cache_info().currsize:
        shutil.rmtree(undisturbed().folder, ignore_errors=True)


@pytest.mark.parametrize("name", [pytest.param(c.id, marks=[pytest.mark.slow] * c.slow) for c in CASES.values()])
def test_after_a_fault_nothing_is_lost_and_the_next_call_carries_on(name):
    row = injected(name)
    assert (row["tracebacks"], row["lost_runs"], row["carried_on"]) == (0, 0, True), row["seen"]
    assert row["seen"]


def table() -> dict[str, dict]:
    with open(TABLE, encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_the_published_table_has_every_case_and_no_loss():
    rows = table()
    assert list(rows) == list(CASES)
    assert len(rows) >= 25
    assert {(row["tracebacks"], row["lost_runs"], row["carried_on"]) for row in rows.values()} == {("0", "0", "True")}


def main() -> None:
    parser = argparse.ArgumentParser(description="Inject every fault and print what happened.")
    parser.add_argument("--write", action="store_true", help="write the rows to data/faults.csv; others are kept")
    parser.add_argument("--only", default="", help="cases with this in their name")
    arguments = parser.parse_args()
    rows = table() if TABLE.exists() else {}
    try:
        for name in (name for name in CASES if arguments.only in name):
            try:
                rows[name] = injected(name)
            except AssertionError as error:
                rows.pop(name, None)
                print(f"{name} is not as it should be: {error}", flush=True)
                continue
            print(*rows[name].values(), sep=" | ", flush=True)
            if arguments.write:
                text = io.StringIO()
                writer = csv.DictWriter(text, list(rows[name]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows[name] for name in CASES if name in rows)
                files.replace_file(TABLE, text.getvalue().encode())
    finally:
        shutil.rmtree(undisturbed().folder, ignore_errors=True)


if __name__ == "__main__":
    main()
