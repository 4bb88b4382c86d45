"""A run is a function of its config: killed, resumed, extended or repeated, it ends with the same weights."""

import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rnem import errors
from rnem.model import em, fast
from rnem.model.network import build
from rnem.runs import experiments, files, provenance, store
from rnem.training import muon, train
from rnem.videos import datasets

SMOKE = experiments.named("smoke-balls4mass-rnem-k5").replace(evaluate_every=10, validation=4, validation_steps=6)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> store.Run:
    """The undisturbed run of 60 updates that others are compared with."""
    torch.set_num_threads(1)
    return train.train(SMOKE.replace(updates=60), root=tmp_path_factory.mktemp("undisturbed"), progress=False)


CARRIED = SMOKE.replace(updates=30, stretches=(1, 2, 3, 4))


@pytest.fixture(scope="module")
def carried(tmp_path_factory) -> store.Run:
    """An undisturbed run whose sequences carry state."""
    torch.set_num_threads(1)
    return train.train(CARRIED, root=tmp_path_factory.mktemp("carried"), progress=False)


def same_weights(a: store.Run, b: store.Run) -> bool:
    x, y = a.weights(), b.weights()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_training_lowers_the_validation_loss(finished):
    rows = finished.metrics()
    assert list(rows["update"]) == [10, 20, 30, 40, 50, 60]
    assert rows["loss"].iloc[-1] < 0.8 * rows["loss"].iloc[0]
    assert finished.manifest["sequences_seen"] == 60 * SMOKE.training.batch


def test_the_same_config_and_seed_give_the_same_bits(finished, tmp_path):
    again = train.train(SMOKE.replace(updates=60), root=tmp_path, progress=False)
    assert same_weights(again, finished)
    other = train.train(SMOKE.replace(updates=60, seed=1), root=tmp_path, progress=False)
    assert not same_weights(other, finished)


def test_killed_with_9_and_started_again_it_ends_with_the_same_weights(finished, tmp_path):
    program = f"""if True:
        import torch; torch.set_num_threads(1)
        from rnem.runs import experiments
        from rnem.training import train
        c = experiments.named("{SMOKE.name}").replace(evaluate_every=10, validation=4, validation_steps=6, updates=60)
        train.train(c, root={str(tmp_path)!r}, progress=False)
    """
    command = [sys.executable, "-c", program]
    checkpoint = store.work_folder(finished.config, tmp_path) / train.CHECKPOINT
    victim = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not store.folder(finished.config, tmp_path).exists()
    _, meta = files.read_state(checkpoint)
    assert 0 < meta["update"] < 60
    subprocess.run(command, check=True)
    assert same_weights(store.load(finished.config, tmp_path), finished)


def test_stopped_at_any_update_it_resumes_to_the_same_weights(finished, tmp_path):
    for share in (7, 13, 33):  # between checkpoints, and again, and into the decay
        assert train.train(finished.config, root=tmp_path, progress=False, stop_after=share) is None
    resumed = train.train(finished.config, root=tmp_path, progress=False)
    assert same_weights(resumed, finished)
    assert list(resumed.metrics().columns) == list(finished.metrics().columns)


def test_carried_state_survives_a_stop_at_any_update(carried, tmp_path):
    for share in (5, 8, 12):
        assert train.train(CARRIED, root=tmp_path, progress=False, stop_after=share) is None
    assert same_weights(train.train(CARRIED, root=tmp_path, progress=False), carried)


def test_carried_state_is_handed_on_to_a_longer_run(carried, tmp_path):
    short = train.train(CARRIED.replace(updates=20), root=tmp_path, progress=False)
    tensors, meta = short.trunk()
    assert meta["update"] == 16
    assert tensors["carried/theta"].shape == (8, 5, 24)
    assert same_weights(train.train(CARRIED, root=tmp_path, progress=False), carried)


def test_carrying_state_changes_training_and_one_stretch_is_the_plain_run(carried, tmp_path):
    plain = CARRIED.replace(stretches=(1,))
    assert store.key(plain) == store.key(SMOKE.replace(updates=30)), "an old run's key is kept"
    assert not same_weights(train.train(plain, root=tmp_path, progress=False), carried)


def test_stretches_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match="as many as divide the batch 8"):
        SMOKE.replace(stretches=(1, 2, 3))
    with pytest.raises(ValueError, match="a curriculum and stretches"):
        SMOKE.replace(stretches=(1, 2), curriculum=((2, 2),))


