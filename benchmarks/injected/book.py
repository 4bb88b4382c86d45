"""Campaigns, chapters and what chapters are made from: kernels, notebooks, measures, videos."""

from __future__ import annotations

import os
import random
import signal
import unittest.mock
import warnings
from collections.abc import Callable
from pathlib import Path

import nbformat

from injected.case import Case, Happened, cut, expect, line, registry
from injected.lab import BYSTANDER, NAME, TRAIN, Command, Lab, Said, fill, result, small_disk
from rnem.analysis import curves
from rnem.book import notebook
from rnem.runs import files, store
from rnem.runs.experiments import named

CASES: list[Case] = []
case = registry(CASES)

# ------------------------------------------------------------------------------------------------------------ campaigns

CAMPAIGN = ("campaign", "smoke", "--jobs", "2", "--accelerator", "cpu")
WANTED = [named(NAME).replace(seed=seed) for seed in (0, 1)]


def two_runs() -> None:
    """The smoke campaign of this process is two runs."""
    from rnem.workflow import campaign

    campaign.SEEDS = ((NAME.removeprefix("smoke-"), len(WANTED)),)


def worker(lab: Lab, seed: int) -> int:
    """The process that trains a run of the campaign, once it has a checkpoint."""
    folder = store.work_folder(WANTED[seed], lab.cache)
    if not (folder / "checkpoint.safetensors").exists():
        return 0
    holder = files.lock_file(store.folder(WANTED[seed], lab.cache)).with_suffix(".pid")
    return int(holder.read_text().split()[0]) if holder.exists() else 0


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def campaign_goes_on(lab: Lab) -> bool:
    """The same command trains what is missing, to what a training by itself gives."""
    apart = lab.folder / "apart"
    for each in WANTED:
        assert lab.rnem("train", NAME, "--seed", each.seed, *TRAIN[6:], RNEM_DATA=apart).code == 0
    expect(lab.rnem(*CAMPAIGN, patch=two_runs), 0, "finished; 0 minutes are left")
    return all(result(each, lab.cache) == result(each, apart / "runs") for each in WANTED)


@case("a campaign is killed", "kill -9 of the command alone, while it trains two runs", slow=True)
def kill_campaign(lab: Lab) -> Happened:
    command = lab.start(*CAMPAIGN, patch=two_runs)
    command.until(lambda: worker(lab, 0))
    process = worker(lab, 0)
    command.kill()
    said = command.wait()
    expect(said, -signal.SIGKILL, "nothing")
    Command.wait_for(lambda: is_gone(process))  # it must not train on unseen
    return Said(said.code, "", ""), campaign_goes_on(lab)


@case("a worker of a campaign is killed", "kill -9 of one of two trainings", slow=True)
def kill_worker(lab: Lab) -> Happened:
    command = lab.start(*CAMPAIGN, patch=two_runs)
    command.until(lambda: worker(lab, 0))
    os.kill(worker(lab, 0), signal.SIGKILL)
    said = command.wait()
    assert said.code == 1, said
    sentence = line(said, f"{NAME}@0: not finished: its process was killed by signal 9")
    assert not store.verify(store.folder(WANTED[1], lab.cache)), "the other run was finished"
    return Said(said.code, "", sentence), campaign_goes_on(lab)


# ------------------------------------------------------------------------------------------------------------- chapters


def published(lab: Lab) -> bool:
    """The chapter is executed by the next call, and holds what it printed."""
    if lab.rnem("chapter", "small", "--force").code != 0:
        return False
    return "it ran" in str(nbformat.read(lab.notebook, as_version=4).cells)


def dead_kernel(lab: Lab, wish: str) -> Happened:
    before = lab.notebook.read_bytes()
    said = lab.rnem("chapter", "small", "--force", FAULT=wish)
    expect(said, 2, "error: chapter small failed in its kernel, which died")
    assert lab.notebook.read_bytes() == before, "the old notebook stays"
    return said, published(lab)


case("a kernel is killed", "a cell kills its kernel with -9, as the system does when memory runs out",
     "os.kill(os.getpid(), signal.SIGKILL)", id="kernel-killed")(dead_kernel)  # fmt: skip
case("a kernel ends", "a cell calls os._exit(3)", "os._exit(3)", id="kernel-exits", slow=True)(dead_kernel)


@case("`rnem chapter` is killed", "kill -9 while a cell runs")
def kill_chapter(lab: Lab) -> Happened:
    before, begun = lab.notebook.read_bytes(), lab.folder / "begun"
    wish = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(3600)"
    command = lab.start("chapter", "small", "--force", FAULT=wish)
    command.until(begun.exists)
    command.kill()
    said = command.wait()
    expect(said, -signal.SIGKILL, "nothing")
    assert lab.notebook.read_bytes() == before, "the old notebook stays"
    return said, published(lab)


