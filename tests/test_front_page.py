"""The first page: sentences that say what was measured whatever it is, and a tile for each claim."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from rnem.claims import front_page, poster
from rnem.claims.rules import Measure

SEEDS = (0, 1, 2)


def measuring(**changed):
    """A measure of made-up runs: (model, quantity) -> one number per seed."""
    numbers = {
        "bce": {"rnem-k5": (57, 56, 58), "nem-k5": (70, 71, 72), "lstm": (66, 67, 68), "rnn": (73, 74, 75)},
        "relational": {"rnem-k5": (3, 3, 3), "nem-k5": (4, 4, 4)},
        "ari": {"rnem-k5": (0.7, 0.8, 0.9), "rnem-k8": (0.92, 0.92, 0.92)},
        "returned": {"rnem-k5": (0.0, 0.0, 0.0), "lstm": (0.1, 0.15, 0.2)},
        "many": {"lstm": (130, 136, 142)},
    } | changed

    def measure(model: str, what: Measure) -> dict[int, float]:
        quantity = "many" if what.data == "balls678mass" else what.quantity
        return dict(zip(SEEDS, numbers[quantity].get(model, ()), strict=False))

    return measure


MENDED = {0: (157.2, 103.1), 1: (181.9, 100.0), 2: (421.0, 103.4)}


def said(*given) -> list[str]:
    sentences = front_page.findings({"a campaign": given})
    return [re.sub("<[^>]+>", "", sentence).removesuffix(" (a campaign)") for sentence in sentences]


def test_five_sentences_have_their_numbers_from_the_runs():
    accuracy, contacts, grouping, more, curtain = said(measuring(), MENDED)
    assert "best in 3 of 3 seeds: 57.0 nats; LSTM 67.0, N-EM 71.0, RNN 74.0" in accuracy
    assert "25 % below that of N-EM" in contacts
    assert contacts.endswith("on whole frames it is 20 % below.")
    assert "0.80 with five components, and 0.92 with eight" in grouping
    assert "has 157, 182, 421 nats by seed" in more
    assert "103, 100, 103 (LSTM 136.0)" in more
    assert "R-NEM predicts 0 %" in curtain
    assert curtain.endswith("LSTM 15 %.")


def test_a_sentence_is_of_the_last_campaign_that_has_seeds_enough_for_it():
    def two_seeds(model, what):
        return dict(list(measuring()(model, what).items())[:2])

    first = (measuring(), MENDED)
    assert all("(old)" in sentence for sentence in front_page.findings({"old": first, "new": (two_seeds, {})}))
    both = front_page.findings({"old": first, "new": (measuring(), {})})
    assert ["(new)" in sentence for sentence in both] == [True, True, True, False, True]


def test_sentences_stay_true_where_r_nem_is_worse():
    bce = {"rnem-k5": (57, 90, 90), "nem-k5": (70, 60, 60), "lstm": (66, 67, 68), "rnn": (73, 74, 75)}
    accuracy, contacts, *_ = said(measuring(bce=bce, relational={"rnem-k5": (5, 5, 5), "nem-k5": (4, 4, 4)}), MENDED)
    assert "best in 1 of 3 seeds" in accuracy
    assert "25 % above that of N-EM" in contacts


def test_what_was_not_trained_is_not_said():
    assert len(said(measuring(returned={"rnem-k5": (0.1, 0.1, 0.1)}), {})) == 3
    nothing = {name: {} for name in ("bce", "relational", "ari", "returned", "many")}
    assert said(measuring(**nothing), {}) == []


def judged(verdicts: dict[str, str]) -> list:
    return [SimpleNamespace(claim=poster.FIRST[claim], verdict=verdict) for claim, verdict in verdicts.items()]


def test_every_claim_has_a_tile():
    html = front_page.tiles(judged(dict.fromkeys(poster.FIRST, "partly replicated")))
    assert html.count('class="tile partly"') == 11
    assert 'href="occlusion.html"' in html
    assert re.sub("<[^>]+>", " ", html).count("◐") == 11


def test_the_page_has_a_film_the_findings_the_tiles_and_three_doors():
    frames = np.zeros((4, 2, 8, 8))
    film = front_page.of("four balls", "R-NEM", frames[:, 0], frames, frames + 0.5)
    assert "four balls" in film.alt
    links = front_page.buttons([SimpleNamespace(manifest={"created": "2026-11-26T01:02:03Z"})])
    html = front_page.page(film, ["One."], judged({"accuracy": "replicated", "grouping": "inconclusive"}), links)
    assert "2 claims: 1 replicated, 1 inconclusive" in html
    assert "runs until 2026-11-26" in html
    assert html.count('class="door"') == 3
    assert film.html in html
    for address in (front_page.PAPER, front_page.SITE, front_page.CODE):
        assert f'href="{address}"' in html


@pytest.mark.parametrize("address", ["", "https://example.org/rnem"])
def test_this_code_leads_to_the_repository_where_it_has_an_address(address):
    assert f'href="{address or "../code/rnem.model.em.html"}"' in front_page.buttons([], address)
