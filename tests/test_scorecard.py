"""Words and tables made from decided comparisons, on made-up numbers."""

import csv
import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rnem.book import cells
from rnem.claims import scorecard, scorecard_page
from rnem.claims.poster import FIRST, SECOND
from rnem.claims.rules import Claim, Comparison, Decided, Measure, Verdict, decide
from rnem.paths import repository

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
        "next-frame BCE, four balls, frames 10–29: R-NEM, K = 5 <b>50.0 ± 2.5</b>, LSTM <b>100.0 ± 5.0</b>, "
        "ratio 0.50 (0.50 to 0.50) (n = 3; ratio &lt; 0.8: holds)"
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


NUMBERS = {"rnem-k5": {0: 50.0, 1: 51.0, 2: 49.0}, "lstm": {0: 100.0, 1: 100.0, 2: math.inf}}


@pytest.fixture
def card(monkeypatch):
    """The scorecard of one claim, with a word that HTML must not take for its own, by made-up runs of two campaigns."""
    comparisons = (
        LOWER,
        replace(LOWER, reference="rnem-k5"),
        Comparison(Measure("ari"), "rnem-k5", bound=60.0, better="higher", authors=0.8),
    )
    one = Claim("accuracy", "It is <b>accurate</b> & quick.", "poster, p. 1", "0.8 < 1", comparisons)
    monkeypatch.setattr(scorecard.poster, "FIRST", {"accuracy": one})
    monkeypatch.setattr(scorecard.poster, "SECOND", {"accuracy": replace(one, written="2026-11-26")})

    def measure_with(runs):
        return lambda model, what: NUMBERS.get(model, {}) if any(name.startswith("laptop") for name in runs) else {}

    monkeypatch.setattr(scorecard.measured, "measure_with", measure_with)
    monkeypatch.setattr(scorecard, "finding", lambda claim, measure: "It has <b>50</b> nats.")
    return scorecard.card({"laptop-balls4mass-lstm": [], "long-balls4mass-lstm": []}, "laptop")


def test_a_scorecard_has_every_claim_by_the_last_campaign_that_tested_it(card):
    assert [each.profile for each in card["accuracy"]] == ["laptop", "long"]
    (this,) = scorecard.standing(card)
    assert this.outcomes == ["inconclusive", "inconclusive", "opposite"]
    assert this.verdict == "inconclusive"
    assert scorecard.outcomes(this.outcomes) == "1 is opposite, 2 are inconclusive"
    assert scorecard.counted(["replicated", "not tested at this scale", "replicated"]) == "2 replicated, 1 not tested"


def test_without_any_run_every_claim_is_there_and_not_tested():
    empty = scorecard.card({}, "smoke")
    assert list(empty) == list(FIRST)
    assert {each.verdict for each in scorecard.standing(empty)} == {"not tested at this scale"}
    page = scorecard_page.page(empty)
    assert "11 claims: 11 not tested" in page
    assert page.count("No finished run says anything about it yet.") == 11
    assert "never run" in scorecard_page.sizes(empty, ["smoke", "paper"], {})


def test_every_claim_has_a_name_of_at_most_six_words():
    assert set(scorecard.SHORT) == set(FIRST)
    assert all(len(words.split()) <= 6 for words in scorecard.SHORT.values())
    assert set(scorecard.MARKS) == set(Verdict.__args__)


def test_comparisons_are_turned_so_that_less_is_better():
    floor = Comparison(Measure("ari"), "rnem-k5", bound=0.8, better="higher")
    assert (floor.oriented(0.4), floor.oriented(0.8), floor.oriented(0.0)) == (2.0, 1.0, math.inf)
    more = Comparison(Measure("ari"), "rnem-k5", "lstm", bound=2.0, better="higher")
    assert (more.oriented(4.0), more.oriented(more.bound), more.oriented(math.inf)) == (0.25, 0.5, 0.0)
    assert (LOWER.oriented(0.7), LOWER.oriented(LOWER.bound)) == (0.7, 0.8)


def test_a_row_opens_to_the_claims_words_its_comparisons_and_what_would_change_the_verdict(card):
    row = scorecard_page.row(card["accuracy"])
    assert "“It is &lt;b&gt;accurate&lt;/b&gt; &amp; quick.” (poster, p. 1). Theirs: 0.8 &lt; 1." in row
    assert "<b>accurate" not in row
    assert 'class="claim inconclusive"' in row
    assert 'href="accuracy.html">Predicts bouncing balls better</a><details><summary>' in row
    assert row.count("<li>") == 3  # what each comparison lacks; without runs there is no list of comparisons
    assert "more than 100 seeds would decide it" in row
    assert "opposite, its mean misses the bound by 20 %" in row
    assert "<code>rnem reproduce --chapter accuracy</code>" in row


