"""Measures of finished runs, computed once: what takes seconds per run is kept beside the runs, and committed.

    data/measures/<run's folder>/<what>-<key>.csv      one line of JSON about it, then the table

The key covers the run's digest (weights, metrics, config), the settings and the version of the measure. A version is
raised by hand when a measure changes its meaning; a test compares each with numbers that it once gave.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from rnem import claims, evaluate, storage
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


TEST_VIDEOS = {"balls4mass": 200, "balls5mass": 100, "balls678mass": 100, "balls3curtain": 100, "spaceinvaders": 100}
"""How many test videos a measure takes where nothing else is asked for: what data/videos holds."""
SMOKE_VIDEOS = 20
"""At most so many for a run of the profile smoke, which tests the machinery."""


def enough(run: Run, videos: int, asked: int | None) -> int:
    """How many videos a measure takes: those ``asked`` for, else ``videos``, of smoke runs SMOKE_VIDEOS at most."""
    if asked is not None:
        return asked
    return min(videos, SMOKE_VIDEOS) if run.config.profile == "smoke" else videos


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
    frames: int | None = None,
    noise: float = 0.0,
    real_steps: int | None = None,
    components: int | None = None,
) -> pd.DataFrame:
    """A run on the first ``count`` test videos of a data set: a row per predicted frame and number of balls.

    ``count`` is :func:`enough` of TEST_VIDEOS' and ``frames`` the data set's where they are not given.

    Columns: ``step`` (number of the predicted frame, from 1), ``balls``, ``videos`` (how many have so many balls), and
    every one of evaluate.QUANTITIES, averaged over these videos. ``components`` is K where it is not the training's.
    """
    count = enough(run, TEST_VIDEOS[dataset(data).family], count)
    frames = getattr(dataset(data), "frames", 51) if frames is None else frames

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


def late(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of frames 10 to 29, when groups have settled: what claims are judged on unless they say otherwise."""
    return rows[rows["step"].between(claims.Measure.first, claims.Measure.last)]


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
