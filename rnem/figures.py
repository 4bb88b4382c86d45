"""Every figure of the book: one style, one named function per figure, and ``save``, which says where it came from.

Colours are fixed: a model has one colour in the whole book, a component one colour for the length of a video. Both sets
go back to Okabe & Ito's palette, which colour-blind readers tell apart; curves differ in dash pattern too. Frames are
arrays (T,H,W) with values in [0,1], groupings (T,H,W,3).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

from rnem.config import MODEL_LABELS
from rnem.figure_files import save as save
from rnem.metrics import interval

WIDTH = 7.2
"""Inches: the width of the book's text column."""

MODEL_COLOURS = {
    "rnem": "#0072B2",
    "rnem_noatt": "#56B4E9",
    "nem": "#D55E00",
    "lstm": "#009E73",
    "rnn": "#CC79A7",
    "copy_last": "#6B6B6B",
}
MODEL_DASHES = {
    "rnem": (),
    "rnem_noatt": (4, 1.5),
    "nem": (6, 2, 1.5, 2),
    "lstm": (2, 1),
    "rnn": (1, 1),
    "copy_last": (8, 3),
}
LABELS = MODEL_LABELS | {"copy_last": "copy last frame"}
QUANTITY_LABELS = {
    "loss": "loss (nats per frame)",
    "bce": "next-frame BCE (nats per frame)",
    "kl": "KL (nats per frame)",
    "relational": "relational BCE (nats per frame)",
    "contact": "BCE on balls in contact (nats per frame)",
    "wrong": "wrong pixels per frame",
    "ari": "adjusted Rand index",
}
_RGB = [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [200, 45, 35], [55, 85, 225]
COMPONENT_COLOURS = np.array([*_RGB, [185, 235, 165]]) / 255
GREY = np.array([0.32, 0.32, 0.32])
"""Of a component that models the background."""

_STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def style() -> None:
    """The book's style, for everything that matplotlib draws from now on."""
    sns.set_theme(context="paper", style="ticks", rc=_STYLE)


style()


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


# ------------------------------------------------------------------------------------------------------------- pictures


def background(gamma: np.ndarray, mask: np.ndarray) -> int | None:
    """The component that models the background: it holds over half of gamma (T,K,H,W) where mask (T,H,W) is off."""
    share = (gamma * (mask < 0.5)[:, None]).sum((0, 2, 3))
    return int(share.argmax()) if share.max() > 0.5 * share.sum() else None


def grouping_rgb(gamma: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Soft grouping as colour (T,H,W,3): gamma (T,K,H,W) mixes the components' colours, mask (T,H,W) dims the rest.

    ``mask`` is the frame itself or max_k psi_k. Colours go by component index, so that they stay over time; a component
    that models the background in the whole video is grey. ValueError for more components than colours.
    """
    if gamma.ndim != 4 or mask.shape != (gamma.shape[0], *gamma.shape[2:]):
        raise ValueError(f"gamma is {gamma.shape} and mask is {mask.shape}; they must be (T,K,H,W) and (T,H,W)")
    rgb = np.einsum("tkhw,kc->thwc", gamma, component_colours(gamma.shape[1], background(gamma, mask)))
    return np.clip(rgb * (0.12 + 0.88 * mask[..., None]), 0, 1)


def component_colours(K: int, greyed: int | None = None) -> np.ndarray:
    """RGB (K,3) of components 0..K-1."""
    if len(COMPONENT_COLOURS) < K:
        raise ValueError(f"there are colours for {len(COMPONENT_COLOURS)} components, not for {K}")
    colours = COMPONENT_COLOURS[:K].copy()
    if greyed is not None and K > 1:
        colours[greyed] = GREY
    return colours


def film_strip(
    truth: np.ndarray,
    prediction: np.ndarray,
    grouping: np.ndarray,
    times: Sequence[int],
    *,
    first: int = 1,
    label: str = "",
) -> plt.Figure:
    """Truth, prediction and grouping below each other, a column per time.

    ``times`` are indices into the arrays; row ``t`` of a prediction belongs to video frame ``t + first``, which is the
    number shown. ``label`` (a model's name) stands before prediction and grouping.
    """
    name = f"{label}\n" if label else ""
    return strips({"truth": truth, f"{name}prediction": prediction, f"{name}grouping": grouping}, times, first=first)


def strips(rows: Mapping[str, np.ndarray], times: Sequence[int], *, first: int = 1) -> plt.Figure:
    """Any number of film strips, (T,H,W) or (T,H,W,3), by the name that stands at their left."""
    lengths = {len(row) for row in rows.values()}
    if len(lengths) > 1 or max(times) >= min(lengths):
        raise ValueError(f"the rows have {sorted(lengths)} frames, and time {max(times)} was asked for")
    side = (WIDTH - 0.85) / len(times)
    figure, grid = plt.subplots(
        len(rows), len(times), figsize=(WIDTH, side * len(rows) + 0.25), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for axes_row, (name, frames) in zip(grid, rows.items(), strict=True):
        for axes, t in zip(axes_row, times, strict=True):
            _picture(axes, frames[t])
        axes_row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, t in zip(grid[0], times, strict=True):
        axes.set_title(f"{t + first}", pad=2)
    return figure


def competition(x: np.ndarray, gamma: np.ndarray, psi: np.ndarray, *, names: Sequence[str] | None = None) -> plt.Figure:
    """K components competing for one frame: psi_k (K,H,W) above gamma_k (K,H,W), framed in the component's colour.

    At the left the frame x (H,W) that they compete for and the grouping that comes out, at the right max_k psi_k.
    """
    K = len(gamma)
    if gamma.shape != psi.shape or x.shape != gamma.shape[1:]:
        raise ValueError(
            f"x is {x.shape}, gamma {gamma.shape} and psi {psi.shape}; they must be (H,W) and twice (K,H,W)"
        )
    colours = component_colours(K, background(gamma[None], x[None]))
    grouping = grouping_rgb(gamma[None], x[None])[0]
    columns = [("frame $x$", x, "grouping", grouping, "black")]
    for k in range(K):
        columns.append((names[k] if names else f"$k = {k + 1}$", psi[k], None, gamma[k], colours[k]))
    columns.append((r"$\mathrm{max}_k\ \psi_k$", psi.max(0), None, None, "black"))
    side = (WIDTH - 0.4) / len(columns)
    figure, grid = plt.subplots(2, len(columns), figsize=(WIDTH, 2 * side + 0.55), layout="constrained")
    for (top, bottom), (title, above, under_title, below, colour) in zip(grid.T, columns, strict=True):
        top.set_title(title, pad=3)
        _picture(top, above, colour)
        if below is None:
            bottom.axis("off")
            continue
        _picture(bottom, below, colour)
        if under_title:
            bottom.set_xlabel(under_title)
    grid[0, 1].set_ylabel(r"$\psi_k$", rotation=0, ha="right", va="center", fontsize=11)
    grid[1, 1].set_ylabel(r"$\gamma_k$", rotation=0, ha="right", va="center", fontsize=11)
    return figure


def _picture(axes: plt.Axes, frame: np.ndarray, colour="0.6") -> None:
    axes.imshow(frame, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=colour, linewidth=0.5 if isinstance(colour, str) else 2.0)


def animation(
    truth: np.ndarray,
    prediction: np.ndarray,
    grouping: np.ndarray,
    *,
    scale: int = 4,
    frames_per_second: float = 10,
    limit: int = 1_000_000,
) -> bytes:
    """A looping GIF: truth, prediction and grouping side by side, ``scale`` times larger, nearest neighbour.

    ValueError says by how much it is over ``limit`` bytes, which is what a page may carry.
    """
    panels = [f if f.ndim == 4 else np.repeat(f[..., None], 3, -1) for f in (truth, prediction, grouping)]
    if len({panel.shape for panel in panels}) > 1:
        raise ValueError(f"the three videos differ in shape: {', '.join(str(panel.shape) for panel in panels)}")
    pixels = [
        (np.clip(panel, 0, 1) * 255).round().astype(np.uint8).repeat(scale, 1).repeat(scale, 2) for panel in panels
    ]
    gap = np.full((*pixels[0].shape[:2], 2 * scale, 3), 255, np.uint8)
    film = np.concatenate([pixels[0], gap, pixels[1], gap, pixels[2]], axis=2)
    # One palette for all frames, so that colours do not flicker; taken from every frame at native size.
    sample = np.concatenate([frame[::scale, ::scale] for frame in film])
    palette = Image.fromarray(sample).quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in film]
    file = io.BytesIO()
    duration = round(1000 / frames_per_second)
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], loop=0, duration=duration, optimize=False)
    data = file.getvalue()
    if len(data) > limit:
        raise ValueError(f"the animation has {len(data):,} bytes, over {limit:,}: take fewer frames or a smaller scale")
    return data
