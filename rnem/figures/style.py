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
