"""The first page: what was found in five sentences, a film, a tile for each claim, and where to go on.

Every number comes from finished runs. The sentences say what was measured and hold whatever the numbers are; words that
judge are the verdicts of rnem.claims.rules alone.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata

import matplotlib.pyplot as plt
import numpy as np

from rnem import figures
from rnem.claims.findings import MANY, Measuring, finding, label, mean, with_seeds
from rnem.claims.rules import MINIMUM_SEEDS
from rnem.claims.scorecard import CHAPTERS, MARKS, SHORT, Judged, counted, style_of, word
from rnem.evaluation import evaluate
from rnem.runs.store import Run
from rnem.videos.datasets import fixed

PAPER = "https://arxiv.org/abs/1802.10353"
SITE = "https://sites.google.com/view/r-nem-gifs"
CODE = "https://github.com/sjoerdvansteenkiste/Relational-NEM"
DOORS = {
    "See it": ("../play.html", 2, "Throw balls into a box, and watch what each component makes of them."),
    "Judge it": ("scorecard.html", 10, "Every claim with its rule, its seeds, their number and ours."),
    "Run it": ("reproduce.html", 15, "Install, train a small network, make a page of this book again."),
}
"""Where to go on: name -> page, minutes that it takes, what one gets."""

FIVE = ("accuracy", "relational", "grouping", "extrapolation", "occlusion")
"""The claims whose findings stand on the first page."""

# ------------------------------------------------------------------------------------------------------------- findings


Mended = Mapping[int, tuple[float, float]]
"""Of R-NEM trained with five components and run with eight on six to eight balls: seed -> BCE with the sum of effects,
and with their mean."""


def findings(campaigns: Mapping[str, tuple[Measuring, Mended]]) -> list[str]:
    """Return up to five sentences in HTML, each of the last campaign that can say it, whose name it bears.

    A campaign, by its name: what gives one number per seed (rnem.claims.measured.measure_with), and what is mended.
    Where there are several, those after the first count with MINIMUM_SEEDS seeds or more.
    """
    said: dict[str, str] = {}
    for place, (name, (measure, mended)) in enumerate(campaigns.items()):
        asked = measure if place == 0 else with_seeds(measure)
        mended = mended if place == 0 or len(mended) >= MINIMUM_SEEDS else {}
        of = f' <span class="campaign">({html.escape(name)})</span>'
        sentences = {
            claim: _raised(asked, mended) if claim == "extrapolation" else finding(claim, asked) for claim in FIVE
        }
        said |= {subject: sentence + of for subject, sentence in sentences.items() if sentence}
    return list(said.values())


def _raised(measure: Measuring, mended: Mended) -> str:
    lstm = measure("lstm", MANY)
    if not mended or not lstm:
        return ""
    summed, averaged = (", ".join(f"{mended[seed][side]:.0f}" for seed in sorted(mended)) for side in (0, 1))
    return (
        f"Run with eight components on six to eight balls, R-NEM trained with five has <b>{summed}</b> nats by seed; "
        f"with the mean of the others’ effects in place of their sum, <b>{averaged}</b> (LSTM <b>{mean(lstm)}</b>)."
    )


# --------------------------------------------------------------------------------------------------------------- pieces


def tiles(judged: Iterable[Judged]) -> str:
    """A link per claim: the mark and the word of its verdict, and the claim in at most six words."""
    items = "".join(
        f'<li><a href="{CHAPTERS[each.claim.id]}.html" class="tile {style_of(each.verdict)}">'
        f'<span class="tile-verdict"><span aria-hidden="true">{MARKS[each.verdict]}</span> {word(each.verdict)}'
        f'</span><span class="tile-claim">{html.escape(SHORT[each.claim.id])}</span></a></li>'
        for each in judged
    )
    return f'<ul class="tiles" aria-label="The claims and their verdicts">{items}</ul>'


def doors() -> str:
    """Where to go on, each with its minutes."""
    items = "".join(
        f'<a class="door" href="{page}"><b>{name}</b> <span class="door-minutes">{minutes} min</span>'
        f"<span>{what}</span></a>"
        for name, (page, minutes, what) in DOORS.items()
    )
    return f'<nav class="doors" aria-label="Where to go on">{items}</nav>'


def buttons(runs: Iterable[Run], address: str = "") -> str:
    """Links to the authors' work and to this one's, how to cite both, and the version and date of what is shown."""
    newest_run = max((run.manifest["created"] for run in runs), default="")[:10]
    links = {
        "paper": PAPER,
        "poster and films": SITE,
        "authors’ code": CODE,
        "their films, measured": "authors.html",
        "this code": address or "../code/rnem.model.em.html",
    }
    items = "".join(f'<a class="button" href="{html.escape(url)}">{name}</a>' for name, url in links.items())
    version = metadata.version("rnem")
    both = html.escape(_cite(version))
    cite = f'<details class="cite"><summary class="button">cite</summary><pre>{both}</pre></details>'
    until = f" · runs until {newest_run}" if newest_run else ""
    return f'<div class="buttons">{items}{cite}<span class="version">version {version}{until}</span></div>'


def _cite(version: str) -> str:
    return f"""\
