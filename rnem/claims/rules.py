"""The poster's claims as data: what is said, what is measured, and the rule that turns seeds into a verdict.

The rules were written before the runs they judge, and none is changed after them: a rule that turned out wrong has a
successor, and both stay. So there are two sets: FIRST, written 2026-11-24 for the campaign of 64,000 sequences (profile
``laptop``), and SECOND, written 2026-11-26 for the long one (profile ``long``). A claim consists of comparisons; each
is decided by a 95% interval over seeds, on the test split, without evaluation noise, from means over several draws of
the initial gamma (rnem.evaluation.evaluate). How an interval becomes an outcome was changed on 2026-11-26 for both:
until then an interval that decides nothing was called a failure. What that older reading made of the first campaign is
kept in data/verdicts/first-campaign.json, as it was on 2026-11-26 at commit 04d76f0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rnem.evaluation.metrics import interval, quantile, ratio_interval

Verdict = Literal["replicated", "partly replicated", "inconclusive", "not replicated", "not tested at this scale"]
Outcome = Literal["holds", "weaker", "opposite", "inconclusive", "untested"]
MINIMUM_SEEDS = 3
MOST_SEEDS = 100
"""More seeds than these are not asked for: a difference that needs them is no difference at this budget."""


@dataclass(frozen=True)
class Measure:
    """One number of one run: mean of a quantity over predicted frames ``first``..``last`` of the test videos."""

    quantity: str
    """A key of rnem.evaluation.evaluate.QUANTITIES, a ratio of two (``wrong/copy_last``), or one of those below.

    ``sequences`` counts the training sequences seen until the validation BCE is down to the final one of model
    ``until`` (same seed); infinite where that is never reached. ``late_sequences`` is the same with the BCE of the last
    10 validation frames, when groups have settled. ``identity`` is the largest difference between psi of the network
    and of K separate RNNs with its weights.

    ``returned`` is the share of returns that are predicted: a ball that no pixel showed for two frames or more comes
    out of the curtain, and in the first frame with a quarter of it in sight the *predicted* frame has a disc within 2
    pixels of it (see rnem.analysis.occlusion). ``moving`` is the BCE of max_k psi_k on the pixels that change from
    frame t to t+1, ``copy_moving`` that of a copy of frame t which allows for the average rate of change; ``follows``
    is the share of rollout steps in which the ship goes left, right or stays as the action given says; ``turns`` the
    share of next-frame predictions in which, of three that differ in the action alone, the ship is where its action
    says (by chance a third); ``together`` is the foreground ARI against what moves together: all aliens, ship, shields,
    shots (see rnem.analysis.space_invaders).

    ``attention_rise`` is the attention between two balls in the last step that can still change the prediction of their
    contact, as a multiple of the attention between the same two at quiet times (rnem.analysis.attention, lag 0).

    ``imagined_wrong`` and ``imagined_near`` are of the rollout step ``first`` = ``last`` after ``real_steps`` true
    frames, by the feedback (rnem.model.em.FEEDBACKS) that serves this run better on validation videos: wrong pixels of
    the frame that is fed back, and the share of the true balls that are found in it within 2 pixels
    (rnem.analysis.rollouts).
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
    authors: float | None = None
    """What the authors' own numbers give for what is held against the bound; no rule reads it."""

    def oriented(self, compared: float) -> float:
        """What is held against the bound, as a ratio of which less is better and 1 is equality (or the only bound)."""
        ratio = compared if self.reference else compared / self.bound
        return ratio if self.better == "lower" else math.inf if ratio == 0 else 1 / ratio


@dataclass(frozen=True)
class Claim:
    id: str
    statement: str
    source: str
    theirs: str
    comparisons: tuple[Comparison, ...]
    written: str = "2026-11-24"
    """The day on which the rule was committed, before any run that it judges."""


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
