"""The page's JavaScript is the Python: networks and EM in float64, the world pixel by pixel; without a browser."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnem import live
from rnem.analysis import ablations
from rnem.cli import main
from rnem.evaluation import metrics
from rnem.model import em
from rnem.model.config import AUTOENCODERS, MODEL_LABELS, NetworkConfig
from rnem.model.network import build
from rnem.runs import store
from rnem.videos import balls
from rnem.videos.datasets import WORLDS, fixed

mini_racer = pytest.importorskip(
    "py_mini_racer", reason="mini-racer is not installed: the page's JavaScript is not run"
)
pytestmark = pytest.mark.usefixtures("one_thread")
SCRIPTS = "\n".join((live.FOLDER / name).read_text(encoding="utf-8") for name in ("model.js", "world.js"))
TOLERANCE = 1e-9

UNROLL = """
function unroll(run, raw, frames, real, feedback, components, effects) {
  const { model } = RNEM, network = model.load(run, components, effects), out = [];
  let state = model.initialState(network, raw);
  for (let t = 0; t + 1 < frames.length; t++) {
    state = t < real ? model.step(network, state, frames[t], frames[t + 1]) : model.imagine(network, state, feedback);
    const { psi, gamma, theta, attention } = state;
    out.push([psi, gamma, theta, attention || []].map((a) => Array.from(a)));
  }
  return JSON.stringify(out);
}
"""


@pytest.fixture(scope="module")
def javascript():
    engine = mini_racer.MiniRacer()
    engine.eval(SCRIPTS + UNROLL)
    return engine


def moving(size: int, frames: int) -> torch.Tensor:
    """Frames (T,1,1,H,W) of four balls."""
    start = balls.simulate(WORLDS["balls4mass"], 1, frames, torch.Generator().manual_seed(3), stride=64 // size)
    return balls.render(start, size)[0].double()


def same(engine, network, payload, frames, *, real=None, feedback="binary", components=None, effects="sum"):
    """Unroll in both languages, and return the largest differences of psi, gamma, theta and attention."""
    K = network.config.components
    raw = torch.randn(1, K, 1, *frames.shape[-2:], generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    real = len(frames) if real is None else real
    flat = frames.flatten(1).tolist()
    call = [payload, raw.flatten().tolist(), flat, real, feedback, components, effects]
    ours = json.loads(engine.eval(f"unroll({', '.join(map(json.dumps, call))})"))
    worst = dict.fromkeys(("psi", "gamma", "theta", "attention"), 0.0)
    with torch.no_grad():
        steps = em.unroll(
            network, frames, torch.zeros(()).expand(frames.shape), raw, real_steps=real, feedback=feedback
        )
        for t, state in enumerate(steps):
            attention = network.attention
            theirs = (state.psi, state.gamma, state.theta, torch.zeros(0) if attention is None else attention)
            for name, one, other in zip(worst, ours[t], theirs, strict=True):
                difference = np.abs(np.array(one) - other.double().flatten().numpy())
                worst[name] = max(worst[name], difference.max(initial=0))
    return worst


def random_network(model: str, autoencoder: str, K: int):
    """A network whose weights, biases and gains are all random, in float16's numbers, and its export."""
    size = {"tiny16": 24, "coarse32": 48, "coarse42": 20, "balls64": 40}[autoencoder]
    config = NetworkConfig(model=model, components=K, autoencoder=autoencoder, state=size, attention=size // 2)
    torch.manual_seed(len(model) * size + K)
    network = build(config).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise if "norm" in name else 0.5 * noise)
            parameter.copy_(parameter.half().double())
    return network.eval(), live.payload(config, network.state_dict())


@pytest.mark.parametrize("autoencoder", ["tiny16", "coarse32", "balls64"])
@pytest.mark.parametrize(("model", "K"), [("rnem", 3), ("rnem_noatt", 4), ("nem", 2), ("rnn", 1), ("rnem", 1)])
def test_a_random_network_takes_the_same_steps(javascript, model, K, autoencoder):
    network, payload = random_network(model, autoencoder, K)
    frames = moving(AUTOENCODERS[autoencoder].size, 7)
    for feedback in em.FEEDBACKS:
        worst = same(javascript, network, payload, frames, real=4, feedback=feedback)
        assert max(worst.values()) < TOLERANCE, worst


MUTANTS = {
    "gain and bias swapped": ("{ gain: data(name + \".weight\"), bias: data(name + \".bias\") }",
                              "{ bias: data(name + \".weight\"), gain: data(name + \".bias\") }"),
    "padding on the other side": ("kernel - size, 0) / 2)", "kernel - size + 1, 0) / 2)"),
    "another threshold": ("BINARY_THRESHOLD = 0.4", "BINARY_THRESHOLD = 0.5"),
    "another threshold of the E-step": ("ROLLOUT_THRESHOLD = 0.1", "ROLLOUT_THRESHOLD = 0.2"),
    "half of the pairs": ("if (i === k) continue;", "if (i === k) continue; if (i < k) { pair++; continue; }"),
    "focus and context swapped": ("focus[k * D + d] + context[i * D + d]", "focus[i * D + d] + context[k * D + d]"),
    "another epsilon": ("const EPSILON = 1e-6;", "const EPSILON = 1e-5;"),
    "the state normalised": ("const carried = Float64Array.from(fresh, sigmoid);",
                             "const carried = normAct(fresh.slice(), K, network.norm, \"sigmoid\");"),
    "gamma left out": ("gamma[i] * (x[i % N] - psi[i])", "(x[i % N] - psi[i])"),
}  # fmt: skip


