"""The rule that turns seeds into a verdict, on numbers whose verdict is known."""

import json

import numpy as np
import pytest
import scipy.stats

from rnem.claims.measured import SPECIAL, UNTIL, run_name
from rnem.claims.poster import FIRST, SECOND, claims
from rnem.claims.rules import Comparison, Decided, Measure, judge, outcome, verdict
from rnem.evaluation.evaluate import QUANTITIES
from rnem.evaluation.metrics import ratio_interval
from rnem.paths import repository
from rnem.runs.config import PROFILES
from rnem.runs.experiments import RUNS

LOWER = Comparison(Measure("bce"), "rnem-k5", "lstm", bound=0.8)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([50, 51, 49], [100, 99, 101], "holds"),  # half the loss, tight
        ([90, 91, 89], [100, 100, 100], "weaker"),  # below, but not by the bound
        ([90, 120, 60], [100, 100, 100], "inconclusive"),  # mean below, interval wide
        ([101, 98, 103], [100, 100, 100], "inconclusive"),  # no difference
        ([120, 121, 119], [100, 100, 100], "opposite"),
        ([50, 51], [100, 100], "untested"),  # two seeds are no evidence
    ],
)
def test_outcome_of_a_ratio(ours, theirs, expected):
    assert outcome(LOWER, ours, theirs) == expected


def test_higher_is_better_turns_the_rule_around():
    floor = Comparison(Measure("ari"), "rnem-k5", bound=0.8, better="higher")
    assert outcome(floor, [0.9, 0.91, 0.89]) == "holds"
    assert outcome(floor, [0.81, 0.95, 0.7]) == "inconclusive", "the interval contains the bound"
    assert outcome(floor, [0.71, 0.72, 0.7]) == "opposite"
    more = Comparison(Measure("ari"), "rnem-k5", "rnem-k3", better="higher")
    assert outcome(more, [0.8, 0.81, 0.79], [0.5, 0.5, 0.5]) == "holds"
    assert outcome(more, [0.5, 0.5, 0.5], [0.8, 0.81, 0.79]) == "opposite"


def test_the_interval_of_a_ratio_is_that_of_its_logarithm():
    """A factor of 2 up is as far from equality as a factor of 2 down; the plain interval of (0.5, 2, 1) is lopsided."""
    assert outcome(LOWER, [0.5, 2.0, 1.0], [1.0] * 3) == outcome(LOWER, [1.0] * 3, [0.5, 2.0, 1.0]) == "inconclusive"
    # Mean 0.61, plain interval up to 1.02; the logarithm's ends at 0.96.
    ratios = [0.45, 0.6, 0.78]
    assert 0.61 + 4.303 * 0.165 / 3**0.5 > 1
    assert outcome(LOWER, ratios, [1.0] * 3) == "inconclusive" if ratio_interval(ratios)[2] > 1 else "weaker"


def test_an_inconclusive_comparison_says_how_many_seeds_would_decide_it():
    some = Decided(LOWER, (0, 1, 2), (90.0, 104.0, 92.0), (100.0,) * 3)
    assert some.outcome == "inconclusive"
    needed = some.seeds_to_decide
    mean, spread = np.log([0.9, 1.04, 0.92]).mean(), np.log([0.9, 1.04, 0.92]).std(ddof=1)

    def half(n):
        return scipy.stats.t.ppf(0.975, n - 1) * spread / n**0.5

    assert half(needed) < -mean <= half(needed - 1)
    equal = Decided(LOWER, (0, 1, 2), (100.0, 104.0, 96.2), (100.0,) * 3)
    assert equal.seeds_to_decide is None


def test_a_loss_that_is_never_reached_is_no_number():
    assert outcome(LOWER, [10.0, float("inf"), 12.0], [100.0] * 3) == "inconclusive"
    assert outcome(LOWER, [float("inf")] * 3, [100.0] * 3) == "opposite"


def test_a_reference_of_zero_is_no_evidence_for_more():
    more = Comparison(Measure("returned"), "rnem-k5", "lstm", better="higher")
    assert outcome(more, [0.1, 0.2, 0.1], [0.0, 0.1, 0.05]) == "inconclusive"
    assert outcome(more, [0.0] * 3, [0.0] * 3) == "inconclusive"
    assert outcome(more, [0.0] * 3, [0.1] * 3) == "opposite"
    assert Decided(more, (0,), (0.0,), (0.0,)).compared == (1.0,)


def test_no_verdict_from_diverged_runs():
    assert outcome(LOWER, [float("nan")] * 3, [1.0] * 3) == "untested"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["holds", "holds"], "replicated"),
        (["holds", "weaker"], "partly replicated"),
        (["holds", "opposite"], "partly replicated"),
        (["weaker", "inconclusive"], "partly replicated"),
        (["opposite", "opposite"], "not replicated"),
        (["opposite", "inconclusive"], "inconclusive"),
        (["inconclusive", "inconclusive"], "inconclusive"),
        (["holds", "untested"], "not tested at this scale"),
        ([], "not tested at this scale"),
    ],
)
def test_verdict(outcomes, expected):
    assert verdict(outcomes) == expected


def test_comparisons_are_paired_by_seed():
    """Seeds differ a lot, but by the same factor for both models: paired, the ratio is exact."""
    table = {"rnem-k5": {0: 10.0, 1: 100.0, 2: 1000.0, 9: 1.0}, "nem-k5": {2: 2000.0, 1: 200.0, 0: 20.0}}
    result, outcomes = judge(FIRST["relational"], lambda model, measure: table[model])
    assert (result, outcomes) == ("replicated", ["holds"])


@pytest.mark.parametrize("profile", PROFILES)
def test_every_claim_names_runs_and_quantities_that_exist(profile):
    for claim in claims(profile).values():
        for c in claim.comparisons:
            for model in filter(None, (c.subject, c.reference)):
                assert run_name(profile, c.measure.data, model) in RUNS, (claim.id, model)
            what = c.measure.quantity
            assert what in SPECIAL or set(what.split("/")) <= {*QUANTITIES, *UNTIL, "identity"}, claim.id


def test_the_first_rules_stay_and_the_second_ones_judge_the_long_campaign():
    assert set(FIRST) - set(SECOND) == {"components", "identity"}
    assert {claim.written for claim in FIRST.values()} == {"2026-11-24"}
    assert {claim.written for claim in SECOND.values()} == {"2026-11-26"}
    assert claims("laptop") is FIRST
    assert list(claims("long")) == [claim for claim in FIRST if claim in SECOND]
    assert list(claims("smoke")) == list(FIRST)
    kept = json.loads((repository() / "data" / "verdicts" / "first-campaign.json").read_text())
    assert [row["claim"] for row in kept["claims"]] == list(FIRST)
    assert [len(row["comparisons"]) for row in kept["claims"]] == [len(c.comparisons) for c in FIRST.values()]
