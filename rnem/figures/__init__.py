"""Every figure of the book: one style, one named function per figure, and ``save``, which says where it came from.

What several chapters use is here by name; what belongs to one chapter is in a module of its own.
"""

from rnem.figures import attention, authors_results, occlusion, rollouts, space_invaders
from rnem.figures.curves import BANDS, BARS, against, bars, by_components, per_step
from rnem.figures.films import Film, compared, film, of_prediction, switch
from rnem.figures.pictures import (
    COMPONENT_COLOURS,
    animation,
    background,
    competition,
    component_colours,
    errors_rgb,
    film_strip,
    grouping_rgb,
    strips,
)
from rnem.figures.save import Picture, save
from rnem.figures.style import LABELS, MODEL_COLOURS, MODEL_DASHES, WIDTH, style

__all__ = [
    "BANDS",
    "BARS",
    "COMPONENT_COLOURS",
    "LABELS",
    "MODEL_COLOURS",
    "MODEL_DASHES",
    "WIDTH",
    "Film",
    "Picture",
    "against",
    "animation",
    "attention",
    "authors_results",
    "background",
    "bars",
    "by_components",
    "compared",
    "competition",
    "component_colours",
    "errors_rgb",
    "film",
    "film_strip",
    "grouping_rgb",
    "occlusion",
    "of_prediction",
    "per_step",
    "rollouts",
    "save",
    "space_invaders",
    "strips",
    "style",
    "switch",
]  # fmt: skip
