"""How fast this machine trains, measured before a campaign begins, and how many trainings it should run at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from rnem.runs import provenance
from rnem.runs.config import RunConfig
from rnem.training import train
from rnem.workflow import campaign

GAIN = 1.1
"""Twice as many trainings on one GPU have to be so much faster together, or they are not worth their memory."""
MOST = 8
"""Trainings on one GPU."""


@dataclass(frozen=True)
class Speed:
    """What a training was seen to do here."""

    operations: float
    """Floating point operations of an update."""
    update: float
    """Seconds of an update."""
    overhead: float
    """Seconds of a run that train nothing: network, videos; its process is forked (rnem.workflow.processes)."""


def measure(run: RunConfig, seconds: float, accelerator: str = "auto") -> Speed:
    """Train a run for about so many seconds, on one thread in a scratch folder, and see how far it comes."""
    # Without an end, a validation or a decay within sight: only updates, each call going on where the last one stopped.
    never, device = 10**9, provenance.accelerator(accelerator)
    endless = run.replace(updates=never, evaluate_every=never, validation=1, decay=0.0, patience=0)
    with _one_thread(), tempfile.TemporaryDirectory(prefix="rnem-speed-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's hints; the real training gives them once

        def updates(count: int) -> float:
            begun = time.monotonic()
            train.train(endless, root=Path(folder), accelerator=device, progress=False, stop_after=count)
            return time.monotonic() - begun

        first, idle = updates(1), updates(1)
        if idle > seconds / 2:  # paper size on a CPU: an update takes longer than all the rest
            return Speed(campaign.operations(run.replace(updates=1)), idle, max(first - idle, 0.0))
        count, took = 1, idle
        while took - idle < seconds / 2:
            count = 2 * count if took - idle < seconds / 8 else round(count * seconds / (took - idle))
            took = updates(count)
    done = campaign.operations(run.replace(updates=count)) - campaign.operations(run.replace(updates=1))
    return Speed(done / (count - 1), (took - idle) / (count - 1), first)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cost(runs: Sequence[RunConfig], seconds: float, accelerator: str = "auto") -> Callable[[RunConfig], float]:
    """Seconds of a run on this machine, from ``seconds`` of measuring the cheapest and the dearest of several.

    An update costs what its operations cost and what every update costs; two measurements tell the two apart.
    """
    ordered = sorted(runs, key=lambda run: campaign.operations(run) / run.training.updates)
    ends = list(dict.fromkeys([run.replace(seed=0) for run in (ordered[0], ordered[-1])]))
    cheap, *rest = (measure(run, seconds / len(ends), accelerator) for run in ends)
    dear = rest[0] if rest else cheap
    apart = dear.operations - cheap.operations
    slope = max((dear.update - cheap.update) / apart, 0.0) if apart else cheap.update / cheap.operations
    fixed = max(cheap.update - slope * cheap.operations, 0.0)
    overhead = min(cheap.overhead, dear.overhead)  # blocks of the game are made once, in one of these measurements
    return lambda run: overhead + fixed * run.training.updates + slope * campaign.operations(run)


def jobs(run: RunConfig, seconds: float, accelerator: str = "auto", say: Callable[[str], None] = print) -> int:
    """How many trainings at once: on the CPU one a core; on a GPU doubled while all together get GAIN times as fast."""
    if not uses_gpu(accelerator):
        return cores()
    best, together = 1, _together(run, 1, seconds, accelerator)
    while 2 * best <= MOST:
        more = _together(run, 2 * best, seconds, accelerator)
        say(f"{2 * best} trainings at once: {more / together:.2f} times the speed of {best}")
        if more < GAIN * together:
            break
        best, together = 2 * best, more
    return best


def _together(run: RunConfig, number: int, seconds: float, accelerator: str) -> float:
    """Updates a second of several processes that train at the same time, all of them added up."""
    with ProcessPoolExecutor(number, multiprocessing.get_context("spawn")) as pool:
        speeds = pool.map(measure, [run] * number, [seconds] * number, [accelerator] * number)
        return sum(1 / speed.update for speed in speeds)


def uses_gpu(accelerator: str) -> bool:
    """Whether training on this accelerator is on a GPU."""
    return provenance.accelerator(accelerator) in ("cuda", "mps")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
