"""The rule that turns seeds into a verdict, on numbers whose verdict is known."""

import pytest

from rnem.claims import CLAIMS, Comparison, Decided, Measure, judge, outcome, verdict
from rnem.config import RUNS
from rnem.evaluate import QUANTITIES
from rnem.evidence import SPECIAL, run_name

LOWER = Comparison(Measure("bce"), "rnem-k5", "lstm", bound=0.8)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([50, 51, 49], [100, 99, 101], "holds"),  # half the loss, tight
        ([90, 91, 89], [100, 100, 100], "weaker"),  # below, but not by the bound
        ([90, 120, 60], [100, 100, 100], "fails"),  # mean below, interval wide
        ([120, 121, 119], [100, 100, 100], "fails"),
        ([50, 51], [100, 100], "untested"),  # two seeds are no evidence
    ],
)
def test_outcome_of_a_ratio(ours, theirs, expected):
    assert outcome(LOWER, ours, theirs) == expected


def test_higher_is_better_turns_the_rule_around():
    floor = Comparison(Measure("ari"), "rnem-k5", bound=0.8, better="higher")
    assert outcome(floor, [0.9, 0.91, 0.89]) == "holds"
    assert outcome(floor, [0.81, 0.95, 0.7]) == "fails"


def test_a_loss_that_is_never_reached_fails():
    assert outcome(LOWER, [10.0, float("inf"), 12.0], [100.0] * 3) == "fails"


def test_a_reference_of_zero_is_no_evidence_for_more():
    more = Comparison(Measure("returned"), "rnem-k5", "lstm", better="higher")
    assert outcome(more, [0.1, 0.2, 0.1], [0.0, 0.1, 0.05]) == "fails"
    assert outcome(more, [0.0] * 3, [0.0] * 3) == "fails"
    assert Decided(more, (0,), (0.0,), (0.0,)).compared == (1.0,)


def test_no_verdict_from_diverged_runs():
    assert outcome(LOWER, [float("nan")] * 3, [1.0] * 3) == "untested"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["holds", "holds"], "replicated"),
        (["holds", "weaker"], "partly replicated"),
        (["holds", "fails"], "partly replicated"),
        (["fails", "fails"], "not replicated"),
        (["holds", "untested"], "not tested at this scale"),
        ([], "not tested at this scale"),
    ],
)
def test_verdict(outcomes, expected):
    assert verdict(outcomes) == expected


def test_comparisons_are_paired_by_seed():
    """Seeds differ a lot, but by the same factor for both models: paired, the ratio is exact."""
    table = {"rnem-k5": {0: 10.0, 1: 100.0, 2: 1000.0, 9: 1.0}, "nem-k5": {2: 2000.0, 1: 200.0, 0: 20.0}}
    result, outcomes = judge(CLAIMS["relational"], lambda model, measure: table[model])
    assert (result, outcomes) == ("replicated", ["holds"])


def test_every_claim_names_runs_and_quantities_that_exist():
    for claim in CLAIMS.values():
        for c in claim.comparisons:
            for model in filter(None, (c.subject, c.reference)):
                assert run_name("laptop", c.measure.data, model) in RUNS, (claim.id, model)
            what = c.measure.quantity
            assert what in SPECIAL or set(what.split("/")) <= {*QUANTITIES, "sequences", "identity"}, claim.id
