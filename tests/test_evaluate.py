"""The dice of an evaluation: a video's numbers are its own, whatever is measured beside it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from rnem.analysis import ablations, attention, grouping, occlusion, rollouts
from rnem.analysis import curves as analysis_curves
from rnem.evaluation import evaluate
from rnem.model.fast import accelerate
from rnem.model.network import build
from rnem.runs import experiments, store
from rnem.videos import datasets, hdf5, videos

DATA = "balls4mass16"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = accelerate(build(experiments.named("smoke-balls4mass-rnem-k5").network)).eval()
    with torch.no_grad():  # untrained, every component says the same; sharper predictions tell them apart
        made.decoder.convs[-1].conv.weight.mul_(30)
    return made


@pytest.fixture(scope="module")
def trained():
    """A committed run: where components have found their balls, rounding does not decide who has a pixel."""
    return evaluate.load_network(store.best("laptop-balls4mass-rnem-k5", seed=0)[0])


@pytest.fixture(scope="module")
def evaluated(trained):
    """The reference: 6 videos of 14 frames, in batches of 4, with flipped bits."""
    return evaluate.evaluate(trained, datasets.fixed("balls4mass32", "test", 6, 14), noise=0.02, batch=4)


def saved(network, name: str = "laptop-balls4mass-rnem-k5", **changes) -> store.Run:
    """The network as a finished run, with what a name says of its profile."""
    this = dataclasses.replace(experiments.named(name), network=network.config, **changes)
    return store.save(
        this, weights=network.state_dict(), metrics=[{"update": 1}],
        manifest={"wall_seconds": 1.0, "updates": 1, "sequences_seen": 8},
    )  # fmt: skip


@pytest.fixture
def shorter(monkeypatch):
    """Curtain videos of 26 frames: what is looked at is how draws are counted."""
    monkeypatch.setattr(occlusion, "fixed", lambda data, split, count: datasets.fixed(data, split, count, 26))


# --------------------------------------------------------------------------------------------------------------- dice


@pytest.mark.parametrize("size", [16, 42], ids=["a multiple of 16 pixels", "no multiple"])
def test_dice_belong_to_the_video_and_to_nothing_beside_it(size):
    test = datasets.generate(DATA, "test", 300, 6, 7)
    test = dataclasses.replace(test, features=torch.zeros(7, 6, 1, size, size, dtype=torch.uint8))
    flips, raw = evaluate.dice(test, 8, noise=0.3, draw=2)
    assert flips.shape == (7, 6, 1, size, size)
    assert raw.shape == (6, 8, 1, size, size)
    some = test.select(torch.tensor([4, 1])).first(3)
    fewer_flips, fewer_raw = evaluate.dice(some, 5, noise=0.3, draw=2)
    assert torch.equal(fewer_raw, raw[[4, 1], :5]), "a smaller K has the first components' numbers"
    assert torch.equal(fewer_flips, flips[:3, [4, 1]]), "a shorter clip has the first frames' flips"
    assert torch.equal(evaluate.dice(test, 8, draw=2)[1], raw), "noise does not change gamma"
    assert not evaluate.dice(test, 8, draw=2)[0].any()


def test_each_word_of_the_dice_counts():
    test = datasets.generate(DATA, "test", 0, 2, 3)
    others = [
        test, dataclasses.replace(test, name="balls5mass16"), dataclasses.replace(test, split="validation"),
        dataclasses.replace(test, numbers=torch.tensor([2, 3])),
    ]  # fmt: skip
    drawn = [evaluate.dice(each, 2, noise=0.5) for each in others] + [evaluate.dice(test, 2, noise=0.5, draw=1)]
    for of in range(2):
        assert len({a[of].numpy().tobytes() for a in drawn}) == len(drawn)
    assert not torch.equal(drawn[0][1][0], drawn[0][1][1]), "two videos"


def test_dice_are_normal_and_flip_as_often_as_they_should():
    flips, raw = evaluate.dice(datasets.generate(DATA, "test", 0, 40, 11), 5, noise=0.2)
    assert float(raw.mean()) == pytest.approx(0, abs=0.02)
    assert float(raw.std()) == pytest.approx(1, abs=0.02)
    assert float(flips.mean()) == pytest.approx(0.2, abs=0.01)


def test_the_dice_are_what_they_always_were():
    """Every reported number hangs on them: whoever changes them says so here."""
    flips, raw = evaluate.dice(datasets.generate(DATA, "test", 3, 1, 4), 2, noise=0.2, draw=1)
    np.testing.assert_allclose(raw[0, :, 0, 5, 7], RAW, atol=1e-5)
    assert flips.sum((1, 2, 3, 4)).tolist() == FLIPS


RAW = [0.915922, -0.391770]
FLIPS = [46, 45, 40, 53]


def test_videos_know_their_split_and_number(tmp_path):
    whole = datasets.generate(DATA, "test", 250, 12, 3)  # over the end of a block
    assert whole.split == "test"
    assert whole.numbers.tolist() == list(range(250, 262))
    assert whole.select(slice(3, 5)).first(2).numbers.tolist() == [253, 254]
    assert videos.join([whole.select(slice(5, 7)), whole.select(slice(0, 1))]).numbers.tolist() == [255, 256, 250]
    assert datasets.fixed(DATA, "validation", 3, 2).split == "validation"
    made = datasets.fixed(DATA, "test", 5, 4, root=tmp_path)
    hdf5.write({"test": made}, tmp_path / f"{DATA}-test.h5")
    read = datasets.fixed(DATA, "test", 4, 3, root=tmp_path)
    assert (read.split, read.numbers.tolist()) == ("test", [0, 1, 2, 3])
    assert torch.equal(evaluate.dice(read, 2)[1], evaluate.dice(made, 2)[1][:4])
    by_hand = dataclasses.replace(whole, split="file", numbers=None)
    assert by_hand.numbers.tolist() == list(range(12)), "the place in the file where nothing else is known"


# --------------------------------------------------------------------------------------------------------- evaluations


@pytest.mark.parametrize(
    ("count", "frames", "batch"), [(6, 14, 3), (6, 14, 6), (6, 19, 4), (9, 14, 4), (3, 8, 2)],
    ids=["smaller batches", "one batch", "longer clips", "more videos", "less of all"],
)  # fmt: skip
def test_the_same_videos_and_frames_give_the_same_numbers(trained, evaluated, count, frames, batch):
    again = evaluate.evaluate(trained, datasets.fixed("balls4mass32", "test", count, frames), noise=0.02, batch=batch)
    T, N = min(frames, 14) - 1, min(count, 6)
    for quantity, values in evaluated.values.items():
        np.testing.assert_allclose(again.values[quantity][:T, :N], values[:T, :N], rtol=1e-4, atol=1e-5)


def test_batches_do_not_change_any_measure(trained, monkeypatch):
    test, curtain = datasets.fixed("balls4mass32", "test", 4, 12), datasets.fixed("balls3curtain32", "test", 4, 12)

    def measured():
        return [
            grouping.measure(trained, test, since=5).to_numpy(),
            attention.record(trained, test)["attention"],
            occlusion.watch_videos(trained, curtain, draw=1).best,
            rollouts.imagine(trained, test, 8, draw=1).numpy(),
        ]

    before = measured()
    monkeypatch.setattr(evaluate.in_batches, "__kwdefaults__", {"draw": 0, "batch": 3})
    for one, other in zip(before, measured(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)


def test_draws_differ_and_the_mean_is_over_them(network, monkeypatch, tmp_path):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    run = saved(network)
    test = datasets.fixed(DATA, "test", 3, 13)
    each = [evaluate.evaluate(network, test, draw=draw) for draw in range(evaluate.DRAWS)]
    assert len({e.mean("ari") for e in each}) == evaluate.DRAWS
    assert evaluate.DRAWS == 5
    curves = analysis_curves.curves(run, DATA, count=3, frames=13)
    for quantity in ("bce", "ari"):
        mean = np.mean([e.curve(quantity) for e in each], 0)
        np.testing.assert_allclose(curves[quantity], mean, rtol=1e-5)
    assert evaluate.reported(run, test).mean("ari") == pytest.approx(curves["ari"].mean(), rel=1e-5)
    drawn = analysis_curves.draws(run, DATA, count=3, frames=13)
    late = [e.curve("ari")[9:29].mean() for e in each]
    assert drawn["draw"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(drawn["ari"], late, rtol=1e-5)
    spread = analysis_curves.spread(run, DATA, count=3, frames=13)
    assert spread.loc["ari", "mean"] == pytest.approx(analysis_curves.late_frames(curves)["ari"].mean(), rel=1e-5)
    assert spread.loc["ari", "sd"] == pytest.approx(np.std(late, ddof=1), rel=1e-4)
    assert spread.loc["ari", "sd_of_mean"] == pytest.approx(np.std(late, ddof=1) / 5**0.5, rel=1e-4)


def test_every_measure_takes_the_mean_over_draws(network, shorter, monkeypatch, tmp_path):
    """One draw where nothing is random, and for smoke runs, which test the machinery."""
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    run, smoke = saved(network), saved(network, "smoke-balls4mass-rnem-k5")
    lstm = experiments.named("laptop-balls4mass-lstm")
    alone = store.Run(tmp_path, lstm, {})
    assert [evaluate.number_of_draws(r) for r in (run, smoke, alone)] == [5, 1, 1]
    assert evaluate.number_of_draws(alone, noise=0.2) == 5
    seen: list[int] = []
    states = evaluate.states
    monkeypatch.setattr(evaluate, "states", lambda *a, draw, **k: seen.append(draw) or states(*a, draw=draw, **k))
    for measure in (
        lambda r: grouping.per_step(r, DATA, count=1, frames=17),
        lambda r: attention.by_lag(r, DATA, count=1, frames=24),
        lambda r: rollouts.rollout(r, DATA, count=2, real_steps=3, steps=2),
        lambda r: occlusion.returns(r, "balls3curtain16", 3),
        lambda r: ablations.sum_or_mean(r, DATA, 8, count=2, frames=6),
        lambda r: ablations.rollout_threshold(r, DATA, count=2, frames=6, real_steps=3),
    ):
        for of, expected in ((run, [0, 1, 2, 3, 4]), (smoke, [0])):
            seen.clear()
            table = measure(of)
            assert sorted(set(seen)) == expected
            assert isinstance(table, pd.DataFrame)
            assert len(table)


def test_rows_of_what_is_counted_are_pooled_over_draws(network, shorter, monkeypatch, tmp_path):
    """Every return is there once a draw; the other table of the same videos is kept beside it."""
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    run = saved(network, "laptop-balls3curtain-rnem-k5")
    rows = occlusion.returns(run, "balls3curtain16", 3)
    assert rows.groupby(["video", "ball", "frame"])["draw"].agg(list).map(lambda d: d == [0, 1, 2, 3, 4]).all()
    assert occlusion.returned(run, 1, 50, "balls3curtain16", 3) == rows.loc[rows["hidden"] >= 2, "found"].mean()
    monkeypatch.setattr(occlusion, "watch_videos", lambda *_: 1 / 0)
    assert set(occlusion.identity(run, "balls3curtain16", 3)["draw"]) == {0, 1, 2, 3, 4}


def test_attention_counts_the_draws_of_a_video_as_one_video(trained):
    """The same record twice is the same table: no more contacts, and no narrower an interval."""
    test = datasets.fixed("balls4mass32", "test", 5, 30)
    once = attention.record(trained, test)
    twice = attention.Record({q: np.concatenate([v, v], 1) for q, v in once.values.items()})
    assert (once.draws(test), twice.draws(test)) == (1, 2)
    for table in (attention.lags, attention.bins):
        pd.testing.assert_frame_equal(table(once, test), table(twice, test))


def test_a_mean_of_draws_leaves_out_what_is_not_there():
    tables = [pd.DataFrame({"step": [1, 2], "a": [1.0, np.nan]}), pd.DataFrame({"step": [1, 2], "a": [np.nan, np.nan]})]
    mean = evaluate.mean_of_draws(lambda draw: tables[draw], 2)
    assert mean["step"].tolist() == [1, 2]
    assert mean["a"][0] == 1.0
    assert np.isnan(mean["a"][1])
