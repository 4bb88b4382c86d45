"""What was found about each claim, in one plain sentence.

Every number comes from finished runs. A sentence says what was measured and holds whatever the numbers are; the words
that judge are the verdicts of rnem.claims.rules alone. Sentences are HTML (numbers in ``<b>``), which Markdown takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from rnem.claims.poster import PLAYER, PLAYER_NEM
from rnem.claims.rules import MINIMUM_SEEDS, Measure
from rnem.evaluation.metrics import interval, ratio_interval
from rnem.model.config import MODEL_LABELS

Measuring = Callable[[str, Measure], dict[int, float]]
"""Gives one number per seed of a model (rnem.claims.measured.measure_with)."""
FOUR = ("rnem-k5", "nem-k5", "lstm", "rnn")
MANY = Measure("bce", "balls678mass", components=8)
_GAME = {"data": "spaceinvaders", "first": 10, "last": 24}


def finding(claim: str, measure: Measuring) -> str:
    """Return the sentence on a claim, "" where no run can say it."""
    return FINDINGS[claim](measure)


def with_seeds(measure: Measuring) -> Measuring:
    """Return the same without what has fewer than MINIMUM_SEEDS seeds."""

    def asked(model: str, what: Measure) -> dict[int, float]:
        values = measure(model, what)
        return values if len(values) >= MINIMUM_SEEDS else {}

    return asked


def _accuracy(measure: Measuring) -> str:
    bce = {model: measure(model, Measure("bce")) for model in FOUR}
    seeds = set.intersection(*(set(values) for values in bce.values()))
    if not seeds:
        return ""
    best = sum(min(bce, key=lambda model: bce[model][seed]) == "rnem-k5" for seed in seeds)
    others = ", ".join(f"{label(m)} <b>{mean(bce[m], seeds)}</b>" for m in ("lstm", "nem-k5", "rnn"))
    return (
        f"Of four models R-NEM predicts the next frame of four balls best in <b>{best} of {len(seeds)}</b> seeds: "
        f"<b>{mean(bce['rnem-k5'], seeds)}</b> nats; {others}."
    )


def _relational(measure: Measuring) -> str:
    shares = []
    for quantity in ("relational", "bce"):
        ratios = _ratios(measure, Measure(quantity), "nem-k5")
        if not len(ratios):
            return ""
        shares.append(100 * (1 - ratio_interval(ratios)[0]))
    at, whole = (f"<b>{abs(share):.0f} % {'below' if share >= 0 else 'above'}</b>" for share in shares)
    return (
        f"Where balls collide R-NEM’s loss is {at} that of N-EM, which has no interaction; on whole frames it is "
        f"{whole}."
    )


def _components(measure: Measuring) -> str:
    models = ("rnem-k3", "rnem-k5", "rnem-k8")
    bce, ari = ([measure(model, Measure(quantity)) for model in models] for quantity in ("bce", "ari"))
    if not all(bce):
        return ""
    losses, grouping = (" → ".join(f"<b>{mean(values)}</b>" for values in found) for found in (bce, ari))
    return (
        f"With K = 3, 5 and 8 components R-NEM has {losses} nats on four balls, and its grouping an adjusted Rand "
        f"index of {grouping}."
    )


def _grouping(measure: Measuring) -> str:
    five, eight = (measure(model, Measure("ari", first=20, last=29)) for model in ("rnem-k5", "rnem-k8"))
    if not five:
        return ""
    more = f", and <b>{mean(eight)}</b> with eight" if eight else ""
    return (
        f"R-NEM’s grouping of the balls’ pixels has an adjusted Rand index of <b>{mean(five)}</b> with five "
        f"components{more} (1 is perfect, chance is 0)."
    )


def _extrapolation(measure: Measuring) -> str:
    bce = {model: measure(model, MANY) for model in FOUR}
    if not all(bce.values()):
        return ""
    others = ", ".join(f"{label(m)} <b>{mean(bce[m])}</b>" for m in FOUR[1:])
    ours = bce["rnem-k5"]
    by_seed = f" ({', '.join(f'{ours[seed]:.0f}' for seed in sorted(ours))} by seed)" if len(ours) > 1 else ""
    return (
        "Trained on four balls with five components and run with eight on six to eight balls, R-NEM has "
        f"<b>{mean(ours)}</b> nats{by_seed}; {others}."
    )


def _attention(measure: Measuring) -> str:
    values = [[measure(m, what) for m in ("rnem_noatt-k5", "rnem-k5")] for what in (Measure("bce"), MANY)]
    if not all(all(pair) for pair in values):
        return ""
    few, many = (" against ".join(f"<b>{mean(side)}</b>" for side in pair) for pair in values)
    return f"Without attention R-NEM has {few} nats with it on four balls, and {many} on six to eight."


def _occlusion(measure: Measuring) -> str:
    what = Measure("returned", "balls3curtain", last=50)
    ours, theirs = (measure(model, what) for model in ("rnem-k5", "lstm"))
    if not ours or not theirs:
        return ""
    return (
        f"Of the balls that come out from behind a curtain R-NEM predicts <b>{_share(ours)}</b> where they appear; the "
        f"LSTM <b>{_share(theirs)}</b>."
    )


def _simulation(measure: Measuring) -> str:
    near = {model: measure(model, Measure("imagined_near", first=5, last=5, real_steps=20)) for model in FOUR}
    if not near["rnem-k5"]:
        return ""
    others = ", ".join(f"{label(m)} <b>{_share(near[m])}</b>" for m in FOUR[1:] if near[m])
    return (
        f"Five frames into imagining, <b>{_share(near['rnem-k5'])}</b> of the true balls are found within two pixels "
        f"in what R-NEM imagines; {others}."
    )


def _atari(measure: Measuring) -> str:
    moving, together = (measure(PLAYER, Measure(q, **_GAME)) for q in ("moving/copy_moving", "together"))
    ours, *others = ((label(model), measure(model, Measure("bce", **_GAME))) for model in (PLAYER, "lstm", PLAYER_NEM))
    if not (moving and together and ours[1]):
        return ""
    against = ", ".join(f"{name} <b>{mean(theirs)}</b>" for name, theirs in others if theirs)
    return (
        f"On the pixels that change, R-NEM’s loss is <b>{mean(moving)}</b> times copy-last’s; on all it has "
        f"<b>{mean(ours[1])}</b> nats{against and f', {against}'}; its groups agree with what moves together to an "
        f"adjusted Rand index of <b>{mean(together)}</b>."
    )


def _efficiency(measure: Measuring) -> str:
    said = []
    for other in ("lstm", "nem-k5"):
        shares = _ratios(measure, Measure("late_sequences", until=other), other)
        if not len(shares):
            return ""
        reached = np.isfinite(shares)
        share = f"<b>{100 * shares[reached].mean():.0f} %</b> of the sequences" if reached.any() else "more than all"
        never = f" (never in {(~reached).sum()} of {len(shares)} seeds)" if not reached.all() else ""
        said.append(f"{share} that {label(other)} needs{never}")
    return f"To be as good as the other is at its end, R-NEM needs {said[0]}, and {said[1]}."


def _identity(measure: Measuring) -> str:
    difference = measure("nem-k5", Measure("identity"))
    if not difference:
        return ""
    return (
        "With Υ = identity the network’s predictions differ from those of K separate RNNs with its weights by at most "
        f"<b>{max(difference.values()):.0e}</b> over 20 frames."
    )


FINDINGS: dict[str, Callable[[Measuring], str]] = {
    "accuracy": _accuracy, "relational": _relational, "components": _components, "grouping": _grouping,
    "extrapolation": _extrapolation, "attention": _attention, "occlusion": _occlusion, "simulation": _simulation,
    "atari": _atari, "efficiency": _efficiency, "identity": _identity,
}  # fmt: skip
"""Claim -> the sentence that its runs say."""


def label(model: str) -> str:
    """``nem-k5`` -> N-EM: the model's name in a sentence."""
    return MODEL_LABELS[model.partition("-")[0]]


def mean(values: Mapping[int, float], seeds: Iterable[int] | None = None) -> str:
    """The mean over seeds in three digits."""
    value = interval([values[seed] for seed in (values if seeds is None else seeds)])[0]
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratios(measure: Measuring, what: Measure, other: str) -> np.ndarray:
    """R-NEM's number over another model's, of each seed that both have."""
    ours, theirs = measure("rnem-k5", what), measure(other, what)
    return np.array([ours[seed] / theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def _share(values: Mapping[int, float]) -> str:
    return f"{100 * np.mean(list(values.values())):.0f} %"
