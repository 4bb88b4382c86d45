"""Measures of rollouts: of perfect, still, late and vanishing simulations the answers are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from rnem import figures
from rnem.analysis import feedback, rollouts
from rnem.analysis.rollouts import Found
from rnem.evaluation import evaluate
from rnem.model import em
from rnem.model.network import build
from rnem.runs.experiments import named
from rnem.videos import datasets

DATA = "balls4mass32"
SETTINGS = {"count": 6, "real_steps": 4, "steps": 8}


def measured(frames: torch.Tensor) -> pd.DataFrame:
    """The measures of frames (S+1,N,H,W) that a model could have imagined."""
    test = rollouts.true_videos(DATA, **SETTINGS)
    energy = rollouts.true_energy(DATA, **SETTINGS)
    return rollouts.measure(frames, test, rollouts.find(frames, DATA), SETTINGS["real_steps"], energy)


def truth() -> torch.Tensor:
    """The true frames of rollout steps 0..8."""
    return rollouts.true_videos(DATA, **SETTINGS).features[4:, :, 0].float()


def smoke_network(model: str = "rnem-k5"):
    torch.manual_seed(0)
    return build(named(f"smoke-balls4mass-{model}").network).eval()


def found(*centres, radii=(0.8,)) -> Found:
    """One video: rows of points per step, all of the same radii; None is no ball."""
    points = np.array([[(np.nan, np.nan) if p is None else p for p in row] for row in centres], dtype=float)[:, None]
    sizes = np.where(np.isnan(points[..., 0]), np.nan, np.array(radii))
    return Found(points, sizes, (~np.isnan(sizes)).sum(-1))


def test_the_truth_is_a_perfect_simulation():
    rows = measured(truth())
    assert rows["step"].tolist() == [*range(1, 9)]
    assert (rows[["wrong", "missed", "extra"]] == 0).all(axis=None)
    assert (rows[["exact", "within", "kept", "energy"]] == 1).all(axis=None)
    assert (rows["balls"] == 4).all()
    assert (rows["position"] < 0.3).all()  # pixels: the detector's own error
    assert (rows["bce"] < 0.01).all()


def test_a_simulation_that_is_one_frame_late_is_wrong():
    """Step s is compared with frame real_steps + s, and with no other."""
    late = measured(torch.cat([truth()[:1], truth()[:-1]]))
    assert (late["wrong"] > 10).all()
    assert (late["position"] > 0.5).all()
    assert (late["kept"] == 1).all()


def test_copying_has_the_wrong_pixels_of_a_copied_frame_and_no_energy():
    rows = rollouts.copying(DATA, **SETTINGS)
    evaluation = evaluate.evaluate(
        build(named("laptop-balls4mass-rnn").network), rollouts.true_videos(DATA, **SETTINGS), real_steps=4
    )
    assert rows["wrong"][0] == pytest.approx(evaluation.curve("copy_last")[4])  # predicted frame 5 is rollout step 1
    assert rows["bce"].isna().all()
    assert (rows["energy"] == 0).all()
    assert rows["position"].is_monotonic_increasing
    np.testing.assert_allclose(rows["position"], measured(truth()[:1].expand(9, -1, -1, -1))["position"])


def test_a_ball_that_vanishes_is_missed_and_takes_its_energy_along():
    frames = truth()
    test = rollouts.true_videos(DATA, **SETTINGS)
    only = (test.groups[4:, :, 0] == 1).float()  # of each video the first ball alone
    rows, one = measured(frames), measured(torch.where(torch.arange(9)[:, None, None, None] < 3, frames, only))
    assert one["missed"].round().tolist() == [0, 0] + [3] * 6
    assert (one["extra"] == 0).all()
    assert (one["energy"][3:] < rows["energy"][3:]).all()


def test_survival_does_not_recover():
    """An empty frame at step 3 ends it, though all balls are back at step 4."""
    frames = truth().clone()
    frames[3, :3] = 0  # half of the videos
    rows = measured(frames)
    assert rows["within"].tolist() == [1, 1, 0.5, 1, 1, 1, 1, 1]
    assert rows["kept"].tolist() == [1, 1, *[0.5] * 6]
    end = rollouts.survival(rows.assign(model="rnn", seed=0), 8)
    assert end[["model", "seed", "kept"]].to_numpy().tolist() == [["rnn", 0, 0.5]]


def test_an_empty_rollout_has_no_position():
    rows = measured(torch.zeros_like(truth()))
    assert rows["position"].isna().all()
    assert (rows["missed"] == 4).all()
    assert (rows["energy"] == 0).all()
    nothing = rollouts.nothing(DATA, **SETTINGS)
    assert rows["wrong"].mean() == pytest.approx(nothing["wrong"])
    grey = measured(torch.full_like(truth(), nothing["wrong"] / 32**2))
    assert grey["bce"].mean() == pytest.approx(nothing["bce"])


@pytest.mark.parametrize(("radius", "mass"), [(0.8, 1), (1.0, 6)])
def test_energy_of_uniform_motion(radius, mass):
    """m v^2 / 2 with v = (0.3, 0.4) box units a frame."""
    line = [[(1 + 0.3 * s, 2 + 0.4 * s)] for s in range(4)]
    np.testing.assert_allclose(rollouts.kinetic(found(*line, radii=(radius,)), DATA), mass * 0.25 / 2)


def test_energy_follows_each_ball_though_their_order_changes():
    rows = [(1, 1), (8, 8)], [(8, 8.5), (1, 1.5)], [(1, 2), (8, 9)]
    np.testing.assert_allclose(rollouts.kinetic(found(*rows), DATA), 2 * 0.25 / 2)


def test_a_ball_that_appears_elsewhere_did_not_fly_there():
    rows = [(1, 1), (5, 5)], [None, (5, 5.5)], [(9, 9), (5, 6)], [(1, 1), (5, 6.5)]
    np.testing.assert_allclose(rollouts.kinetic(found(*rows), DATA), 0.25 / 2)


def test_a_ball_that_changes_its_size_has_the_mean_mass():
    moved = found([(1, 1)], [(1, 2)])
    moved = Found(moved.centres, np.array([[[0.8]], [[1.0]]]), moved.counts)
    np.testing.assert_allclose(rollouts.kinetic(moved, DATA), 3.5 / 2)


def test_no_true_ball_is_faster_than_the_fastest():
    world = datasets.dataset(DATA).world
    velocities = datasets.generate(DATA, "test", 0, 100, 40).velocities
    assert velocities.norm(dim=-1).max() <= rollouts.fastest(world) * (1 + 1e-6)
    assert rollouts.fastest(world) == pytest.approx(6**0.5 / 3)


def test_a_rollout_is_that_of_evaluate():
    """The same BCE, over several batches, at the same numbers of steps."""
    test = datasets.generate("balls4mass16", "test", 0, 70, 9)
    network = smoke_network()
    evaluation = evaluate.evaluate(network, test, real_steps=3)
    rows = rollouts.rolled(network, "balls4mass16", count=70, real_steps=3, steps=5)
    np.testing.assert_allclose(rows["bce"], evaluation.curve("bce")[3:], rtol=1e-6)
    np.testing.assert_allclose(rows["wrong"], evaluation.curve("wrong")[3:])


def test_simulated_steps_do_not_see_the_truth():
    test = datasets.generate("balls4mass16", "test", 0, 3, 9)
    network = smoke_network()
    before = rollouts.imagine(network, test, 3)
    test.features[4:] = 0  # frame 3 is the last that the E-step sees
    torch.testing.assert_close(rollouts.imagine(network, test, 3), before, rtol=0, atol=0)
    test.features[3] = 1
    assert (rollouts.imagine(network, test, 3)[1:] - before[1:]).abs().max() > 1e-4


def test_the_detectors_own_error_is_small():
    own = rollouts.detector(DATA, count=5, frames=10)
    assert own["exact"] == 1
    assert 0 < own["position"] < 0.3
    assert own["radius"] > 0.99


def test_a_rollout_needs_a_step():
    with pytest.raises(ValueError, match="0 true and 5 rollout steps"):
        rollouts.true_videos(DATA, 2, 0, 5)


def test_balls_within_two_pixels_are_counted_among_the_true_ones():
    """Two of three balls are found, one of them half a pixel off and one three pixels."""
    pixel = rollouts.BOX / 16
    true = np.full((3, 1, 3, 2), 5.0)
    true[:, 0, :, 1] = 1.0, 4.0, 8.0
    centres = true[:, :, :2] + np.array([0.5 * pixel, 0.0])
    centres[:, :, 1, 0] += 2.5 * pixel
    found = rollouts.Found(centres, np.ones((3, 1, 2)), np.full((3, 1), 2))
    away, pairs, near = rollouts.distances(found, true, 2 * pixel)
    assert list(pairs) == [2, 2]
    assert list(near) == [1, 1]
    assert away == pytest.approx([3.5 * pixel] * 2)


def test_with_binary_feedback_the_frame_that_is_fed_back_is_judged():
    network, test = smoke_network(), rollouts.true_videos("balls4mass16", 4, 3, 4)
    frames = rollouts.imagine(network, test, 3, "binary")
    assert set(frames.unique().tolist()) <= {0.0, 1.0}
    psi, _ = evaluate.predict(network, test, real_steps=3, feedback="binary")
    assert torch.equal(frames, (psi[2:].amax(2) > 0.4)[:, :, 0].float())
    grey = rollouts.imagine(network, test, 3)
    assert torch.equal(grey[0] > 0.4, frames[0] > 0), "the first prediction still had a true frame"
    rows = rollouts.rolled(
        network, "balls4mass16", count=4, real_steps=3, steps=4, feedback="binary", split="validation"
    )
    assert rows["near"].between(0, 1).all()


def test_the_measures_give_what_they_once_gave():
    why = "the measure changed: pin these numbers if it is meant"
    rows = rollouts.rolled(smoke_network(), "balls4mass16", count=8, real_steps=3, steps=4)
    copied = rollouts.copying(DATA, count=8, real_steps=3, steps=4)
    energy = rollouts.true_energy(DATA, 8, 3, 4)
    np.testing.assert_allclose(rows["bce"], BCE, rtol=1e-3, err_msg=why)
    np.testing.assert_allclose(copied["wrong"], WRONG, rtol=1e-6, err_msg=why)
    np.testing.assert_allclose(copied["position"], POSITION, rtol=1e-3, err_msg=why)
    np.testing.assert_allclose(energy, ENERGY, rtol=1e-3, err_msg=why)


BCE = [171.898, 172.427, 173.071, 171.967]
WRONG = 43.625, 83.75, 119.125, 140.75
POSITION = 0.952984, 1.88045, 2.81566, 3.71424
ENERGY = 0.796269, 0.745281, 0.857913, 0.817339


def test_panels_have_a_curve_for_every_model_that_has_numbers():
    frame = pd.DataFrame(
        {"model": m, "seed": seed, "step": step, "bce": np.nan if m == "copy_last" else step + seed, "wrong": 1.0}
        for m in ("rnem", "copy_last")
        for seed in (0, 1)
        for step in (1, 2, 3)
    )
    figure = figures.rollouts.panels(frame, {"bce": "BCE", "wrong": "wrong pixels"}, references={"wrong": 2})
    first, second = figure.axes
    assert (len(first.lines), len(second.lines)) == (3, 7)  # means, two seeds each, the reference
    np.testing.assert_allclose(first.lines[0].get_ydata(), [1.5, 2.5, 3.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["R-NEM (2 seeds)", "copy last frame"]
    with pytest.raises(ValueError, match="no column 'energy'"):
        figures.rollouts.panels(frame, {"energy": "energy"})
    with pytest.raises(ValueError, match="'gru' is no model"):
        figures.rollouts.panels(frame.assign(model="gru"), {"bce": "BCE"})


# ---------------------------------------------------------------------------------------------- binary at a threshold


def test_at_the_threshold_of_em_it_is_the_rollout_by_binary_feedback():
    network = smoke_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)  # so that pixels are on both sides of every threshold
    settings = SETTINGS | {"split": "validation"}
    (row,) = feedback.measured(network, "balls4mass16", threshold=em.BINARY_THRESHOLD, **settings).to_dict("records")
    rows = rollouts.rolled(network, "balls4mass16", feedback="binary", **settings)
    assert row["near"] > 0.1
    assert row == pytest.approx({"kept": rows["kept"].iloc[-1], "near": rows["near"].mean()})


@pytest.mark.parametrize(("threshold", "value"), [(0.3, 1), (0.4, 0)])
def test_a_pixel_is_on_above_the_threshold_in_both_places(monkeypatch, threshold, value):
    """A network that predicts 0.35 everywhere reads frames that are on throughout, or off throughout."""
    read = []

    class Even(torch.nn.Module):
        config = smoke_network("rnn").config

        def initial_state(self, batch):
            return torch.zeros(batch, 1, 1)

        def forward(self, inputs, theta, action=None):
            read.append(inputs)
            return torch.full_like(inputs, 0.35).logit(), theta

    monkeypatch.setattr(evaluate, "_device", lambda network: torch.device("cpu"))
    feedback.measured(Even(), "balls4mass16", threshold=threshold, split="test", **SETTINGS)
    assert len(read) == SETTINGS["real_steps"] + SETTINGS["steps"]
    for inputs in read[SETTINGS["real_steps"] :]:
        torch.testing.assert_close(inputs, torch.full_like(inputs, value - 0.35))


def test_validation_chooses_by_survival_then_by_nearness():
    rows = pd.DataFrame({"kept": [0.5, 0.9, 0.9], "near": [0.9, 0.4, 0.3]}, index=[0.3, 0.4, 0.5])
    assert feedback.chosen(rows) == 0.4
