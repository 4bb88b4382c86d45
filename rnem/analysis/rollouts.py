"""How long a model keeps simulating: rollouts on test videos, and the balls in the frames that it imagines.

A model reads ``real_steps`` true frames and then feeds on itself (rnem.model.em.unroll). Rollout step s is the
prediction of frame real_steps + s, counted from 0: the s-th that was made from a predicted frame. Step 0 still had a
true one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rnem.analysis import cache
from rnem.evaluation import ball_detection, evaluate, metrics
from rnem.model import em
from rnem.model.network import Network
from rnem.runs.store import Run
from rnem.videos.balls import BOX, World
from rnem.videos.datasets import dataset, fixed
from rnem.videos.videos import Videos


@dataclass(frozen=True)
class Found:
    """What was found in S+1 frames of N videos; row s is rollout step s."""

    centres: np.ndarray
    """(S+1,N,M,2) box units, nan where there is no ball"""
    radii: np.ndarray
    """(S+1,N,M) box units"""
    counts: np.ndarray
    """(S+1,N)"""


NEAR = 2.0
"""Pixels within which a ball counts as found where it is."""


def rollout(
    run: Run,
    data: str,
    *,
    count: int = 100,
    real_steps: int = 20,
    steps: int = 50,
    feedback: str = "grey",
    split: str = "test",
) -> pd.DataFrame:
    """A run that simulates ``steps`` frames after ``real_steps`` true ones of the first ``count`` videos of a split.

    ``feedback`` is a name of rnem.model.em.FEEDBACKS. A row per rollout step, from 1; columns ``step`` and
    those of :func:`measure`, of max_k psi_k, or with binary feedback of the frame that is fed back. Kept beside the run
    (rnem.analysis.cache).
    """
    settings = {
        "count": count, "real_steps": real_steps, "steps": steps, "feedback": feedback, "split": split,
    }  # fmt: skip
    compute = functools.partial(rolled, run, data, draws=evaluate.number_of_draws(run), **settings)
    return cache.cached(run, "rollouts", __name__, compute, data=data, **settings)


def rolled(
    network: Network | Run,
    data: str,
    *,
    count: int,
    real_steps: int,
    steps: int,
    feedback: str = "grey",
    split: str = "test",
    draws: int = 1,
) -> pd.DataFrame:
    """What :func:`rollout` keeps, computed; of any network, the mean over draws."""
    network = evaluate.load_network(network) if isinstance(network, Run) else network
    test = true_videos(data, count, real_steps, steps, split)
    energy = true_energy(data, count, real_steps, steps, split)

    def once(draw: int) -> pd.DataFrame:
        frames = imagine(network, test, real_steps, feedback, draw)
        return measure(frames, test, find(frames, data), real_steps, energy)

    return evaluate.mean_of_draws(once, draws).astype({"step": int})


def better_feedback(run: Run) -> str:
    """Return the feedback that serves a run better: more balls within 2 pixels on validation videos, steps 1 to 10.

    Not fewer wrong pixels, by which an empty frame would win.
    """
    count = cache.video_count(run, 100, None)
    settings = {"count": count, "steps": 10, "split": "validation"}
    near = {name: rollout(run, run.config.data, feedback=name, **settings)["near"].mean() for name in em.FEEDBACKS}
    return max(near, key=near.__getitem__)


def imagined(quantity: str, run: Run, first: int, last: int) -> float:
    """The claim's quantity: of rollout steps ``first`` .. ``last`` after 20 true frames, by the better feedback."""
    count = cache.video_count(run, 100, None)
    rows = rollout(run, run.config.data, count=count, feedback=better_feedback(run)).set_index("step")
    return float(rows.loc[first:last, quantity].mean())


def table(runs: Iterable[Run], data: str, **settings) -> pd.DataFrame:
    """:func:`rollout` of several runs: a row per run and rollout step, with columns model, seed, run."""
    return pd.concat(
        [
            rollout(run, data, **settings).assign(model=run.config.network.model, seed=run.seed, run=run.path.name)
            for run in runs
        ],
        ignore_index=True,
    )


