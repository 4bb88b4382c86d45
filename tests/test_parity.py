"""Parity with the original: the authors' arrays where they are at hand, and a NumPy re-implementation everywhere.

``../shared/parity`` holds outputs of the authors' TensorFlow code in float32; tests/fixtures/parity.npz those of
tests/fixtures/make_parity.py in float64. Weights are rebuilt by name, never stored.
"""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rnem import authors
from rnem.authors.variables import variables_of
from rnem.model import em
from rnem.model.config import NetworkConfig

SHARED = Path(__file__).resolve().parents[2] / "shared" / "parity"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the authors' arrays are not at hand (../shared/parity)")
PATHS = ("plain", "fast")

# What the original's own float32 rounding allows; "hot" weights leave pixels where every component is near epsilon.
LOSS = 1e-5  # relative
STATE = 2e-4  # of the largest value of theta or psi
GAMMA, HOT_GAMMA = 1e-4, 5e-3
GRADIENT = 3e-3  # of the gradient's norm, where a ReLU may fall on its other side


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


recipe = module(SHARED / "recipe.py") if SHARED.is_dir() else None
numpy_model = module(Path(__file__).parent / "fixtures" / "make_parity.py")


def close(ours, theirs, tolerance: float) -> None:
    """Within ``tolerance`` of the tensor's largest value."""
    assert np.shape(ours) == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------------------ the authors' arrays


def built(config: NetworkConfig, hot: bool, path: str):
    weights = {v.name: recipe.variable_value(v.name, v.shape, hot) for v in variables_of(config)}
    return authors.from_tensorflow(weights, config.components, path=path)


