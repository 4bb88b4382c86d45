"""The authors' formats: names and layouts of their variables, files, arrays, and their adjusted Rand index."""

import sys
import types

import numpy as np
import pytest
import torch

from rnem import authors
from rnem.evaluation import metrics
from rnem.model import fast, layers
from rnem.model.config import NetworkConfig
from rnem.model.fast import on_path
from rnem.model.network import build

SMALL = {"state": 12, "attention": 8}


def network(model="rnem", K=3, autoencoder="tiny16", path="plain", **more):
    torch.manual_seed(0)
    net = on_path(build(NetworkConfig(model, K, autoencoder, **(SMALL | more))), path)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def same_weights(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------------- variables

NETWORKS = [
    ("rnem", 5, "balls64", 0), ("rnem_noatt", 3, "tiny16", 0), ("nem", 3, "tiny16", 0), ("rnn", 1, "coarse32", 0),
    ("lstm", 1, "tiny16", 0), ("rnem", 4, "atari84", 6), ("rnem_noatt", 4, "coarse42", 6), ("rnem", 2, "coarse32", 9),
]  # fmt: skip


@pytest.mark.parametrize(("model", "K", "autoencoder", "actions"), NETWORKS)
def test_every_network_is_told_by_its_variables_and_comes_back(model, K, autoencoder, actions):
    net = network(model, K, autoencoder, actions=actions)
    back = authors.from_tensorflow(authors.to_tensorflow(net), K)
    told = back.config
    assert (told.model, told.components, told.autoencoder, told.actions) == (model, K, autoencoder, actions)
    assert same_weights(back, net)
    x, theta = torch.rand(2, K, 1, net.shape.size, net.shape.size), net.initial_state(2) + 0.3
    action = net.embed(torch.eye(max(actions, 1))[:2]) if actions else None
    with torch.no_grad():
        for a, b in zip(net(x, theta, action), back(x, theta, action), strict=True):
            assert torch.equal(a, b)


def test_names_are_read_with_and_without_scope_and_output_number_and_in_any_order():
    net = network()
    variables = authors.to_tensorflow(net)
    assert next(iter(variables)) == "R-RNNEM/InputWrapper1/Conv/weights"
    bare = {name.removeprefix("R-RNNEM/"): w for name, w in reversed(variables.items())}
    numbered = {f"{name}:0": w for name, w in variables.items()}
    optimiser = {f"{name}/Adam": w for name, w in variables.items()} | {"train/beta1_power": np.float32(0.9)}
    for given in (bare, numbered, variables | optimiser):
        assert same_weights(authors.from_tensorflow(given, 3), net)


def test_loading_leaves_the_random_stream_and_both_paths_can_be_asked_for():
    variables = authors.to_tensorflow(network())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    plain, quick = (authors.from_tensorflow(variables, 3, path=path) for path in ("plain", "fast"))
    assert [type(net.encoder.convs[0]) for net in (plain, quick)] == [layers.StridedConv, fast.StridedConv]
    assert torch.equal(torch.get_rng_state(), before)


def without(name):
    return lambda v: {n: w for n, w in v.items() if n != f"R-RNNEM/{name}"}


def replaced(name, value):
    return lambda v: v | {f"R-RNNEM/{name}": value}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("NPE/LayerNorm_1/gamma"), r"nearest to R-NEM at 16x16, but lack R-RNNEM/NPE/LayerNorm_1/gamma 12$"),
        (replaced("NPE/extra", np.zeros((2, 3))), r"but hold the unknown R-RNNEM/NPE/extra 2x3$"),
        (
            replaced("InputWrapper1/Conv/weights", np.zeros((5, 5, 1, 8))),
            r"mis-shaped R-RNNEM/InputWrapper1/Conv/weights \(5x5x1x8 where 4x4x1x8 belongs\)",
        ),
        (
            replaced("NPE/fully_connected_5/weights", np.zeros((56, 11))),
            r"mis-shaped R-RNNEM/NPE/fully_connected_5/weights \(56x11 where 56x12 belongs\)",
        ),
        (replaced("NPE/fully_connected/biases", np.full(12, np.nan)), "biases holds a value that is not"),
        (replaced("NPE/fully_connected/biases", np.full(12, "a")), "biases holds a value that is not"),
        (lambda v: v | {"R-RNNEM/NPE/LayerNorm/beta:0": np.zeros(12)}, "LayerNorm/beta is there twice"),
        (replaced("basic_rnn_cell/bias", np.zeros(12)), "are of NPE and basic_rnn_cell"),
        (lambda v: {}, "the 0 variables must be of one of"),
        (lambda v: {n: w for n, w in v.items() if "Output" not in n}, r"lack R-RNNEM/OutputWrapper0.* and \d+ more$"),
    ],
)  # fmt: skip
def test_a_variable_that_does_not_belong_is_named_in_one_sentence(change, says):
    with pytest.raises(ValueError, match=says) as error:
        authors.from_tensorflow(change(authors.to_tensorflow(network())), 3)
    assert "\n" not in str(error.value)


