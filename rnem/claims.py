"""The poster's claims as data: what is said, what is measured, and the rule that turns seeds into a verdict.

The rules were written before the runs they judge, and none is changed after them: a rule that turned out wrong has a
successor, and both stay. So there are two sets: FIRST, written 2026-11-24 for the campaign of 64,000 sequences
(profile ``laptop``), and SECOND, written 2026-11-26 for the long one (profile ``long``). A claim consists of
comparisons; each is decided by a 95% interval over seeds, on the test split, without evaluation noise, from means over
several draws of the initial gamma (rnem.evaluate). How an interval becomes an outcome was changed on 2026-11-26 for
both: until then an interval that decides nothing was called a failure. What that older reading made of the first
campaign is kept in data/verdicts/first-campaign.json, as it was on 2026-11-26 at commit 04d76f0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rnem.metrics import interval, quantile, ratio_interval

Verdict = Literal["replicated", "partly replicated", "inconclusive", "not replicated", "not tested at this scale"]
Outcome = Literal["holds", "weaker", "opposite", "inconclusive", "untested"]
MINIMUM_SEEDS = 3
MOST_SEEDS = 100
"""More seeds than these are not asked for: a difference that needs them is no difference at this budget."""


@dataclass(frozen=True)
class Measure:
    """One number of one run: mean of a quantity over predicted frames ``first``..``last`` of the test videos."""

    quantity: str
    """A key of rnem.evaluate.QUANTITIES, a ratio of two (``wrong/copy_last``), or one of those below.

    ``sequences`` counts the training sequences seen until the validation BCE is down to the final one of model
    ``until`` (same seed); infinite where that is never reached. ``late_sequences`` is the same with the BCE of the last
    10 validation frames, when groups have settled. ``identity`` is the largest difference between psi of the network
    and of K separate RNNs with its weights.

    ``returned`` is the share of returns that are predicted: a ball that no pixel showed for two frames or more comes
    out of the curtain, and in the first frame with a quarter of it in sight the *predicted* frame has a disc within
    2 pixels of it (see rnem.occlusion). ``moving`` is the BCE of max_k psi_k on the pixels that change from frame t
    to t+1, ``copy_moving`` that of a copy of frame t which allows for the average rate of change; ``follows`` is the
    share of simulated steps in which the ship goes left, right or stays as the action given says; ``turns`` the share
    of next-frame predictions in which, of three that differ in the action alone, the ship is where its action says (by
    chance a third); ``together`` is the foreground ARI against what moves together: all aliens, ship, shields, shots
    (see rnem.sprites).

    ``attention_rise`` is the attention between two balls in the last step that can still change the prediction of their
    contact, as a multiple of the attention between the same two at quiet times (rnem.attention, lag 0).

    ``imagined_wrong`` and ``imagined_near`` are of the simulated step ``first`` = ``last`` after ``real_steps`` true
    frames, by the feedback (rnem.em.FEEDBACKS) that serves this run better on validation videos: wrong pixels of the
    frame that is fed back, and the share of the true balls that are found in it within 2 pixels (rnem.simulation).
    """
    data: str = "balls4mass"
    first: int = 10
    last: int = 29
    real_steps: int | None = None
    """Steps with true input before the model feeds on itself; None for next-frame prediction throughout."""
    components: int | None = None
    """K at evaluation where it is not the training's."""
    until: str | None = None
    """For ``sequences``: the model whose final loss is to be reached."""


@dataclass(frozen=True)
class Comparison:
    """``subject`` against ``reference`` (models, as in run names) or against a constant.

    With a reference model the ratio subject/reference is formed per seed (same seed, same training videos), and its
    interval is that of its logarithm. It *holds* when the whole interval lies below ``bound`` (above, where more is
    better); it is *weaker* when it lies on the right side of 1 (of equality) only, *opposite* when it lies wholly on
    the wrong side of equality, and else *inconclusive*. Without a reference the bound is what equality is.
    """

    measure: Measure
    subject: str
    reference: str | None = None
    bound: float = 1.0
    better: Literal["lower", "higher"] = "lower"
    reference_measure: Measure | None = None
    """Where the reference is measured otherwise than the subject."""