def test_a_sequence_goes_on_where_its_last_stretch_ended():
    stream = datasets.Stretches("balls4mass16", 5, 8, 0, (1, 2, 3, 4))
    for group, lives in enumerate((1, 2, 3, 4)):
        own = slice(2 * group, 2 * group + 2)
        for update in range(12):
            assert stream.fresh(update)[own].tolist() == [update % lives == 0] * 2
            last, next_ = (stream[u].select(own) for u in (update, update + 1))
            assert last.frames == 6
            goes_on = torch.equal(last.features[-1], next_.features[0])
            assert goes_on == ((update + 1) % lives != 0)
    everything = torch.cat([stream[u].features[0][stream.fresh(u)] for u in range(12)])
    assert len(everything.flatten(1).unique(dim=0)) == len(everything), "no sequence is seen twice"
    plain, same = datasets.Stream("balls4mass16", 6, 8, 0), datasets.Stretches("balls4mass16", 5, 8, 0)
    assert torch.equal(plain[3].features, same[3].features)


def test_a_run_that_other_code_goes_on_with_says_so(tmp_path, monkeypatch):
    assert train.train(SMOKE, root=tmp_path, progress=False, stop_after=10) is None
    first = provenance.code_digest()
    monkeypatch.setattr(provenance, "code_digest", lambda: "f" * 64)
    with pytest.warns(UserWarning, match=f"goes on from update 10 with code ffffffffff; .* {first[:10]} so far"):
        run = train.train(SMOKE, root=tmp_path, progress=False)
    assert run.manifest["code_digests"] == [first, "f" * 64]


def test_a_cuda_graph_is_recorded_when_no_graph_of_autograd_lives(tmp_path, monkeypatch):
    """Else CUDA refuses: leaves of the weights that an older backward pass made belong to another stream."""
    alive, recorded = [], []

    class Recorded:
        def __init__(self, network, *batch):
            gc.collect()
            weights = {id(p) for p in network.parameters()}
            tensors = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.grad_fn is not None]
            seen, waiting = set(), [t.grad_fn for t in tensors]  # of other tests, too
            while waiting:
                node = waiting.pop()
                if node is not None and node not in seen:
                    seen.add(node)
                    waiting += [each for each, _ in node.next_functions]
            alive.extend(node for node in seen if id(getattr(node, "variable", None)) in weights)
            recorded.append(True)

        def fits(self, *batch):
            return False

    monkeypatch.setattr(train.cuda_graph, "can_record", lambda fabric, training, batch: len(batch) > 4)
    monkeypatch.setattr(train.cuda_graph, "Gradients", Recorded)
    config = experiments.named("smoke-balls4mass-rnem-k5").replace(stretches=(1, 2))
    train.train(config, root=tmp_path, accelerator="cpu", progress=False, stop_after=3)
    assert recorded
    assert not alive


def test_training_leaves_the_callers_settings_as_they_were(tmp_path):
    torch.set_flush_denormal(False)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train.train(SMOKE, root=tmp_path, progress=False, stop_after=1)
    assert torch.equal(torch.rand(3), expected)
    assert float(torch.tensor(1e-40) * 1) > 0
    assert torch.backends.cudnn.allow_tf32


def test_more_devices_than_sequences_and_carried_state_on_several_are_refused():
    with pytest.raises(errors.TrainingError, match="9 devices are more than the 8 sequences"):
        train._check_devices(SMOKE, 9)
    with pytest.raises(errors.TrainingError, match="needs one device, not 2"):
        train._check_devices(CARRIED, 2)
    train._check_devices(SMOKE, 8)


def test_a_curriculum_shortens_the_first_sequences_and_reads_back_from_its_config(tmp_path, monkeypatch):
    lengths = []
    unrolled = em.TrainingLoss.forward
    monkeypatch.setattr(
        em.TrainingLoss, "forward", lambda self, x, *rest: lengths.append(len(x)) or unrolled(self, x, *rest)
    )
    short_first = SMOKE.replace(updates=6, evaluate_every=6, curriculum=((2, 2), (4, 3)))
    run = train.train(short_first, root=tmp_path, progress=False)
    assert lengths == [3, 3, 4, 4, 7, 7], "predicted frames and the first one"
    assert store.load(run.path).config == short_first
    with pytest.raises(ValueError, match=r"training.curriculum has \(2, 9\)"):
        SMOKE.replace(curriculum=((2, 9),))


def test_an_extended_run_equals_one_that_was_long_from_the_start(finished, tmp_path):
    short = train.train(SMOKE.replace(updates=40), root=tmp_path, progress=False)
    assert short.trunk()[1]["update"] == 32  # the last fifth of the updates is the decay
    long = train.train(SMOKE.replace(updates=60), root=tmp_path, progress=False)
    assert same_weights(long, finished)
    assert store.load(short.config, tmp_path).path.exists()  # the short one is kept