def copying(data: str, *, count: int = 100, real_steps: int = 20, steps: int = 50) -> pd.DataFrame:
    """The same of the baseline that repeats frame ``real_steps``, the last that the models' E-step sees.

    Its energy is 0. A BCE of certain pixels says more of the clip at 1e-6 than of the baseline, and is nan.
    """
    test = true_videos(data, count, real_steps, steps)
    frames = test.features[real_steps : real_steps + 1, :, 0].float()
    once = find(frames, data)
    still = Found(*(a.repeat(steps + 1, 0) for a in (once.centres, once.radii, once.counts)))
    energy = true_energy(data, count, real_steps, steps)
    rows = measure(frames.expand(steps + 1, -1, -1, -1), test, still, real_steps, energy)
    return rows.assign(bce=np.nan, model="copy_last", seed=0, run="")


def survival(rows: pd.DataFrame, step: int = 50) -> pd.DataFrame:
    """Per run: the share of videos whose number of balls was right within ±1 in each of ``step`` rollout steps.

    ``rows`` is what :func:`table` gives. Columns model, seed, kept; and what was found in the last of these steps.
    """
    last = rows[rows["step"] == step]
    return last[["model", "seed", "kept", "exact", "balls", "position"]].reset_index(drop=True)


def detector(data: str, *, count: int = 100, frames: int = 51) -> dict[str, float]:
    """Return ball detection's own error on true frames: ``exact``, ``position`` (pixels), ``radius`` (share right)."""
    test = fixed(data, "test", count, frames)
    found = find(test.features[:, :, 0].float(), data)
    right, away = [], []
    for t, n in np.ndindex(found.counts.shape):
        i, j, distance = ball_detection.match(found.centres[t, n], _true_centres(test)[t, n])
        right.append(np.isclose(found.radii[t, n, i], test.radii[n, j]))
        away.append(distance)
    return {
        "exact": float((found.counts == _true_counts(test)).mean()),
        "position": float(np.concatenate(away).mean() * test.features.shape[-1] / BOX),
        "radius": float(np.concatenate(right).mean()),
    }


def nothing(data: str, *, count: int = 100, real_steps: int = 20, steps: int = 50) -> dict[str, float]:
    """What is got without a model: ``wrong`` pixels of an empty frame, ``bce`` of a frame that is grey throughout.

    That grey is the share of true pixels that are on. The pixel that is on or off at random then costs its entropy.
    """
    true = true_videos(data, count, real_steps, steps).features[real_steps + 1 :].float()
    on, pixels = float(true.mean()), true[0, 0].numel()
    return {"wrong": on * pixels, "bce": -pixels * (on * np.log(on) + (1 - on) * np.log1p(-on))}


# ------------------------------------------------------------------------------------------------------------ the parts


def true_videos(data: str, count: int, real_steps: int, steps: int, split: str = "test") -> Videos:
    """The first test videos of a data set, as long as a rollout needs them."""
    if real_steps < 1 or steps < 1:
        raise ValueError(f"a rollout has {real_steps} true and {steps} rollout steps, and needs at least 1 of each")
    return _videos(data, split, count, real_steps + steps + 1)


@torch.no_grad()
def imagine(network: Network, test: Videos, real_steps: int, feedback: str = "grey", draw: int = 0) -> Tensor:
    """Frames of rollout steps 0, 1, ...: (S+1,N,H,W), from videos of real_steps + S + 1 frames.

    max_k psi_k; with binary feedback what is fed back of it, pixels of 0 and 1.
    """
    shown = em.binary_prediction if feedback == "binary" else lambda psi: psi.amax(1)
    parts = []
    for _, states in evaluate.in_batches(network, test, draw=draw, real_steps=real_steps, feedback=feedback):
        frames = torch.stack([shown(state.psi)[:, 0] for state in states])  # (T-1,B,H,W)
        parts.append(frames[real_steps - 1 :])  # (S+1,B,H,W)
    return torch.cat(parts, 1)


def find(frames: Tensor, data: str) -> Found:
    """The balls of a data set's radii in frames (S,N,H,W) of values 0..1."""
    found = ball_detection.find(frames.flatten(0, 1), dataset(data).world.radii)
    shape = tuple(frames.shape[:2])
    return Found(*(a.view(*shape, *a.shape[1:]).numpy() for a in (found.centres, found.radii, found.counts)))