def stored(name: str) -> SimpleNamespace:
    """A file's arrays, and the variables that the recipe rebuilds, verified by their checksums."""
    with np.load(SHARED / f"{name}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    names = [str(n) for n in arrays["var/names"]]
    shapes = [tuple(int(n) for n in str(s).split(",")) for s in arrays["var/shapes"]]
    weights = {n: recipe.variable_value(n, s, hot=True) for n, s in zip(names, shapes, strict=True)}
    assert [recipe.crc(w) for w in weights.values()] == arrays["var/crc32"].tolist()
    return SimpleNamespace(a=arrays, weights=weights)


def check_gradients(case, gradients) -> None:
    assert list(gradients) == list(case.weights)
    for i, (name, g) in enumerate(gradients.items()):
        norm = case.a["grad/l2"][i]
        assert g.shape == case.weights[name].shape
        assert np.linalg.norm(g.astype(float)) == pytest.approx(norm, rel=GRADIENT), name
        probe = (g.astype(float) * recipe.probe_vector(name, g.shape)).sum()
        assert probe == pytest.approx(case.a["grad/probe"][i], abs=GRADIENT * norm), name
        if f"grad_full/{name}" in case.a:
            assert np.linalg.norm(g - case.a[f"grad_full/{name}"]) <= GRADIENT * norm, name


SEQUENCES = [(name, path) for name in ("rnem_hot_k5", "rnn_em_hot_k5") for path in PATHS]


@pytest.fixture(scope="module", params=SEQUENCES, ids="-".join)
def sequence(request):
    """Six EM steps of the authors' code, and the same replayed here."""
    name, path = request.param
    case = stored(name)
    a = case.a
    case.model = authors.from_tensorflow(case.weights, components=5, path=path)
    case.arguments = (case.model, a["in/features"], a["out/corrupted"], a["in/gamma_raw"])
    case.ours = authors.replay(*case.arguments, collisions=a["in/collisions"])
    return case


@needs_shared
def test_the_arrays_are_all_checked():
    names = {name for name, _ in SEQUENCES} | {"step_rnem_k5"}
    assert {f.stem for f in SHARED.glob("*.npz")} == names


@needs_shared
def test_a_sequence_has_the_authors_losses(sequence):
    for ours, theirs in {
        "losses": "other_losses",
        "ub_losses": "other_ub_losses",
        "r_losses": "r_other_losses",
        "r_ub_losses": "r_other_ub_losses",
    }.items():
        np.testing.assert_allclose(sequence.ours[ours], sequence.a[f"out/{theirs}"], rtol=LOSS)
    for name in ("loss", "ub_loss", "r_loss", "r_ub_loss"):
        np.testing.assert_allclose(sequence.ours[name], sequence.a[f"out/{name}"], rtol=LOSS)


@needs_shared
def test_a_sequence_has_the_authors_states(sequence):
    close(sequence.ours["thetas"], sequence.a["out/thetas"], STATE)
    close(sequence.ours["preds"], sequence.a["out/preds"], STATE)
    close(sequence.ours["gammas"], sequence.a["out/gammas"], HOT_GAMMA)


@needs_shared
def test_a_sequence_has_the_authors_gradients(sequence):
    check_gradients(sequence, authors.gradients(*sequence.arguments))


@needs_shared
def test_a_sequence_has_the_authors_ari(sequence):
    ours = authors.ari(sequence.a["in/groups"], sequence.a["out/gammas"])
    np.testing.assert_allclose(ours, sequence.a["out/ari_seq_last_conf_lastconf"], atol=1e-6)


@needs_shared
def test_weights_come_back_under_their_names_bit_by_bit(sequence):
    back = authors.to_tensorflow(sequence.model)
    assert list(back) == list(sequence.weights)
    assert all(np.array_equal(back[name], w) for name, w in sequence.weights.items())


INNER = {  # activations of the authors' graph, and the module here whose output they are
    "Elu": "encoder.convs.0", "Elu_1": "encoder.convs.1", "Elu_2": "encoder.convs.2", "Elu_3": "encoder.dense",
    "NPE/Relu": "core.interaction.encode", "NPE/Relu_1": "core.interaction.core",
    "NPE/Relu_2": "core.interaction.context", "NPE/Tanh": "core.interaction.attend.0",
    "NPE/Sigmoid": "core.interaction.attend.1",
    "Relu": "decoder.dense.0", "Relu_1": "decoder.dense.1", "Relu_2": "decoder.convs.0", "Relu_3": "decoder.convs.1",
    "InputWrapper1/Conv/BiasAdd": "encoder.convs.0.conv", "InputWrapper2/Conv/BiasAdd": "encoder.convs.1.conv",
    "InputWrapper3/Conv/BiasAdd": "encoder.convs.2.conv",
    "InputWrapper5/fully_connected/BiasAdd": "encoder.dense.linear",
    "NPE/fully_connected/BiasAdd": "core.interaction.encode.linear",
    "NPE/fully_connected_1/BiasAdd": "core.interaction.core.linear",
    "NPE/fully_connected_2/BiasAdd": "core.interaction.context.linear",
    "NPE/fully_connected_3/BiasAdd": "core.interaction.attend.0.linear",
    "NPE/fully_connected_4/BiasAdd": "core.interaction.attend.1.linear", "NPE/fully_connected_5/BiasAdd": "core.update",
    "OutputWrapper0/fully_connected/BiasAdd": "decoder.dense.0.linear",
    "OutputWrapper1/fully_connected/BiasAdd": "decoder.dense.1.linear",
    "OutputWrapper3/Conv/BiasAdd": "decoder.convs.0.conv", "OutputWrapper4/Conv/BiasAdd": "decoder.convs.1.conv",
    "OutputWrapper5/Conv/BiasAdd": "decoder.convs.2",
}  # fmt: skip


def listen(network) -> dict[str, list[np.ndarray]]:
    """From now on, every output of every module of INNER, call by call, in the authors' layout."""
    heard: dict[str, list[np.ndarray]] = {name: [] for name in INNER}
    modules = dict(network.named_modules())

    def note(name):
        def hook(module, inputs, output):
            output = output.detach()
            heard[name].append((output.movedim(1, -1) if output.ndim == 4 else output).numpy())

        return hook

    for name, place in INNER.items():
        if place in modules:
            modules[place].register_forward_hook(note(name))
    return heard


@needs_shared
@pytest.mark.parametrize("name", ["rnem_hot_k5", "rnn_em_hot_k5"])
def test_activations_inside_a_step_are_the_authors(name):
    case = stored(name)
    network = authors.from_tensorflow(case.weights, components=5)
    heard = listen(network)
    authors.replay(network, case.a["in/features"][:3], case.a["out/corrupted"][:3], case.a["in/gamma_raw"])
    checked = 0
    for key, theirs in case.a.items():
        _, _, step_and_name = key.partition("inner/step_")
        step, _, inner = step_and_name.partition("/")
        if inner in INNER:
            close(heard[inner][int(step)], theirs, STATE)
            checked += 1
    assert checked == (18 if name == "rnem_hot_k5" else 8)


@pytest.fixture(scope="module", params=PATHS)
def single_step(request):
    """One step from a heterogeneous state, which the authors' dynamic graph takes as an input."""
    case = stored("step_rnem_k5")
    case.path = request.param
    network = authors.from_tensorflow(case.weights, components=5, path=case.path)
    case.heard = listen(network)
    image = {k: torch.tensor(case.a[f"in/{k}"][..., 0]) for k in ("features", "targets", "collisions", "noise")}
    theta = torch.tensor(case.a["in/thetas_old"]).view(2, 5, -1).requires_grad_()
    psi = torch.tensor(case.a["in/preds_old"]).movedim(-1, 2).requires_grad_()
    gamma = torch.tensor(case.a["in/gammas_old"]).movedim(-1, 2).requires_grad_()
    case.state = em.step(
        network, em.State(theta, psi, gamma), em.flip(image["features"], image["noise"]), image["targets"]
    )
    x, mask = image["targets"], image["collisions"]
    case.losses = {
        "loss": em.loss(case.state.psi, case.state.gamma, x),
        "ub_loss": em.upper_bound_loss(case.state.psi, x),
        "r_loss": em.loss(case.state.psi, case.state.gamma, x, mask),
        "r_ub_loss": em.upper_bound_loss(case.state.psi, x, mask),
    }
    case.losses["loss"].total.backward()
    case.old = {"thetas_old": theta.grad.flatten(0, 1), "preds_old": psi.grad.movedim(2, -1), "gammas_old": gamma.grad}
    slopes = {name: p.grad for name, p in network.named_parameters()}
    case.gradients = {v.name: v.theirs(slopes[v.parameter].numpy()) for v in variables_of(network.config)}
    return case


@needs_shared
def test_a_step_has_the_authors_losses(single_step):
    others = {"loss": "other_losses", "ub_loss": "other_ub_losses", "r_loss": "r_other_losses"}
    for name, loss in single_step.losses.items():
        ours = [loss.total.item(), loss.intra.item(), loss.inter.item()]
        np.testing.assert_allclose(ours, single_step.a["out/" + others.get(name, "r_other_ub_losses")], rtol=LOSS)
        assert ours[0] == pytest.approx(single_step.a[f"out/{name}"], rel=LOSS)


@needs_shared
def test_a_step_has_the_authors_state(single_step):
    close(single_step.state.theta.detach().flatten(0, 1).numpy(), single_step.a["out/thetas"], STATE)
    close(single_step.state.psi.detach().movedim(2, -1).numpy(), single_step.a["out/preds"], STATE)
    close(single_step.state.gamma.movedim(2, -1).numpy(), single_step.a["out/gammas"], HOT_GAMMA)


@needs_shared
def test_a_step_has_the_authors_gradients_also_into_the_past(single_step):
    check_gradients(single_step, single_step.gradients)
    for name in ("thetas_old", "preds_old"):
        theirs = single_step.a[f"grad_state/{name}"]
        assert np.linalg.norm(theirs) > 0
        assert np.linalg.norm(single_step.old[name].numpy() - theirs) <= GRADIENT * np.linalg.norm(theirs), name
    assert single_step.a["meta/no_gradient_wrt"].tolist() == ["gammas_old"]
    assert single_step.old["gammas_old"] is None


@needs_shared
def test_activations_inside_the_single_step_are_the_authors(single_step):
    if single_step.path == "plain":  # the fast path's layers are arranged otherwise inside
        names = {key.removeprefix("inner/") for key in single_step.a if key.startswith("inner/")}
        assert names - set(INNER) == {"Sigmoid", "Sigmoid_1", "Sigmoid_2"}  # both are outputs, checked as theta and psi
        for name in names & set(INNER):
            close(single_step.heard[name][0], single_step.a[f"inner/{name}"], STATE)
    else:
        for name in ("Elu_2", "Elu_3", "NPE/fully_connected_5/BiasAdd", "Relu_1", "OutputWrapper5/Conv/BiasAdd"):
            close(single_step.heard[name][0], single_step.a[f"inner/{name}"], STATE)


# --------------------------------------------------------------------------- runs of theirs of which the loss is known

RUNS = {  # model, components, hot, total loss and the loss after 3 Adam steps, as their code gave them
    "rnem_k5": ("rnem", 5, False, 15269.302734, 5274.6514),
    "rnem_noatt_k5": ("rnem_noatt", 5, False, 15520.591797, 5303.3706),
    "rnn_em_k5": ("nem", 5, False, 15841.919922, 5335.298),
    "rnn_k1": ("rnn", 1, False, 3075.336670, 1477.4692),
    "lstm_k1": ("lstm", 1, False, 3119.322754, 1394.364),
    "atari_k4": ("rnem", 4, False, 31983.013672, 5558.181),
    "rnem_hot_k8": ("rnem", 8, True, 47678.855469, 4508.9814),
}


def known_run(name: str, path: str):
    """Model and the arguments of replay, all from the recipe's defaults."""
    kind, K, hot, _, _ = RUNS[name]
    atari = name == "atari_k4"
    config = NetworkConfig(kind, K, "atari84" if atari else "balls64", actions=6 if atari else 0)
    side = 84 if atari else 64
    x, _, _ = recipe.moving_discs(7, 2, side)
    noise = recipe.bitflip_mask(7, 2, side, 0.002 if atari else 0.2)
    raw = (recipe.gamma_raw_smooth if hot else recipe.gamma_raw)(2, K, side)
    extra = {}
    if atari:
        actions = np.random.RandomState(4).randint(0, 6, (7, 2, 1))
        extra = {"actions": np.eye(6, dtype=np.float32)[actions], "action_order": "authors"}
    return built(config, hot, path), (x, x + noise - 2 * x * noise, raw), extra


@needs_shared
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", RUNS)
def test_the_loss_of_every_other_run_is_the_authors(name, path):
    network, arrays, extra = known_run(name, path)
    assert authors.replay(network, *arrays, **extra)["loss"] == pytest.approx(RUNS[name][3], rel=LOSS)
    if extra:  # the actions reach the right sequence by default, which is another result
        extra["action_order"] = "correct"
        assert authors.replay(network, *arrays, **extra)["loss"] != pytest.approx(RUNS[name][3], rel=LOSS)


@needs_shared
@pytest.mark.parametrize(("name", "path"), [("rnem_k5", "fast"), ("lstm_k1", "plain")])
def test_three_steps_of_adam_lead_to_the_authors_loss(name, path):
    network, arrays, extra = known_run(name, path)
    weights = authors.to_tensorflow(network)
    first = {n: np.zeros_like(w) for n, w in weights.items()}
    second = {n: np.zeros_like(w) for n, w in weights.items()}
    for t in (1, 2, 3):
        network = authors.from_tensorflow(weights, RUNS[name][1], path=path)
        for n, g in authors.gradients(network, *arrays, **extra).items():
            first[n] = 0.9 * first[n] + 0.1 * g
            second[n] = 0.999 * second[n] + 0.001 * g**2
            step = 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)  # TensorFlow's form: epsilon is not corrected for bias
            weights[n] = weights[n] - np.float32(step) * first[n] / (np.sqrt(second[n]) + np.float32(1e-8))
    network = authors.from_tensorflow(weights, RUNS[name][1], path=path)
    assert authors.replay(network, *arrays, **extra)["loss"] == pytest.approx(RUNS[name][4], rel=1e-4)


