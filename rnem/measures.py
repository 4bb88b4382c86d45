"""Measures of finished runs, computed once: what takes seconds per run is kept beside the runs, and committed.

    data/measures/<run's folder>/<what>-<key>.csv      one line of JSON about it, then the table

The key covers the run's digest (weights, metrics, config), the settings and the version of the measure. A version is
raised by hand when a measure changes its meaning; a test compares each with numbers that it once gave.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rnem import em, evaluate, storage
from rnem.claims import Measure
from rnem.config import RUNS
from rnem.networks import build
from rnem.runs import Run, data_root
from rnem.videos import dataset, fixed

CURVES_VERSION = 1
"""Of what :func:`curves` gives; raised when rnem.evaluate or the test videos change their meaning."""

DIGITS = 7
"""Significant digits that are kept."""


def cached(run: Run, what: str, version: int, compute: Callable[[], pd.DataFrame], **settings) -> pd.DataFrame:
    """The table that ``compute`` gives for a run, or gave before; numbers to DIGITS digits.

    ``settings`` (plain JSON values) are everything else that decides the table. A damaged file is computed again, with
    a warning. Where the folder cannot be written, the table is still returned.
    """
    about = {"what": what, "version": version, "run": run.manifest["digest"], "settings": settings}
    key = hashlib.sha256(storage.canonical(about).encode()).hexdigest()[:10]
    path = data_root() / "measures" / run.path.name / f"{what}-{key}.csv"
    body = _read(path, about)
    if body is None:
        body = compute().to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
        _write(path, about, body)
    # Read back even when it was just computed, so that the first reader sees what every later one does.
    return pd.read_csv(io.StringIO(body))


TEST_VIDEOS = {"balls4mass": 200, "balls5mass": 100, "balls678mass": 100, "balls3curtain": 100}
"""How many test videos a measure takes where nothing else is asked for: what data/videos holds."""


def _read(path: Path, about: dict) -> str | None:
    """The table's text; None where there is none, or where it is not what was written."""
    try:
        head, _, body = path.read_text(encoding="utf-8").partition("\n")
        if json.loads(head) == about | {"sha256": _digest(body)}:
            return body
        problem = "was edited or belongs to another run"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({str(error).splitlines()[0]})"
    warnings.warn(f"{path} {problem}: it is computed again", stacklevel=3)
    return None


def _write(path: Path, about: dict, body: str) -> None:
    text = json.dumps(about | {"sha256": _digest(body)}, sort_keys=True) + "\n" + body
    try:
        with storage.writing(f"measure {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.replace_file(path, text.encode())
    except storage.RunError as error:
        warnings.warn(f"not kept: {error}", stacklevel=3)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


# --------------------------------------------------------------------------------------------------------------- curves


def curves(
    run: Run,
    data: str,
    *,
    count: int | None = None,
    frames: int = 51,
    noise: float = 0.0,
    real_steps: int | None = None,
    components: int | None = None,
) -> pd.DataFrame:
    """A run on the first ``count`` test videos of a data set: a row per predicted frame and number of balls.

    ``count`` is TEST_VIDEOS' where it is not given.

    Columns: ``step`` (number of the predicted frame, from 1), ``balls``, ``videos`` (how many have so many balls), and
    every one of evaluate.QUANTITIES, averaged over these videos. ``components`` is K where it is not the training's.
    """

    count = TEST_VIDEOS[dataset(data).family] if count is None else count

    def compute() -> pd.DataFrame:
        test = fixed(data, "test", count, frames)
        network = evaluate.load_network(run, components=components)
        result = evaluate.evaluate(network, test, noise=noise, real_steps=real_steps)
        balls = (test.masses > 0).sum(1).numpy()  # (N,)
        parts = []
        for number in np.unique(balls):
            some = evaluate.Evaluation({q: v[:, balls == number] for q, v in result.values.items()}, real_steps)
            part = pd.DataFrame({q: some.curve(q) for q in evaluate.QUANTITIES})
            part.insert(0, "step", np.arange(1, frames))
            part.insert(1, "balls", number)
            part.insert(2, "videos", int((balls == number).sum()))
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    return cached(
        run, "curves", CURVES_VERSION, compute,
        data=data, count=count, frames=frames, noise=noise, real_steps=real_steps, components=components,
    )  # fmt: skip


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


def measurer(
    runs: Mapping[str, list[Run]], *, count: int | None = None, frames: int = 51, noise: float = 0.0
) -> Callable[[str, Measure], dict[int, float]]:
    """A function for :func:`rnem.claims.judge`: (model, measure) -> one number per seed.

    ``runs`` holds finished runs by name (``<profile>-<data>-<model>``). Measures on videos that no model is trained on
    (balls678mass) are taken of those trained on balls4mass; the size of the frames is that of the run.
    """
    by_path = {run.path: run for found in runs.values() for run in found}  # a Run holds a dict, so it has no hash

    @functools.cache
    def numbers(path: Path, data: str, real_steps: int | None, components: int | None) -> pd.DataFrame:
        settings = {
            "real_steps": real_steps,
            "components": components,
            "count": count,
            "frames": frames,
            "noise": noise,
        }
        return over_videos(curves(by_path[path], data, **settings), ["step"]).set_index("step")

    def one(run: Run, data: str, what: Measure) -> float:
        mean = numbers(run.path, data, what.real_steps, what.components).loc[what.first : what.last].mean()
        above, _, below = what.quantity.partition("/")
        return float(mean[above] / mean[below] if below else mean[above])

    def measure(model: str, what: Measure) -> dict[int, float]:
        profile = next(iter(runs)).split("-")[0]
        trained = what.data if f"{profile}-{what.data}-{model}" in RUNS else "balls4mass"
        found = runs.get(f"{profile}-{trained}-{model}", [])
        if what.quantity == "identity":
            return {run.seed: identity_difference(run) for run in found}
        if what.quantity == "sequences":
            goals = {run.seed: run for run in runs.get(f"{profile}-{trained}-{what.until}", [])}
            return {run.seed: sequences_until(run, goals[run.seed]) for run in found if run.seed in goals}
        return {run.seed: one(run, what.data + run.config.data.removeprefix(trained), what) for run in found}

    return measure


def sequences_until(run: Run, goal: Run) -> float:
    """Training sequences that ``run`` saw until its validation BCE was first at most the final one of ``goal``."""
    final = goal.metrics()["bce"].iloc[-1]
    rows = run.metrics()
    return float(rows.loc[rows["bce"] <= final, "sequences"].min()) if (rows["bce"] <= final).any() else float("inf")


@torch.no_grad()
def identity_difference(run: Run, steps: int = 20) -> float:
    """Largest difference between psi of a network without interaction and of K separate RNNs with the same weights.

    Each of these sees only its own component's masked differences; all competition is in gamma. 4 test videos.
    """
    network = evaluate.load_network(run)
    one = build(dataclasses.replace(network.config, model="rnn", components=1))
    one.load_state_dict(network.state_dict())
    x = fixed(run.config.data, "test", 4, steps + 1).features.float()  # (T,B,1,H,W)
    _, raw = evaluate.initial_draws(tuple(x.shape), network.config.components, 0.0, 0, "cpu")
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
