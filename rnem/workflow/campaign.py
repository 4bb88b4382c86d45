"""A campaign: the runs that the claims of one profile need, what each will cost, and training what is missing.

Every run is trained by a process of its own (``rnem train``), so that one that dies takes nothing along: locks keep two
campaigns apart, checkpoints let the next call go on where this one was stopped.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from rnem import errors
from rnem.claims import measured, poster, rules
from rnem.model import config
from rnem.model.network import EMBEDDED, build
from rnem.runs import experiments, store
from rnem.runs.config import RunConfig
from rnem.runs.provenance import hardware
from rnem.training.train import sequence_steps
from rnem.workflow import processes

SEEDS: tuple[tuple[str, int], ...] = (
    # (model and K, seeds), in the order of their worth: what most claims compare comes first.
    ("balls4mass-rnem-k5", 3),
    ("balls4mass-nem-k5", 3),
    ("balls4mass-lstm", 3),
    ("balls4mass-rnn", 3),
    ("balls4mass-rnem-k8", 3),
    ("balls4mass-rnem_noatt-k5", 3),
    ("balls4mass-rnem-k3", 3),
    ("balls3curtain-rnem-k5", 3),
    ("balls3curtain-lstm", 3),
    ("balls3curtain-rnn", 3),
    ("balls3curtain-nem-k5", 2),
    ("spaceinvaders-rnem-k4", 3),
    ("spaceinvaders-lstm", 3),
    ("spaceinvaders-nem-k4", 3),
    ("spaceinvaders-order_rnem-k4", 1),
    ("balls5mass-rnem-k5", 3),
    ("balls4mass-rnem-k2", 2),
    ("balls4mass-rnem-k4", 2),
    ("balls4mass-rnem-k6", 2),
    ("balls4mass-rnem-k5", 5),
    ("balls4mass-nem-k5", 5),
    ("balls4mass-lstm", 5),
    ("balls4mass-rnn", 5),
    ("balls4mass-authors_rnem-k5", 1),
    ("balls4mass-authors_nem-k5", 1),
)
"""Later rows with more seeds of the same model are what is added when everything before is finished."""
FOUR = ("balls4mass-rnem-k5", "balls4mass-nem-k5", "balls4mass-lstm", "balls4mass-rnn")
LONG_SEEDS: tuple[tuple[str, int], ...] = (
    # Seeds 0 of all four come before any seed 1, so that comparisons are paired as early as possible.
    *((model, seeds) for seeds in (1, 2, 3) for model in FOUR),
    ("balls4mass-rnem_noatt-k5", 3),
    ("balls3curtain-rnem-k5", 3),
    ("balls3curtain-lstm", 3),
    ("balls3curtain-rnn", 3),
    ("balls3curtain-nem-k5", 3),
    ("spaceinvaders-rnem-k4", 3),
    ("spaceinvaders-nem-k4", 3),
    ("spaceinvaders-lstm", 3),
    ("balls4mass-rnem-k8", 3),
    # Where three seeds decided nothing: attention on six to eight balls, Space Invaders against the LSTM.
    ("balls4mass-rnem-k5", 4),
    ("balls4mass-rnem_noatt-k5", 4),
    ("spaceinvaders-rnem-k4", 5),
    ("spaceinvaders-lstm", 5),
)
"""The same of the long campaign (profile ``long``)."""
GUESSED_FLOPS = 2e10
"""Floating point operations a second of one thread, where no finished run says how fast this machine is."""


@dataclass(frozen=True)
class Planned:
    """One run of a campaign."""

    config: RunConfig
    finished: bool
    seconds: float
    """What it took, or what it will take on one thread of this machine."""
    problem: str = ""
    """What is wrong with its folder, where there is one that is broken: it is then not trained."""

    @property
    def label(self) -> str:
        return f"{self.config.name}@{self.config.seed}"

    @property
    def state(self) -> str:
        return "finished" if self.finished else "broken" if self.problem else "missing"


def configs(profile: str) -> list[RunConfig]:
    """Every run of a profile's campaign, the most wanted first.

    Of smoke, a test of machinery, and of paper, whose GPU hours are dear, those are there that claims compare, with as
    many seeds as a verdict needs.
    """
    wanted: dict[tuple[str, int], RunConfig] = {}
    for name, seeds in LONG_SEEDS if profile == "long" else SEEDS:
        if profile in ("smoke", "paper"):
            seeds = min(seeds, rules.MINIMUM_SEEDS) if name in compared() else 0
        for seed in range(seeds):
            wanted.setdefault((name, seed), experiments.named(f"{profile}-{name}").replace(seed=seed))
    return list(wanted.values())


def compared() -> set[str]:
    """Models that a claim compares, with what they are trained on: ``balls4mass-rnem-k5``."""
    return {
        measured.run_name("smoke", comparison.measure.data, model).removeprefix("smoke-")
        for claim in poster.claims("smoke").values()
        for comparison in claim.comparisons
        for model in filter(None, (comparison.subject, comparison.reference, comparison.measure.until))
    }


def plan(profile: str, root: Path | None = None, *, wanted: Iterable[RunConfig] | None = None) -> list[Planned]:
    """The campaign's runs (or those ``wanted``), each with whether it is finished and its cost on one thread.

    The cost of a run that is not finished is its operations at the speed of finished runs.
    """
    speed, planned = _speed(root), []
    for each in configs(profile) if wanted is None else wanted:
        try:
            run, problem = store.finished(each, root), ""
        except errors.RunError as error:
            run, problem = None, str(error)
        seconds = (run.number("wall_seconds") or 0.0) if run else 0.0 if problem else operations(each) / speed(each)
        planned.append(Planned(each, run is not None, seconds, problem))
    return planned


def operations(run: RunConfig) -> float:
    """Floating point operations of a whole training, counted on one step (backward: twice the forward)."""
    per_step = _operations_of_a_step(run.network) * run.training.batch
    # The length of sequences changes only where a stage of the curriculum ends.
    ends = {0, run.training.updates, *(min(end, run.training.updates) for end, _ in run.training.curriculum)}
    steps = sum((end - start) * sequence_steps(run.training, start) for start, end in itertools.pairwise(sorted(ends)))
    return 3 * per_step * steps


@functools.cache
def _operations_of_a_step(network: config.NetworkConfig) -> int:
    net = build(network)
    size = config.AUTOENCODERS[network.autoencoder].size
    inputs = torch.zeros(1, network.components, 1, size, size)
    action = torch.zeros(1, network.components, EMBEDDED) if network.actions else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(inputs, net.initial_state(1), action)
    return counter.get_total_flops()


def _speed(root: Path | None) -> Callable[[RunConfig], float]:
    """Operations a second that training reaches here: of finished runs of the same network, else of any run."""
    here = hardware()
    rates: dict[tuple[bool, str], list[float]] = {}
    for run in store.find(root=root):
        seconds, threads = run.number("wall_seconds"), run.number("threads")
        if not seconds or not threads:
            continue  # its manifest does not say
        rate = operations(run.config) * run.updates / run.config.training.updates / seconds
        same = run.fact("hardware") == here
        for key in (run.config.network.model, "any"):
            rates.setdefault((same, key), []).append(rate / threads)

    def speed(run: RunConfig) -> float:
        keys = [(same, key) for same in (True, False) for key in (run.network.model, "any")]
        found = next((rates[key] for key in keys if key in rates), [GUESSED_FLOPS])
        return sorted(found)[len(found) // 2]

    return speed


# ------------------------------------------------------------------------------------------------------------- training


def train(
    planned: list[Planned],
    jobs: int,
    *,
    accelerator: str = "auto",
    threads: int = 1,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Train what is not finished, ``jobs`` at a time, in the order given; what failed, a sentence each.

    Whatever ends this call ends the trainings too; each goes on from its checkpoint at the next one.
    """
    waiting = [each for each in planned if each.state == "missing"]
    left = sum(each.seconds for each in waiting)
    guessed = took = 0.0  # of what is finished: how far off the estimates are
    failed = [f"{each.label}: not finished: {each.problem}" for each in planned if each.state == "broken"]
    for sentence in failed:
        say(sentence)

    def command(each: Planned) -> list[str]:
        options = {"seed": each.config.seed, "threads": threads, "accelerator": accelerator}
        return ["train", each.config.name, "--quiet", *(f"--{name}={value}" for name, value in options.items())]

    with contextlib.closing(processes.run(waiting, jobs, command, {"OMP_NUM_THREADS": str(threads)})) as ended:
        for each, problem, seconds in ended:
            left -= each.seconds
            guessed, took = guessed + each.seconds, took + seconds
            wait = left * took / guessed / jobs
            clock = time.strftime("%H:%M", time.localtime(time.time() + wait))
            if problem:
                failed.append(f"{each.label}: not finished: {problem}")
            say(failed[-1] if problem else f"{each.label}: finished; {wait / 60:.0f} minutes are left, until {clock}")
    return failed
