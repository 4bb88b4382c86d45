"""The campaign trains what the claims need, says what it costs, and goes on where it was stopped."""

import dataclasses
import signal
import subprocess

import pytest

from rnem.claims import measured, poster, rules
from rnem.cli.main import main
from rnem.runs import experiments, store
from rnem.training.train import sequence_steps
from rnem.workflow import campaign

RNN = experiments.named("smoke-balls4mass-rnn")


@pytest.fixture
def two_rnns(tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    monkeypatch.setattr(campaign, "SEEDS", (("balls4mass-rnn", 1), ("balls4mass-rnn", 2)))


def test_every_model_that_a_claim_compares_is_trained_with_enough_seeds():
    seeds = {}
    for each in campaign.configs("laptop"):
        seeds.setdefault(each.name, set()).add(each.seed)
    assert sum(map(len, seeds.values())) >= 40
    for claim in poster.claims("laptop").values():
        for comparison in claim.comparisons:
            for model in filter(None, (comparison.subject, comparison.reference)):
                name = measured.run_name("laptop", comparison.measure.data, model)
                assert len(seeds[name]) >= rules.MINIMUM_SEEDS, (claim.id, model)


def test_the_long_campaign_has_what_its_rules_compare_and_begins_with_one_seed_of_four_models():
    runs_ = campaign.configs("long")
    assert [f"{each.name}@{each.seed}" for each in runs_[:5]] == [
        "long-balls4mass-rnem-k5@0", "long-balls4mass-nem-k5@0", "long-balls4mass-lstm@0", "long-balls4mass-rnn@0",
        "long-balls4mass-rnem-k5@1",
    ]  # fmt: skip
    seeds = {}
    for each in runs_:
        seeds.setdefault(each.name, set()).add(each.seed)
        assert each.training.stretches == (1, 2, 3, 4)
        assert each.training.updates == (6000 if "invaders" in each.name else 12000)
    for claim in poster.SECOND.values():
        for comparison in claim.comparisons:
            for model in filter(None, (comparison.subject, comparison.reference)):
                name = measured.run_name("long", comparison.measure.data, model)
                assert len(seeds[name]) >= rules.MINIMUM_SEEDS, (claim.id, model)


def test_a_campaign_refuses_uncommitted_code_unless_told_otherwise(two_rnns, monkeypatch):
    from rnem.cli import commands
    from rnem.runs import provenance

    trained = []
    monkeypatch.setattr(campaign, "train", lambda planned, jobs, **options: trained.append(jobs) or [])
    monkeypatch.setattr(provenance, "environment", lambda: {"dirty": True})
    with pytest.raises(commands.UserError, match="uncommitted changes"):
        commands.Campaign("laptop", accelerator="cpu")()
    assert not trained
    assert commands.Campaign("laptop", accelerator="cpu", allow_dirty=True)() == 0
    monkeypatch.setattr(provenance, "environment", lambda: {"dirty": False})
    assert commands.Campaign("laptop", accelerator="cpu")() == 0
    assert len(trained) == 2


def test_compared_models_see_as_many_sequences():
    seen = {(c.data.rstrip("0123456789"), c.training.updates, c.training.batch, c.training.steps)
            for c in campaign.configs("laptop")}  # fmt: skip
    families = {family for family, *_ in seen}
    assert len(seen) == len(families) == 4


def test_operations_grow_with_components_batch_and_sequence_length():
    base = experiments.named("smoke-balls4mass-nem-k5")
    one = campaign.operations(experiments.named("smoke-balls4mass-rnn"))
    assert campaign.operations(base) == 5 * one, "N-EM is K RNNs"
    assert campaign.operations(base.replace(batch=16)) == 2 * campaign.operations(base)
    assert campaign.operations(base.replace(curriculum=((20, 3),))) == 0.75 * campaign.operations(base)
    rnem = {k: campaign.operations(experiments.named(f"smoke-balls4mass-rnem-k{k}")) for k in (2, 4, 8)}
    pairs = {k: rnem[k] - k / 2 * rnem[2] for k in (4, 8)}  # beyond what grows with K
    assert pairs[8] / pairs[4] == pytest.approx((8 * 7 - 4 * 2) / (4 * 3 - 2 * 2)), "Υ grows with the pairs"


def test_operations_are_counted_by_stages_as_by_updates():
    run = RNN.replace(updates=50, curriculum=((7, 3), (20, 5), (80, 4)))
    each = [sequence_steps(run.training, update) for update in range(50)]
    assert set(each) == {3, 4, 5}
    assert campaign.operations(run) == sum(each) * campaign.operations(RNN.replace(updates=1, steps=1, curriculum=()))


def test_it_trains_what_is_missing_and_then_nothing(two_rnns):
    said = []
    planned = campaign.plan("smoke")
    assert [(each.label, each.finished) for each in planned] == [(f"{RNN.name}@0", False), (f"{RNN.name}@1", False)]
    assert campaign.train(planned, jobs=2, say=said.append) == []
    assert len(said) == 2
    assert "0 minutes are left" in said[-1]
    assert {run.seed for run in store.find(RNN.name)} == {0, 1}
    again = campaign.plan("smoke")
    assert all(each.finished for each in again)
    assert again[0].seconds == store.load(RNN).manifest["wall_seconds"]
    assert campaign.train(again, jobs=2, say=said.append) == []
    assert len(said) == 2


def test_a_run_that_fails_is_named_and_the_others_go_on(two_rnns):
    (good, _) = campaign.plan("smoke")
    unknown = dataclasses.replace(good, config=dataclasses.replace(RNN, name="smoke-balls4mass-nobody"))
    (problem,) = campaign.train([unknown, good], jobs=1, say=lambda text: None)
    assert problem.startswith("smoke-balls4mass-nobody@0: not finished: error: no run is named")
    assert store.load(RNN).updates == RNN.training.updates


def test_a_broken_run_is_reported_as_failed_and_the_others_go_on(two_rnns, monkeypatch, capsys):
    for seed in (0, 1):
        known = {"wall_seconds": 1.0, "updates": 40, "sequences_seen": 320}
        store.save(RNN.replace(seed=seed), weights={}, metrics=[{"update": 1}], manifest=known)
    metrics = store.folder(RNN) / "metrics.csv"
    metrics.write_text("edited\n")
    broken, good = campaign.plan("smoke")
    assert (broken.state, good.state) == ("broken", "finished")
    trained = []
    monkeypatch.setattr(campaign.processes, "run", lambda tasks, *_: (trained.append(t) or (t, "", 1.0) for t in tasks))
    missing = dataclasses.replace(good, finished=False, seconds=1.0)
    (problem,) = campaign.train([broken, missing], jobs=1, say=print)
    assert problem.startswith(f"{RNN.name}@0: not finished: {store.folder(RNN)}: metrics.csv is truncated")
    assert problem in capsys.readouterr().out
    assert trained == [missing]
    assert metrics.read_text() == "edited\n"
    assert main(["campaign", "smoke"]) == 1
    assert "1 finished, 0 missing: 0 thread-minutes; 1 broken" in capsys.readouterr().out


def test_an_interruption_ends_the_trainings_and_loses_nothing(two_rnns, monkeypatch):
    (good, _) = campaign.plan("smoke")
    unknown = dataclasses.replace(good, config=dataclasses.replace(RNN, name="smoke-balls4mass-nobody"))
    started = []

    def start(words, **options):
        started.append(real(words, **options))
        return started[-1]

    def interrupted(_):
        raise InterruptedError

    real = subprocess.Popen
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", start)
        with pytest.raises(InterruptedError):
            campaign.train([good, unknown], jobs=2, say=interrupted)
    assert sorted(process.poll() for process in started) == [-signal.SIGTERM, 2]
    assert campaign.train([good], jobs=1, say=lambda text: None) == []
