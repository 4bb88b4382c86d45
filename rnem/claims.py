"""The poster's claims as data: what is said, what is measured, and the rule that turns seeds into a verdict.

The rules were written before the runs they judge. A claim consists of comparisons; each is decided by a 95% Student-t
interval over seeds, on the test split, without evaluation noise unless it says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rnem.metrics import interval

Verdict = Literal["replicated", "partly replicated", "not replicated", "not tested at this scale"]
Outcome = Literal["holds", "weaker", "fails", "untested"]
MINIMUM_SEEDS = 3


@dataclass(frozen=True)
class Measure:
    """One number of one run: mean of a quantity over predicted frames ``first``..``last`` of the test videos."""

    quantity: str
    """A key of rnem.evaluate.QUANTITIES, a ratio of two (``wrong/copy_last``), or one of those below.

    ``sequences`` counts the training sequences seen until the validation BCE is down to the final one of model
    ``until`` (same seed); infinite where that is never reached. ``identity`` is the largest difference between psi of
    the network and of K separate RNNs with its weights.

    ``returned`` is the share of returns that are predicted: a ball that no pixel showed for two frames or more comes
    out of the curtain, and in the first frame with a quarter of it in sight the *predicted* frame has a disc within
    2 pixels of it (see rnem.occlusion). ``moving`` is the BCE of max_k psi_k on the pixels that change from frame t
    to t+1, ``copy_moving`` that of a copy of frame t which allows for the average rate of change; ``follows`` is the
    share of simulated steps in which the ship goes left, right or stays as the action given says; ``together`` is the
    foreground ARI against what moves together: all aliens, ship, shields, shots (see rnem.sprites).
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

    With a reference model the ratio subject/reference is formed per seed (same seed, same training videos). It *holds*
    when the whole interval lies below ``bound`` (above, where more is better); it is *weaker* when the interval lies
    on the right side of 1 (of equality) only; otherwise it *fails*.
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


RNEM, RNEM8, NOATT, NEM = "rnem-k5", "rnem-k8", "rnem_noatt-k5", "nem-k5"
PLAYER, PLAYER_NEM = "rnem-k4", "nem-k4"

_BCE = Measure("bce")
_MANY = Measure("bce", "balls678mass", components=8)
_CURTAIN = Measure("bce", "balls3curtain")
_GAME = {"data": "spaceinvaders", "first": 10, "last": 24}


def _rollout(step: int) -> Measure:
    """BCE of the ``step``-th simulated frame after 20 true ones (its prediction is frame 20 + step)."""
    return Measure("bce", first=20 + step, last=20 + step, real_steps=20)


CLAIMS: dict[str, Claim] = {
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
"""By id, in the book's order."""


def outcome(comparison: Comparison, subject: Sequence[float], reference: Sequence[float] | None = None) -> Outcome:
    """Decide one comparison from one number per seed (paired by seed where there is a reference)."""
    if len(subject) < MINIMUM_SEEDS or (reference is not None and len(reference) != len(subject)):
        return "untested"
    ratios = subject if reference is None else _ratios(subject, reference)
    if any(map(math.isinf, ratios)):  # a number of sequences that never sufficed, or a ratio to nothing
        return "fails"
    mean, half = interval(ratios)
    if math.isnan(mean):
        return "untested"
    worst = mean + half if comparison.better == "lower" else mean - half

    def clears(bound: float) -> bool:
        return worst < bound if comparison.better == "lower" else worst > bound

    if clears(comparison.bound):
        return "holds"
    return "weaker" if comparison.reference is not None and clears(1.0) else "fails"


def _ratios(subject: Sequence[float], reference: Sequence[float]) -> list[float]:
    """subject / reference, seed by seed: 1 where they are equal (both may be 0), infinite where only that is 0."""
    return [1.0 if s == r else s / r if r else math.inf for s, r in zip(subject, reference, strict=True)]


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """*replicated*: all hold; *not replicated*: all fail; *not tested*: one lacks its seeds; else *partly*."""
    if not outcomes or "untested" in outcomes:
        return "not tested at this scale"
    if all(o == "holds" for o in outcomes):
        return "replicated"
    return "not replicated" if all(o == "fails" for o in outcomes) else "partly replicated"


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
