"""The poster's claims as data: what is said, what is measured, and the bound that decides.

The rules were written before the runs they judge, and none is changed after them: a rule that turned out wrong has a
successor, and both stay. So there are two sets: FIRST, written 2026-11-24 for the campaign of 64,000 sequences
(profile ``laptop``), and SECOND, written 2026-11-26 for the long one (profile ``long``).
"""

from __future__ import annotations

from dataclasses import replace

from rnem.claims.rules import Claim, Comparison, Measure

RNEM, RNEM8, NOATT, NEM = "rnem-k5", "rnem-k8", "rnem_noatt-k5", "nem-k5"
PLAYER, PLAYER_NEM = "rnem-k4", "nem-k4"

_BCE = Measure("bce")
_MANY = Measure("bce", "balls678mass", components=8)
_CURTAIN = Measure("bce", "balls3curtain")
_GAME = {"data": "spaceinvaders", "first": 10, "last": 24}


def _rollout(step: int) -> Measure:
    """BCE of the ``step``-th rollout frame after 20 true ones (its prediction is frame 20 + step)."""
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
            (Comparison(Measure("ari", first=20, last=29), RNEM, bound=0.8, better="higher", authors=0.8),),
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
                Comparison(_CURTAIN, RNEM, "lstm", authors=46.22 / 59.32),
                Comparison(_CURTAIN, RNEM, "rnn", authors=46.22 / 94.64),
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
        _second(
            "grouping", Comparison(Measure("ari", first=20, last=29), RNEM, bound=0.75, better="higher", authors=0.8)
        ),
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


def claims(profile: str) -> dict[str, Claim]:
    """Return the rules by which the runs of a profile are judged: the first campaign's own, and for others the second.

    What the second set leaves out is judged by the first: by the first campaign's runs, where the profile is ``long``.
    """
    left_out = {} if profile == "long" else {claim: FIRST[claim] for claim in FIRST if claim not in SECOND}
    return FIRST if profile == "laptop" else {c: (SECOND | left_out)[c] for c in FIRST if c in SECOND | left_out}