def test_a_number_of_components_that_the_network_cannot_have_is_refused():
    with pytest.raises(ValueError, match="components is 5"):
        authors.from_tensorflow(authors.to_tensorflow(network("lstm", 1)), 5)
    with pytest.raises(ValueError, match="components is 0"):
        authors.from_tensorflow(authors.to_tensorflow(network()), 0)
    with pytest.raises(ValueError, match="RNN-EM takes no actions"):
        authors.to_tensorflow(network("nem", 3, actions=4))


def test_rnn_em_and_the_rnn_share_variables_and_k_tells_them_apart():
    variables = authors.to_tensorflow(network("nem"))
    assert authors.from_tensorflow(variables, 3).config.model == "nem"
    assert authors.from_tensorflow(variables, 1).config.model == "rnn"


# ----------------------------------------------------------------------------------------------------------- files


def test_an_npz_export_gives_the_model(tmp_path):
    net = network()
    np.savez(tmp_path / "best.npz", **authors.to_tensorflow(net))
    assert same_weights(authors.from_tensorflow(authors.load_npz(tmp_path / "best.npz"), 3), net)


def test_a_file_that_is_no_archive_of_arrays_is_named(tmp_path):
    with pytest.raises(OSError, match=r"absent\.npz"):
        authors.load_npz(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(tmp_path / "cut.npz", a=np.zeros(1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:500])
    for name in ("text.npz", "array.npy", "objects.npz", "cut.npz"):
        with pytest.raises(ValueError, match=rf"{name} is not a NumPy archive"):
            authors.load_npz(tmp_path / name)


def test_a_checkpoint_without_tensorflow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"pip install 'rnem\[tensorflow\]'"):
        authors.load_checkpoint("best")


def test_a_checkpoint_is_read_through_tensorflows_reader(monkeypatch):
    """TensorFlow itself is not among the test dependencies: its documented reader is played by a few lines."""
    net = network()
    stored = authors.to_tensorflow(net) | {"beta1_power": np.float32(0.9)}

    class Reader:
        get_variable_to_shape_map = staticmethod(lambda: {name: list(np.shape(w)) for name, w in stored.items()})
        get_tensor = staticmethod(stored.__getitem__)

    class OpError(Exception):
        pass

    def load_checkpoint(path):
        if path != "best":
            raise OpError(f"Unsuccessful TensorSliceReader constructor: {path}\nat ...")
        return Reader

    played = types.SimpleNamespace(
        train=types.SimpleNamespace(load_checkpoint=load_checkpoint), errors=types.SimpleNamespace(OpError=OpError)
    )
    monkeypatch.setitem(sys.modules, "tensorflow", played)
    assert same_weights(authors.from_tensorflow(authors.load_checkpoint("best"), 3), net)
    with pytest.raises(ValueError, match="worst is not a TensorFlow checkpoint: Unsuccessful") as error:
        authors.load_checkpoint("worst")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------- replay


def arrays(net, T=3, B=2):
    rng = np.random.default_rng(0)
    side, K = net.shape.size, net.config.components
    x = (rng.random((T + 1, B, 1, side, side, 1)) < 0.2).astype(np.float32)
    noise = (rng.random(x.shape) < 0.1).astype(np.float32)
    return x, np.abs(x - noise), rng.standard_normal((B, K, side, side, 1))


