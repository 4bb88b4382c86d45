"""The figures of the chapter on rollouts: curves of several quantities over imagined steps."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd

from rnem.figures.curves import by_model, label, look, over_seeds
from rnem.figures.style import WIDTH, style

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
    """A panel per quantity against the rollout step, a curve per model, see rnem.figures.curves.over_seeds.

    ``frame`` has a row per (model, seed, step); ``quantities`` maps its columns to labels. ``references`` gives panels
    a dotted line, such as the true number of balls. Quantities are not negative: an interval is cut there. A model
    whose quantity is nan throughout has no curve there.
    ValueError names a column or model that is unknown.
    """
    models = by_model(frame, "step", *quantities)
    lines = -(-len(quantities) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(WIDTH, height * lines + 0.4), sharex=True, sharey=sharey, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    handles = {}
    for axes, (quantity, name) in zip(grid.flat, quantities.items(), strict=False):
        for model, rows in models:
            some = rows.dropna(subset=[quantity])
            if len(some):
                handles.setdefault(label(model, some), over_seeds(axes, some, "step", quantity, **look(model), lw=1.5))
        if references and quantity in references:
            axes.axhline(references[quantity], color="0.3", lw=0.8, ls=":")
        axes.set(ylabel=name)
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
    for axes in grid.flat[len(quantities) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("rollout step")
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)
    return figure