@inproceedings{{vansteenkiste2018relational,
  title = {{Relational Neural Expectation Maximization: Unsupervised Discovery of Objects and their Interactions}},
  author = {{van Steenkiste, Sjoerd and Chang, Michael and Greff, Klaus and Schmidhuber, Jürgen}},
  booktitle = {{International Conference on Learning Representations}}, year = {{2018}}
}}
@software{{rnem_replicated,
  title = {{R-NEM, replicated: a book and a small PyTorch module}}, version = {{{version}}}
}}"""


# ----------------------------------------------------------------------------------------------------------------- film

SCENES = {
    "four balls": ("balls4mass", "balls4mass", ("rnem-k5", "nem-k5", "lstm"), None),
    "6–8 balls": ("balls678mass", "balls4mass", ("rnem-k8", "nem-k5", "lstm"), 8),
    "curtain": ("balls3curtain", "balls3curtain", ("rnem-k5", "nem-k5", "lstm"), None),
    "Space Invaders": ("spaceinvaders", "spaceinvaders", ("rnem-k4", "nem-k4", "lstm"), None),
}
"""Scene -> videos, the data that the models were trained on, models, K where it is not the training's."""


def films(found: Mapping[str, list[Run]], profiles: Sequence[str], data: Callable[[str], str]) -> figures.Film:
    """The first test video of every scene as each model sees it, to switch between: first seeds, nothing chosen.

    ``profiles`` are those whose runs may be shown, the best first: a scene has all its models of the first that has
    them. ``data`` names data at the size that is shown (rnem.book.cells).
    """
    made = {}
    for scene, (family, trained, models, components) in SCENES.items():
        runs = {profile: {model: found.get(f"{profile}-{trained}-{model}") for model in models} for profile in profiles}
        whole = next((each for each in runs.values() if all(each.values())), runs[profiles[-1]])
        for model in filter(whole.get, models):
            network = evaluate.load_network(whole[model][0], components=components)
            video = fixed(data(family), "test", 1)
            psi, gamma = (a[:, 0, :, 0].numpy() for a in evaluate.predict(network, video))
            truth = video.features[1:, 0, 0].float().numpy()
            made[scene, label(model)] = of(scene, label(model), truth, psi, gamma)
    return figures.switch(made, ("scene", "model"), label="What the models see")


def card(run: Run, data: str) -> plt.Figure:
    """The picture that goes with a link to the book: its title, and what a run makes of the first test video."""
    video = fixed(data, "test", 1)
    psi, gamma = (a[:, 0, :, 0].numpy() for a in evaluate.predict(run, video))
    truth = video.features[1:, 0, 0].float().numpy()
    rows = {"truth": truth, "prediction": psi.max(1), "grouping": figures.grouping_rgb(gamma, truth)}
    figure, axes = plt.subplots(3, 5, figsize=(8, 4.2), layout="constrained")
    figure.suptitle("R-NEM, replicated: every claim tested, every number from a run", fontsize=15, fontweight="bold")
    for row, (name, frames) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name, fontsize=11)
        for axis, t in zip(row, (9, 14, 19, 24, 29), strict=True):
            axis.imshow(frames[t], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    return figure


def of(scene: str, model: str, truth: np.ndarray, psi: np.ndarray, gamma: np.ndarray) -> figures.Film:
    """The film of one scene and model."""
    K = psi.shape[1]
    parts = f", the grouping of its pixels, and what each of {K} components predicts" if K > 1 else ""
    return figures.of_prediction(
        truth, psi, gamma, alt=f"The first test video ({scene}), {model}'s prediction of each frame{parts}."
    )


def page(film: figures.Film, sentences: Iterable[str], judged: Sequence[Judged], links: str) -> str:
    """The first page below its title."""
    found = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    return (
        f'<div class="front">{links}<div class="front-top">{film.html}'
        f'<div class="findings"><p class="front-head">What was found</p><ol>{found}</ol></div></div>'
        f'<p class="front-head">The poster’s {len(judged)} claims: {counted(each.verdict for each in judged)} '
        f'<span class="campaign">(each by the last campaign that tested it)</span></p>{tiles(judged)}{doors()}</div>'
    )
