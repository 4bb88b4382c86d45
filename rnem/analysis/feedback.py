"""At which threshold an imagined frame is best made binary, and how often the number of balls then stays right.

A rollout by binary feedback reads max_k psi_k > threshold (rnem.model.em.binary_prediction, at em.BINARY_THRESHOLD).
Here it is done with several thresholds, so that validation videos choose one and test videos say what it gives.
"""

from __future__ import annotations

import functools

import pandas as pd
import torch
from torch import Tensor

from rnem.analysis import cache, rollouts
from rnem.evaluation import evaluate
from rnem.model import em
from rnem.model.network import Network
from rnem.runs.store import Run

THRESHOLDS = (0.3, 0.4, 0.5)
NEAR_STEPS = 10
"""Rollout steps over which ``near`` is a mean."""


def at_threshold(
    run: Run, data: str, threshold: float, *, count: int = 64, real_steps: int = 20, steps: int = 50,
    split: str = "test", draws: int | None = None,
) -> pd.Series:  # fmt: skip
    """What a rollout by frames made binary at a threshold gives, of the first ``count`` videos of a split.

    ``kept``: share of the videos whose number of balls is right within one in each of ``steps`` steps. ``near``: share
    of the true balls found within rollouts.NEAR pixels, mean over the first NEAR_STEPS steps. Means over ``draws`` of
    gamma, without a number as many as of other measures. Kept beside the run (rnem.analysis.cache).
    """
    draws = evaluate.number_of_draws(run) if draws is None else draws
    settings = {
        "threshold": threshold, "count": count, "real_steps": real_steps, "steps": steps, "split": split,
        "draws": draws,
    }  # fmt: skip
    compute = functools.partial(measured, run, data, **settings)
    return cache.cached(run, "feedback", __name__, compute, data=data, **settings).iloc[0]


def on_validation(run: Run, data: str, **settings) -> pd.DataFrame:
    """:func:`at_threshold` of validation videos and one draw of gamma, a row per threshold of THRESHOLDS."""
    rows = {each: at_threshold(run, data, each, split="validation", draws=1, **settings) for each in THRESHOLDS}
    return pd.DataFrame(rows).T.rename_axis("threshold")


def chosen(rows: pd.DataFrame) -> float:
    """Return the threshold that validation chooses: of the largest ``kept``, then of the largest ``near``."""
    return float(rows.sort_values(["kept", "near"], kind="stable").index[-1])


@torch.no_grad()
def measured(
    network: Network | Run, data: str, *, threshold: float, count: int, real_steps: int, steps: int, split: str,
    draws: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """What :func:`at_threshold` keeps, computed, a table of one row; of any network, the mean over draws."""
    network = evaluate.load_network(network) if isinstance(network, Run) else network
    videos = rollouts.true_videos(data, count, real_steps, steps, split)
    energy = rollouts.true_energy(data, count, real_steps, steps, split)

    def on(psi: Tensor) -> Tensor:
        return (psi.amax(1) > threshold).to(psi.dtype)

    feedback = em.Feedback(lambda state: on(state.psi), on)

    def once(draw: int) -> pd.DataFrame:
        batches = evaluate.in_batches(network, videos, draw=draw, real_steps=real_steps, feedback=feedback)
        parts = [torch.stack([on(state.psi)[:, 0] for state in states])[real_steps - 1 :] for _, states in batches]
        frames = torch.cat(parts, 1)  # (S+1,N,H,W)
        rows = rollouts.measure(frames, videos, rollouts.find(frames, data), real_steps, energy)
        return pd.DataFrame({"kept": [rows["kept"].iloc[-1]], "near": [rows["near"].head(NEAR_STEPS).mean()]})

    return evaluate.mean_of_draws(once, draws)
