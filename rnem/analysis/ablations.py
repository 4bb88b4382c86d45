"""Measured effects of what differs between paper, code and ports, such as sums against means.

Each takes a finished run and changes one thing in how it is evaluated; nothing is trained here. All numbers are means
over draws (rnem.evaluation.evaluate.number_of_draws).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import torch

from rnem.analysis import cache
from rnem.evaluation import evaluate, metrics
from rnem.model import em
from rnem.model.network import Network
from rnem.runs.store import Run
from rnem.videos.datasets import fixed

COUNT = 64
"""Test videos, where nothing else is asked for."""

Change = Literal["none", "mean of effects", "rollout threshold inverted"]


@contextlib.contextmanager
def mean_of_effects(network: Network, trained: int) -> Iterator[None]:
    """While open, the effects on a component are averaged: (trained - 1) x their mean, equal to the sum at K = trained.

    So a network trained with sums is evaluated as one that takes means would be, at another K.
    """
    factor = (trained - 1) / (network.config.components - 1)
    handle = network.core.interaction.context.register_forward_hook(lambda module, inputs, output: output * factor)
    try:
        yield
    finally:
        handle.remove()


def sum_or_mean(run: Run, data: str, components: int, *, count: int | None = None, frames: int = 51) -> pd.DataFrame:
    """BCE by frame of a run at another K, the effects summed (as trained) and averaged: columns step, sum, mean."""

    count = cache.video_count(run, COUNT, count)

    def compute() -> pd.DataFrame:
        network = evaluate.load_network(run, components=components)
        test = fixed(data, "test", count, frames)

        def one(draw: int) -> pd.DataFrame:
            summed = evaluate.evaluate(network, test, draw=draw).curve("bce")
            with mean_of_effects(network, run.config.network.components):
                averaged = evaluate.evaluate(network, test, draw=draw).curve("bce")
            return pd.DataFrame({"step": np.arange(1, frames), "sum": summed, "mean": averaged})

        return evaluate.mean_of_draws(one, evaluate.number_of_draws(run)).astype({"step": int})

    return cache.cached(
        run, "sum-or-mean", __name__, compute, data=data, components=components, count=count, frames=frames
    )


@torch.no_grad()
def rollout_threshold(
    run: Run, data: str, *, real_steps: int = 20, count: int | None = None, frames: int = 51
) -> pd.DataFrame:
    """BCE by frame of rollouts, the pseudo target max_k psi > 0.1 (the authors') or its inverse (a port's).

    Columns step, authors, inverted.
    """

    count = cache.video_count(run, COUNT, count)

    def compute() -> pd.DataFrame:
        network = evaluate.load_network(run)
        test = fixed(data, "test", count, frames)
        grey = em.FEEDBACKS["grey"]
        feedbacks = {"authors": grey, "inverted": replace(grey, target=lambda psi: 1 - grey.target(psi))}

        def one(draw: int) -> pd.DataFrame:
            curves = {}
            for name, feedback in feedbacks.items():
                steps = evaluate.states(network, test, draw=draw, real_steps=real_steps, feedback=feedback)
                curves[name] = [
                    float(metrics.bce(s.psi.amax(1), test.features[t + 1].float()).mean()) for t, s in enumerate(steps)
                ]
            return pd.DataFrame({"step": np.arange(1, frames)} | curves)

        return evaluate.mean_of_draws(one, evaluate.number_of_draws(run)).astype({"step": int})

    return cache.cached(
        run, "rollout-threshold", __name__, compute, data=data, real_steps=real_steps, count=count, frames=frames
    )
