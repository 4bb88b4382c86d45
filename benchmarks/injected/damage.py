"""Damaged files of runs, a loss that is not finite, and a clock that jumps."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path

from injected.case import Case, Happened, cut, expect, flip, line, registry
from injected.lab import NAME, TRAIN, VICTIM, Lab, Said
from rnem.runs import files, store

CASES: list[Case] = []
case = registry(CASES)


# --------------------------------------------------------------------------------------------------------------- damage


DAMAGE = {"cut in half": cut, "has a flipped bit": flip}


def damaged_run(lab: Lab, file: str, damage: Callable[[Path], None]) -> Happened:
    lab.finish_victim()
    damage(lab.victim / file)
    said = lab.rnem("evaluate", f"{NAME}@1", "--count", 2, "--frames", 4)
    expect(said, 2, f"error: no finished run of {NAME}@1 in .*; `rnem train {NAME} --seed 1` makes one")
    warned = line(said, rf"warning: left out a broken run: .*{file} (is|was) (truncated|edited)")
    verified = lab.rnem("runs", "verify")
    expect(verified, 1, "1 good, 1 broken")
    expect(lab.rnem(*TRAIN), 2, rf"error: .*{file} (is|was) (truncated|edited).*, or train the run anew with `rnem tra")
    assert (lab.victim / file).exists(), "nothing is trained anew, or hidden, unless the user says so"
    carried = lab.trains_on("--again")
    return Said(said.code, "", warned), carried and bool(list(lab.cache.glob(f".broken-0-*/{file}")))


for _file, _how in itertools.product(
    ("config.json", "metrics.csv", "weights.safetensors", "manifest.json"), ("cut in half", "has a flipped bit")
):
    case(
        f"{_file} of a finished run {_how}", "the file on the disk is changed",
        _file, DAMAGE[_how], id=f"{_file.split('.')[0]}-{_how.split()[-1]}", slow=_how == "cut in half",
    )(damaged_run)  # fmt: skip


def damaged_checkpoint(lab: Lab, damage: Callable[[Path], None]) -> Happened:
    command = lab.start(*TRAIN)
    command.until(lab.checkpoint.exists)
    command.kill()
    command.wait()
    damage(lab.checkpoint)
    said = lab.rnem(*TRAIN)
    expect(said, 2, "error: .*checkpoint.safetensors is truncated or was edited: delete it to start again without it")
    lab.checkpoint.unlink()
    return said, lab.trains_on()


for _how, _damage in DAMAGE.items():
    case(f"a checkpoint {_how}", "a killed training's file is changed", _damage, id=f"checkpoint-{_how.split()[-1]}")(
        damaged_checkpoint
    )


@case("a shorter run's trunk has a flipped bit", "a longer run would go on from it")
def damaged_trunk(lab: Lab) -> Happened:
    short = (*TRAIN, "--updates", "22")
    assert lab.rnem(*short).code == 0
    flip(store.folder(VICTIM.replace(updates=22), lab.cache) / "trunk.safetensors")
    said = lab.rnem(*TRAIN)
    warned = line(said, r"warning: not extended: .*trunk.safetensors was edited")
    return Said(said.code, "", warned), said.code == 0 and lab.ends_the_same()


# -------------------------------------------------------------------------------------------------- numbers and clocks


def not_finite(update: int) -> None:
    """From this update on the loss of this process is NaN."""
    from rnem.training import train

    batch = train._Training._batch

    def poisoned(self):
        features, *rest = batch(self)
        return (features * float("nan") if self.update >= update else features), *rest

    train._Training._batch = poisoned


@case("a loss that is not finite", "the batch of update 22 is NaN, after the checkpoint of update 20")
def not_finite_loss(lab: Lab) -> Happened:
    said = lab.rnem(*TRAIN, patch=functools.partial(not_finite, 22))
    expect(said, 2, rf"error: {NAME}@1: the loss of update 22 is not finite .sequences 176 to 183 of its stream.")
    _, meta = files.read_state(lab.checkpoint)
    assert meta["update"] == 20, "the last good checkpoint"
    return said, lab.trains_on()


def jumping_clock() -> None:
    """The time of day jumps by up to ten years, back and forth, whenever it is asked for."""
    now, chance = time.time, random.Random(0)
    gmtime = time.gmtime
    time.time = lambda: now() + chance.uniform(-3e8, 3e8)
    time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)


@case("the clock jumps", "time of day off by up to ten years, anew at each look")
def clock(lab: Lab) -> Happened:
    said = lab.rnem(*TRAIN, patch=jumping_clock)
    shown = line(said, "validation: loss ")
    return Said(said.code, shown, ""), lab.ends_the_same() and lab.trains_on()
