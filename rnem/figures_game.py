"""Figures of the Space Invaders chapter: sprites in colour, what shares a component, where the ship goes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float, Int

from rnem import invaders, sprites
from rnem.figures import COMPONENT_COLOURS, GREY, MODEL_COLOURS, WIDTH, style
from rnem.metrics import interval

style()

_KIND_COLOURS = {
    "shields": COMPONENT_COLOURS[2],
    "ship": COMPONENT_COLOURS[0],
    "shots": np.ones(3),
    "other": GREY + 0.3,
}
_ACTION_COLOURS = {"left": MODEL_COLOURS["nem"], "stay": MODEL_COLOURS["copy_last"], "right": MODEL_COLOURS["rnem"]}


def sprite_rgb(groups: Int[np.ndarray, "T H W"]) -> Float[np.ndarray, "T H W 3"]:
    """Sprite numbers as colour: columns of aliens alternate between two blues, background black."""
    colours = [np.zeros(3)]
    for name in invaders.SPRITES[1:]:
        column = name.removeprefix("alien column ")
        colours.append(COMPONENT_COLOURS[1 if int(column) % 2 else 6] if column.isdigit() else _KIND_COLOURS[name])
    return np.stack(colours)[groups]


def shared(table: pd.DataFrame) -> plt.Figure:
    """Probability that a pixel of one sprite (row) and of another (column) have the same component; mean over runs."""
    names = [name for name in invaders.SPRITES[1:] if table.loc[table["a"] == name, "share"].notna().any()]
    matrix = table.groupby(["a", "b"])["share"].mean().unstack("b").loc[names, names]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.62 * WIDTH), layout="constrained")
    sns.heatmap(
        matrix, annot=True, fmt=".2f", vmin=0, vmax=1, cmap="Blues", square=True, ax=axes, annot_kws={"size": 7},
        cbar_kws={"label": "share of pairs of pixels in one component"},
    )  # fmt: skip
    axes.set(xlabel="", ylabel="")
    axes.tick_params(axis="x", rotation=40)
    return figure


def obeying(table: pd.DataFrame, first: int, speed: float) -> plt.Figure:
    """Where the simulated ship is, against the frame, a curve per action held: mean over runs, 95% interval.

    ``table`` has rows of :func:`rnem.sprites.obeying` with a column ``seed``. Grey lines: where the game's would be.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.7), layout="constrained")
    steps = np.array(sorted(table["step"].unique()))
    for direction, heading in zip(sprites.DIRECTIONS, (-1, 0, 1), strict=True):
        axes.plot(steps, heading * speed * (steps - first), color="0.7", lw=1, ls="--")
        by_step = table[table["action"] == direction].groupby("step")["shift"]
        shift = [interval(values.dropna()) if values.notna().any() else (np.nan, np.nan) for _, values in by_step]
        mean, half = np.array(shift).T
        colour = _ACTION_COLOURS[direction]
        axes.plot(steps, mean, color=colour, marker="o", ms=3, label=f"“{direction}” held")
        axes.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.18, lw=0)
    axes.set_xlabel("frame (all after the first are simulated)")
    axes.set_ylabel(f"pixels to the right\nof frame {first}")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    return figure
