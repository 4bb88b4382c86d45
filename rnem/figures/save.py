"""Saving a figure of the book: its files, the sidecar that says where it came from, and what a notebook shows of it."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from rnem.figures.films import Film
from rnem.runs.files import replace_file
from rnem.runs.provenance import environment
from rnem.runs.store import Run


class Picture:
    """A saved figure as a notebook shows it; its alt text, caption and name end up in the cell's metadata."""

    def __init__(self, mime: str, data: str, name: str, alt: str, caption: str):
        self.mime, self.data, self.said = mime, data, {"name": name, "alt": alt, "caption": caption}

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return {self.mime: self.data, "text/plain": f"<figure {self.said['name']}>"}, {"rnem": self.said}


def save(
    figure: plt.Figure | bytes | Film,
    name: str,
    *,
    runs: Iterable[Run] = (),
    alt: str = "",
    caption: str = "",
    show: str = "svg",
    folder: Path | str | None = None,
) -> Picture:
    """Write figures/<name>.svg, .png and .json (runs, commit, command, alt text); a GIF's bytes: .gif and .json;
    a film, which has its alt text and caption itself: its frames as .png and .json.

    Returns what the cell shows (``show``: "svg" for curves, "png" for rows of frames). Nothing is written where the
    chapter is run by hand (no ``folder``, no $RNEM_FIGURES), so that a trial never replaces a published figure. Files
    are replaced whole, and equal inputs give equal bytes. ValueError for an empty alt text.
    """
    alt = figure.alt if isinstance(figure, Film) else alt
    if not alt.strip():
        raise ValueError(f"figure {name} needs an alt text: what a reader who cannot see it should know")
    if isinstance(figure, plt.Figure):
        files = {kind: _render(figure, kind) for kind in ("svg", "png")}
        plt.close(figure)  # else the notebook would show it a second time
    else:
        files = {"png": figure.sheet} if isinstance(figure, Film) else {"gif": figure}
    folder = folder or os.environ.get("RNEM_FIGURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for kind, data in files.items():
            replace_file(Path(folder) / f"{name}.{kind}", data)
        replace_file(Path(folder) / f"{name}.json", _sidecar(name, runs, alt, caption, sorted(files)))
    if isinstance(figure, Film):
        return Picture("text/html", figure.html, name, alt, "")
    kind = "gif" if "gif" in files else show
    data = files[kind].decode() if kind == "svg" else base64.b64encode(files[kind]).decode()
    return Picture(f"image/{'svg+xml' if kind == 'svg' else kind}", data, name, alt, caption)


def _render(figure: plt.Figure, kind: str) -> bytes:
    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "rnem", "svg.fonttype": "path"}):  # the same ids, hence the same bytes
        figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def _sidecar(name: str, runs: Iterable[Run], alt: str, caption: str, files: list[str]) -> bytes:
    where, chapter = environment(), os.environ.get("RNEM_CHAPTER")
    tree = {
        "name": name,
        "files": [f"{name}.{kind}" for kind in files],
        "chapter": chapter,
        "command": f"rnem chapter {chapter}" if chapter else None,
        "runs": sorted({run.path.name for run in runs}),
        "commit": where["commit"],
        "dirty": where["dirty"],
        "alt": alt,
        "caption": caption,
    }
    return (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode()
