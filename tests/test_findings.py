"""What was found about each claim: sentences with numbers of made-up runs."""

import re
from types import SimpleNamespace

import pytest

from rnem.claims import findings, poster, scorecard, scorecard_page
from rnem.claims.rules import Claim, Comparison, Measure


def made_up(model: str, what: Measure) -> dict[int, float]:
    """Numbers that differ by model, quantity and data, for three seeds."""
    base = {"rnem-k5": 2.0, "rnem-k8": 1.5, "rnem-k4": 2.0, "rnem-k3": 3.0}.get(model, 4.0)
    scale = {"ari": 0.25, "returned": 0.1, "imagined_near": 0.2, "late_sequences": 1000, "identity": 1e-6}.get(
        what.quantity, 10
    )
    return {seed: base * scale * (1 + 0.1 * seed) for seed in range(3)}


def words(claim: str, measure=made_up) -> str:
    return re.sub("<[^>]+>", "", findings.finding(claim, measure))


def test_every_claim_has_a_finding_of_one_short_sentence():
    assert set(findings.FINDINGS) == set(poster.FIRST)
    for claim in poster.FIRST:
        sentence = words(claim)
        assert sentence.endswith(".")
        assert re.search(r"\d", sentence), claim
        assert len(sentence.split()) <= 45, sentence


@pytest.mark.parametrize("claim", list(poster.FIRST))
def test_nothing_is_said_without_runs(claim):
    assert findings.finding(claim, lambda model, what: {}) == ""


def test_findings_have_the_numbers_of_their_runs():
    assert "has 33.0 → 22.0 → 16.5 nats on four balls" in words("components")
    assert "R-NEM has 22.0 nats (20, 22, 24 by seed); N-EM 44.0, LSTM 44.0, RNN 44.0" in words("extrapolation")
    assert "R-NEM predicts 22 % where they appear; the LSTM 44 %" in words("occlusion")
    assert "44 % of the true balls" in words("simulation")
    assert "R-NEM needs 50 % of the sequences that LSTM needs, and 50 %" in words("efficiency")
    assert "at most 5e-06" in words("identity")


def test_a_loss_that_was_never_reached_is_said():
    def measure(model, what):
        return {0: float("inf"), 1: 500.0} if model == "rnem-k5" else {0: 1000.0, 1: 1000.0}

    assert "needs 50 % of the sequences that LSTM needs (never in 1 of 2 seeds)" in words("efficiency", measure)


def test_the_campaign_that_tested_a_claim_comes_first_and_both_are_judged(monkeypatch):
    lower = Comparison(Measure("bce"), "rnem-k5", "lstm", bound=0.8)
    claim = Claim("accuracy", "It is accurate.", "poster", "no number", (lower,))
    monkeypatch.setattr(scorecard.poster, "claims", lambda profile: {"accuracy": claim})
    seeds = {"laptop": 3, "long": 2}

    def measure_with(runs, **settings):
        profile = next(iter(runs)).split("-")[0]
        return lambda model, what: dict.fromkeys(range(seeds[profile]), 1.0 if model == "rnem-k5" else 2.0)

    monkeypatch.setattr(scorecard.measured, "measure_with", measure_with)
    names = [f"{profile}-balls4mass-{model}" for profile in seeds for model in ("rnem-k5", "lstm")]
    found = {name: [SimpleNamespace(seed=0, path=name, manifest={"wall_seconds": 60})] for name in names}
    assert [(one.profile, one.verdict) for one in scorecard.judge("accuracy", found)] == [
        ("laptop", "replicated"), ("long", "not tested at this scale"),
    ]  # fmt: skip
    seeds["long"] = 3
    judged = scorecard.judge("accuracy", found)
    assert [one.profile for one in judged] == ["long", "laptop"]
    monkeypatch.setattr(scorecard_page, "evidence", lambda runs: "Runs.")
    opening, text = scorecard.opening(judged).data, scorecard_page.judgement(judged, also="And more.").data
    assert opening.index("long campaign") < opening.index("first campaign")
    assert "✓" in opening
    assert text.startswith(":::{dropdown}")
    said = scorecard.plain(text)
    for part in (
        "It is accurate.",
        "Long campaign: ✓ replicated",
        "ratio < 0.8: holds",
        "And more.",
        "rnem reproduce --chapter accuracy or",
        "4 thread-minutes from nothing",
    ):
        assert part in said