def other_letter(path: Path) -> None:
    """A flipped bit in what a cell printed."""
    data = path.read_bytes()
    assert data.count(b"it ran\\n") == 1
    path.write_bytes(data.replace(b"it ran\\n", b"it rao\\n"))


def damaged_notebook(lab: Lab, damage: Callable[[Path], None], why: str) -> Happened:
    damage(lab.notebook)
    said = lab.rnem("chapter")
    expect(said, 0, f"small +stale +.*{why}")
    assert lab.rnem("chapter", "small").code == 0
    return said, "it ran" in str(nbformat.read(lab.notebook, as_version=4).cells)


case("a notebook cut in half", "the published file is changed", cut, "cannot be read", id="notebook-half", slow=True)(
    damaged_notebook
)
case(
    "a notebook has a flipped bit", "in what a cell printed", other_letter, "edited by hand", id="notebook-bit"
)(damaged_notebook)  # fmt: skip


@case("the disk is full when a chapter is executed", "its folder on a tmpfs of 64 KB, filled to the last byte")
def full_at_chapter(lab: Lab) -> Happened:
    files = {path.name: path.read_bytes() for path in lab.notebook.parent.iterdir()}
    with small_disk(lab.notebook.parent, "64k") as patch:
        for name, data in files.items():
            (lab.notebook.parent / name).write_bytes(data)
        if patch is None:
            fill(lab.notebook.parent / "filler")
        said = lab.rnem("chapter", "small", "--force", patch=patch)
        expect(said, 2, "error: chapter small could not be written: No space left on device")
        assert lab.notebook.read_bytes() == files["small.ipynb"], "the old notebook stays"
    return said, published(lab)


@case("two commands execute one chapter", "its notebook is deleted, and both start")
def two_chapters(lab: Lab) -> Happened:
    lab.notebook.unlink()
    counter = lab.folder / "counter"
    wish = f"open({str(counter)!r}, 'a').write('x')"
    both = [lab.start("chapter", "small", FAULT=wish) for _ in range(2)]
    said = [command.wait() for command in both]
    assert [each.code for each in said] == [0, 0]
    return said[1], counter.read_text() == "x"  # the second waited, and found it fresh


# -------------------------------------------------------------------------------------------------- measures and videos


def measured(lab: Lab) -> tuple[str, str]:
    """A measure of the finished run as text, and what is warned of."""
    with notebook.environ(RNEM_DATA=lab.data), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = curves.curves(store.load(BYSTANDER), "balls4mass16", count=2, frames=4)
    return table.to_csv(), "\n".join(f"warning: {warning.message}" for warning in caught)


@case("a measure has a flipped bit", "in the middle of its file")
def damaged_measure(lab: Lab) -> Happened:
    before, _ = measured(lab)
    (path,) = lab.data.glob(f"measures/{store.folder(BYSTANDER).name}/curves-*.csv")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    after, warned = measured(lab)
    said = Said(0, "", warned)
    expect(said, 0, "curves-.*.csv was edited or belongs to another run: it is computed again")
    return said, before == after and measured(lab) == (before, "")


@case("the disk is full when a measure is kept", "fsync fails")
def full_at_measure(lab: Lab) -> Happened:
    with unittest.mock.patch.object(os, "fsync", side_effect=OSError(28, os.strerror(28))):
        table, warned = measured(lab)
    said = Said(0, "", warned)
    expect(said, 0, "warning: not kept: measure .* could not be written: No space left on device")
    return said, measured(lab) == (table, "")


def videos_file(lab: Lab) -> tuple[Path, tuple]:
    """A file of videos, and the command that measures a run on it."""
    path = lab.folder / "videos.h5"
    assert lab.rnem("data", "write", "balls4mass16", "--count", 4, "--frames", 6, "--out", path).code == 0
    return path, ("evaluate", f"{NAME}@0", "--data", path, "--count", 4, "--frames", 6)


@case("a file of videos is cut in half", "the file that a run is measured on")
def videos_half(lab: Lab) -> Happened:
    path, words = videos_file(lab)
    whole, before = path.read_bytes(), lab.rnem(*words)
    cut(path)
    said = lab.rnem(*words)
    expect(said, 2, "error: .*videos.h5")
    path.write_bytes(whole)
    return said, lab.rnem(*words) == before


@case("a file of videos has a flipped bit", "ten random bits, one at a time: an error, or the same numbers")
def videos_bit(lab: Lab) -> Happened:
    path, words = videos_file(lab)
    whole, before, chance, seen = path.read_bytes(), lab.rnem(*words), random.Random(0), []
    for _ in range(10):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        said = lab.rnem(*words)
        assert said.code == 2 or said.out == before.out, "other numbers, and nothing said"
        seen += [said] if said.code else []
    path.write_bytes(whole)
    return seen[-1] if seen else before, lab.rnem(*words) == before
