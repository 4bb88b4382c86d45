"""Figures of the chapters Attention and Grouping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rnem.analysis import attention
from rnem.evaluation.quantities import axis_label
from rnem.figures.curves import bar_per_model, by_model, label, look, over_seeds, spread
from rnem.figures.pictures import COMPONENT_COLOURS
from rnem.figures.style import MODEL_COLOURS, WIDTH
from rnem.model.config import MODEL_LABELS
from rnem.videos.balls import BOX
from rnem.videos.videos import Videos

_CURVES = {
    "partner": ("the ball it hits", MODEL_COLOURS["rnem"], (), "o"),
    "others": ("its other balls", MODEL_COLOURS["copy_last"], (4, 1.5), "s"),
    "quiet": ("the same ball, no contact near", MODEL_COLOURS["rnn"], (1, 1), "^"),
}
_MOTIONS = {
    "approaching": (MODEL_COLOURS["nem"], (), "o"),
    "separating": (MODEL_COLOURS["lstm"], (4, 1.5), "s"),
}


# ------------------------------------------------------------------------------------------------------------ attention


def example(values: attention.Record, videos: Videos, before: int, after: int) -> tuple[int, int, int, int]:
    """The first contact that can be drawn: video, frame, and the two balls.

    Every ball must have a component of its own in all steps that predict ``before`` frames before the contact to
    ``after`` frames after it. ValueError where there is none.
    """
    known = np.isfinite(values["attention"]).sum((-2, -1))  # (T-1,N)
    balls = (videos.masses > 0).sum(1).numpy()
    touch = attention.touching(videos)
    for video in range(len(videos)):
        for frame in range(attention.FIRST + before, videos.frames - after):
            steps = known[frame - 1 - before : frame + after, video]
            if touch[frame, video].any() and (steps == balls[video] * (balls[video] - 1)).all():
                a, b = np.argwhere(touch[frame, video])[0]
                return video, frame, int(a), int(b)
    raise ValueError(f"in none of {len(videos)} videos all balls have a component of their own around a contact")


def attention_strip(
    frames: np.ndarray,
    centres: np.ndarray,
    weights: np.ndarray,
    numbers: Sequence[int],
    *,
    contact: int,
    pair: tuple[int, int],
    widest: float = 9.0,
) -> plt.Figure:
    """Frames (F,H,W) with a line between every two balls, as wide as the attention that went into predicting the frame.

    ``centres`` (F,M,2) are (y, x) in box units, ``weights`` (F,M,M) the attention of focus to other. The half of a line
    at a ball belongs to that ball as focus. ``numbers`` (F,) are the frames' numbers, ``contact`` the contact's;
    the ``pair`` that touches then has white rings. ``widest`` is the widest line, in points.
    ValueError where the shapes disagree.
    """
    F, M = centres.shape[:2]
    if weights.shape != (F, M, M) or len(frames) != F or len(numbers) != F:
        raise ValueError(f"frames, centres and weights are {frames.shape}, {centres.shape} and {weights.shape}")
    columns = min(F, 5)
    rows = -(-F // columns)
    side = WIDTH / columns
    figure, grid = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * (side + 0.25)), squeeze=False, layout="constrained"
    )
    scale = widest / np.nanmax(weights)
    for axes in grid.flat[F:]:
        axes.axis("off")
    for axes, frame, centre, weight, number in zip(grid.flat, frames, centres, weights, numbers, strict=False):
        axes.imshow(frame, cmap="gray", vmin=0, vmax=1.6, extent=(0, BOX, BOX, 0), interpolation="nearest")
        for a, b in zip(*np.nonzero(np.isfinite(weight)), strict=True):
            half = np.stack([centre[a], (centre[a] + centre[b]) / 2])  # (2,2)
            colour = COMPONENT_COLOURS[a % len(COMPONENT_COLOURS)]
            axes.plot(half[:, 1], half[:, 0], color=colour, lw=scale * weight[a, b], solid_capstyle="butt")
        for ball, (y, x) in enumerate(centre):
            edge, size = ("white", 10) if ball in pair else ("black", 5)
            axes.plot(x, y, "o", mfc=COMPONENT_COLOURS[ball % len(COMPONENT_COLOURS)], mec=edge, mew=1.2, ms=size)
        lag = number - contact
        axes.set_title(f"frame {number}" + (" (contact)" if lag == 0 else f", lag {lag:+d}"), pad=2)
        axes.set(xticks=[], yticks=[], xlim=(0, BOX), ylim=(BOX, 0))
    return figure


def lag_curves(table: pd.DataFrame) -> plt.Figure:
    """Draw analysis.attention.table: attention and contribution by lag, see rnem.figures.curves.over_seeds.

    With one seed there is no band: the differences have their bootstrap intervals in the table.
    """
    figure, grid = plt.subplots(1, 2, figsize=(WIDTH, 3.0), layout="constrained")
    for axes, quantity in zip(grid, attention.QUANTITIES, strict=True):
        rows = table[table["quantity"] == quantity]
        for column, (name, colour, dashes, marker) in _CURVES.items():
            drawn = {"color": colour, "dashes": dashes or (None, None), "marker": marker, "ms": 3.5, "lw": 1.5}
            over_seeds(axes, rows, "lag", column, label=name, **drawn)
        axes.axvline(0, color="0.75", lw=0.8, zorder=0)
        axes.set(xlabel="lag: predicted frame − contact's frame", ylabel=axis_label(quantity), ylim=(0, None))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def distance_curves(table: pd.DataFrame) -> plt.Figure:
    """rnem.analysis.attention.table of="distance": against the centre distance, approaching and separating pairs.

    Mean over seeds and their spread (rnem.figures.curves.over_seeds); where there is one seed, bars are the 95 %
    bootstrap interval over videos.
    """
    figure, grid = plt.subplots(1, 2, figsize=(WIDTH, 3.0), layout="constrained")
    one = table["seed"].nunique() == 1
    for axes, quantity in zip(grid, attention.QUANTITIES, strict=True):
        for motion, (colour, dashes, marker) in _MOTIONS.items():
            rows = table[(table["quantity"] == quantity) & (table["motion"] == motion)].dropna(subset=["mean"])
            rows = rows.assign(distance=rows.groupby("low")["distance"].transform("mean"))
            drawn = {"color": colour, "dashes": dashes or (None, None), "marker": marker, "ms": 3.5, "lw": 1.2}
            over_seeds(axes, rows, "distance", "mean", label=motion, **drawn)
            if one:
                half = np.abs(np.stack([rows["mean"] - rows["mean_low"], rows["mean_high"] - rows["mean"]]))  # (2,bins)
                axes.errorbar(rows["distance"], rows["mean"], half, fmt="none", color=colour, lw=1.0, capsize=2)
        axes.axvspan(1.6, 2.0, color="0.9", zorder=0)
        axes.set(xlabel="distance of centres (box: 10)", ylabel=axis_label(quantity), ylim=(0, None))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def ablation(tables: Mapping[str, pd.DataFrame], quantity: str = "bce") -> plt.Figure:
    """A quantity of each model there is, a panel per table (its title), see rnem.figures.curves.bar_per_model.

    Tables have a row per (model, seed). Panels have their own scale.
    """
    figure, grid = plt.subplots(1, len(tables), figsize=(WIDTH, 1.9), squeeze=False, layout="constrained")
    for axes, (title, rows) in zip(grid.flat, tables.items(), strict=True):
        bar_per_model(axes, by_model(rows, quantity), quantity)
        axes.set_yticklabels([tick.get_text().replace(" without", "\nwithout") for tick in axes.get_yticklabels()])
        axes.set(title=title, xlabel=axis_label(quantity))
    return figure


# ------------------------------------------------------------------------------------------------------------- grouping


def step_curves(table: pd.DataFrame, panels: Mapping[str, str], *, since: int = 1) -> plt.Figure:
    """Columns of rnem.analysis.grouping.table by frame, a panel each (column -> label of its axis), a curve per model.

    Means over seeds, see rnem.figures.curves.over_seeds. ``since`` is the first frame shown.
    """
    figure, grid = plt.subplots(1, len(panels), figsize=(WIDTH, 2.9), squeeze=False, layout="constrained")
    for axes, (column, axis) in zip(grid.flat, panels.items(), strict=True):
        for model, rows in by_model(table[table["step"] >= since], "step", column):
            over_seeds(axes, rows, "step", column, label=label(model, rows), **look(model))
        axes.set(xlabel="frame", ylabel=axis)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def balls_held(table: pd.DataFrame, ideal: tuple[float, ...] | None = None) -> plt.Figure:
    """How many components hold 0, 1, 2, 3 or more balls: columns held0..held3 of rows per (model, seed).

    ``ideal`` (4 numbers) draws what one ball for each component would give.
    """
    models = by_model(table)
    figure, axes = plt.subplots(figsize=(WIDTH, 2.7), layout="constrained")
    width = 0.75 / len(models)
    for place, (model, rows) in enumerate(models):
        x = np.arange(4) + (place - (len(models) - 1) / 2) * width
        mean, half = np.array([spread(rows[f"held{n}"]) for n in range(4)]).T
        axes.bar(x, mean, width * 0.92, color=MODEL_COLOURS[model], alpha=0.45, label=MODEL_LABELS[model])
        for n in range(4):
            values = rows[f"held{n}"]
            axes.plot(np.full(len(values), x[n]), values, "o", color=MODEL_COLOURS[model], ms=3.5)
        if np.isfinite(half).all():
            axes.errorbar(x, mean, half, fmt="none", color="black", lw=1.1, capsize=3)
    if ideal is not None:
        axes.hlines(
            ideal, np.arange(4) - 0.45, np.arange(4) + 0.45, color="black", ls="--", lw=1, label="one ball each"
        )
    axes.set_xticks(range(4), ["0 (empty)", "1", "2", "3 or more"])
    axes.set(xlabel="balls that a component holds", ylabel="components per frame")
    axes.legend(loc="upper right")
    return figure


def clipped_index(table: pd.DataFrame, balls: Mapping[str, tuple[float, float]]) -> plt.Figure:
    """Draw analysis.grouping.index_by_size: both indices of a perfect segmentation; ``balls``: ranges of pixels."""
    figure, axes = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    axes.plot(table["pixels"], table["authors"], color=MODEL_COLOURS["nem"], lw=1.6, label="authors' code")
    axes.plot(table["pixels"], table["textbook"], color="black", lw=1.2, ls="--", label="textbook")
    for name, (low, high) in balls.items():
        axes.axvspan(low, high, color="0.88", zorder=0)
        axes.text((low + high) / 2, 1.15, name, rotation=90, va="bottom", ha="center", fontsize=7.5, color="0.35")
    axes.set(xlabel="pixels of each of four objects", ylabel="adjusted Rand index", ylim=(0, None))
    axes.legend(loc="upper center")
    return figure
