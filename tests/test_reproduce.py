"""One command from an empty cache to a book: parameters, editions of other profiles, plans with costs, restarts."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
import torch

from rnem import paths
from rnem.analysis import cache
from rnem.book import cells, chapters
from rnem.book import notebook as notebooks
from rnem.book.parameters import Chosen
from rnem.claims import rules
from rnem.errors import BookError, UserError
from rnem.model import interaction
from rnem.model.network import build
from rnem.runs import config, experiments, store
from rnem.training import train
from rnem.workflow import campaign, processes, profiles, reproduce

REPOSITORY = Path(__file__).resolve().parents[1]
RNN, LSTM = experiments.named("smoke-balls4mass-rnn"), experiments.named("smoke-balls4mass-lstm")
SMOKE = Chosen("smoke", "cpu", 1)
CHAPTER = """\
---
kernelspec: {name: python3, display_name: Python 3}
rnem:
  runs: [laptop-balls4mass-rnn, "laptop-balls4mass-lst[m]"]
  data: [videos/balls4mass32-test.h5]
  parameters: {count: 4}
---
# One chapter

```{code-cell} ipython3
:tags: [parameters]
count = 2
```

```{code-cell} ipython3
from rnem.analysis import curves
from rnem.book import cells

found = cells.runs("one")
print(*(run.label for name in found for run in found[name]), "on", cells.data("balls4mass"), count, "videos")
table = curves.table(found[cells.run("balls4mass-rnn")], cells.data("balls4mass"), count=count)
```
"""


@pytest.fixture
def one(tmp_path, monkeypatch):
    """A book of one chapter, and an empty cache."""
    folder = tmp_path / "repository" / "book"
    (folder / "chapters").mkdir(parents=True)
    (folder / "chapters" / "one.md").write_text(CHAPTER)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n  - file: chapters/one\n")
    (folder / "intro.md").write_text("# A book\n")
    (folder / "references.bib").write_text("")
    shutil.copy(REPOSITORY / "_config.yml", folder.parent)
    shutil.copytree(REPOSITORY / "book" / "_static", folder / "_static")
    monkeypatch.setenv("RNEM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RNEM_BOOK", str(folder))
    monkeypatch.setattr(cells, "_chosen", Chosen())
    return folder


def save_run(run: config.RunConfig, seed: int = 0) -> store.Run:
    """A finished run whose network was never trained."""
    network = build(run.network)
    known = {"wall_seconds": 60.0, "updates": run.training.updates, "sequences_seen": 320}
    return store.save(run.replace(seed=seed), weights=network.state_dict(), metrics=[{"update": 1}], manifest=known)


# ----------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"profile": "tiny"}, "parameter profile is 'tiny', not one of smoke, laptop, long, paper"),
        ({"device": "gpu"}, "parameter device is 'gpu', not one of auto, cpu, cuda, mps"),
        ({"seeds": -1}, "parameter seeds is -1, and must be a whole number from 0 to 100"),
        ({"seeds": "3"}, "parameter seeds is '3', and must be a whole number from 0 to 100"),
        ({"count": 0}, "parameter count is 0, and must be a whole number from 1 to 500"),
        ({"count": 2.5}, "parameter count is 2.5, and must be a whole number from 1 to 500"),
        ({"video": True}, "parameter video is True, and must be a whole number from 0 to 499"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_may_be(given, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        cells.use_parameters(**given)


def test_a_device_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="parameter device is 'cuda', and this machine has none"):
        cells.use_parameters(device="cuda")


def test_names_of_runs_data_and_files_follow_the_profile():
    smoke, laptop, long, paper = map(Chosen, config.PROFILES)
    assert long.run("balls4mass-rnn") == "long-balls4mass-rnn"
    assert long.data("balls678mass") == laptop.data("balls678mass")
    assert smoke.run("balls4mass-rnn") == RNN.name
    assert [each.data("balls678mass") for each in (smoke, laptop, paper)] == [f"balls678mass{n}" for n in (16, 32, 64)]
    assert [each.data("spaceinvaders") for each in (smoke, laptop, paper)] == [
        f"spaceinvaders{n}" for n in (42, 42, 84)
    ]
    assert smoke.declared_file("videos/balls3curtain32-test.h5") == "videos/balls3curtain16-test.h5"
    assert smoke.declared_file("search/recipe.csv") == "search/recipe.csv"
    assert laptop == Chosen(), "the book itself"


def test_the_check_of_a_notebook_covers_all_its_parameters(one):
    notebook = notebooks.prepare(chapters.chapter("one").read(), {"count": 3}, one.parent / "_config.yml")
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert "cells.use_parameters(profile=profile, device=device, seeds=seeds, count=count)" in sources[2]
    assert "count = 3" in sources[1], "injected between the parameters and their check"
    with pytest.raises(ValueError, match="its parameters cell does not set amount"):
        notebooks.prepare(chapters.chapter("one").read(), {"amount": 3}, one.parent / "_config.yml")


def test_by_hand_papermill_shows_the_runs_of_another_profile(one, tmp_path):
    for seed in (0, 1):
        save_run(RNN, seed)
    notebook = notebooks.prepare(chapters.chapter("one").read(), {}, one.parent / "_config.yml")
    nbformat.write(notebook, tmp_path / "one.ipynb")
    given = {"profile": "smoke", "device": "cpu", "seeds": 1}
    done = papermill.execute_notebook(tmp_path / "one.ipynb", tmp_path / "out.ipynb", given, progress_bar=False)
    printed = [out.text for cell in done.cells for out in cell.get("outputs", []) if out.get("name") == "stdout"]
    assert printed == [f"{RNN.name}@0 on balls4mass16 2 videos\n"]
    (note,) = [out.data["text/markdown"] for c in done.cells for out in c.get("outputs", []) if "data" in out]
    assert "Profile smoke" in note
    kept = {path.name.split("-")[0] for path in (tmp_path / "data" / "measures").rglob("*.csv")}
    assert kept == {"curves", "draws"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"profil": "smoke"}, "this chapter has no parameter profil; its parameters are profile, device, seeds, count"),
        (
            {"profile": "smoke"},
            f"chapter one needs finished runs that .* does not have: {RNN.name}; `rnem train {RNN.name} --seed 0` "
            "makes one, `rnem reproduce --profile smoke` all that the book shows",
        ),
    ],
    ids=["a misspelt name", "runs that are not there"],
)
def test_by_hand_papermill_says_in_one_sentence_what_is_wrong(one, tmp_path, given, sentence):
    notebook = notebooks.prepare(chapters.chapter("one").read(), {"count": 3}, one.parent / "_config.yml")
    nbformat.write(notebook, tmp_path / "one.ipynb")
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(tmp_path / "one.ipynb", tmp_path / "out.ipynb", given, progress_bar=False)
    assert caught.value.ename == "ChapterError"
    assert re.fullmatch(sentence, caught.value.evalue)
    assert caught.value.traceback == [f"ChapterError: {caught.value.evalue}"]


def test_every_chapter_names_runs_and_data_through_its_profile():
    for each in chapters.chapters(REPOSITORY / "book"):
        code = "\n".join(cell.source for cell in each.read().cells if cell.cell_type == "code")
        assert not re.findall(r'"laptop-|"balls\w*32"|"spaceinvaders42"', code), each.name
        notebooks.prepare(each.read(), each.parameters(), REPOSITORY / "_config.yml")


# ------------------------------------------------------------------------------------------------------------- editions


def test_an_edition_is_a_copy_that_declares_its_profile(one, tmp_path):
    before = (one / "chapters" / "one.md").read_text()
    root = profiles.sources(tmp_path / "out", SMOKE)
    assert chapters.chapter("one", root).parameters() == {"count": 20, "profile": "smoke", "device": "cpu", "seeds": 1}
    paper = profiles.sources(tmp_path / "paper", Chosen("paper"))
    assert chapters.chapter("one", paper).parameters()["count"] == 4
    here, there = ([c.source for c in chapters.chapter("one", folder).read().cells] for folder in (one, root))
    assert here == there
    assert (one / "chapters" / "one.md").read_text() == before
    times = {path: path.stat().st_mtime_ns for path in root.parent.rglob("*")}
    (one / "chapters" / "two.md").write_text(CHAPTER)
    profiles.sources(tmp_path / "out", SMOKE)
    (one / "chapters" / "two.md").unlink()
    profiles.sources(tmp_path / "out", SMOKE)
    assert [each.name for each in chapters.chapters(root)] == ["one"], "a chapter that is gone goes"
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path.is_file())


def test_the_book_cannot_be_its_own_edition(one):
    with pytest.raises(UserError, match="where the book itself is"):
        profiles.sources(one.parent, SMOKE)


def test_data_that_chapters_declare_is_brought_or_made(one, tmp_path, monkeypatch):
    monkeypatch.setitem(cache.TEST_VIDEOS, "balls4mass", 3)
    monkeypatch.setattr(profiles, "repository", lambda: tmp_path / "there")
    text = CHAPTER.replace("test.h5]", "test.h5, search/recipe.csv]")
    (one / "chapters" / "one.md").write_text(text)
    (tmp_path / "there" / "data" / "search").mkdir(parents=True)
    (tmp_path / "there" / "data" / "search" / "recipe.csv").write_text("a\n")
    said = []
    profiles.bring_data(profiles.sources(tmp_path / "out", SMOKE), said.append)
    assert said == ["writing 3 test videos of balls4mass16"]
    made = sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.*"))
    assert made == ["search/recipe.csv", "videos/balls4mass16-test.h5"]


# ------------------------------------------------------------------------------------------------------------- planning


def runs_take(seconds: float, monkeypatch) -> None:
    """Every run that is missing is estimated to take so long."""
    monkeypatch.setattr(campaign, "_speed", lambda root: lambda run: campaign.operations(run) / seconds)


def test_a_plan_has_the_runs_that_chapters_show_and_what_they_cost(one, tmp_path, monkeypatch):
    runs_take(30.0, monkeypatch)
    save_run(RNN)
    root = profiles.sources(tmp_path / "out", SMOKE)
    todo = reproduce.plan(root, SMOKE)
    assert [(each.label, each.finished) for each in todo.runs] == [(f"{LSTM.name}@0", False), (f"{RNN.name}@0", True)]
    assert todo.pages == todo.to_execute() == [reproduce.Page("one", False, 0.0, [f"{LSTM.name}@0"])]
    said = []
    reproduce.describe(todo, 2, said.append)
    assert said[-1].endswith(f"2 at a time, {15 + reproduce.BUILD_SECONDS} s")
    assert todo.graph() == {"runs": {f"{LSTM.name}@0": 30.0}, "chapters": {"one": [f"{LSTM.name}@0"]}}
    assert len(reproduce.plan(root, Chosen("smoke", "cpu", 0)).runs) == 6


def test_one_chapter_is_made_with_the_runs_that_it_shows(one, tmp_path):
    (one / "chapters" / "two.md").write_text(CHAPTER.replace("laptop-balls4mass-rnn,", "laptop-balls4mass-rnem-k2,"))
    root = profiles.sources(tmp_path / "out", SMOKE)
    todo = reproduce.plan(root, SMOKE, "one")
    assert [page.name for page in todo.pages] == ["one"]
    assert {each.label for each in todo.runs} == {f"{LSTM.name}@0", f"{RNN.name}@0"}
    with pytest.raises(BookError, match="no chapter 'onee'; the book has one, two"):
        reproduce.plan(root, SMOKE, "onee")


def test_the_book_itself_also_has_the_runs_of_the_later_campaign(one):
    source = one / "chapters" / "one.md"
    source.write_text(source.read_text().replace("laptop-balls4mass-rnn,", "long-balls4mass-rnn*,"))
    assert {run.name for run in reproduce.wanted(one, Chosen())} >= {"long-balls4mass-rnn", "laptop-balls4mass-lstm"}


def test_a_run_that_a_chapter_cannot_do_without_is_trained_though_no_claim_compares_it(one, tmp_path):
    source = one / "chapters" / "one.md"
    source.write_text(source.read_text().replace("laptop-balls4mass-rnn,", "laptop-balls4mass-rnem-k2,"))
    two = Chosen("smoke", "cpu", 2)
    names = [f"{run.name}@{run.seed}" for run in reproduce.wanted(profiles.sources(tmp_path / "out", two), two)]
    assert names == [f"{LSTM.name}@0", f"{LSTM.name}@1", "smoke-balls4mass-rnem-k2@0"]


def test_a_chapter_that_may_show_a_missing_run_is_executed_again_and_is_fresh_until_then(one, tmp_path, monkeypatch):
    runs_take(1.0, monkeypatch)
    root = profiles.sources(tmp_path / "out", SMOKE)
    todo = reproduce.plan(root, SMOKE)
    fresh = dataclasses.replace(todo.pages[0], is_fresh=True, seconds=5.0)
    waiting = reproduce.Plan(todo.runs, [fresh])
    assert waiting.to_execute() == [fresh]
    said = []
    reproduce.describe(waiting, 1, said.append)
    assert re.fullmatch(r"  execute  one +5 s +fresh until the runs above are trained", said[-2])
    assert "1 of 1 chapters to execute (5 s, 1 of them because of these runs)" in said[-1]
    assert said[-1].endswith(f"1 at a time, {2 + 5 + reproduce.BUILD_SECONDS} s")
    assert reproduce.Plan([], [dataclasses.replace(fresh, needs=[])]).to_execute() == []


def test_a_plan_calls_the_same_chapters_stale_as_the_command_chapter(one, tmp_path):
    (one / "chapters" / "two.md").write_text(CHAPTER)
    names = [each.chapter.name for each in chapters.status(one) if each.state != "fresh"]
    assert [page.name for page in reproduce.plan(one, Chosen()).to_execute()] == names == ["one", "two"]


def test_the_loop_does_what_the_plan_says_and_the_longest_chapter_first(one, tmp_path, monkeypatch):
    short, long, fresh = (reproduce.Page(f"chapter{n}", n == 0, float(n), []) for n in (1, 2, 0))
    monkeypatch.setattr(reproduce, "plan", lambda *_: reproduce.Plan([], [short, fresh, long]))
    monkeypatch.setattr(profiles, "bring_data", lambda *_: None)
    executed = []
    monkeypatch.setattr(reproduce, "execute", lambda names, *_: executed.extend(names) or ["stop here"])
    assert reproduce.run(SMOKE, tmp_path / "out", jobs=1, say=lambda text: None) == 1
    assert executed == ["chapter2", "chapter1"]


def test_a_dry_run_of_the_authors_size_is_estimated_and_trains_nothing(one, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *_, **__: pytest.fail("a plan trained something"))
    steps = []
    monkeypatch.setattr(campaign, "sequence_steps", lambda _, update: steps.append(update) or 20)
    said = []
    assert reproduce.run(Chosen("paper"), tmp_path / "out", dry_run=True, say=said.append) == 0
    assert said[0] == reproduce.ESTIMATED
    assert re.search(r"train    paper-balls4mass-rnn@0 +\d+ h", "\n".join(said))
    assert 0 < len(steps) < 100, "not one step for each of the 390,000 updates"


@pytest.mark.parametrize("given", [None, 5])
def test_it_trains_one_run_a_core_unless_told_otherwise(one, tmp_path, monkeypatch, given):
    asked = []
    monkeypatch.setattr(campaign, "train", lambda runs, jobs, **_: asked.append(jobs) or ["stop here"])
    monkeypatch.setattr(profiles, "bring_data", lambda *_: None)
    monkeypatch.setattr(processes, "cores", lambda: 3)
    assert reproduce.run(SMOKE, tmp_path / "out", jobs=given, say=lambda text: None) == 1
    assert asked == [given or 3]


def test_a_dry_run_says_what_there_is_to_do_and_leaves_no_trace(one, tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "operations", lambda run: 90.0 * campaign.GUESSED_FLOPS)
    said = []
    assert reproduce.run(SMOKE, tmp_path / "out", jobs=2, dry_run=True, say=said.append) == 0
    assert said[-1] == (
        "2 of 2 runs to train (3 min), 1 of 1 chapters to execute (0 s), the book to build: 2 at a time, 2 min"
    )
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "data").exists()


def test_a_dry_run_names_chapters_that_are_fresh_until_then(one, tmp_path, monkeypatch):
    fresh = lambda root: [chapters.Status(each, "fresh", "", {}) for each in chapters.chapters(root)]  # noqa: E731
    monkeypatch.setattr(chapters, "status", fresh)
    said = []
    assert reproduce.run(SMOKE, tmp_path / "out", dry_run=True, say=said.append) == 0
    assert [line.split()[:2] for line in said if "fresh until" in line] == [["execute", "one"]]


def test_the_smoke_campaign_is_what_claims_compare_with_three_seeds():
    smoke = campaign.configs("smoke")
    assert {run.name.removeprefix("smoke-") for run in smoke} == campaign.compared()
    assert {run.seed for run in smoke} == {0, 1, 2}
    assert "balls4mass-rnem-k2" not in campaign.compared()


# ---------------------------------------------------------------------------------------------------------------- doing


def test_a_book_is_reproduced_by_one_command_at_a_time(one):
    with (
        reproduce.alone(one),
        pytest.raises(UserError, match="another `rnem reproduce` is at work"),
        reproduce.alone(one),
    ):
        pass


def test_the_chapter_of_that_name_is_executed_meanwhile(one, tmp_path):
    save_run(RNN)
    (one / "chapters" / "reproduce.md").write_text(CHAPTER.replace('"one"', '"reproduce"'))
    root = profiles.sources(tmp_path / "out", SMOKE)
    with reproduce.alone(root):
        assert reproduce.execute(["reproduce"], root, 1, print) == []


def test_a_failed_training_stops_it_with_its_sentence(one, tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "train", lambda *_, **__: ["smoke-balls4mass-rnn@0: not finished"])
    monkeypatch.setattr(reproduce, "execute", lambda *_: pytest.fail("chapters were executed"))
    monkeypatch.setattr(profiles, "bring_data", lambda *_: None)
    said = []
    assert reproduce.run(SMOKE, tmp_path / "out", jobs=1, say=said.append) == 1
    assert said[-1].startswith("1 failed; what was finished stays")


def test_a_child_ends_with_its_parent(tmp_path):
    begin = (
        "from rnem.workflow import processes\n"
        "list(processes.run(['laptop-balls4mass-rnn'], 1, lambda name: ['train', name], {}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", begin], env=os.environ | {"RNEM_DATA": str(tmp_path)})
    try:
        deadline = time.monotonic() + 120
        while not (holders := list(tmp_path.rglob("*.pid"))):
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    process = Path("/proc") / holders[0].read_text().split()[0]
    while process.exists() and "State:\tZ" not in (process / "status").read_text():
        assert time.monotonic() < deadline, "it trains on, unseen"
        time.sleep(0.05)


def test_the_examples_of_the_page_reproduce_it_work(tmp_path, monkeypatch, capsys, one_thread):
    """Its very cells: a claim that is decided, a model and a data set that are trained on."""
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    monkeypatch.setattr(cells, "_chosen", Chosen("smoke"))
    for seed in range(rules.MINIMUM_SEEDS):
        save_run(experiments.named("smoke-balls4mass-rnem-k5"), seed)
    page = chapters.chapter("reproduce", REPOSITORY / "book").read()
    scope = {"cells": cells, "experiments": experiments, "interaction": interaction, "count": 2}
    for cell in page.cells:
        if "example" in cell.metadata.get("tags", []):
            exec(cell.source, scope)
    claim, model, data = capsys.readouterr().out.splitlines()
    assert claim.endswith(tuple(rules.Verdict.__args__))
    assert "not tested" not in claim
    assert model.startswith("after 5 updates")
    assert data == "3 videos (10, 3, 1, 16, 16), smoke-balls2light-rnem-k5@0: 5 updates"


@pytest.mark.parametrize("batch", [8, 7])
def test_two_processes_train_as_one_does(tmp_path, one_thread, batch):
    """Data-parallel: each has half of every batch, or three and four sequences, and weighs its gradient by that."""
    run = RNN.replace(batch=batch)
    alone = train.train(run, root=tmp_path / "alone", accelerator="cpu", progress=False)
    script = tmp_path / "two.py"
    script.write_text(f"""\
