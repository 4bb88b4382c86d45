"""Every figure of the book: one style, one named function per figure, and ``save``, which says where it came from.

Colours are fixed: a model has one colour in the whole book, a component one colour for the length of a video. Both sets
go back to Okabe & Ito's palette, which colour-blind readers tell apart; curves differ in dash pattern too. Frames are
arrays (T,H,W) with values in [0,1], groupings (T,H,W,3).
"""

from __future__ import annotations

import seaborn as sns

from rnem.model.config import MODEL_LABELS

WIDTH = 7.2
"""Inches: the width of the book's text column."""

_LINES = {
    "rnem": ("#0072B2", ()),
    "rnem_noatt": ("#56B4E9", (4, 1.5)),
    "nem": ("#D55E00", (6, 2, 1.5, 2)),
    "lstm": ("#009E73", (2, 1)),
    "rnn": ("#CC79A7", (1, 1)),
}
_FURTHER = (("#E69F00", (5, 1, 1, 1)), ("#7A5195", (3, 1, 1, 1, 1, 1)), ("#8C6D31", (7, 2)), ("#B22222", (2, 2)))
"""Of models that have no line of their own, in turn."""
_ASSIGNED = _LINES | {model: _FURTHER[i % 4] for i, model in enumerate(m for m in MODEL_LABELS if m not in _LINES)}
MODEL_COLOURS = {model: colour for model, (colour, _) in _ASSIGNED.items()} | {"copy_last": "#6B6B6B"}
MODEL_DASHES = {model: dashes for model, (_, dashes) in _ASSIGNED.items()} | {"copy_last": (8, 3)}
LABELS = MODEL_LABELS | {"copy_last": "copy last frame"}

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
