"""Frames as pictures: the grouping in colours, strips of frames, films."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from rnem.figures.style import WIDTH

_RGB = [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [200, 45, 35], [55, 85, 225]
COMPONENT_COLOURS = np.array([*_RGB, [185, 235, 165]]) / 255
MISSED, INVENTED = np.array([230, 159, 0]) / 255, np.array([60, 150, 255]) / 255
"""Colours of wrong pixels: orange where a ball was not predicted, blue where one was that is not there."""
GREY = np.array([0.32, 0.32, 0.32])
"""Of a component that models the background."""


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


def errors_rgb(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return pictures (…,H,W,3) of binary frames and what is predicted of them (…,H,W): white where both have a ball,
    ``MISSED`` where only the truth has one, ``INVENTED`` where only the prediction has (both above 0.5).
    """
    said, true = prediction > 0.5, truth > 0.5
    picture = np.zeros((*truth.shape, 3))
    picture[said & true], picture[~said & true], picture[said & ~true] = 0.75, MISSED, INVENTED
    return picture


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
