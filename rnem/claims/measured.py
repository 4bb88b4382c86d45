"""What a claim asks of finished runs: for each of its measures one number per seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch

from rnem.analysis import attention, curves, occlusion, rollouts, space_invaders
from rnem.claims.rules import Measure
from rnem.evaluation import evaluate
from rnem.model import em
from rnem.model.network import build
from rnem.runs.experiments import RUNS
from rnem.runs.store import Run
from rnem.videos.datasets import dataset, fixed


def measure_with(
    runs: Mapping[str, list[Run]], *, count: int | None = None, frames: int | None = None, noise: float = 0.0
) -> Callable[[str, Measure], dict[int, float]]:
    """A function for :func:`rnem.claims.rules.judge`: (model, measure) -> one number per seed.

    ``runs`` holds finished runs by name (``<profile>-<data>-<model>``). Measures on videos that no model is trained on
    (balls678mass) are taken of those trained on balls4mass; the size of the frames is that of the run.
    """
    by_path = {run.path: run for found in runs.values() for run in found}  # a Run holds a dict, so it has no hash

    @functools.cache
    def numbers(path: Path, data: str, real_steps: int | None, components: int | None) -> pd.DataFrame:
        settings = {"real_steps": real_steps, "components": components}
        rows = curves.curves(by_path[path], data, count=count, frames=frames, noise=noise, **settings)
        return curves.over_videos(rows, ["step"]).set_index("step")

    def late_mean(run: Run, data: str, what: Measure) -> float:
        mean = numbers(run.path, data, what.real_steps, what.components).loc[what.first : what.last].mean()
        above, _, below = what.quantity.partition("/")
        return float(mean[above] / mean[below] if below else mean[above])

    def one(run: Run, data: str, what: Measure) -> float:
        if what.quantity in SPECIAL:
            return SPECIAL[what.quantity](run, what.first, what.last)
        return late_mean(run, data, what)

    def measure(model: str, what: Measure) -> dict[int, float]:
        profile = next(iter(runs), "laptop").split("-")[0]  # without any run there is nothing to find, in any profile
        found = runs.get(run_name(profile, what.data, model), [])
        if what.until is not None:
            goals = {run.seed: run for run in runs.get(run_name(profile, what.data, what.until), [])}
            of = UNTIL[what.quantity]
            return {run.seed: sequences_until(run, goals[run.seed], of) for run in found if run.seed in goals}
        return {run.seed: one(run, f"{what.data}{dataset(run.config.data).size}", what) for run in found}

    return measure


def run_name(profile: str, data: str, model: str) -> str:
    """The run that a measure on ``data`` (a family) is taken of: trained on it, or else on balls4mass."""
    name = f"{profile}-{data}-{model}"
    return name if name in RUNS else f"{profile}-balls4mass-{model}"


def sequences_until(run: Run, goal: Run, quantity: str = "bce") -> float:
    """Training sequences that ``run`` saw until its validation BCE was first at most the final one of ``goal``.

    ``quantity`` is ``bce``, of all validation frames, or ``last10_bce``; infinite where it never was.
    """
    final = goal.metrics()[quantity].iloc[-1]
    rows = run.metrics()
    reached = rows[quantity] <= final
    return float(rows.loc[reached, "sequences"].min()) if reached.any() else float("inf")


@torch.no_grad()
def identity_difference(run: Run, steps: int = 20) -> float:
    """Largest difference between psi of a network without interaction and of K separate RNNs with the same weights.

    Each of these sees only its own component's masked differences; all competition is in gamma. 4 test videos.
    """
    network = evaluate.load_network(run)
    one = build(dataclasses.replace(network.config, model="rnn", components=1))
    one.load_state_dict(network.state_dict())
    test = fixed(run.config.data, "test", 4, steps + 1)
    x = test.features.float()  # (T,B,1,H,W)
    _, raw = evaluate.dice(test, network.config.components)
    state = em.initial_state(network, raw)
    alone = [one.initial_state(len(raw)) for _ in range(network.config.components)]
    largest = 0.0
    for t in range(steps):
        inputs = em.masked_difference(state.gamma, x[t], state.psi)  # (B,K,1,H,W)
        state = em.step(network, state, x[t], x[t + 1])
        for k in range(network.config.components):
            logits, alone[k] = one(inputs[:, k : k + 1], alone[k])  # (B,1,1,H,W)
            largest = max(largest, float((torch.sigmoid(logits[:, 0]) - state.psi[:, k]).abs().max()))
    return largest


SPECIAL: dict[str, Callable[[Run, int, int], float]] = {
    "returned": occlusion.returned,
    "moving/copy_moving": space_invaders.moving,
    "follows": space_invaders.follows,
    "together": space_invaders.together,
    "turns": space_invaders.turns,
    "attention_rise": attention.before_contact,
    "imagined_wrong": functools.partial(rollouts.imagined, "wrong"),
    "imagined_near": functools.partial(rollouts.imagined, "near"),
    "identity": lambda run, _first, _last: identity_difference(run),
}
"""Quantities that are not means of rnem.evaluation.evaluate's: (run, first frame, last frame) -> number."""

UNTIL = {"sequences": "bce", "late_sequences": "last10_bce"}
"""Measures that count sequences -> the column of the training's metrics that has to come down."""
