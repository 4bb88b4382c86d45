"""What is kept beside the runs: it is computed once, noticed when damaged, and pinned to numbers that it once gave."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from rnem.analysis import cache, restarts
from rnem.analysis import curves as analysis_curves
from rnem.claims import measured
from rnem.claims.poster import FIRST
from rnem.claims.rules import Measure, decide
from rnem.errors import ChapterError
from rnem.evaluation import evaluate
from rnem.model.network import build
from rnem.runs import code, experiments, provenance, store

NAMES = ("smoke-balls4mass-rnem-k5", "smoke-balls4mass-nem-k5", "smoke-balls4mass-lstm")


def untrained(name: str, seed: int, bces: list[float]) -> store.Run:
    """A finished run with weights as they were drawn and a made-up history."""
    torch.manual_seed(seed)
    this = experiments.named(name).replace(seed=seed)
    rows = [{"update": u, "sequences": 8 * u, "bce": bce} for u, bce in zip((10, 20, 30), bces, strict=True)]
    return store.save(
        this, weights=build(this.network).state_dict(), metrics=rows,
        manifest={"wall_seconds": 1.0, "updates": 30, "sequences_seen": 240},
    )  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(data):
    return untrained(NAMES[0], 0, [9.0, 8.0, 7.0])


def test_a_measure_is_computed_once_and_read_back_as_it_was(run):
    calls = []

    def compute():
        calls.append(1)
        return pd.DataFrame({"step": [1, 2], "bce": [1 / 3, 2e-9]})

    first = cache.cached(run, "thing", "rnem.evaluation.metrics", compute, count=5)
    again = cache.cached(run, "thing", "rnem.evaluation.metrics", compute, count=5)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert len(calls) == 1
    np.testing.assert_allclose(first["bce"], [1 / 3, 2e-9], rtol=1e-6)


@pytest.mark.parametrize("change", [{"module": "rnem.evaluation.ball_detection"}, {"count": 6}, {"what": "other"}])
def test_other_code_or_another_setting_or_measure_is_another_file(run, change):
    given = {"what": "thing", "module": "rnem.evaluation.metrics", "count": 5}
    one = pd.DataFrame({"a": [1]})
    cache.cached(run, compute=lambda: one, **given)
    assert cache.cached(run, compute=lambda: one + 1, **(given | change))["a"][0] == 2


def test_other_weights_are_measured_anew(run):
    cache.cached(run, "thing", "rnem.evaluation.metrics", lambda: pd.DataFrame({"a": [1]}))
    other = dataclasses.replace(run, manifest=run.manifest | {"digest": "of other weights"})
    assert cache.cached(other, "thing", "rnem.evaluation.metrics", lambda: pd.DataFrame({"a": [2]}))["a"][0] == 2


@pytest.mark.parametrize(
    "damage", [lambda t: t.replace("0.5", "0.4"), lambda t: t[:-4], lambda t: "", lambda t: "{}\n"]
)
def test_a_damaged_file_is_noticed_and_computed_again(run, data, damage):
    table = pd.DataFrame({"a": [0.5, 0.25]})
    cache.cached(run, "thing", "rnem.evaluation.metrics", lambda: table)
    (path,) = (data / "measures").rglob("*.csv")
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match="computed again"):
        assert list(cache.cached(run, "thing", "rnem.evaluation.metrics", lambda: table)["a"]) == [0.5, 0.25]
    assert list(cache.cached(run, "thing", "rnem.evaluation.metrics", lambda: 1 / 0)["a"]) == [0.5, 0.25]


MEASURING = (
    "ablations", "attention", "authors_results", "curves", "grouping", "occlusion", "rollouts", "space_invaders",
    "state_probe",
)  # fmt: skip


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's sources, which a test may edit."""
    copy = tmp_path / "sources" / "rnem"
    shutil.copytree(code.module_path("rnem").parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "SOURCES", copy.parent)
    cache.code_of.cache_clear()
    yield copy
    cache.code_of.cache_clear()


def edit(path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after) if before else text + after, encoding="utf-8")
    cache.code_of.cache_clear()


