"""What the chapter on the authors' own videos shows: our runs beside the authors' model, as a figure and a table."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rnem.analysis.authors_results import WINDOWS
from rnem.authors.result_videos import ResultVideo
from rnem.evaluation.metrics import interval
from rnem.figures.curves import spread
from rnem.figures.films import Film, film
from rnem.figures.pictures import grouping_rgb
from rnem.figures.style import MODEL_COLOURS, WIDTH
from rnem.model.config import model_label


def shares(theirs: pd.DataFrame, ours: pd.DataFrame, window: str = "49-499") -> plt.Figure:
    """Wrong pixels of the mixture over those of copying the last frame, a panel per video and a row per model.

    ``theirs`` and ``ours`` are tables of rnem.analysis.authors_results. A ring is a seed, a dot their mean, a bar
    the interval over seeds (rnem.figures.curves.spread); the black diamond is the authors' model. A vertical line at 1
    is copying the last frame.
    """
    theirs, ours = (part[part["window"] == window] for part in (theirs, ours))
    order = list(MODEL_COLOURS)
    names = sorted(set(zip(ours["model"], ours["components"], strict=True)), key=lambda n: (order.index(n[0]), n[1]))
    videos = list(dict.fromkeys([*theirs["video"], *ours["video"]]))
    labels = ["authors' model", *(model_label(f"{m}-k{k}" if k > 1 else m) for m, k in names)]
    size = (WIDTH, 0.8 + 0.3 * len(labels))
    figure, grid = plt.subplots(1, len(videos), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, video in zip(grid[0], videos, strict=True):
        their = theirs[theirs["video"] == video]
        axes.plot(their["wrong_mixture"] / their["copy_last"], np.zeros(len(their)), "D", color="black", ms=5)
        for row, (model, components) in enumerate(names, 1):
            part = ours[(ours["video"] == video) & (ours["model"] == model) & (ours["components"] == components)]
            values = (part["wrong_mixture"] / part["copy_last"]).to_numpy(float)
            if not len(values):
                continue
            mean, half = spread(values)
            axes.plot(values, np.full(len(values), row), "o", mfc="none", color=MODEL_COLOURS[model], ms=4)
            axes.errorbar(mean, row, xerr=None if np.isnan(half) else half, fmt="o", color=MODEL_COLOURS[model], ms=5)
        axes.axvline(1, color=MODEL_COLOURS["copy_last"], dashes=(4, 2), lw=1)
        axes.set(title=video, ylim=(len(labels) - 0.5, -0.5), xlabel="wrong pixels / copy last")
        axes.set_xlim(left=0)
    grid[0, 0].set_yticks(range(len(labels)), labels)
    return figure


def compare(theirs: pd.DataFrame, ours: pd.DataFrame, quantities: dict[str, str]) -> pd.DataFrame:
    """A row per video, window and quantity, as text: the authors' model, and of each run name mean and half width.

    ``quantities``: a key of QUANTITIES or a ratio of two (``wrong/copy_last``, formed per seed) -> what the table
    calls it. Where there is no number stands a dash.
    """
    groups = dict(list(ours.groupby("run", sort=False)))
    rows = []
    for video in dict.fromkeys([*theirs["video"], *ours["video"]]):
        for window in WINDOWS:
            for quantity, label in quantities.items():
                row = {"video": video, "window": window, "quantity": label}
                for column, part in {"theirs": theirs, **groups}.items():
                    part = part[(part["video"] == video) & (part["window"] == window)]
                    row[column] = _text(_values(part, quantity), seeds=column != "theirs")
                rows.append(row)
    return pd.DataFrame(rows)


def _values(rows: pd.DataFrame, quantity: str) -> np.ndarray:
    """One number a row; none where the quantity is not known, or is the grouping of a single component."""
    above, _, below = quantity.partition("/")
    if above not in rows:
        return np.array([])
    if above == "ari" and "components" in rows:
        rows = rows[rows["components"] > 1]
    return (rows[above] / rows[below] if below else rows[above]).dropna().to_numpy()


def _text(values: np.ndarray, seeds: bool) -> str:
    if not len(values):
        return "–"
    mean, half = interval(values)
    digits = 2 if abs(mean) < 10 else 1
    if not seeds:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} (one seed)" if len(values) == 1 else f"{mean:.{digits}f} ± {half:.{digits}f}"


def summary(theirs: pd.DataFrame, ours: pd.DataFrame, runs: Mapping[str, str], window: str) -> str:
    """One sentence in HTML: the share of copy-last's wrong pixels, of the authors' model and ours, video by video.

    ``runs``: the kind of a video (``curtain``) -> the name of the run that is shown for it.
    """
    said = []
    for video in dict.fromkeys(theirs["video"]):
        their, our = (part[(part["video"] == video) & (part["window"] == window)] for part in (theirs, ours))
        kind = video.split("_")[0]
        shares = [_values(part, "wrong_mixture/copy_last") for part in (their, our[our["run"] == runs.get(kind)])]
        both = (f"<b>{100 * share.mean():.0f} %</b>" if len(share) else "not measured" for share in shares)
        said.append(f"{KINDS[kind]} {' against ours '.join(both)}")
    return f"Of the pixels that copying the last frame gets wrong, the authors’ model gets wrong: {'; '.join(said)}."


KINDS = {"balls4mass": "four balls", "balls678mass": "six to eight balls", "curtain": "a curtain"}
"""What the authors' videos show, by the first word of their names."""


def beside(
    theirs: ResultVideo,
    ours: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    stride: int,
    first: int,
    last: int,
    alt: str,
) -> Film:
    """The authors' model and a run on the same result video, frames ``first`` to ``last`` as the run numbers them.

    ``ours``: what the run sees, psi and gamma (rnem.analysis.authors_results.watched). Its frame t is frame
    t * ``stride`` of the film; at a smaller size its pixels are repeated. Shown is sum over k of gamma_k psi_k, as in
    their film.
    """
    x, psi, gamma = (part[first - 1 : last] for part in ours)
    times = np.arange(first, last + 1) * stride
    repeat = theirs.truth.shape[-1] // x.shape[-1]

    def larger(frames: np.ndarray) -> np.ndarray:
        return frames.repeat(repeat, 1).repeat(repeat, 2)

    rows = {
        "theirs": {
            "truth": theirs.truth[times].astype(float), "prediction": theirs.prediction[times],
            "grouping": theirs.grouping[times] / 255,
        },
        "ours": {
            "truth": larger(x), "prediction": larger((gamma * psi).sum(1)), "grouping": larger(grouping_rgb(gamma, x)),
        },
    }  # fmt: skip
    return film(rows, alt=alt, first=first)


def left_out(ours: pd.DataFrame, missing: dict[str, list[str]]) -> str:
    """What the tables lack, and which runs stand in on curtain videos, Markdown."""
    stand_ins = ours[ours["video"].str.startswith("curtain") & ~ours["run"].str.contains("curtain")]["run"]
    measured = set(ours["video"])
    lines = [
        f"Not at hand and never measured, so left out: `{video}` for {', '.join(f'`{label}`' for label in labels)}."
        for video, labels in missing.items()
        if video in measured
    ]
    if absent := [f"`{video}`" for video in missing if video not in measured]:
        lines.append(
            f"Not at hand where this page was made: {', '.join(absent)}. `rnem evaluate RUN --video NAME` downloads "
            "one by its hash, and measures it."
        )
    if len(stand_ins):
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(stand_ins))
        lines.append(f"On the curtain video {names} saw no curtain in training: for them it is another world.")
    return "\n\n".join(lines) if lines else "Every run was measured on every video for which it was trained."
