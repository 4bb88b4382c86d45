"""Several starts of EM on the same video: how much of a grouping the first draw of gamma decides, and whether the
model's own loss can tell a good start from a bad one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from rnem.analysis.cache import cached, video_count
from rnem.analysis.curves import FIRST, LAST
from rnem.evaluation import evaluate
from rnem.runs.store import Run
from rnem.videos.datasets import fixed


def restarts(run: Run, data: str, *, count: int | None = None, components: int | None = None) -> pd.Series:
    """A run on each of the first ``count`` test videos (100) from evaluate.DRAWS draws of the initial gamma.

    Means over videos and frames FIRST to LAST: ``ari`` and ``bce`` (nats) over all draws; ``ari_by_loss`` and
    ``bce_by_loss`` of the draw that has the smallest loss before frame FIRST, which needs no label; ``ari_best`` of the
    draw with the best index, which nobody can choose without labels; ``ari_sd``, the standard deviation between the
    draws of a video. ``components`` is K where it is not the training's. Kept beside the run (rnem.analysis.cache).
    """
    settings = {"data": data, "count": video_count(run, 100, count), "components": components}
    return cached(run, "restarts", __name__, lambda: _measured(run, **settings), **settings).iloc[0]


def table(runs: Iterable[Run], data: str, components: Iterable[int], **settings) -> pd.DataFrame:
    """:func:`restarts` of several runs, a row per run and K; columns components and seed before its own."""
    return pd.DataFrame(
        {"components": K, "seed": run.seed} | restarts(run, data, components=K, **settings).to_dict()
        for run in runs
        for K in components
    )


def _measured(run: Run, data: str, count: int, components: int | None) -> pd.DataFrame:
    videos, network = fixed(data, "test", count, LAST + 1), evaluate.load_network(run, components=components)
    drawn = [evaluate.evaluate(network, videos, draw=draw).values for draw in range(evaluate.DRAWS)]
    early = np.stack([values["loss"][: FIRST - 1].mean(0) for values in drawn])  # (draws,N)
    ari, bce = (
        np.stack([evaluate.nanmean(values[name][FIRST - 1 :], 0) for values in drawn]) for name in ("ari", "bce")
    )
    by_loss = (early.argmin(0), np.arange(len(videos)))
    return pd.DataFrame(
        {
            "ari": [np.nanmean(ari)], "bce": [bce.mean()], "ari_by_loss": [np.nanmean(ari[by_loss])],
            "bce_by_loss": [bce[by_loss].mean()], "ari_best": [np.nanmean(np.nanmax(ari, 0))],
            "ari_sd": [np.nanmean(np.nanstd(ari, 0, ddof=1))],
        }
    )  # fmt: skip