def measure(frames: Tensor, test: Videos, found: Found, real_steps: int, energy: np.ndarray) -> pd.DataFrame:
    """A row per rollout step 1 .. S; row s of frames (S+1,N,H,W) is step s, and ``energy`` (S,) the truth's.

    Columns beside ``step``, means over videos: ``bce`` (nats per frame); ``wrong`` pixels; ``balls`` found; shares of
    videos with the right number of balls (``exact``), with it ±1 (``within``), and with ±1 at this and every earlier
    step (``kept``); ``near``, the share of the true balls found within NEAR; ``position``, the distance of matched
    balls (pixels); ``missed`` and ``extra`` balls; kinetic ``energy``, of the truth's.

    Balls are matched with the true ones by least total distance (Hungarian method), however far; what is left over on
    one side is missed or extra.
    """
    S = len(frames) - 1
    target = test.features[real_steps + 1 :].float()  # (S,N,1,H,W)
    shown, counts, true_counts = frames[1:, :, None], found.counts[1:], _true_counts(test)
    within = np.abs(counts - true_counts) <= 1  # (S,N)
    pixel = BOX / test.features.shape[-1]
    away, pairs, near = distances(found, _true_centres(test)[real_steps:], NEAR * pixel)
    return pd.DataFrame(
        {
            "step": np.arange(1, S + 1),
            "bce": metrics.bce(shown, target).double().mean(1),
            "wrong": metrics.wrong_pixels(shown, target).double().mean(1),
            "balls": counts.mean(1),
            "exact": (counts == true_counts).mean(1),
            "within": within.mean(1),
            "kept": np.logical_and.accumulate(within).mean(1),
            "near": near / true_counts.sum(),
            "position": away / np.where(pairs, pairs, np.nan) / pixel,
            "missed": np.maximum(true_counts - counts, 0).mean(1),
            "extra": np.maximum(counts - true_counts, 0).mean(1),
            "energy": kinetic(found, test.name).mean(1) / energy,
        }
    )


def distances(found: Found, true: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the matched balls of steps 1..S, over all videos, (S,) each: sum of distances, number, number within ``near``.

    Distances are in box units.
    """
    S, N = found.counts.shape
    matched = [[ball_detection.match(found.centres[s, n], true[s, n])[2] for n in range(N)] for s in range(1, S)]
    return (
        np.array([sum(d.sum() for d in row) for row in matched]),
        np.array([sum(len(d) for d in row) for row in matched]),
        np.array([sum((d <= near).sum() for d in row) for row in matched]),
    )


def kinetic(found: Found, data: str) -> np.ndarray:
    """Kinetic energy sum m v^2 / 2 of steps 1..S, (S,N), from how far each ball went since the step before.

    A ball's mass is that of its radius, the mean of both frames. A pair that is farther apart than any ball of this
    world can move in a frame is no pair: a ball that vanished here while another one appeared there.
    """
    set_ = dataset(data)
    farthest = fastest(set_.world) * set_.stride
    masses = np.zeros_like(found.radii)
    for radius, mass in zip(set_.world.radii, set_.world.masses, strict=True):
        masses[np.isclose(found.radii, radius)] = mass
    energy = np.zeros((len(found.counts) - 1, found.counts.shape[1]))
    for s, n in np.ndindex(energy.shape):
        i, j, moved = ball_detection.match(found.centres[s, n], found.centres[s + 1, n], farthest)
        energy[s, n] = ((masses[s, n, i] + masses[s + 1, n, j]) / 2 * moved**2).sum() / 2
    return energy


def fastest(world: World) -> float:
    """Greatest speed of a ball, box units a simulator frame: all balls heavy but one, which has all the energy."""
    return world.speed * (max(world.masses) / min(world.masses)) ** 0.5


@functools.lru_cache(maxsize=8)
def true_energy(data: str, count: int, real_steps: int, steps: int, split: str = "test") -> np.ndarray:
    """Kinetic energy of the true frames, estimated from the balls found in them, mean over videos: (S,)."""
    test = true_videos(data, count, real_steps, steps, split)
    return kinetic(find(test.features[real_steps:, :, 0].float(), data), data).mean(1)


@functools.lru_cache(maxsize=2)
def _videos(data: str, split: str, count: int, frames: int) -> Videos:
    return fixed(data, split, count, frames)


def _true_counts(test: Videos) -> np.ndarray:
    return (test.masses > 0).sum(1).numpy()  # (N,)


def _true_centres(test: Videos) -> np.ndarray:
    """Centres (T,N,M,2), nan for an absent ball."""
    return test.positions.masked_fill(test.masses[None, :, :, None] == 0, torch.nan).numpy()
