"""The figures of the chapter on simulation: curves of several quantities over simulated steps."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rnem.evaluation.metrics import interval
from rnem.figures.style import LABELS, MODEL_COLOURS, MODEL_DASHES, WIDTH, style
from rnem.model.config import MODEL_LABELS

style()


def panels(
    frame: pd.DataFrame,
    quantities: Mapping[str, str],
    *,
    columns: int = 2,
    height: float = 2.1,
    references: Mapping[str, float] | None = None,
    sharey: bool = False,
) -> plt.Figure:
    """A panel per quantity against the simulated step, a curve per model: mean, and 95 % interval over seeds.

    ``frame`` has a row per (model, seed, step); ``quantities`` maps its columns to labels. ``references`` gives panels
    a dotted line, such as the true number of balls. Quantities are not negative: an interval is cut there. A model
    whose quantity is nan throughout has no curve there.
    ValueError names a column or model that is unknown.
    """
    if missing := {"model", "seed", "step", *quantities} - set(frame.columns):
        raise ValueError(f"the table has no column {min(missing)!r}; it has {', '.join(map(str, frame.columns))}")
    if unknown := set(frame["model"]) - set(MODEL_COLOURS):
        raise ValueError(f"{min(unknown)!r} is no model with a colour; they are {', '.join(MODEL_COLOURS)}")
    rows = -(-len(quantities) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(WIDTH, height * rows + 0.4), sharex=True, sharey=sharey, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    handles = {}
    for axes, (quantity, label) in zip(grid.flat, quantities.items(), strict=False):
        for model in MODEL_COLOURS:
            some = frame[frame["model"] == model].dropna(subset=[quantity])
            if len(some):
                handles.setdefault(_label(model, some), _curve(axes, model, some, quantity))
        if references and quantity in references:
            axes.axhline(references[quantity], color="0.3", lw=0.8, ls=":")
        axes.set(ylabel=label)
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
    for axes in grid.flat[len(quantities) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("simulated step")
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)
    return figure


def _curve(axes: plt.Axes, model: str, rows: pd.DataFrame, quantity: str):
    points = {step: interval(values.to_numpy()) for step, values in rows.groupby("step")[quantity]}
    at, (mean, half) = np.array([*points]), np.array([*points.values()]).T
    colour = MODEL_COLOURS[model]
    axes.fill_between(at, mean - half, mean + half, color=colour, alpha=0.18, lw=0)
    return axes.plot(at, mean, color=colour, dashes=MODEL_DASHES[model] or (None, None), lw=1.5)[0]


def _label(model: str, rows: pd.DataFrame) -> str:
    seeds = rows["seed"].nunique()
    return f"{LABELS[model]} ({seeds} seed{'s' * (seeds > 1)})" if model in MODEL_LABELS else LABELS[model]