@pytest.mark.parametrize("change", MUTANTS)
def test_a_mutant_is_caught(change):
    old, new = MUTANTS[change]
    assert SCRIPTS.count(old) == 1
    engine = mini_racer.MiniRacer()
    engine.eval(SCRIPTS.replace(old, new) + UNROLL)
    network, payload = random_network("rnem", "coarse32", 3)
    differences = [same(engine, network, payload, moving(32, 7), real=4, feedback=name) for name in em.FEEDBACKS]
    assert max(max(worst.values()) for worst in differences) > 100 * TOLERANCE


@pytest.mark.parametrize("autoencoder", ["coarse42", "atari84"])
def test_sizes_that_are_no_multiple_decode_alike(javascript, autoencoder):
    config = NetworkConfig(model="nem", components=2, autoencoder=autoencoder, state=16)
    torch.manual_seed(0)
    network = build(config).double().eval()
    network.load_state_dict({name: t.half().double() for name, t in network.state_dict().items()})
    size = AUTOENCODERS[autoencoder].size
    frames = (torch.rand(4, 1, 1, size, size, generator=torch.Generator().manual_seed(0)) < 0.1).double()
    worst = same(javascript, network, live.payload(config, network.state_dict()), frames)
    assert max(worst.values()) < TOLERANCE, worst


def trained(name: str, components: int | None = None):
    """The run with seed 0, the network with the weights that the page has, in float64, and its script's payload."""
    (run,) = (run for run in store.exactly(name) if run.seed == 0)
    config = run.config.network
    network = build(replace(config, components=components or config.components)).double().eval()
    network.load_state_dict({name: tensor.half().double() for name, tensor in run.weights().items()})
    return run, network, live.payload(config, run.weights())


@pytest.mark.parametrize("real", [50, 20])
def test_the_trained_run_takes_the_same_fifty_steps(javascript, real):
    run, network, payload = trained("laptop-balls4mass-rnem-k8")
    frames = fixed(run.config.data, "test", 1, 51).features[:, :1].double()
    worst = same(javascript, network, payload, frames, real=real)
    print(f"\n{run.label}, 50 steps, {real} real: " + ", ".join(f"{n} {v:.1e}" for n, v in worst.items()))
    assert max(worst.values()) < TOLERANCE, worst


@pytest.mark.parametrize("effects", ["sum", "mean"])
def test_another_number_of_components_and_the_mean_of_effects(javascript, effects):
    run, network, payload = trained("laptop-balls4mass-rnem-k5", 8)
    frames = fixed("balls678mass32", "test", 1, 12).features[:, :1].double()
    call = {"components": 8, "effects": effects}
    if effects == "mean":
        with ablations.mean_of_effects(network, run.config.network.components):
            worst = same(javascript, network, payload, frames, **call)
    else:
        worst = same(javascript, network, payload, frames, **call)
    assert max(worst.values()) < TOLERANCE, worst


def test_a_step_of_a_wrong_model_is_refused(javascript):
    config = NetworkConfig(model="lstm", components=1, autoencoder="tiny16", state=8)
    with pytest.raises(live.RnemError, match="LSTM cannot be exported"):
        live.payload(config, build(config).state_dict())


def test_the_exported_script_holds_the_verified_run(javascript, tmp_path, capsys):
    out = tmp_path / "run.js"
    assert main.main(["export", "laptop-balls4mass-nem-k5@0", "--out", str(out)]) == 0
    assert "laptop-balls4mass-nem-k5@0" in capsys.readouterr().out
    (run,) = (run for run in store.exactly("laptop-balls4mass-nem-k5") if run.seed == 0)
    javascript.eval("var window = globalThis;" + out.read_text())
    there = json.loads(javascript.eval(f"JSON.stringify(window.RNEM_RUNS['{run.label}'])"))
    assert (there["label"], there["key"]) == (run.label, run.key)
    assert there["digest"] == hashlib.sha256((run.path / "weights.safetensors").read_bytes()).hexdigest()
    assert there["weights"] == live.payload(run.config.network, run.weights())["weights"]
    assert out.stat().st_size < 1_100_000


def test_the_pages_models_are_called_as_the_book_calls_them():
    names = re.search(r"MODEL_NAMES = \{(.*?)\};", (live.FOLDER / "views.js").read_text())[1]
    assert dict(re.findall(r'(\w+): "([^"]*)"', names)) == {model: MODEL_LABELS[model] for model in live.MODELS}