@pytest.mark.parametrize("model", ["rnem", "lstm"])
def test_replay_returns_every_array_of_the_authors_graph(model):
    net = network(model, 3 if model == "rnem" else 1)
    K = net.config.components
    out = authors.replay(net, *arrays(net))
    assert out["preds"].shape == out["gammas"].shape == (4, 2, K, 16, 16, 1)
    assert out["thetas"].shape == ((4, 2, 2, 12) if model == "lstm" else (4, 2 * K, 12))
    assert not out["preds"][0].any()
    assert not out["thetas"][0].any()
    for name in ("loss", "ub_loss", "r_loss", "r_ub_loss"):
        rows = out[f"{name}es"]
        assert rows.shape == (3, 3)
        assert out[name] == pytest.approx(rows[:, 0].mean())
        np.testing.assert_allclose(rows[:, 0], rows[:, 1] + rows[:, 2], rtol=1e-6)
    assert out["loss"] > 0
    assert not out["r_losses"].any()  # no collisions given, none counted
    assert all(isinstance(value, np.ndarray) for value in out.values())


def test_the_relational_mask_of_a_frame_goes_with_the_target_after_it():
    net = network()
    x, noisy, raw = arrays(net)
    mask = np.zeros_like(x)
    mask[1] = 1
    out = authors.replay(net, x, noisy, raw, collisions=mask)
    np.testing.assert_allclose(out["r_losses"][1], out["losses"][1], rtol=1e-6)
    np.testing.assert_allclose(out["r_ub_losses"][1], out["ub_losses"][1], rtol=1e-6)
    assert not out["r_losses"][[0, 2]].any()


def test_a_rollout_reports_losses_on_true_frames_and_carries_gammas_of_its_own():
    net = network().double()
    x, noisy, raw = arrays(net, T=5)
    out, real = (authors.replay(net, x, noisy, raw, real_steps=n) for n in (2, None))
    for name in ("preds", "gammas", "thetas"):
        np.testing.assert_array_equal(out[name][:3], real[name][:3])
    changed = x.copy()
    changed[4] = 1 - changed[4]  # a frame that is only a target now
    again = authors.replay(net, changed, np.abs(changed - np.abs(noisy - x)), raw, real_steps=2)
    for name in ("preds", "gammas", "thetas"):
        np.testing.assert_array_equal(again[name], out[name])
    assert (again["losses"][:, 0] != out["losses"][:, 0]).tolist() == [False, False, False, True, False]
    one = network("rnn", 1)
    assert (authors.replay(one, *arrays(one, T=5), real_steps=2)["gammas"] == 1).all()


