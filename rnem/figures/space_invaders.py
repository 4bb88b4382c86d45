"""Figures of the Space Invaders chapter: sprites in colour, and what shares a component."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float, Int

from rnem.figures.pictures import COMPONENT_COLOURS, GREY
from rnem.figures.style import WIDTH, style
from rnem.videos import space_invaders

style()

_KIND_COLOURS = {
    "shields": COMPONENT_COLOURS[2],
    "ship": COMPONENT_COLOURS[0],
    "shots": np.ones(3),
    "other": GREY + 0.3,
}


def sprite_rgb(groups: Int[np.ndarray, "T H W"]) -> Float[np.ndarray, "T H W 3"]:
    """Sprite numbers as colour: columns of aliens alternate between two blues, background black."""
    colours = [np.zeros(3)]
    for name in space_invaders.SPRITES[1:]:
        column = name.removeprefix("alien column ")
        colours.append(COMPONENT_COLOURS[1 if int(column) % 2 else 6] if column.isdigit() else _KIND_COLOURS[name])
    return np.stack(colours)[groups]


def shared(table: pd.DataFrame) -> plt.Figure:
    """Probability that a pixel of one sprite (row) and of another (column) have the same component; mean over runs."""
    names = [name for name in space_invaders.SPRITES[1:] if table.loc[table["a"] == name, "share"].notna().any()]
    matrix = table.groupby(["a", "b"])["share"].mean().unstack("b").loc[names, names]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.62 * WIDTH), layout="constrained")
    sns.heatmap(
        matrix, annot=True, fmt=".2f", vmin=0, vmax=1, cmap="Blues", square=True, ax=axes, annot_kws={"size": 7},
        cbar_kws={"label": "share of pairs of pixels in one component"},
    )  # fmt: skip
    axes.set(xlabel="", ylabel="")
    plt.setp(axes.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    return figure
