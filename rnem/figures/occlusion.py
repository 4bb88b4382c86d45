"""The figures of the chapter on occlusion: hidden balls by frames hidden, and one of them in pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Circle, Rectangle

from rnem.analysis import occlusion
from rnem.analysis.occlusion import FAR, NEAR
from rnem.analysis.state_probe import GUESSES
from rnem.figures.curves import label as model_label
from rnem.figures.curves import over_seeds
from rnem.figures.pictures import strips
from rnem.figures.style import MODEL_COLOURS, MODEL_DASHES, WIDTH
from rnem.videos import balls
from rnem.videos.balls import BOX, CURTAIN
from rnem.videos.videos import Videos

SPANS = {"1": 1, "2": 2, "3": 3, "4": 4, "5": 5, "6–7": 6, "8+": 8}
"""Frames hidden, as they are sorted here -> the least of them."""
Table = tuple[str, int, pd.DataFrame]
"""A model, a seed, and the rows of that run."""
_GUESS = {
    "straight": ("#9A9A9A", (4, 1.5), "s"),
    "reflected": ("#333333", (4, 1.5), "D"),
    "last_seen": ("#6B6B6B", (1, 1), "v"),
    "centre": ("#6B6B6B", (8, 3), "x"),
    "rim": ("#6B6B6B", (8, 3), "x"),
}
"""Colour, dashes and marker of what needs no model."""
_LABELS = GUESSES | {"rim": "the curtain's rim, all alike"}
RING = np.array([1.0, 0.55, 0.0])


# ----------------------------------------------------------------------------------------------------- by frames hidden


def span(hidden: pd.Series) -> np.ndarray:
    """Which one of SPANS each number of frames belongs to."""
    return np.digitize(hidden, list(SPANS.values())) - 1


def errors(tables: Iterable[Table], guesses: Sequence[str], column: str = "error") -> pd.DataFrame:
    """A row per series (a model, or a guess), seed and span: median ``error`` (pixels), shares ``near`` and ``shown``.

    Tables are those of occlusion.returns or state_probe.probed, errors their ``column``; ``shown``: there is one. What
    is FAR, or has no error as nothing was found, counts as FAR. Guesses are the same for every run: they are taken of
    the first, and have seed 0.
    """
    tables = list(tables)
    series = [(model, seed, rows["hidden"], rows[column]) for model, seed, rows in tables]
    series += [(guess, 0, rows["hidden"], rows[guess]) for _, _, rows in tables[:1] for guess in guesses]
    parts = []
    for name, seed, hidden, error in series:
        shown, error = error.notna(), error.fillna(FAR).clip(upper=FAR)
        groups = pd.DataFrame({"error": error, "near": error <= NEAR, "shown": shown}).groupby(span(hidden))
        part = groups.agg(error=("error", "median"), near=("near", "mean"), shown=("shown", "mean"))
        parts.append(part.rename_axis("span").reset_index().assign(series=name, seed=seed))
    return pd.concat(parts, ignore_index=True)


def shares(tables: Iterable[Table], columns: Sequence[str]) -> pd.DataFrame:
    """A row per model (``series``), seed and span: means of columns."""
    parts = []
    for model, seed, rows in tables:
        part = rows.groupby(span(rows["hidden"]))[list(columns)].mean()
        parts.append(part.rename_axis("span").reset_index().assign(series=model, seed=seed))
    return pd.concat(parts, ignore_index=True)


def by_span(
    frame: pd.DataFrame, quantities: Mapping[str, str], *, tops: Mapping[str, float] | None = None
) -> plt.Figure:
    """A panel per quantity (column -> label) against frames hidden, a curve per series: rnem.figures.curves.over_seeds.

    ``frame`` is what :func:`errors` or :func:`shares` gives; ``tops`` sets the upper end of a panel. ValueError names a
    series that has no colour.
    """
    order = [*MODEL_COLOURS, *_GUESS]
    if unknown := set(frame["series"]) - set(order):
        raise ValueError(f"{min(unknown)!r} has no colour; those that have are {', '.join(order)}")
    figure, panels = plt.subplots(1, len(quantities), figsize=(WIDTH, 3.1), layout="constrained", squeeze=False)
    handles = {}
    for axes, (quantity, label) in zip(panels[0], quantities.items(), strict=True):
        for name in order:
            rows = frame[frame["series"] == name].dropna(subset=[quantity])
            if len(rows):
                handles.setdefault(_LABELS.get(name) or model_label(name, rows), _curve(axes, name, rows, quantity))
        axes.set(xlabel="frames hidden", ylabel=label, xticks=range(len(SPANS)), xticklabels=list(SPANS))
        axes.set_ylim(0, (tops or {}).get(quantity))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)
    return figure


def _curve(axes: plt.Axes, name: str, rows: pd.DataFrame, quantity: str):
    colour, dashes, marker = _GUESS[name] if name in _GUESS else (MODEL_COLOURS[name], MODEL_DASHES[name], "o")
    return over_seeds(
        axes, rows, "span", quantity, color=colour, dashes=dashes or (None, None), marker=marker, ms=3.5, lw=1.5
    )


# ------------------------------------------------------------------------------------------------------------- pictures


def example(share: np.ndarray, *, hidden: int = 4, first: int = 10) -> pd.Series:
    """The first spell, by video and ball, of so many frames that begins at frame ``first`` or later and ends in sight.

    A row of occlusion.spells. ValueError where there is none.
    """
    some = occlusion.spells(share)
    fits = (some["hidden"] >= hidden) & (some["start"] >= first) & (some["before"] >= 1) & (some["back"] >= 0)
    if not fits.any():
        raise ValueError(f"no ball is hidden for {hidden} frames or more and comes back")
    return some[fits].iloc[0]


def ringed_strips(
    rows: Mapping[str, np.ndarray],
    times: Sequence[int],
    *,
    centres: np.ndarray,
    radius: float,
    ring: Iterable[str],
    curtain: np.ndarray,
    first: int = 1,
) -> plt.Figure:
    """Draw strips with the curtain's outline, and in the rows named ``ring`` a ring where a ball truly is.

    ``centres`` (T,2), the ball's ``radius`` and the curtain's corner (y, x) are in box units.
    """
    figure = strips(rows, times, first=first)
    ring = set(ring)
    grid = np.array(figure.axes).reshape(len(rows), len(times))
    for (name, frames), panels in zip(rows.items(), grid, strict=True):
        scale = frames.shape[1] / BOX
        for axes, t in zip(panels, times, strict=True):
            top, left = curtain * scale - 0.5  # a pixel's centre has whole coordinates, the frame's corner -1/2
            axes.add_patch(Rectangle((left, top), CURTAIN * scale, CURTAIN * scale, fill=False, color="0.5", lw=0.6))
            if name in ring:
                y, x = centres[t] * scale - 0.5
                axes.add_patch(Circle((x, y), radius * scale, fill=False, color=RING, lw=1.1))
    return figure


def ringed(frames: np.ndarray, centres: np.ndarray, radius: float, scale: int = 4) -> np.ndarray:
    """Frames (T,H,W) or (T,H,W,3) in colour, ``scale`` times larger, and in them the outline of a ball (box units)."""
    rgb = np.repeat(frames[..., None], 3, -1) if frames.ndim == 3 else frames
    rgb = rgb.astype(float).repeat(scale, 1).repeat(scale, 2)
    pixels, at = balls.pixel_centres(rgb.shape[1]), torch.as_tensor(centres)
    edge = 0.7 * BOX / rgb.shape[1]
    inner, outer = (balls.discs(at, torch.tensor(r), pixels) for r in (radius - edge, radius + edge))  # (T,H,W)
    return np.where((outer & ~inner).numpy()[..., None], RING, rgb)


def with_curtain(frames: np.ndarray, videos: Videos, video: int, grey: float = 0.25) -> np.ndarray:
    """Frames (T,H,W) in which what is dark behind the curtain is grey, so that a reader sees where it hangs."""
    return np.maximum(frames, grey * occlusion.behind(videos)[video].numpy())