@pytest.mark.parametrize(
    ("module", "before", "after", "changes"),
    [
        ("evaluation/metrics", "def ari(", "# The textbook's.\n\n\ndef ari(", False),
        ("evaluation/evaluate", "DRAWS = 5\n", "DRAWS = 5  # enough\n", False),
        ("evaluation/evaluate", '"""Sequences that are unrolled together;', '"""Unrolled together:', False),
        ("evaluation/evaluate", "DRAWS = 5\n", "DRAWS = 6\n", True),
        ("model/em", "EPSILON = 1e-6", "EPSILON = 1e-5", True),  # imported through another
        ("evaluation/ball_detection", "def match(", "def matched(", False),  # no curve is made of it
        ("runs/store", "def best(", "def finest(", False),
        ("model/__init__", "", "CHANGED = True\n", True),  # importing rnem.model.em runs it
        ("analysis/__init__", "", "# A comment.\n", False),
        ("figures/__init__", "from rnem", "CHANGED = True\nfrom rnem", False),
        ("__init__", '__version__ = "0.1.0"', '__version__ = "0.2.0"', False),
    ],
)
def test_the_key_follows_code_and_not_comments(run, package, module, before, after, changes):
    calls = []

    def measured() -> None:
        cache.cached(run, "thing", "rnem.analysis.curves", lambda: calls.append(1) or pd.DataFrame({"a": [1]}))

    measured()
    edit(package / f"{module}.py", before, after)
    measured()
    assert len(calls) == 1 + changes


def test_what_other_code_gave_goes_when_the_new_table_is_kept(run, package, data):
    def measured(what: str, count: int) -> None:
        cache.cached(run, what, "rnem.analysis.curves", lambda: pd.DataFrame({"a": [1]}), count=count)

    def kept() -> set:
        return set((data / "measures").rglob("*.csv"))

    for what, count in (("thing", 1), ("thing", 2), ("thing-more", 1)):
        measured(what, count)
    before = kept()
    (next(iter(before)).parent / "thing-of-mine.csv").write_text("not,ours\n")
    edit(package / "evaluation" / "evaluate.py", "DRAWS = 5", "DRAWS = 7")
    measured("thing", 1)
    assert len(kept() & before) == 2, "other settings and other measures stay"
    assert len(kept()) == 4
    measured("thing", 2)
    measured("thing-more", 1)
    assert len(kept() & before) == 0
    assert len(kept()) == 4


@pytest.mark.parametrize("module", MEASURING)
def test_a_measures_code_is_what_decides_its_numbers(module):
    behind = cache.behind(f"rnem.analysis.{module}")
    needed = {"evaluation.evaluate", "model.em", "model.network", "videos.datasets", "videos.videos"}
    assert {f"rnem.{name}" for name in needed | {f"analysis.{module}"}} <= set(behind)
    unwanted = ("figures", "book", "cli", "workflow", "claims", "training", "live")
    assert not [name for name in behind if name.startswith(tuple(f"rnem.{room}" for room in unwanted))], (
        "then every edit there makes all measures stale"
    )
    assert not set(cache.NEUTRAL) & set(behind)


def test_a_module_of_a_docstring_alone_is_an_empty_one(package):
    (package / "one.py").write_text("")
    empty = code.code_digest(["rnem.one"])
    (package / "one.py").write_text('"""What it is for."""\n')
    assert code.code_digest(["rnem.one"]) == empty
    (package / "one.py").write_text("ONE = 1\n")
    assert code.code_digest(["rnem.one"]) != empty


def test_every_module_whose_code_does_not_count_is_there():
    assert [name for name in (*cache.NEUTRAL, *provenance.TRAINING_CODE) if not code.module_path(name).exists()] == []