# ------------------------------------------------------------------------------------------- a clone without the arrays


@pytest.fixture(scope="module")
def fixture():
    with np.load(numpy_model.FILE) as archive:
        return {key: archive[key] for key in archive.files}


def numpy_case(name: str, path: str):
    """Model in float64 and the arguments of replay."""
    case = numpy_model.CASES[name]
    inputs = numpy_model.inputs_of(case)
    noise, x = inputs["noise"], inputs["features"]
    network = authors.from_tensorflow(numpy_model.weights_of(name), case["components"], path=path).double()
    extra = {"actions": inputs["actions"], "action_order": case.get("order", "correct")} if "actions" in case else {}
    extra |= {"collisions": inputs["collisions"], "real_steps": case.get("real_steps")}
    return network, (x, x + noise - 2 * x * noise, inputs["gamma_raw"]), extra


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", numpy_model.CASES)
def test_the_numpy_model_gives_the_same_in_double_precision(fixture, name, path):
    network, arrays, extra = numpy_case(name, path)
    ours = authors.replay(network, *arrays, **extra)
    for key in ("losses", "ub_losses", "r_losses", "r_ub_losses"):
        np.testing.assert_allclose(ours[key], fixture[f"{name}/{key}"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours[key.removesuffix("es")], fixture[f"{name}/{key}"][:, 0].mean(), rtol=1e-9)
    np.testing.assert_allclose(ours["thetas"], fixture[f"{name}/thetas"], atol=1e-6)
    for key in ("preds", "gammas"):  # the fixture keeps these in float32
        np.testing.assert_allclose(numpy_model.thin(ours[key]), fixture[f"{name}/{key}"], atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["rnem", "noatt", "rnn_em", "rnn", "lstm", "actions", "actions_authors"])
def test_gradients_are_the_numpy_models_slopes(fixture, name, path):
    network, arrays, extra = numpy_case(name, path)
    theirs = dict(zip(numpy_model.weights_of(name), fixture[f"{name}/slopes"], strict=True))
    for variable, g in authors.gradients(network, *arrays, **extra).items():
        ours = (g * numpy_model.direction(variable, g.shape)).sum()
        assert ours == pytest.approx(theirs[variable], abs=1e-5 * np.linalg.norm(g) + 1e-7), variable


def test_the_fixture_is_what_its_script_makes(fixture):
    for name in ("rnem", "lstm", "rollout"):
        for key, value in numpy_model.make(name, with_slopes=False).items():
            np.testing.assert_allclose(fixture[f"{name}/{key}"], value, rtol=1e-6, atol=1e-8)
