"""Words and tables made from decided comparisons, on made-up numbers."""

import pytest

from rnem.claims import scorecard
from rnem.claims.poster import FIRST, SECOND
from rnem.claims.rules import Claim, Comparison, Decided, Measure, decide

LOWER = Comparison(Measure("bce"), "rnem-k5", "lstm", bound=0.8)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([50.0, 50.0, 50.0], "50.0 ± 0.0"),
        ([1.0, 2.0, 3.0], "2.00 ± 2.48"),
        ([0.5], "0.50"),
        ([64000.0], "64,000"),
        ([1e-6], "1e-06"),
        ([0.0], "0"),
        ([float("inf"), 1.0], "never"),
        ([float("nan")], "–"),
    ],
)
def test_a_number_is_a_mean_with_its_interval(values, text):
    assert scorecard.number(values) == text


def test_a_comparison_in_words_has_both_sides_ratio_seeds_rule_and_outcome():
    text = scorecard.describe(Decided(LOWER, (0, 1, 2), (50.0, 51.0, 49.0), (100.0, 102.0, 98.0)))
    assert text == (
        "next-frame BCE, four balls, frames 10–29: R-NEM, K = 5 **50.0 ± 2.5**, LSTM **100.0 ± 5.0**, "
        "ratio 0.50 (0.50 to 0.50) (n = 3; ratio < 0.8: holds)"
    )
    assert "no seed has a finished run of R-NEM, K = 5 and LSTM" in scorecard.describe(Decided(LOWER, (), (), ()))


def test_simulated_steps_and_sequences_are_named():
    steps = Measure("bce", first=30, last=30, real_steps=20)
    assert scorecard.measure_label(steps) == "next-frame BCE, rollout step 10 after 20 true frames"
    until = scorecard.measure_label(Measure("sequences", until="nem-k5"))
    assert until == "training sequences until the final loss of N-EM, K = 5 is reached"


def test_every_claim_can_be_put_into_words():
    for claim in (*FIRST.values(), *SECOND.values()):
        for decided in decide(claim, lambda model, measure: {0: 1.0, 1: 1.0, 2: 1.0}):
            assert scorecard.measure_label(decided.comparison.measure)
            assert "n = 3" in scorecard.describe(decided)


def test_a_scorecard_has_a_row_per_claim_and_counts_verdicts(monkeypatch):
    one = Claim("accuracy", "It is accurate.", "poster", "no number", (LOWER,))
    monkeypatch.setattr(scorecard.poster, "FIRST", {"accuracy": one})
    numbers = {"rnem-k5": {0: 50.0, 1: 51.0, 2: 49.0}, "lstm": {0: 100.0, 1: 100.0, 2: 100.0}}
    table = scorecard.table(lambda model, measure: numbers.get(model, {}), {"laptop-balls4mass-rnem-k5": []}, "laptop")
    assert list(table["verdict"]) == ["replicated"]
    assert scorecard.summary(table).startswith("**1** replicated")
    assert scorecard.outcomes(table) == "Of 1 comparisons: 1 holds."
    more = table.assign(outcomes=[["holds", "opposite", "holds"]])
    assert scorecard.outcomes(more) == "Of 3 comparisons: 2 hold, 1 is opposite."
    text = scorecard.markdown(table)
    assert "**[accuracy](accuracy.ipynb)**" in text
    assert "{bdg-success}`replicated`" in text