def test_a_module_that_is_missing_is_no_empty_one(package):
    before = provenance.code_digest()
    edit(package / "model" / "em.py", "from __future__", "# A comment.\nfrom __future__")
    assert provenance.code_digest() == before
    edit(package / "model" / "em.py", "EPSILON = 1e-6", "EPSILON = 1e-5")
    assert provenance.code_digest() != before
    (package / "training" / "muon.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"muon\.py"):
        provenance.code_digest()


@pytest.mark.parametrize(
    "where", ["another room", "a package of its name", "nowhere"], ids=lambda where: where.replace(" ", "-")
)
@pytest.mark.parametrize(
    "imports", ["import rnem.model.em", "from rnem.model import em", "from rnem.model.em import step"]
)
def test_a_module_that_moved_is_no_module_without_imports(package, where, imports):
    path = package / "model" / "em.py"
    if where == "a package of its name":
        (package / "model" / "em").mkdir()
        path.rename(package / "model" / "em" / "__init__.py")
        assert {"rnem.model.em", "rnem.model.network"} <= set(code.imported([imports]))
        return
    path.rename(package / "videos" / "em.py") if where == "another room" else path.unlink()
    with pytest.raises(ChapterError, match=r"code imports rnem\.model\.em, and there is no .*em\.py"):
        code.imported([imports])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import rnem.training.muon as m", {"training", "training.muon"}),
        ("def f():\n    from rnem.training.muon import *", {"training", "training.muon"}),
        ("from rnem.training import muon", {"training", "training.muon"}),
        ("from rnem import training", {"training"}),
        ("from rnem.book.staleness import digest", {"book", "book.staleness"}),
        ("import rnem\n", set()),
        ("from rnem import __version__", set()),
        ("import torch, rnem.errors", {"errors"}),
        ("rnem.training.muon", set()),  # which needs an import, and that is found
    ],
)
def test_what_code_imports_is_found_in_packages(source, expected):
    assert set(code.imported([source])) == {f"rnem.{name}" for name in expected}


@pytest.mark.parametrize("source", ["import rnem\nrnem.evaluate(1)", "from rnem import evaluate as e", "rnem.evaluate"])
def test_a_public_name_counts_as_the_module_that_defines_it(source):
    assert code.imported([source]) == code.imported(["import rnem.evaluation.evaluate"])


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("one", "from . import two", {"one", "two"}),
        ("one", "from .two import thing", {"one", "two"}),
        ("one", "from ..errors import RnemError", {"one", "errors"}),
        ("one", "from .. import errors", {"one", "errors"}),
        ("__init__", "from .two import thing", {"two"}),
        ("__init__", "from . import two", {"two"}),
        ("deep/__init__", "from ..two import thing", {"deep", "two"}),
        (
            "deep/three",
            "from ...errors import RnemError\nfrom . import four",
            {"deep", "deep.three", "deep.four", "errors"},
        ),
    ],
)
def test_relative_imports_are_found(package, module, source, expected):
    (package / "room" / "deep").mkdir(parents=True)
    for name in ("__init__", "one", "two", "deep/__init__", "deep/three", "deep/four"):
        (package / "room" / f"{name}.py").write_text("")
    (package / "room" / f"{module}.py").write_text(source)
    dotted = "rnem.room." + module.replace("/", ".")
    found = code.imported([f"import {dotted.removesuffix('.__init__')}"])
    assert set(found) == {"rnem.room", *(f"rnem.{n}" if n == "errors" else f"rnem.room.{n}" for n in expected)}


@pytest.mark.parametrize("source", ["from . import gone", "from .gone import thing", "from rnem.room import gone"])
def test_a_relative_import_of_nothing_is_an_error(package, source):
    (package / "room").mkdir()
    (package / "room" / "__init__.py").write_text("")
    (package / "room" / "one.py").write_text(source)
    with pytest.raises(ChapterError, match=r"rnem\.room\.gone"):
        code.imported(["import rnem.room.one"])


def test_late_frames_are_those_of_the_claims():
    assert (Measure.first, Measure.last) == (analysis_curves.FIRST, analysis_curves.LAST)


def test_without_any_run_there_are_no_numbers():
    assert measured.measure_with({})("rnem-k5", Measure("bce")) == {}


def test_curves_are_what_an_evaluation_gives(run):
    curves = analysis_curves.curves(run, "balls4mass16", count=6, frames=9)
    from rnem.videos.datasets import fixed

    direct = evaluate.evaluate(run, fixed("balls4mass16", "test", 6, 9))
    assert list(curves["step"]) == list(range(1, 9))
    for quantity in ("bce", "wrong", "ari", "relational"):
        np.testing.assert_allclose(curves[quantity], direct.curve(quantity), rtol=1e-5)


def test_means_over_videos_weigh_each_number_of_balls_by_its_videos(run):
    curves = analysis_curves.curves(run, "balls678mass16", count=7, frames=5, components=8)
    assert set(curves["balls"]) <= {6, 7, 8}
    assert len(set(curves["balls"])) > 1, "the first videos have several numbers of balls"
    from rnem.videos.datasets import fixed

    network = evaluate.load_network(run, components=8)
    direct = evaluate.evaluate(network, fixed("balls678mass16", "test", 7, 5))
    np.testing.assert_allclose(analysis_curves.over_videos(curves, ["step"])["bce"], direct.curve("bce"), rtol=1e-5)