@dataclass(frozen=True)
class Claim:
    id: str
    statement: str
    source: str
    theirs: str
    comparisons: tuple[Comparison, ...]
    written: str = "2026-11-24"
    """The day on which the rule was committed, before any run that it judges."""


RNEM, RNEM8, NOATT, NEM = "rnem-k5", "rnem-k8", "rnem_noatt-k5", "nem-k5"
PLAYER, PLAYER_NEM = "rnem-k4", "nem-k4"

_BCE = Measure("bce")
_MANY = Measure("bce", "balls678mass", components=8)
_CURTAIN = Measure("bce", "balls3curtain")
_GAME = {"data": "spaceinvaders", "first": 10, "last": 24}


def _rollout(step: int) -> Measure:
    """BCE of the ``step``-th simulated frame after 20 true ones (its prediction is frame 20 + step)."""
    return Measure("bce", first=20 + step, last=20 + step, real_steps=20)


FIRST: dict[str, Claim] = {
    claim.id: claim
    for claim in (
        Claim(
            "accuracy",
            "R-NEM models bouncing balls accurately, unlike RNN and LSTM.",
            "poster; paper, figure 3",
            "next-frame loss: R-NEM < RNN-EM, LSTM, RNN",
            (
                Comparison(Measure("wrong/copy_last"), RNEM, bound=0.4),
                Comparison(_BCE, RNEM, "lstm"),
                Comparison(_BCE, RNEM, "rnn"),
                Comparison(_BCE, RNEM, NEM),
            ),
        ),
        Claim(
            "relational",
            "Compared with N-EM (identity Υ) the relational loss is greatly reduced.",
            "poster",
            "no number given",
            (Comparison(Measure("relational"), RNEM, NEM, bound=0.8),),
        ),
        Claim(
            "components",
            "More components help grouping and lower the loss.",
            "poster; paper, section 4.1",
            "R-NEM with K=8 below K=5",
            (
                Comparison(_BCE, RNEM8, RNEM),
                Comparison(_BCE, RNEM, "rnem-k3"),
                Comparison(Measure("ari"), RNEM, "rnem-k3", better="higher"),
            ),
        ),
        Claim(
            "grouping",
            "Each component follows one object or the background.",
            "poster; paper, figure 3",
            "foreground ARI about 0.8",
            (Comparison(Measure("ari", first=20, last=29), RNEM, bound=0.8, better="higher"),),
        ),
        Claim(
            "extrapolation",
            "Trained on few balls it works on six to eight, where RNN and LSTM drop.",
            "poster; paper, section 4.2",
            "evaluated with K=8",
            (
                Comparison(_MANY, RNEM, "lstm"),
                Comparison(_MANY, RNEM, "rnn"),
                Comparison(_MANY, RNEM, NEM),
            ),
        ),
        Claim(
            "attention",
            "Without attention R-NEM is worse, most of all on more balls than in training.",
            "paper, section 4.2",
            "no number recalled",
            (Comparison(_BCE, RNEM, NOATT), Comparison(_MANY, RNEM, NOATT)),
        ),
        Claim(
            "occlusion",
            "A ball hidden by a curtain is still predicted, and comes back where it should.",
            "poster; paper, section 4.3",
            "BCE 46.22 (R-NEM), 59.32 (LSTM), 94.64 (RNN)",
            (
                Comparison(_CURTAIN, RNEM, "lstm"),
                Comparison(_CURTAIN, RNEM, "rnn"),
                Comparison(Measure("relational", "balls3curtain"), RNEM, "lstm"),
                Comparison(Measure("returned", "balls3curtain", last=50), RNEM, "lstm", better="higher"),
            ),
        ),
        Claim(
            "simulation",
            "Fed its own predictions it keeps simulating; RNN and N-EM fall apart sooner.",
            "poster; paper, figure 4",
            "no number given",
            tuple(Comparison(_rollout(step), RNEM, other) for step in (10, 20) for other in (NEM, "lstm", "rnn")),
        ),
        Claim(
            "atari",
            "In Space Invaders it predicts the next frame, and what moves together becomes one group.",
            "poster",
            "pictures of 15 steps, no number given",
            (
                Comparison(Measure("moving/copy_moving", **_GAME), PLAYER),
                Comparison(Measure("bce", **_GAME), PLAYER, PLAYER_NEM),
                Comparison(Measure("bce", **_GAME), PLAYER, "lstm"),
                Comparison(Measure("together", **_GAME), PLAYER, bound=0.5, better="higher"),
                Comparison(Measure("follows", **_GAME), PLAYER, bound=0.5, better="higher"),
            ),
        ),
        Claim(
            "efficiency",
            "Factoring interactions into pairs makes it learn efficiently, from few sequences.",
            "poster",
            "no number given",
            tuple(Comparison(Measure("sequences", until=other), RNEM, other, bound=0.5) for other in ("lstm", NEM)),
        ),
        Claim(
            "identity",
            "With Υ = identity R-NEM is N-EM.",
            "poster",
            "exact",
            (Comparison(Measure("identity"), NEM, bound=1e-4),),
        ),
    )
}
"""The rules of the first campaign, by id, in the book's order."""


