"""A training and its cache: kills, two commands at once, disks that are full or cannot be written."""

from __future__ import annotations

import fnmatch
import functools
import os
import random
import shutil
import signal
import time
from pathlib import Path

from injected.case import Case, Happened, die_at, expect, registry
from injected.lab import NAME, TRAIN, Lab, fill, full, read_only, small_disk
from rnem.runs import store

CASES: list[Case] = []
case = registry(CASES)


# ---------------------------------------------------------------------------------------------------------------- kills


@case("a training is killed", "kill -9 once its first checkpoint is there")
def kill_training(lab: Lab) -> Happened:
    command = lab.start(*TRAIN)
    command.until(lab.checkpoint.exists)
    command.kill()
    said = command.wait()
    expect(said, -signal.SIGKILL, "nothing")
    return said, lab.trains_on()


@case("a training is interrupted", "Ctrl-C once its first checkpoint is there")
def interrupt_training(lab: Lab) -> Happened:
    command = lab.start(*TRAIN)
    command.until(lab.checkpoint.exists)
    command.kill(signal.SIGINT)
    said = command.wait()
    expect(said, 130, "interrupted .training goes on from its last checkpoint")
    return said, lab.trains_on()


@case(
    "a training is killed ten times",
    "kill -9 at ten random steps (updates, writes, syncs, renames), restarted each",
    slow=True,
)
def kill_ten_times(lab: Lab) -> Happened:
    chance, killed = random.Random(0), []
    while len(killed) < 10:
        said = lab.rnem(*TRAIN, patch=functools.partial(die_at, chance.randint(1, 30)))
        if said.code == 0:  # it came to its end first: once more from the beginning
            assert lab.ends_the_same()
            lab.forget_victim()
        else:
            expect(said, -signal.SIGKILL, "nothing")
            killed.append(said)
    return killed[-1], lab.trains_on()


def die_with_half_of(name: str) -> None:
    from rnem.runs import files

    write = files.write_file

    def half(path: Path, data: bytes) -> None:
        if fnmatch.fnmatchcase(path.name, name):
            write(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)

    files.write_file = half


@case("killed while it saves the finished run", "kill -9 with half of weights.safetensors written")
def kill_saving(lab: Lab) -> Happened:
    said = lab.rnem(*TRAIN, patch=functools.partial(die_with_half_of, "weights.safetensors"))
    expect(said, -signal.SIGKILL, "nothing")
    assert not lab.victim.exists()
    carried = lab.trains_on()
    return said, carried and not list(lab.cache.glob(".tmp-*"))


@case("killed while it writes a checkpoint", "kill -9 with half of the checkpoint's temporary file written")
def kill_checkpointing(lab: Lab) -> Happened:
    said = lab.rnem(*TRAIN, patch=functools.partial(die_with_half_of, ".checkpoint.safetensors.*.tmp"))
    expect(said, -signal.SIGKILL, "nothing")
    assert not lab.checkpoint.exists()
    return said, lab.trains_on()


def die_before_tidying() -> None:
    write = store.write_folder

    def last_act(*arguments, **keywords) -> None:
        write(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    store.write_folder = last_act


@case("killed right after its run appeared", "kill -9 between the rename and the removal of checkpoints")
def kill_after_rename(lab: Lab) -> Happened:
    said = lab.rnem(*TRAIN, patch=die_before_tidying)
    expect(said, -signal.SIGKILL, "nothing")
    assert lab.ends_the_same(), "the finished run is whole"
    return said, lab.trains_on()


# ---------------------------------------------------------------------------------------------------------- two at once


@case("two commands train one run", "the second starts once the first has a checkpoint")
def two_trainings(lab: Lab) -> Happened:
    first = lab.start(*TRAIN, patch=functools.partial(wait_for, lab.folder / "go"))
    first.until(lab.checkpoint.exists)
    said = lab.rnem(*TRAIN)
    (lab.folder / "go").touch()
    expect(said, 2, f"{NAME}@1 is being trained by another process .pid {first.process.pid} on ")
    return said, first.wait().code == 0 and lab.ends_the_same()


def wait_for(path: Path) -> None:
    """Let the next training wait after each checkpoint until a file is there."""
    from rnem.training import train

    write = train._Training._write

    def patient(self, name: str) -> None:
        write(self, name)
        while name == train.CHECKPOINT and not path.exists():
            time.sleep(0.01)

    train._Training._write = patient


# ---------------------------------------------------------------------------------------------------------------- disks


@case("the disk is full at a checkpoint", "the run's work folder on a tmpfs of 64 KB")
def full_at_checkpoint(lab: Lab) -> Happened:
    with small_disk(lab.checkpoint.parent, "64k") as patch:
        said = lab.rnem(*TRAIN, patch=patch)
        expect(said, 2, "error: checkpoint .* could not be written: No space left on device")
    return said, lab.trains_on()


def full_when_saving(filler: Path | None) -> None:
    """When the finished run is to be saved, a file takes what room there is (None: the disk only seems full)."""
    save = store.save

    def late(*arguments, **keywords):
        full() if filler is None else fill(filler)
        return save(*arguments, **keywords)

    store.save = late


@case("the disk is full at the finished run", "the cache on a tmpfs that fills up when the last update is made")
def full_at_end(lab: Lab) -> Happened:
    kept = lab.folder / "kept"
    shutil.copytree(lab.cache, kept)
    with small_disk(lab.cache, "4m") as patch:
        shutil.copytree(kept, lab.cache, dirs_exist_ok=True)
        filler = None if patch else lab.cache / ".filler"
        said = lab.rnem(*TRAIN, patch=functools.partial(full_when_saving, filler))
        expect(said, 2, "error: run .* could not be written: No space left on device")
        assert lab.lost() == 0
        assert not lab.victim.exists()
        shutil.rmtree(kept)
        shutil.copytree(lab.cache, kept, ignore=shutil.ignore_patterns(".filler"))  # for a disk with room
    shutil.copytree(kept, lab.cache, dirs_exist_ok=True)
    return said, lab.trains_on()


@case("a read-only cache", "remounted read-only: a training is asked for, and what is there is measured")
def read_only_cache(lab: Lab) -> Happened:
    with read_only(lab.data) as patch:
        measured = lab.rnem("evaluate", f"{NAME}@0", "--count", 2, "--frames", 4, patch=patch)
        assert measured.code == 0, measured.err
        said = lab.rnem(*TRAIN, patch=patch)
        expect(said, 2, "error: .*: Read-only file system")
    return said, lab.trains_on()


@case("the data folder is a file", "RNEM_DATA names a text file")
def data_is_a_file(lab: Lab) -> Happened:
    (lab.folder / "notes").write_text("not a folder")
    said = lab.rnem(*TRAIN, RNEM_DATA=lab.folder / "notes")
    expect(said, 2, "error: .*notes.*: Not a directory")
    return said, lab.trains_on()
