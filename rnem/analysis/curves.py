"""Curves of every quantity over predicted frames, of finished runs on test videos: what claims are judged on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from rnem.analysis.cache import TEST_VIDEOS, cached, video_count
from rnem.evaluation import evaluate
from rnem.runs.store import Run
from rnem.videos.datasets import dataset, fixed

FIRST, LAST = 10, 29
"""Predicted frames that are *late*: when groups have settled, what claims are judged on unless they say otherwise."""
SPREAD = ("bce", "ari", "wrong", "relational")
"""The quantities of :func:`draws`."""


def curves(
    run: Run,
    data: str,
    *,
    count: int | None = None,
    frames: int | None = None,
    noise: float = 0.0,
    real_steps: int | None = None,
    components: int | None = None,
) -> pd.DataFrame:
    """A run on the first ``count`` test videos of a data set: a row per predicted frame and number of balls.

    Where they are not given, ``count`` is :func:`rnem.analysis.cache.video_count` of TEST_VIDEOS' and ``frames`` the
    data set's.

    Columns: ``step`` (number of the predicted frame, from 1), ``balls``, ``videos`` (how many have so many balls), and
    every one of evaluate.QUANTITIES, averaged over these videos and over draws
    (rnem.evaluation.evaluate.number_of_draws). ``components`` is K where it is not the training's.
    """
    return _kept_table(run, "curves", data, count, frames, noise, real_steps, components)


def draws(
    run: Run,
    data: str,
    *,
    count: int | None = None,
    frames: int | None = None,
    noise: float = 0.0,
    components: int | None = None,
) -> pd.DataFrame:
    """What every single draw gives that :func:`curves` of these settings averages: late means, a row per draw.

    Columns: ``draw`` and SPREAD, each a mean over predicted frames FIRST to LAST and over videos.
    """
    return _kept_table(run, "draws", data, count, frames, noise, None, components)


def spread(run: Run, data: str, **settings) -> pd.DataFrame:
    """How far the draws of a run lie apart, by quantity (the index, SPREAD): :func:`draws` in three numbers.

    Columns: ``mean`` over draws, ``sd`` (standard deviation of single draws) and ``sd_of_mean`` (that of the mean of so
    many draws: sd / sqrt(draws)). Both are nan where there is one draw; 0 is right for K = 1 without noise, where
    nothing is drawn.
    """
    rows = draws(run, data, **settings)[[*SPREAD]]
    sd = rows.std(ddof=1)
    if run.config.network.components == 1 and not settings.get("noise"):
        sd = sd.fillna(0.0)
    return pd.DataFrame({"mean": rows.mean(), "sd": sd, "sd_of_mean": sd / len(rows) ** 0.5})


def _kept_table(
    run: Run,
    what: str,
    data: str,
    count: int | None,
    frames: int | None,
    noise: float,
    real_steps: int | None,
    components: int | None,
) -> pd.DataFrame:
    """The table ``curves`` or ``draws`` of a run. The same evaluations serve both, and the other is kept as well."""
    count = video_count(run, TEST_VIDEOS[dataset(data).family], count)
    frames = getattr(dataset(data), "frames", 51) if frames is None else frames
    settings = {
        "data": data, "count": count, "frames": frames, "noise": noise, "real_steps": real_steps,
        "components": components,
    }  # fmt: skip

    def compute() -> pd.DataFrame:
        test, network = fixed(data, "test", count, frames), evaluate.load_network(run, components=components)
        drawn = [
            evaluate.evaluate(network, test, noise=noise, draw=draw, real_steps=real_steps)
            for draw in range(evaluate.number_of_draws(run, noise=noise))
        ]
        balls = (test.masses > 0).sum(1).numpy()  # (N,)
        both = {"curves": lambda: _by_balls(evaluate.averaged(drawn), balls), "draws": lambda: _by_draw(drawn)}
        for other in both.keys() - {what}:
            cached(run, other, __name__, both[other], **settings)
        return both[what]()

    return cached(run, what, __name__, compute, **settings)


def _by_balls(result: evaluate.Evaluation, balls: np.ndarray) -> pd.DataFrame:
    """What :func:`curves` keeps of an evaluation of N videos with ``balls`` (N,)."""
    parts = []
    for number in np.unique(balls):
        some = evaluate.Evaluation({q: v[:, balls == number] for q, v in result.values.items()}, result.real_steps)
        part = pd.DataFrame({q: some.curve(q) for q in evaluate.QUANTITIES})
        part.insert(0, "step", np.arange(1, len(part) + 1))
        part.insert(1, "balls", number)
        part.insert(2, "videos", int((balls == number).sum()))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _by_draw(drawn: list[evaluate.Evaluation]) -> pd.DataFrame:
    """What :func:`draws` keeps of an evaluation in each draw."""
    late = [{q: evaluate.nanmean(each.curve(q)[FIRST - 1 : LAST], 0) for q in SPREAD} for each in drawn]
    return pd.DataFrame(late).rename_axis("draw").reset_index()


def late_frames(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of frames FIRST to LAST."""
    return rows[rows["step"].between(FIRST, LAST)]


def over_videos(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means of the quantities over videos, whatever their number of balls, by the columns ``by``."""
    quantities = [q for q in evaluate.QUANTITIES if q in rows]
    weighted = rows[quantities].mul(rows["videos"], axis=0)
    counts = rows[quantities].notna().mul(rows["videos"], axis=0)
    groups = [rows[column] for column in by]
    return (weighted.groupby(groups).sum() / counts.groupby(groups).sum()).reset_index()


def table(runs: Iterable[Run], data: str, **settings) -> pd.DataFrame:
    """:func:`curves` of several runs, over all videos: a row per run and step; columns model, components, seed, run."""
    parts = []
    for run in runs:
        network = run.config.network
        part = over_videos(curves(run, data, **settings), ["step"])
        parts.append(part.assign(model=network.model, components=network.components, seed=run.seed, run=run.path.name))
    return pd.concat(parts, ignore_index=True)