def _second(claim: str, *comparisons: Comparison) -> Claim:
    """The rule of the long campaign for what the claim says."""
    return replace(FIRST[claim], comparisons=comparisons or FIRST[claim].comparisons, written="2026-11-26")


def _imagined(quantity: str, step: int) -> Measure:
    return Measure(f"imagined_{quantity}", first=step, last=step, real_steps=20)


SECOND: dict[str, Claim] = {
    claim.id: claim
    for claim in (
        _second("accuracy"),
        _second(
            "relational",
            Comparison(Measure("relational"), RNEM, NEM, bound=0.8),
            # The gain at contacts is larger than elsewhere: relational ratio / BCE ratio below 1.
            Comparison(Measure("relational/bce"), RNEM, NEM),
        ),
        # Theirs is about 0.8; the margin of 0.05 was said in advance.
        _second("grouping", Comparison(Measure("ari", first=20, last=29), RNEM, bound=0.75, better="higher")),
        _second(
            "extrapolation",
            *(Comparison(_MANY, model, other) for model in (RNEM, RNEM8) for other in ("lstm", "rnn", NEM)),
        ),
        _second(
            "attention",
            *FIRST["attention"].comparisons,
            Comparison(Measure("attention_rise"), RNEM, bound=1.0, better="higher"),
        ),
        _second("occlusion"),
        _second(
            "simulation",
            *(
                Comparison(_imagined(quantity, step), RNEM, other, better=better)
                for quantity, better in (("wrong", "lower"), ("near", "higher"))
                for step in (5, 10)
                for other in (NEM, "lstm", "rnn")
            ),
        ),
        _second(
            "atari",
            *FIRST["atari"].comparisons[:4],
            Comparison(Measure("turns", **_GAME), PLAYER, bound=0.5, better="higher"),
        ),
        _second(
            "efficiency",
            *(Comparison(Measure("late_sequences", until=other), RNEM, other, bound=0.5) for other in ("lstm", NEM)),
        ),
    )
}
"""The rules of the long campaign. *components* stays with the first, which decided it; *identity* is a check."""


def rules(profile: str) -> dict[str, Claim]:
    """Return the rules by which the runs of a profile are judged: the first campaign's own, and for others the second.

    What the second set leaves out is judged by the first: by the first campaign's runs, where the profile is ``long``.
    """
    left_out = {} if profile == "long" else {claim: FIRST[claim] for claim in FIRST if claim not in SECOND}
    return FIRST if profile == "laptop" else {c: (SECOND | left_out)[c] for c in FIRST if c in SECOND | left_out}


def outcome(comparison: Comparison, subject: Sequence[float], reference: Sequence[float] | None = None) -> Outcome:
    """Decide one comparison from one number per seed (paired by seed where there is a reference)."""
    if len(subject) < MINIMUM_SEEDS or (reference is not None and len(reference) != len(subject)):
        return "untested"
    values = subject if reference is None else _ratios(subject, reference)
    if any(map(math.isnan, values)):
        return "untested"
    low, high = _bounds(values, is_ratio=reference is not None)
    if comparison.better == "higher":  # so that less is better below
        low, high, bound = -high, -low, -comparison.bound
    else:
        bound = comparison.bound
    equality = bound if reference is None else math.copysign(1.0, bound)
    if high < bound:
        return "holds"
    if high < equality:
        return "weaker"
    return "opposite" if low > equality else "inconclusive"