def test_what_would_change_a_verdict():
    def judged(*decided):
        return scorecard.Judged(FIRST["accuracy"], "laptop", list(decided), [], "")

    some, seeds = Decided(LOWER, (0, 1, 2), (50.0, 51.0, 49.0), (100.0,) * 3), (0, 1, 2)
    (text,) = scorecard_page.would_change(judged(some))
    assert "is 38 % from it: Next-frame BCE" in text
    never, two = Decided(LOWER, seeds, (math.inf,) * 3, (1.0,) * 3), Decided(LOWER, (0, 1), (1.0, 1.0), (1.0, 1.0))
    texts = scorecard_page.would_change(judged(some, never, two, Decided(LOWER, seeds, (3.0,) * 3, (1.0,) * 3)))
    assert [text.rpartition(": ")[2] for text in texts] == [
        "opposite, its mean misses the bound by far.",
        "2 of 3 seeds are finished.",
        "opposite, its mean misses the bound by a factor of 3.8.",
    ]


def test_sizes_say_what_was_tested_begun_and_never_run(card):
    run = SimpleNamespace(path="a", seed=0, manifest={"wall_seconds": 60})
    judged = [replace(each, runs=[run] * 2) for each in card["accuracy"]]
    found = {"long-balls4mass-lstm": [run], "paper-balls4mass-long_lstm": [run]}
    table = scorecard_page.sizes({"accuracy": judged}, ["laptop", "long", "paper"], found)
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall("<td>(.*?)</td>", table)]
    assert cells == ["? inconclusive, 2 runs", "begun: 1 run", "never run"]
    assert "asked for by no claim’s rule: <code>paper-balls4mass-long_lstm</code> (1 seed)" in table


def test_the_files_have_the_same_rows_and_read_back_equal(card, tmp_path):
    scorecard.write(card, tmp_path)
    tree = json.loads((tmp_path / "scorecard.json").read_text(encoding="utf-8"))
    rows = scorecard.records(card)
    assert tree["comparisons"] == rows
    assert tree["schema"] == scorecard.SCHEMA
    assert len(rows) == 6
    assert [row["stands"] for row in rows] == [True] * 3 + [False] * 3
    assert rows[0]["reference_values"] == [100.0, 100.0, "inf"]
    assert rows[0]["compared"] == [0.5, 0.51, 0.0]
    assert rows[0]["finding"] == "It has 50 nats."
    with (tmp_path / "scorecard.csv").open(encoding="utf-8", newline="") as file:
        flat = list(csv.DictReader(file))
    assert [list(row) for row in flat] == [list(scorecard.SCHEMA)] * 6
    for row, said in zip(rows, flat, strict=True):
        for name, value in row.items():
            text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            assert said[name] == text, name


def test_nothing_is_written_by_hand(card, tmp_path, monkeypatch):
    monkeypatch.delenv("RNEM_FIGURES", raising=False)
    monkeypatch.chdir(tmp_path)
    scorecard.write(card)
    assert list(tmp_path.iterdir()) == []


def test_the_committed_files_are_what_the_committed_runs_give():
    found = cells.runs("scorecard")
    quick = [claim for claim in FIRST if claim != "identity"]  # which unrolls networks
    tree = json.loads((repository() / "figures" / "scorecard.json").read_text(encoding="utf-8"))
    rows = scorecard.records({claim: scorecard.judge(claim, found) for claim in quick})
    assert rows == [row for row in tree["comparisons"] if row["claim"] in quick]
    verdicts = {row["claim"]: row["verdict"] for row in tree["comparisons"] if row["stands"]}
    assert list(verdicts) == list(FIRST)
    assert (repository() / "figures" / "scorecard.svg").read_bytes() == scorecard.badge(verdicts.values())


def test_the_evidence_says_how_many_versions_of_the_code_and_which_changes_are_behind_it():
    def run(seed, digest, dirty, **more):
        known = {"wall_seconds": 60.0, "threads": 1, "hardware": "a processor", "commit": "abcdef0123", "dirty": dirty}
        return SimpleNamespace(seed=seed, manifest=known | {"code_digest": digest} | more)

    clean = scorecard_page.evidence([run(0, "a", False), run(1, "a", False)])
    assert clean.endswith("commit abcdef01.")
    assert "uncommitted" not in clean
    mixed = [run(0, "a", True), run(1, "b", False), run(2, "c", True, code_digests=["b", "c"])]
    assert scorecard_page.evidence(mixed).endswith(
        "; 3 versions of the training code; 2 of the runs with uncommitted changes."
    )