# --------------------------------------------------------------------------------------------------- world and metrics

VIDEO = """
function video(start, curtain, frames, stride, size) {
  const { world } = RNEM, balls = start.map((ball) => ({ ...ball, touched: false })), out = [];
  for (let t = 0; t < frames; t++) {
    if (t) world.advance(balls, stride);
    const { features, groups, collisions } = world.render(balls, size, curtain);
    out.push([Array.from(features), Array.from(groups), Array.from(collisions), balls.map((b) => [b.y, b.x])]);
  }
  return JSON.stringify(out);
}
"""


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", ["balls4mass", "balls678mass", "balls3curtain"])
def test_the_world_is_rnem_balls_pixel_by_pixel(javascript, name, size):
    javascript.eval(VIDEO)
    stride, frames = 64 // size, 100
    t = balls.simulate(WORLDS[name], 4, frames, torch.Generator().manual_seed(5), stride=stride)
    features, groups, collisions = balls.render(t, size)
    touched = 0
    for n in range(4):
        start = [
            dict(zip(("y", "x", "vy", "vx", "radius", "mass"), map(float, (
                *t.positions[0, n, m], *t.velocities[0, n, m], t.radii[n, m], t.masses[n, m])), strict=True))
            for m in range(t.present.shape[1]) if t.present[n, m]
        ]  # fmt: skip
        curtain = None if t.curtain is None else {"y": float(t.curtain[n, 0]), "x": float(t.curtain[n, 1])}
        call = f"video({json.dumps(start)}, {json.dumps(curtain)}, {frames}, {stride}, {size})"
        for frame, (ours, parts, marks, places) in enumerate(json.loads(javascript.eval(call))):
            assert ours == features[frame, n].flatten().tolist(), (n, frame)
            assert parts == groups[frame, n].flatten().tolist(), (n, frame)
            assert marks == collisions[frame, n].flatten().tolist(), (n, frame)
            # torch's square root is not always the nearest number, so that the last digits differ after collisions.
            assert np.abs(np.array(places) - t.positions[frame, n, : len(places)].numpy()).max() < TOLERANCE
            touched += sum(marks)
    assert touched > 0


def test_the_pages_test_videos_are_the_books(javascript):
    javascript.eval(VIDEO + "var window = globalThis;" + live.beginnings(3))
    for name in ("balls4mass", "balls678mass", "balls3curtain"):
        features = fixed(f"{name}32", "test", 3, 51).features
        for number in range(3):
            call = f"""(({{ balls, curtain }}) => video(balls.map(([y, x, vy, vx, radius, mass]) =>
                ({{ y, x, vy, vx, radius, mass }})), curtain && {{ y: curtain[0], x: curtain[1] }}, 51, 2, 32)
            )(RNEM_VIDEOS.{name}[{number}])"""
            ours = torch.tensor([frame[0] for frame in json.loads(javascript.eval(call))])
            assert torch.equal(ours.view(51, 1, 32, 32), features[:, number].to(ours.dtype))


def test_a_random_start_of_the_page_is_one_of_the_world(javascript):
    start = """JSON.stringify(RNEM.world.scatter(%d, RNEM.world.random(%d),
        [RNEM.world.LIGHT, RNEM.world.HEAVY], 1 / 3, 1.25))"""
    for seed, count in enumerate((1, 4, 8)):
        there = json.loads(javascript.eval(start % (count, seed)))
        assert len(there) == count
        assert sum(b["vy"] ** 2 + b["vx"] ** 2 for b in there) ** 0.5 == pytest.approx(1 / 3)
        world = WORLDS["balls678mass"]
        assert {(b["radius"], b["mass"]) for b in there} <= set(zip(world.radii, world.masses, strict=True))
        for i, a in enumerate(there):
            assert all(np.hypot(a["y"] - b["y"], a["x"] - b["x"]) >= a["radius"] + b["radius"] for b in there[:i])


def test_bce_and_ari_are_the_books(javascript):
    generator = torch.Generator().manual_seed(0)
    for K in (1, 2, 5):
        psi = torch.rand(1, 1, K, 1, 8, 8, generator=generator, dtype=torch.float64)
        x = (torch.rand(1, 1, 1, 8, 8, generator=generator) < 0.5).double()
        groups = torch.randint(0, 4, (1, 1, 1, 8, 8), generator=generator)
        best = psi.amax(2)
        numbers = [json.dumps(a.flatten().tolist()) for a in (best, x, groups, psi)]
        bce = javascript.eval("RNEM.model.bce({}, {})".format(*numbers[:2]))
        ari = javascript.eval(f"RNEM.model.ari({numbers[2]}, Float64Array.from({numbers[3]}), {K})")
        assert bce == pytest.approx(float(metrics.bce(best, x)), abs=TOLERANCE)
        assert ari == pytest.approx(float(metrics.ari(groups, psi)), abs=TOLERANCE)
