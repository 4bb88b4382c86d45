"""Curves and bars of the book: quantities over frames, over models, over training and over K."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D

from rnem.evaluation.metrics import interval
from rnem.evaluation.quantities import axis_label
from rnem.figures.style import LABELS, MODEL_COLOURS, MODEL_DASHES, WIDTH
from rnem.model.config import MODEL_LABELS

ENOUGH_SEEDS = 5
"""From so many seeds on a figure shows an interval over them; of fewer it shows each."""
BANDS = f"Band: 95% interval over seeds; of fewer than {ENOUGH_SEEDS} seeds each is a thin line."
BARS = f"Bar: mean; a dot per seed; line: 95% interval over seeds, where there are {ENOUGH_SEEDS} or more."
"""What the captions of such figures say."""

# --------------------------------------------------------------------------------------------------------------- curves


def per_step(
    frame: pd.DataFrame,
    quantity: str,
    *,
    x: str = "step",
    xlabel: str = "predicted frame",
    ylabel: str | None = None,
    logy: bool = False,
    size: tuple[float, float] = (WIDTH, 3.2),
) -> plt.Figure:
    """A quantity against ``x``, a curve per model, see :func:`over_seeds`.

    ``frame`` has a row per (model, seed, x) and columns ``model`` (a key of MODEL_COLOURS), ``seed``, ``x`` and the
    quantity.
    """
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for model, rows in by_model(frame, quantity, x):
        over_seeds(axes, rows, x, quantity, label=label(model, rows), **look(model))
    axes.set(xlabel=xlabel, ylabel=ylabel or axis_label(quantity))
    if logy:
        axes.set_yscale("log")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    return figure


def bars(
    frame: pd.DataFrame,
    quantity: str,
    *,
    xlabel: str | None = None,
    reference: float | None = None,
    reference_label: str = "",
) -> plt.Figure:
    """A quantity compared between models, see :func:`bar_per_model`.

    ``frame`` has a row per (model, seed). ``reference`` draws a vertical line, such as copying the last frame.
    """
    models = by_model(frame, quantity)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.42 * len(models)), layout="constrained")
    bar_per_model(axes, models, quantity)
    if reference is not None:
        axes.axvline(reference, color=MODEL_COLOURS["copy_last"], lw=1, ls="--", label=reference_label)
        if reference_label:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0))
    axes.set_xlabel(xlabel or axis_label(quantity))
    return figure


def against(frame: pd.DataFrame, x: str, quantities: Sequence[str], *, xlabel: str) -> plt.Figure:
    """Quantities against a number, such as K, a panel each: a dot per row (a seed), a line through the means."""
    figure, panels = plt.subplots(1, len(quantities), figsize=(WIDTH, 2.8), layout="constrained", squeeze=False)
    for axes, quantity in zip(panels[0], quantities, strict=True):
        means = frame.groupby(x)[quantity].mean()
        axes.plot(means.index, means, color=MODEL_COLOURS["rnem"], lw=1.4)
        axes.plot(frame[x], frame[quantity], "o", color=MODEL_COLOURS["rnem"], ms=4, alpha=0.6)
        axes.set(xlabel=xlabel, ylabel=axis_label(quantity), xticks=sorted(set(frame[x])))
    return figure


def by_components(frame: pd.DataFrame, quantity: str) -> plt.Figure:
    """A quantity by frame, a curve per number of components (mean over seeds), the more the darker."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    numbers = sorted(set(frame["components"]))
    for K, colour in zip(numbers, sns.color_palette("flare", len(numbers)), strict=True):
        mean = frame[frame["components"] == K].groupby("step")[quantity].mean()
        axes.plot(mean.index, mean, color=colour, label=f"K = {K}", lw=1.4)
    axes.set(xlabel="predicted frame", ylabel=axis_label(quantity))
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6)
    return figure


# ----------------------------------------------------------------------------------------------------------- over seeds


def over_seeds(axes: plt.Axes, rows: pd.DataFrame, x: str, quantity: str, **line) -> Line2D:
    """Draw a quantity against ``x``, the mean over seeds and its :func:`spread`; return the line of the mean.

    ``rows`` has a row per (seed, x); ``line`` is how the mean is drawn (colour, dashes, label). The spread is a band
    from ENOUGH_SEEDS on; of fewer seeds each has a thin line, since a band of so few would cross what is possible.
    """
    rows = rows.dropna(subset=[quantity])
    points = {at: spread(values) for at, values in rows.groupby(x)[quantity]}
    at, (mean, half) = np.array([*points]), np.array([*points.values()]).T
    (drawn,) = axes.plot(at, mean, **{"lw": 1.6} | line)
    seeds = [one.sort_values(x) for _, one in rows.groupby("seed")]
    if 1 < len(seeds) < ENOUGH_SEEDS:
        for one in seeds:
            axes.plot(one[x], one[quantity], color=drawn.get_color(), lw=0.6, alpha=0.55)
    axes.fill_between(at, mean - half, mean + half, color=drawn.get_color(), alpha=0.18, lw=0)
    return drawn


def bar_per_model(axes: plt.Axes, models: Iterable[tuple[str, pd.DataFrame]], quantity: str) -> None:
    """Draw a horizontal bar per model, the first at the top: bar = mean, a dot per seed, line = :func:`spread`."""
    names = []
    for place, (model, rows) in enumerate(models):
        mean, half = spread(rows[quantity])
        axes.barh(place, mean, height=0.62, color=MODEL_COLOURS[model], alpha=0.35)
        axes.plot(rows[quantity], np.full(len(rows), place), "o", color=MODEL_COLOURS[model], ms=4)
        if np.isfinite(half):
            axes.errorbar(mean, place, xerr=half, color="black", lw=1.2, capsize=3)
        names.append(LABELS[model])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % Student-t interval over seeds; a nan half width for fewer than ENOUGH_SEEDS."""
    mean, half = interval(values := list(values))
    return mean, half if len(values) >= ENOUGH_SEEDS else np.nan


def look(model: str) -> dict:
    """How a model's curve is drawn: its colour and its dashes."""
    return {"color": MODEL_COLOURS[model], "dashes": MODEL_DASHES[model] or (None, None)}


def label(model: str, rows: pd.DataFrame) -> str:
    """What a legend calls a model, with its number of seeds."""
    seeds = rows["seed"].nunique()
    return LABELS[model] + (f" ({seeds} seed{'s' * (seeds > 1)})" if model in MODEL_LABELS else "")


def by_model(frame: pd.DataFrame, *columns: str) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each model of a table, in the book's order; ValueError names a column or model that is unknown."""
    if missing := {"model", "seed", *columns} - set(frame.columns):
        raise ValueError(f"the table has no column {min(missing)!r}; it has {', '.join(map(str, frame.columns))}")
    if unknown := set(frame["model"]) - set(MODEL_COLOURS):
        raise ValueError(f"{min(unknown)!r} is no model with a colour; they are {', '.join(MODEL_COLOURS)}")
    return [(model, rows) for model in MODEL_COLOURS if len(rows := frame[frame["model"] == model])]