def test_without_its_trunk_a_run_evaluates_but_is_trained_anew(finished, tmp_path):
    short = train.train(SMOKE.replace(updates=40), root=tmp_path, progress=False)
    (short.path / train.TRUNK).unlink()
    assert store.load(short.config, tmp_path).weights()
    assert same_weights(train.train(SMOKE.replace(updates=60), root=tmp_path, progress=False), finished)


def test_schedule_is_warm_up_constant_decay_and_long_and_short_share_the_trunk():
    short, long = (SMOKE.replace(updates=n, warmup=5, decay=0.2).training for n in (100, 200))
    assert [train.step_size(short, u) for u in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(train.step_size(short, u) == train.step_size(long, u) for u in range(80))
    assert train.step_size(short, 90) == pytest.approx(0.5)
    assert 0 < train.step_size(short, 99) < 0.1


def test_early_stopping_keeps_the_best_weights(tmp_path):
    """Adam with a huge step from the start: validation gets worse, and training stops after two such validations."""
    patient = SMOKE.replace(updates=400, optimizer="adam", lr=0.3, patience=2, decay=0.0, evaluate_every=5)
    run = train.train(patient, root=tmp_path, progress=False)
    losses = run.metrics()["loss"]
    assert run.updates < 400
    assert losses.idxmin() == len(losses) - 3
    validation = datasets.fixed(patient.data, "validation", 4, 7)
    network = build(patient.network)
    network.load_state_dict(run.weights())
    from rnem.evaluation.evaluate import evaluate

    assert evaluate(network, validation, noise=patient.training.noise).summary()["loss"] == pytest.approx(losses.min())


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    assert train.train(SMOKE, root=tmp_path, progress=False, stop_after=10) is None
    checkpoint = store.work_folder(SMOKE, tmp_path) / train.CHECKPOINT
    before = checkpoint.read_bytes()
    broken = staticmethod(lambda logits, *rest: fast.pixel_step(logits * float("nan"), *rest))
    monkeypatch.setattr(fast.TrainingLoss, "to_pixels", broken)
    with pytest.raises(errors.TrainingError, match=r"update 10 is not finite .*sequences 80 to 87"):
        train.train(SMOKE, root=tmp_path, progress=False)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("model", ["rnn", "lstm"])
def test_one_tiny_batch_is_overfitted(model):
    """One video of eight frames, no noise, one component: learned by heart, far below copying the last frame."""
    torch.manual_seed(0)
    network = build(experiments.named(f"smoke-balls4mass-{model}").network)
    loss = em.TrainingLoss(network)
    optimizers = muon.optimizers(network, "muon", 1e-3, 5e-3)
    x = datasets.generate("balls4mass16", "training", 0, 1, 8).features.float()
    raw, still = torch.randn(1, 1, 1, 16, 16), torch.zeros_like(x)
    for _ in range(150):
        loss(x, still, raw)[0].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    *_, last = em.unroll(network, x, still, raw)
    wrong, moved = ((last.psi.amax(1) > 0.5) != x[-1].bool()).sum(), (x[-1] != x[-2]).sum()
    assert moved > 10
    assert wrong <= 0.3 * moved


def test_muon_update_is_orthogonal_and_has_adams_size():
    torch.manual_seed(0)
    x = muon.orthogonalise(torch.randn(3, 24, 60))
    singular = torch.linalg.svdvals(x)
    assert singular.min() > 0.5
    assert singular.max() < 1.4
    p = torch.nn.Parameter(torch.zeros(24, 60))
    p.grad = torch.randn(24, 60)
    muon.Muon([p], lr=1.0).step()
    assert p.detach().pow(2).mean().sqrt() == pytest.approx(muon.UPDATE_RMS, rel=0.2)


def test_meaning_of_a_config_has_not_changed(finished):
    """Fingerprint of version = 1. If it changes on purpose, raise RunConfig.version."""
    assert finished.config.version == 1
    assert list(finished.metrics()["training_loss"])[:2] == pytest.approx(FINGERPRINT, rel=2e-3)


FINGERPRINT = [541.789, 233.944]


def test_progress_shows_loss_speed_and_time_left(tmp_path, capsys):
    train.train(SMOKE.replace(updates=10), root=tmp_path)
    shown = capsys.readouterr().err
    assert "seq/s" in shown
    assert "loss" in shown
    assert Path(tmp_path).exists()