def _bounds(values: Sequence[float], is_ratio: bool) -> tuple[float, float]:
    """Return low and high end of the 95% interval over seeds.

    A ratio of 0 or infinity (a loss that was never reached, a share of nothing) has no logarithm: where all seeds have
    the same one that is the interval, else it is everything.
    """
    if not is_ratio:
        mean, half = interval(values)
        return (mean - half, mean + half) if math.isfinite(mean) else _all_or_anything(values)
    if all(math.isfinite(value) and value > 0 for value in values):
        return ratio_interval(values)[1:]
    return _all_or_anything(values)


def _all_or_anything(values: Sequence[float]) -> tuple[float, float]:
    return (values[0], values[0]) if len(set(values)) == 1 else (-math.inf, math.inf)


def seeds_to_decide(comparison: Comparison, subject: Sequence[float], reference: Sequence[float] | None) -> int | None:
    """Return with how many seeds an *inconclusive* comparison would be decided, if mean and spread stay as they are.

    Decided means that the interval no longer contains equality. None where MOST_SEEDS would not do, or where there is
    no interval.
    """
    values = list(subject) if reference is None else _ratios(subject, reference)
    equality = comparison.bound
    if reference is not None:
        if any(not math.isfinite(value) or value <= 0 for value in values):
            return None
        values, equality = [math.log(value) for value in values], 0.0
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    mean, half = interval(values)
    distance, now = abs(mean - equality), len(values)
    spread = half / (quantile(now) / now**0.5)
    for n in range(max(now, MINIMUM_SEEDS), MOST_SEEDS + 1):
        if quantile(n) * spread / n**0.5 < distance:
            return n
    return None


def _ratios(subject: Sequence[float], reference: Sequence[float]) -> list[float]:
    """subject / reference, seed by seed: 1 where they are equal (both may be 0), infinite where only that is 0."""
    return [1.0 if s == r else s / r if r else math.inf for s, r in zip(subject, reference, strict=True)]


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """Return the verdict on a claim from the outcomes of its comparisons.

    *replicated*: all hold; *not tested*: one lacks its seeds; *not replicated*: all are opposite; *partly*: some hold
    or are weaker; *inconclusive*: none does, and not all are opposite.
    """
    if not outcomes or "untested" in outcomes:
        return "not tested at this scale"
    if all(o == "holds" for o in outcomes):
        return "replicated"
    if all(o == "opposite" for o in outcomes):
        return "not replicated"
    return "partly replicated" if {"holds", "weaker"} & set(outcomes) else "inconclusive"


@dataclass(frozen=True)
class Decided:
    """A comparison with the numbers that decided it, one per seed (the seeds that both sides have)."""

    comparison: Comparison
    seeds: tuple[int, ...]
    subject: tuple[float, ...]
    reference: tuple[float, ...] | None

    @property
    def outcome(self) -> Outcome:
        return outcome(self.comparison, self.subject, self.reference)

    @property
    def compared(self) -> tuple[float, ...]:
        """What is held against the bound: subject / reference, or the subject alone."""
        if self.reference is None:
            return self.subject
        return tuple(_ratios(self.subject, self.reference))

    @property
    def seeds_to_decide(self) -> int | None:
        return seeds_to_decide(self.comparison, self.subject, self.reference)


def decide(claim: Claim, measure: Callable[[str, Measure], dict[int, float]]) -> list[Decided]:
    """Every comparison of a claim; ``measure(model, what)`` gives one number per seed."""
    decided = []
    for c in claim.comparisons:
        subject, reference = measure(c.subject, c.measure), None
        seeds = subject.keys()
        if c.reference is not None:
            reference = measure(c.reference, c.reference_measure or c.measure)
            seeds = subject.keys() & reference.keys()
        order = tuple(sorted(seeds))
        ours, theirs = (None if side is None else tuple(side[s] for s in order) for side in (subject, reference))
        decided.append(Decided(c, order, ours, theirs))
    return decided


def judge(claim: Claim, measure: Callable[[str, Measure], dict[int, float]]) -> tuple[Verdict, list[Outcome]]:
    """The verdict on a claim and the outcome of each comparison, see :func:`decide`."""
    outcomes = [each.outcome for each in decide(claim, measure)]
    return verdict(outcomes), outcomes