PINNED = {
    "bce": 161.2,
    "loss": 730.1,
    "kl": 151.2,
    "relational": 2.413,
    "contact": 3.945,
    "mixture": 154.5,
    "wrong": 91.7,
    "copy_last": 20.45,
    "ari": 0.2368,
}


def test_the_numbers_of_a_fixed_network_are_what_they_once_were(run):
    curves = analysis_curves.curves(run, "balls4mass16", count=4, frames=6)
    row = curves[["bce", "loss", "kl", "relational", "contact", "mixture", "wrong", "copy_last", "ari"]].mean()
    got = {name: float(f"{value:.4g}") for name, value in row.items()}
    assert got == pytest.approx(PINNED, rel=2e-3), "a quantity changed its meaning: pin these if it is meant"


def test_sequences_until_the_final_loss_of_another(data):
    ours, goal = untrained(NAMES[0], 0, [9.0, 5.0, 4.0]), untrained(NAMES[2], 0, [9.0, 8.0, 6.0])
    assert measured.sequences_until(ours, goal) == 160  # at update 20 it is below 6
    assert measured.sequences_until(goal, goal) == 240
    assert measured.sequences_until(goal, ours) == float("inf")


def test_n_em_is_k_separate_rnns_and_r_nem_is_not(run, data):
    assert measured.identity_difference(untrained(NAMES[1], 0, [3, 2, 1]), steps=4) < 1e-5


def test_claims_are_decided_from_runs_seed_by_seed(data):
    found = {
        NAMES[0]: [untrained(NAMES[0], s, [9, 5, 4]) for s in (0, 1)],
        NAMES[2]: [untrained(NAMES[2], 1, [9, 8, 6])],
    }
    measure = measured.measure_with(found, count=3, frames=31)
    accuracy = decide(FIRST["accuracy"], measure)
    assert accuracy[0].seeds == (0, 1)
    assert accuracy[1].seeds == (1,), "only seeds that both sides have"
    assert accuracy[1].outcome == "untested"
    table = analysis_curves.table(found[NAMES[0]][:1], "balls4mass16", count=3, frames=31)
    mean = table.loc[table["step"].between(10, 29), "bce"].mean()
    assert measure("rnem-k5", Measure("bce"))[0] == pytest.approx(mean, rel=1e-5)
    assert decide(FIRST["efficiency"], measure)[0].compared == (160 / 240,)


# -------------------------------------------------------------------------------------------------- several starts


def drawn(monkeypatch, losses, indices):
    """Make an evaluation give these losses before the late frames and indices in them: per draw, one a video."""

    def made_up(network, videos, draw):
        values = {q: np.zeros((restarts.LAST, len(videos))) for q in ("loss", "ari", "bce")}
        values["loss"][: restarts.FIRST - 1] = losses[draw]
        values["ari"][restarts.FIRST - 1 :] = indices[draw]
        values["bce"][restarts.FIRST - 1 :] = 10 * draw
        return evaluate.Evaluation(values)

    monkeypatch.setattr(restarts.evaluate, "DRAWS", len(losses))
    monkeypatch.setattr(restarts.evaluate, "evaluate", made_up)


def test_the_loss_before_the_late_frames_chooses_a_draw_for_each_video(run, monkeypatch):
    drawn(monkeypatch, losses=[[1, 9], [2, 3]], indices=[[0.4, 0.9], [0.8, 0.5]])
    found = restarts.restarts(run, "balls4mass16", count=2)
    assert found["ari"] == pytest.approx(0.65)
    assert found["ari_by_loss"] == pytest.approx((0.4 + 0.5) / 2)
    assert found["ari_best"] == pytest.approx((0.8 + 0.9) / 2)
    assert (found["bce"], found["bce_by_loss"]) == (5, 5)
    assert found["ari_sd"] == pytest.approx(0.4 / 2**0.5)


def test_a_table_has_a_row_per_run_and_number_of_components(run):
    rows = restarts.table([run], "balls4mass16", (2, 5), count=3)
    assert rows["components"].tolist() == [2, 5]
    assert (rows["ari_best"] >= rows[["ari", "ari_by_loss"]].max(axis=1)).all()
    assert np.isfinite(rows["bce"]).all()