from rnem.runs import experiments
from rnem.training import train
run = experiments.named({RNN.name!r}).replace(batch={batch})
train.train(run, root={str(tmp_path / "two")!r}, accelerator="cpu", devices=2, progress=False)
""")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, capture_output=True, timeout=300)
    (both,) = store.find(RNN.name, root=tmp_path / "two")
    columns = ["update", "training_loss", "loss", "bce", "relational", "wrong"]
    assert both.metrics()[columns].to_numpy() == pytest.approx(alone.metrics()[columns].to_numpy(), rel=1e-4)
    assert (alone.manifest["devices"], both.manifest["devices"]) == (1, 2)


# ----------------------------------------------------------------------------------------------------- killed, for real

KILLS = 10
BOOKS = {"a book of one chapter": False, "the whole book": True}
"""Whether a test is about this book; logs of the whole one are in tests/cluster/."""


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "rnem", "reproduce", "--profile", "smoke", "--device", "cpu", "--out", str(out)]


def results(data: Path) -> dict[str, object]:
    """What a reproduction gives: weights and metrics of every run (but its clock), and what was measured of them."""
    found: dict[str, object] = {}
    for run in store.find(root=data / "runs"):
        found[run.path.name] = run.metrics().drop(columns="seconds").sort_index(axis=1).to_csv()
        found[f"{run.path.name}/weights"] = (run.path / store.WEIGHTS).read_bytes()
    for path in (data / "measures").rglob("*.csv"):
        about, _, table = path.read_text().partition("\n")
        about = json.loads(about)  # its key covers the run's clock too, so the file has another name
        found[f"{path.parent.name} {about['what']} {about['settings']}"] = table
    return found


@pytest.mark.slow
@pytest.mark.parametrize("whole", BOOKS.values(), ids=BOOKS)
def test_killed_ten_times_it_ends_with_the_same_results(one, tmp_path, whole, monkeypatch):
    if whole:
        monkeypatch.setenv("RNEM_BOOK", str(REPOSITORY / "book"))
    say = lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: E731
    environment = {name: os.environ | {"RNEM_DATA": str(tmp_path / name)} for name in ("undisturbed", "killed")}
    begun = time.monotonic()
    subprocess.run(command(tmp_path / "u"), env=environment["undisturbed"], check=True)
    took = time.monotonic() - begun
    say(f"undisturbed: {took:.0f} s")
    moments = random.Random(0)
    for number in range(KILLS):
        process = subprocess.Popen(command(tmp_path / "k"), env=environment["killed"])
        time.sleep(moments.uniform(0.02, 0.3) * took)
        process.send_signal(signal.SIGKILL)
        code = process.wait()
        finished = len(store.folders(tmp_path / "killed" / "runs"))
        say(f"kill {number + 1}: {'killed' if code == -signal.SIGKILL else f'had ended with {code}'}; {finished} runs")
    subprocess.run(command(tmp_path / "k"), env=environment["killed"], check=True)
    expected, found = results(tmp_path / "undisturbed"), results(tmp_path / "killed")
    assert len(expected) > 4
    assert found == expected
    assert not list((tmp_path / "k").rglob(".running-*"))


# ----------------------------------------------------------------------------------------------------------- workflow


def workflow(out: Path, *options: str) -> list[str]:
    snakefile = REPOSITORY / "rnem" / "workflow" / "cluster" / "Snakefile"
    settings = ["--config", "profile=smoke", "device=cpu", "seeds=1", f"out={out}"]
    return [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *settings, *options]


@pytest.fixture(params=BOOKS.values(), ids=BOOKS)
def by_command(request, one, tmp_path, monkeypatch):
    """What ``rnem reproduce`` makes of a book; a function that runs a workflow in a cache of its own."""
    pytest.importorskip("snakemake")
    if request.param:
        monkeypatch.setenv("RNEM_BOOK", str(REPOSITORY / "book"))

    def run(name: str, words: list[str], **variables: str) -> dict[str, object]:
        everything = os.environ | {"RNEM_DATA": str(tmp_path / name)} | variables
        subprocess.run(words, env=everything, cwd=tmp_path, check=True, timeout=1800)
        built = (tmp_path / f"{name}-out" / "_build" / "html" / "chapters").glob("*.html")
        chapters = (paths.book_root() / "chapters").glob("*.md")
        assert {page.stem for page in built} == {source.stem for source in chapters} != set()
        return results(tmp_path / name)

    words = [*command(tmp_path / "command-out"), "--seeds", "1"]
    return run("command", words), run


@pytest.mark.slow
def test_the_workflow_on_two_cores_gives_the_same_results(by_command, tmp_path):
    expected, run = by_command
    assert run("local", workflow(tmp_path / "local-out", "--cores", "2")) == expected


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("slurmctld") or os.geteuid() != 0, reason="needs root and Debian's Slurm")
def test_the_workflow_through_slurm_gives_the_same_results(by_command, tmp_path):
    expected, run = by_command
    node, where = REPOSITORY / "tests" / "cluster" / "single_node.sh", {"SLURM_TEST_DIR": str(tmp_path / "slurm")}
    subprocess.run([node, "start"], env=os.environ | where, check=True, timeout=180)
    try:
        words = workflow(
            tmp_path / "slurm-out", "--profile", str(REPOSITORY / "rnem" / "workflow" / "cluster" / "slurm")
        )
        words += ["--slurm-status-command", "squeue"]
        assert run("slurm", words, SLURM_CONF=str(tmp_path / "slurm" / "slurm.conf")) == expected
        log = (tmp_path / "slurm" / "log" / "slurmctld.log").read_text()
        assert log.count("sched: Allocate JobId") + log.count("_slurm_rpc_submit_batch_job") > 3
    finally:
        subprocess.run([node, "stop"], env=os.environ | where, check=True)
