"""Curves and bars of the book: quantities over frames, over models, over training and over K."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from rnem.evaluation.metrics import interval
from rnem.figures.style import LABELS, MODEL_COLOURS, MODEL_DASHES, QUANTITY_LABELS, WIDTH
from rnem.model.config import MODEL_LABELS

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
    """A quantity against ``x``, a curve per model: mean over seeds, band = 95 % Student-t interval over seeds.

    ``frame`` has a row per (model, seed, x) and columns ``model`` (a key of MODEL_COLOURS), ``seed``, ``x`` and the
    quantity. A model with one seed has no band.
    """
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for model, rows in _by_model(frame, quantity, x):
        groups = rows.dropna(subset=[quantity]).groupby(x)[quantity]
        points = {place: interval(values.to_numpy()) for place, values in groups}
        at, mean, half = (
            np.array(v) for v in ([*points], [m for m, _ in points.values()], [h for _, h in points.values()])
        )
        seeds = rows["seed"].nunique()
        label = f"{LABELS[model]} ({seeds} seed{'s' if seeds > 1 else ''})" if model in MODEL_LABELS else LABELS[model]
        axes.plot(at, mean, color=MODEL_COLOURS[model], dashes=MODEL_DASHES[model] or (None, None), label=label, lw=1.6)
        axes.fill_between(at, mean - half, mean + half, color=MODEL_COLOURS[model], alpha=0.18, lw=0)
    axes.set(xlabel=xlabel, ylabel=ylabel or QUANTITY_LABELS.get(quantity, quantity))
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
    """A quantity compared between models: bar = mean, line = 95 % interval over seeds, a dot per seed.

    ``frame`` has a row per (model, seed). ``reference`` draws a vertical line, such as copying the last frame.
    """
    models = list(_by_model(frame, quantity))
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.42 * len(models)), layout="constrained")
    for place, (model, rows) in enumerate(models):
        mean, half = interval(rows[quantity].to_numpy())
        axes.barh(place, mean, height=0.62, color=MODEL_COLOURS[model], alpha=0.35)
        axes.plot(rows[quantity], np.full(len(rows), place), "o", color=MODEL_COLOURS[model], ms=4)
        if np.isfinite(half):
            axes.errorbar(mean, place, xerr=half, color="black", lw=1.2, capsize=3)
    axes.set_yticks(range(len(models)), [LABELS[model] for model, _ in models])
    axes.invert_yaxis()
    if reference is not None:
        axes.axvline(reference, color=MODEL_COLOURS["copy_last"], lw=1, ls="--", label=reference_label)
        if reference_label:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0))
    axes.set_xlabel(xlabel or QUANTITY_LABELS.get(quantity, quantity))
    return figure


def against(frame: pd.DataFrame, x: str, quantities: Sequence[str], *, xlabel: str) -> plt.Figure:
    """Quantities against a number, such as K, a panel each: a dot per row (a seed), a line through the means."""
    figure, panels = plt.subplots(1, len(quantities), figsize=(WIDTH, 2.8), layout="constrained", squeeze=False)
    for axes, quantity in zip(panels[0], quantities, strict=True):
        means = frame.groupby(x)[quantity].mean()
        axes.plot(means.index, means, color=MODEL_COLOURS["rnem"], lw=1.4)
        axes.plot(frame[x], frame[quantity], "o", color=MODEL_COLOURS["rnem"], ms=4, alpha=0.6)
        axes.set(xlabel=xlabel, ylabel=QUANTITY_LABELS.get(quantity, quantity), xticks=sorted(set(frame[x])))
    return figure


def by_components(frame: pd.DataFrame, quantity: str) -> plt.Figure:
    """A quantity by frame, a curve per number of components (mean over seeds), the more the darker."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    numbers = sorted(set(frame["components"]))
    for K, colour in zip(numbers, sns.color_palette("flare", len(numbers)), strict=True):
        mean = frame[frame["components"] == K].groupby("step")[quantity].mean()
        axes.plot(mean.index, mean, color=colour, label=f"K = {K}", lw=1.4)
    axes.set(xlabel="predicted frame", ylabel=QUANTITY_LABELS.get(quantity, quantity))
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6)
    return figure


def _by_model(frame: pd.DataFrame, *columns: str) -> Iterable[tuple[str, pd.DataFrame]]:
    if missing := {"model", "seed", *columns} - set(frame.columns):
        raise ValueError(f"the table has no column {min(missing)!r}; it has {', '.join(map(str, frame.columns))}")
    if unknown := set(frame["model"]) - set(MODEL_COLOURS):
        raise ValueError(f"{min(unknown)!r} is no model with a colour; they are {', '.join(MODEL_COLOURS)}")
    return [(model, rows) for model in MODEL_COLOURS if len(rows := frame[frame["model"] == model])]
