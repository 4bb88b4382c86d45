"""Films: videos side by side in the page, with a label at each, that a reader can pause, step through and switch.

A film is one PNG with all frames and a few lines of HTML; rnem/book/film.js plays it. Where no script runs, a still is
shown. Pixels are kept as they are, so that a film of 50 frames and eight panels has about 50 kB.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rnem.figures.pictures import background, component_colours, errors_rgb, grouping_rgb

COLOURS = 64
"""Of the palette of a film."""
SETTLED = 20
"""The predicted frame that is the still, where the film is long enough: groups have settled by then."""


@dataclass(frozen=True)
class Film:
    """A film as a notebook shows it: ``html`` holds the picture ``sheet`` (PNG), so that it needs no other file."""

    html: str
    sheet: bytes
    alt: str

    def _repr_html_(self) -> str:
        return self.html


def film(
    rows: Mapping[str, Mapping[str, np.ndarray]],
    *,
    alt: str,
    caption: str = "",
    first: int = 1,
    still: int | None = None,
    frames_per_second: float = 6,
    edges: Mapping[str, str] | None = None,
) -> Film:
    """A looping film of labelled panels: row's name -> panel's name -> frames (T,H,W) or (T,H,W,3) in [0,1].

    A row's name stands at its left, unless it is empty; a panel's name above it, unless the row above has the same
    names. Index t is frame ``t + first`` of its video. ``still`` is the frame (by that number) that is shown where
    nothing moves. ``edges`` gives panels a coloured frame by name (any CSS colour). ValueError where panels differ in
    shape, for a still that is not in the film, and for an empty alt text.
    """
    if not alt.strip():
        raise ValueError("a film needs an alt text: what a reader who cannot see it should know")
    panels = [frames for row in rows.values() for frames in row.values()]
    if len(shapes := {frames.shape[:3] for frames in panels}) != 1:
        raise ValueError(f"the panels of a film have one shape, and these have {sorted(shapes)}")
    T, height, width = shapes.pop()
    still = min(SETTLED, T - 1 + first) if still is None else still
    if not first <= still < T + first:
        raise ValueError(f"frame {still} is none of this film's, {first} to {T - 1 + first}")
    sheet = _sheet(panels)
    # Percentages of CSS: how far a sheet with an edge of one pixel around every picture lies from its end.
    step = 100 * (height + 2) / (T * (height + 2) - height)
    across = len(panels) * (width + 2)
    style = (
        f"--sheet:url(data:image/png;base64,{base64.b64encode(sheet).decode()});--frame:{still - first};"
        f"--across:{100 * across / width:.4f}%;--down:{100 * T * (height + 2) / height:.4f}%;"
        f"--step:{step:.6f}%;--top:{step / (height + 2):.6f}%;--shape:{width}/{height}"
    )
    parts, number, before = [], 0, None
    for name, row in rows.items():
        cells = []
        for label in row:
            left = 100 * (number * (width + 2) + 1) / (across - width)
            edge = f";border-color:{html.escape(edges[label])}" if edges and label in edges else ""
            above = "" if before == list(row) else f'<span class="film-label">{html.escape(label)}</span>'
            cells.append(f'{above}<span class="film-panel" style="{_PANEL};--left:{left:.4f}%{edge}"></span>')
            number += 1
        before = list(row)
        names = f'<span class="film-name">{html.escape(name)}</span>' if any(map(str.strip, rows)) else ""
        body = "".join(f'<span class="film-cell">{cell}</span>' for cell in cells)
        parts.append(f'<span class="film-row" style="--panels:{len(row)}">{names}{body}</span>')
    screen = f'<div class="film-screen" role="img" aria-label="{html.escape(alt)}">{"".join(parts)}</div>'
    words = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    attributes = f'data-frames="{T}" data-first="{first}" data-fps="{frames_per_second:g}"'
    return Film(f'<figure class="film" style="{style}" {attributes}>{screen}{words}</figure>', sheet, alt)


# What a panel needs to be seen where the book's style sheet is not loaded, as in Jupyter and on Colab.
_PANEL = (
    "display:block;min-width:2rem;aspect-ratio:var(--shape);background-image:var(--sheet);image-rendering:pixelated;"
    "background-size:var(--across) var(--down);"
    "background-position:var(--left) calc(var(--frame)*var(--step) + var(--top))"
)


def _sheet(panels: Sequence[np.ndarray]) -> bytes:
    """All frames of all panels in one PNG with a palette: a column a panel, a row a frame, edges repeated once."""
    columns = []
    for frames in panels:
        rgb = frames if frames.ndim == 4 else np.repeat(frames[..., None], 3, -1)
        pixels = (np.clip(rgb, 0, 1) * 255).round().astype(np.uint8)
        columns.append(np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge"))
    picture = np.concatenate(columns, axis=2)  # (T,H+2,panels(W+2),3)
    image = Image.fromarray(picture.reshape(-1, *picture.shape[2:]))
    file = io.BytesIO()
    image.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def switch(films: Mapping[Sequence[str], Film], names: Sequence[str], *, label: str) -> Film:
    """Several films in one place: ``names`` are what a reader chooses (scene, model), keys of ``films`` the choices.

    The frame is kept when the choice changes, so that two models can be compared. The first film is shown where no
    script runs. ``label`` is the name of the whole group.
    """
    group = "film-" + "-".join(label.lower().split())
    fields, first = [], next(iter(films))
    for place, name in enumerate(names):
        options = "".join(
            f'<label><input type="radio" name="{group}-{place}" value="{html.escape(value)}"'
            f"{' checked' * (value == first[place])}> {html.escape(value)}</label>"
            for value in dict.fromkeys(key[place] for key in films)
        )
        fields.append(f"<fieldset><legend>{html.escape(name)}</legend>{options}</fieldset>")
    inside = "".join(
        each.html.replace('<figure class="film"', f'<figure class="film" data-choice="{html.escape("|".join(key))}"'
                          + " hidden" * (key != first), 1)
        for key, each in films.items()
    )  # fmt: skip
    body = f'<div class="film-switch" role="group" aria-label="{html.escape(label)}">{"".join(fields)}{inside}</div>'
    return Film(body, films[first].sheet, films[first].alt)


def of_prediction(
    truth: np.ndarray, psi: np.ndarray, gamma: np.ndarray, *, alt: str, caption: str = "", **settings
) -> Film:
    """What a network makes of a video: truth (T,H,W), prediction and grouping above, each psi_k (T,K,H,W) below.

    A model of one component has truth and prediction alone.
    """
    K = psi.shape[1]
    if K == 1:
        return film({"": {"truth": truth, "prediction": psi[:, 0]}}, alt=alt, caption=caption, **settings)
    colours = component_colours(K, background(gamma, truth))
    each = {f"ψ{_SUBSCRIPTS[k]}": psi[:, k] for k in range(K)}
    edges = {
        name: f"rgb({','.join(str(round(255 * c)) for c in colour)})"
        for name, colour in zip(each, colours, strict=True)
    }
    above = {"truth": truth, "prediction": psi.max(1), "grouping": grouping_rgb(gamma, truth)}
    return film({"": above, " ": each}, alt=alt, caption=caption, edges=edges, **settings)


SINCE = 10
"""The first predicted frame whose wrong pixels :func:`compared` counts: claims are judged on frames from there on."""


def compared(
    truth: np.ndarray,
    psi: Mapping[str, np.ndarray],
    *,
    alt: str,
    caption: str = "",
    first: int = 1,
    since: int = SINCE,
    **settings,
) -> Film:
    """Models on the same videos: truth (N,T,H,W), and the wrong pixels of each model's psi (N,T,K,H,W); a row a video.

    Above each picture stands the mean number of wrong pixels over frames from ``since`` on.
    """
    rows = {}
    for n, true in enumerate(truth):
        wrong = {}
        for label, each in psi.items():
            prediction = each[n].max(1)  # (T,H,W)
            count = ((prediction > 0.5) != (true > 0.5)).sum((1, 2))[max(since - first, 0) :].mean()
            wrong[f"{label}: {count:.1f}"] = errors_rgb(prediction, true)
        rows[f"video {n + 1}"] = {"truth": true} | wrong
    words = (
        "White: right; orange: a ball that was not predicted; blue: one that is not there; above, the mean number of "
        f"wrong pixels over frames from {since} on."
    )
    return film(rows, alt=alt, caption=f"{caption} {words}".strip(), first=first, **settings)


_SUBSCRIPTS = "₁₂₃₄₅₆₇₈₉"