def test_gradients_have_the_layout_of_the_variables_and_do_not_see_collisions():
    net = network(K=3, actions=4)
    x, noisy, raw = arrays(net)
    actions = np.eye(4)[np.arange(8).reshape(4, 2, 1) % 4]
    slopes = authors.gradients(net, x, noisy, raw, actions=actions)
    variables = authors.to_tensorflow(net)
    assert {n: g.shape for n, g in slopes.items()} == {n: w.shape for n, w in variables.items()}
    assert all(np.abs(g).max() > 0 for g in slopes.values())
    masked = authors.gradients(net, x, noisy, raw, actions=actions, collisions=x)
    assert all(np.array_equal(slopes[n], masked[n]) for n in slopes)
    mixed = authors.gradients(net, x, noisy, raw, actions=actions, action_order="authors")
    assert not np.allclose(slopes["R-RNNEM/NPE/fully_connected/weights"], mixed["R-RNNEM/NPE/fully_connected/weights"])
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": np.zeros((4, 2, 16, 16, 1))}, r"features is \(4, 2, 16.* be \(T\+1,B,1,16,16,1\)"),
        ({"features": np.zeros((1, 2, 1, 16, 16, 1))}, "at least two frames"),
        ({"corrupted": np.zeros((4, 3, 1, 16, 16, 1))}, r"corrupted is \(4, 3, .*as features, \(4, 2, 1, 16"),
        ({"corrupted": np.full((4, 2, 1, 16, 16, 1), -3.0)}, "corrupted is not features with bits flipped"),
        ({"gamma_raw": np.zeros((2, 5, 16, 16, 1))}, r"gamma_raw is \(2, 5, 16, 16, 1\).*\(2, 3, 16, 16, 1\)"),
        ({"collisions": np.zeros((4, 2, 16, 16))}, r"collisions is \(4, 2, 16, 16\)"),
        ({"actions": np.zeros((4, 2, 1, 6))}, "takes no actions"),
        ({"real_steps": -1}, "real_steps is -1"),
        ({"action_order": "sideways"}, "action_order is 'sideways'"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named(change, says):
    net = network()
    given = dict(zip(("features", "corrupted", "gamma_raw"), arrays(net), strict=True)) | change
    for call in (authors.replay, authors.gradients):
        with pytest.raises(ValueError, match=says):
            call(net, **given)
    with pytest.raises(ValueError, match="needs actions"):
        authors.replay(network(actions=4), *arrays(net))


# ------------------------------------------------------------------------------------------------------------- ARI


def squares(*sides: int, canvas=64) -> np.ndarray:
    """One frame, after an initial one, with square balls in its corners: (2,1,1,H,W,1)."""
    groups = np.zeros((2, 1, 1, canvas, canvas, 1))
    for ball, (side, (y, x)) in enumerate(zip(sides, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=False), 1):
        rows, columns = (slice(-side, None) if corner else slice(side) for corner in (y, x))
        groups[:, 0, 0, rows, columns] = ball
    return groups


def perfect(groups: np.ndarray, K: int = 5) -> np.ndarray:
    """Gammas (T,1,K,H,W,1): 0.9 for the component of the pixel's own group."""
    gammas = np.moveaxis(np.eye(K)[groups[..., 0].astype(int)], -1, 2)[:, :, :, 0, ..., None]
    return gammas * (0.9 - 0.1 / (K - 1)) + 0.1 / (K - 1)


def test_the_authors_index_is_the_textbooks_on_ordinary_frames():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 4, (4, 3, 1, 16, 16, 1)) * (rng.random((4, 3, 1, 16, 16, 1)) < 0.4)
    gammas = np.moveaxis(np.eye(3)[rng.integers(0, 3, (4, 3, 16, 16))], -1, 2)[..., None] * 0.8 + 0.1
    theirs, confidence = authors.ari_frames(groups, gammas)
    here = torch.tensor(groups[..., 0]), torch.tensor(gammas).movedim(-1, 3)
    np.testing.assert_allclose(theirs, metrics.ari(*here), atol=1e-5)
    np.testing.assert_allclose(confidence, 0.9, rtol=1e-6)
    four = authors.ari(groups, gammas)
    assert four == pytest.approx((theirs[1:].mean(), theirs[-1].mean(), 0.9, 0.9), rel=1e-5)
    assert authors.ari(*(x.numpy() for x in here)) == four  # this project's layout gives the same
    weighted = authors.ari(groups, gammas, weights=[0, 0, 1])
    assert weighted.ari == pytest.approx(weighted.last_ari) == four.last_ari


def test_the_clip_of_the_authors_index_lets_large_perfect_frames_exceed_one():
    groups = squares(30, 30, 30, 30)
    assert authors.ari(groups, perfect(groups)).ari == pytest.approx(2.43, abs=5e-3)
    assert metrics.ari(torch.tensor(groups[..., 0]).long(), torch.tensor(perfect(groups)).movedim(-1, 3))[1] == 1


@pytest.mark.parametrize(("height", "width", "index"), [(20, 20, 0), (30, 30, -62500), (26, 50, -125000)])
def test_one_ball_in_one_component_scores_nothing_or_a_rounding_error_over_the_clip(height, width, index):
    groups = np.zeros((2, 1, 1, 64, 64, 1))
    groups[..., :height, :width, :] = 1
    assert authors.ari(groups, perfect(groups)).ari == pytest.approx(index)


def test_a_frame_without_balls_scores_nothing_with_an_undefined_confidence():
    nothing = squares()
    four = authors.ari(nothing, perfect(nothing))
    assert (four.ari, four.last_ari) == (0, 0)
    assert np.isnan(four.confidence)


def test_arrays_of_other_shapes_than_groups_and_gammas_are_named():
    with pytest.raises(ValueError, match=r"groups is \(2, 1, 1, 8, 8, 1\) and gammas is \(2, 2, 5, 8, 8, 1\)"):
        authors.ari(np.zeros((2, 1, 1, 8, 8, 1)), np.zeros((2, 2, 5, 8, 8, 1)))
    with pytest.raises(ValueError, match="for 1 steps"):
        authors.ari(squares(3), perfect(squares(3)), weights=[1, 1])
