"""The run cache: a run is whole or absent, damage of one bit is noticed and named, and the key sees every field."""

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import filelock
import pytest
import torch

from rnem import paths
from rnem.errors import RnemError, RunError
from rnem.model.config import NetworkConfig
from rnem.runs import config, experiments, files, provenance, store
from rnem.runs.config import RunConfig, TrainingConfig, from_dict, to_dict
from rnem.runs.experiments import RUNS

CONFIG = RunConfig("fixture", "balls4mass64")
FACTS = {"wall_seconds": 1.5, "updates": 390_000, "sequences_seen": 24_960_000}
METRICS = [{"update": 20, "loss": 0.1 + 0.2}, {"update": 40, "loss": 1 / 3, "ari": 0.5}]


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    return torch.nn.Linear(3, 4).state_dict() | {"noise": torch.randn(5, generator=torch.Generator().manual_seed(seed))}


def save(root, config=CONFIG, seed=0, **others) -> store.Run:
    return store.save(config, weights=weights(seed), metrics=METRICS, manifest={**FACTS, **others}, root=root)


def with_trunk(root) -> store.Run:
    trunk = {"momentum": torch.ones(2, 3), "random": torch.get_rng_state()}
    return store.save(
        CONFIG, weights=weights(), metrics=METRICS, manifest=FACTS, trunk=trunk, trunk_meta={"update": 7}, root=root
    )


def flip(path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


# ---------------------------------------------------------------------------------------------------------- round trip


def test_a_saved_run_is_read_back_exactly(tmp_path):
    saved = save(tmp_path)
    for run in (store.load(CONFIG, tmp_path), store.load(saved.path), *store.find(root=tmp_path)):
        assert run == saved
        assert run.config == CONFIG
        assert run.metrics()["loss"].tolist() == [0.1 + 0.2, 1 / 3]
        assert run.metrics()["ari"].isna().tolist() == [True, False]
        assert torch.equal(run.weights()["noise"], weights()["noise"])
        assert run.trunk() is None
    assert store.verify(saved.path) == []
    assert (saved.seed, saved.label, saved.updates) == (0, "fixture@0", 390_000)


def test_the_manifest_says_what_made_the_run(tmp_path):
    manifest = save(tmp_path, config=CONFIG.replace(seed=3)).manifest
    provenance = {"created", "commit", "dirty", "code_digest", "torch", "python", "hardware", "threads"}
    assert {"name", "seed", "key", "files", *provenance, *FACTS} <= set(manifest)
    assert (manifest["name"], manifest["seed"], manifest["torch"]) == ("fixture", 3, torch.__version__)
    assert set(manifest["files"]) == {"config.json", "metrics.csv", "weights.safetensors"}


def test_what_was_recorded_when_training_began_is_not_replaced(tmp_path):
    assert save(tmp_path, code_digest="as it was", threads=64).manifest["threads"] == 64


def test_the_trunk_is_a_file_that_a_clone_may_lack(tmp_path):
    run = with_trunk(tmp_path)
    tensors, meta = run.trunk()
    assert torch.equal(tensors["momentum"], torch.ones(2, 3))
    assert meta == {"update": 7}
    flip(run.path / "trunk.safetensors", -1)
    assert store.load(CONFIG, tmp_path).weights(), "a run is evaluated without reading its trunk"
    with pytest.raises(RunError, match=r"trunk\.safetensors was edited"):
        run.trunk()
    assert "trunk.safetensors was edited" in store.verify(run.path)[0]
    (run.path / "trunk.safetensors").unlink()
    assert store.verify(run.path) == []
    assert store.load(CONFIG, tmp_path).trunk() is None


def test_a_good_run_is_never_replaced(tmp_path):
    first = save(tmp_path, seed=1)
    assert save(tmp_path, seed=2) == first
    assert torch.equal(store.load(CONFIG, tmp_path).weights()["noise"], weights(1)["noise"])


def test_a_broken_run_is_set_aside_for_a_new_one(tmp_path):
    run = save(tmp_path, seed=1)
    flip(run.path / "weights.safetensors", -1)
    with pytest.warns(UserWarning, match=r"was broken; it is now \.broken-0-fixture"):
        save(tmp_path, seed=2)
    assert torch.equal(store.load(CONFIG, tmp_path).weights()["noise"], weights(2)["noise"])
    assert len(list(tmp_path.glob(".broken-*/weights.safetensors"))) == 1
    assert len(store.find(root=tmp_path)) == 1


def test_best_is_the_longest_run_of_each_seed(tmp_path):
    for seed, updates in ((0, 10), (0, 30), (0, 20), (1, 5)):
        save(tmp_path, CONFIG.replace(seed=seed, updates=updates), updates=updates)
    save(tmp_path, dataclasses.replace(CONFIG, name="fixture-longer", seed=9))
    found, best = store.find("fixture", root=tmp_path), store.best("fixture", root=tmp_path)
    assert [(run.seed, run.updates) for run in found] == [(0, 10), (0, 20), (0, 30), (1, 5)]
    assert [(run.seed, run.updates) for run in best] == [(0, 30), (1, 5)]
    assert [run.seed for run in store.best("fixture", seed=1, root=tmp_path)] == [1]
    assert store.best("nothing", root=tmp_path) == []
    assert store.find(root=tmp_path / "absent") == []


def test_a_named_run_is_one_whose_config_is_exactly_that(tmp_path):
    """A run of ten updates under the same name is on no page and in no verdict; nor is one of an unknown name."""
    named = experiments.named("smoke-balls4mass-rnn")
    for seed in (1, 0):
        save(tmp_path, named.replace(seed=seed))
    before = [run.path for run in store.exactly(named.name, tmp_path)]
    assert [run.seed for run in store.exactly(named.name, tmp_path)] == [0, 1]
    save(tmp_path, named.replace(seed=9, updates=10))
    save(tmp_path, named.replace(seed=1, updates=400))
    assert [run.path for run in store.exactly(named.name, tmp_path)] == before
    assert len(store.find(named.name, root=tmp_path)) == 4
    with pytest.raises(RnemError, match="no run is named"):
        store.exactly("fixture", tmp_path)


# ------------------------------------------------------------------------------------------------------------------ key


def test_the_key_of_a_config_is_what_it_always_was():
    """If this fails, every cached run is lost: raise ``version`` on purpose, or take the change back."""
    assert store.key(CONFIG) == "e0699c5515"


def test_all_keys_are_what_they_always_were():
    """Of every named run at ten seeds, and of every run that is committed; a new name is added to keys.json by hand."""
    keys = json.loads((Path(__file__).parent / "fixtures" / "keys.json").read_text())
    assert {name: [store.key(RUNS[name].replace(seed=seed)) for seed in range(10)] for name in keys["named"]} == (
        keys["named"]
    )
    assert RUNS.keys() == keys["named"].keys()
    finished = provenance.repository() / "data" / "runs"
    for name in keys["finished"]:
        config = from_dict(json.loads((finished / name / "config.json").read_bytes()))
        assert f"{config.name}-{store.key(config)}" == name
        assert json.loads(json.dumps(to_dict(config))).items() >= {"semantics": 1, "seed": config.seed}.items()


@dataclasses.dataclass(frozen=True)
class Younger(TrainingConfig):
    """A config as it may be one day."""

    a_new_field: int = 3


def test_a_new_field_changes_no_key_where_it_has_its_default():
    def key(**fields) -> str:
        return store.key(dataclasses.replace(CONFIG, training=Younger(**fields)))

    assert key() == store.key(CONFIG) != key(a_new_field=4)
    assert key(noise=0.1) == store.key(CONFIG.replace(noise=0.1)) != key(noise=0.1, a_new_field=4)


def test_a_field_that_configs_no_longer_have_stays_in_every_key(monkeypatch):
    tree = to_dict(CONFIG)
    del tree["training"]["path"]
    monkeypatch.setattr(config, "to_dict", lambda _: tree)
    assert store.key(CONFIG) == "e0699c5515"


OTHER = {
    "name": "other", "data": "other", "model": "nem", "autoencoder": "atari84", "optimizer": "muon", "path": "plain",
    "precision": "bf16-mixed", "curriculum": ((10, 3),), "action_order": "authors", "stretches": (2, 1),
}  # fmt: skip


def changed(config, field: dataclasses.Field):
    old = getattr(config, field.name)
    new = OTHER[field.name] if field.name in OTHER else old + 2 if isinstance(old, int) else old / 2 + 1 / 8
    return dataclasses.replace(config, **{field.name: new})


def test_the_key_depends_on_every_field():
    keys = [store.key(CONFIG)]
    for field in dataclasses.fields(NetworkConfig):
        keys.append(store.key(dataclasses.replace(CONFIG, network=changed(CONFIG.network, field))))
    for field in dataclasses.fields(TrainingConfig):
        keys.append(store.key(dataclasses.replace(CONFIG, training=changed(CONFIG.training, field))))
    for field in dataclasses.fields(RunConfig):
        if field.name not in ("network", "training"):
            keys.append(store.key(changed(CONFIG, field)))
    fields = sum(len(dataclasses.fields(kind)) for kind in (NetworkConfig, TrainingConfig, RunConfig)) - 2
    assert len(set(keys)) == len(keys) == fields + 1


def test_equal_configs_have_one_key():
    assert CONFIG.replace(clip=1.0) == CONFIG.replace(clip=1)
    assert (
        store.key(CONFIG.replace(clip=1.0)) == store.key(CONFIG.replace(clip=1)) != store.key(CONFIG.replace(clip=1.5))
    )


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".hidden", "a b"])
def test_a_name_that_leaves_the_cache_is_refused(name):
    with pytest.raises(RunError, match="cannot name a folder"):
        store.folder(dataclasses.replace(CONFIG, name=name))


def test_the_cache_can_be_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    assert store.folder(CONFIG) == tmp_path / "runs" / f"fixture-{store.key(CONFIG)}"
    assert store.work_folder(CONFIG) == tmp_path / "runs" / ".work" / f"fixture-{store.key(CONFIG)}"
    monkeypatch.delenv("RNEM_DATA")
    assert paths.data_root() == provenance.repository() / "data"


def test_every_named_run_has_a_folder_of_its_own():
    folders = {store.folder(config.replace(seed=seed)) for config in RUNS.values() for seed in range(2)}
    assert len(folders) == 2 * len(RUNS)


# --------------------------------------------------------------------------------------------------------------- damage


def fails(run: store.Run, message: str) -> None:
    """Loading, looking for and verifying a damaged run all say the same: one line with folder, file and fault."""
    with pytest.raises(RunError, match=message) as caught:
        store.load(run.config, run.path.parent)
    assert str(run.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=message):
        assert store.find(root=run.path.parent) == []
    assert any(problem in str(caught.value) for problem in store.verify(run.path))


@pytest.mark.parametrize("file", ["weights.safetensors", "metrics.csv", "config.json", "manifest.json"])
def test_a_missing_file_is_named(tmp_path, file):
    run = save(tmp_path)
    (run.path / file).unlink()
    fails(run, rf"{file} is missing")


@pytest.mark.parametrize("file", ["weights.safetensors", "metrics.csv", "config.json", "manifest.json"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, file, kept):
    run = save(tmp_path)
    os.truncate(run.path / file, int(kept * (run.path / file).stat().st_size))
    fails(run, rf"{file} is truncated")


def test_an_edited_file_is_named(tmp_path):
    run = save(tmp_path)
    metrics = run.path / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("0.5", "0.9"))
    fails(run, r"metrics\.csv was edited")


def test_files_that_do_not_belong_are_named_and_harm_nothing(tmp_path):
    run, strangers = save(tmp_path), [".DS_Store", "Thumbs.db", "metrics.csv~", "notes.txt", "weights.pkl"]
    for name in strangers:
        (run.path / name).write_bytes(b"cos\nsystem\n")
    assert store.verify(run.path) == []
    assert store.strangers(run.path) == strangers
    with warnings.catch_warnings(action="error"):
        assert store.find(root=tmp_path) == [store.finished(CONFIG, tmp_path)] == [save(tmp_path, seed=2)] == [run]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".work") == [run.path.name]
    flip(run.path / "metrics.csv", 0)
    fails(run, r"metrics\.csv was edited")


def test_a_broken_run_is_refused_until_it_is_set_aside(tmp_path):
    run = save(tmp_path)
    store.set_broken_aside(CONFIG, tmp_path)
    assert store.finished(CONFIG, tmp_path) == run, "a good one stays"
    assert store.finished(CONFIG.replace(seed=1), tmp_path) is None
    flip(run.path / "metrics.csv", 0)
    with pytest.raises(RunError, match=r"metrics\.csv was edited.*move the folder away, or .*`rnem train --again`$"):
        store.finished(CONFIG, tmp_path)
    with pytest.warns(UserWarning, match=r"was broken; it is now \.broken-0-fixture-.*, and the run is trained anew"):
        store.set_broken_aside(CONFIG, tmp_path)
    assert store.finished(CONFIG, tmp_path) is None
    assert len(list(tmp_path.glob(".broken-0-*/metrics.csv"))) == 1


def test_a_link_is_no_file_of_a_run(tmp_path):
    run = save(tmp_path / "runs")
    shutil.move(run.path / "weights.safetensors", tmp_path / "elsewhere")
    (run.path / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    fails(run, r"weights\.safetensors is not a plain file")


@pytest.mark.parametrize("file", ["weights.safetensors", "metrics.csv", "config.json", "manifest.json"])
def test_any_flipped_bit_is_noticed(tmp_path, file):
    run, chance = save(tmp_path), random.Random(file)
    for _ in range(60):
        position, bit = chance.randrange((run.path / file).stat().st_size), chance.randrange(8)
        flip(run.path / file, position, bit)
        assert any(file in problem for problem in store.verify(run.path)), f"bit {bit} of byte {position}"
        flip(run.path / file, position, bit)
    assert store.verify(run.path) == []


def test_a_config_edited_with_all_hashes_set_right_does_not_match_its_folder(tmp_path):
    run, forged = save(tmp_path), save(tmp_path / "forged", config=CONFIG.replace(noise=0.0))
    shutil.rmtree(run.path)
    shutil.move(forged.path, run.path)
    fails(run, rf"config\.json belongs to fixture-{forged.key}")


def test_a_config_of_another_version_is_named(tmp_path, monkeypatch):
    run = save(tmp_path)
    monkeypatch.setattr(store, "in_key", lambda config: {**to_dict(config), "new_field": 1})
    assert "another version of rnem" in store.verify(run.path)[0]


def test_a_manifest_that_vouches_for_files_elsewhere_is_refused(tmp_path):
    run = save(tmp_path)
    (run.path / "manifest.json").write_bytes(store.seal({"../../secret": b""}, run.manifest)["manifest.json"])
    fails(run, r"manifest\.json names '\.\./\.\./secret', which is no file of a run")
    (run.path / "manifest.json").write_text(json.dumps([]))
    fails(run, r"manifest\.json was edited")


def test_a_run_under_a_name_that_is_none_is_reported(tmp_path):
    run = save(tmp_path)
    run.path.rename(tmp_path / "my favourite")
    with pytest.warns(UserWarning, match=r"my favourite: config\.json belongs to fixture-"):
        assert store.find(root=tmp_path) == []


def test_no_run_gives_one_sentence(tmp_path):
    with pytest.raises(RunError, match="there is no such run"):
        store.load(CONFIG, tmp_path)


# ------------------------------------------------------------------------------------------ crashes and other processes


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
from rnem.runs import files, store
from rnem.runs.config import RunConfig
config, root = RunConfig("fixture", "balls4mass64"), Path(sys.argv[1])
with store.lock(config, root):
    print("locked", flush=True)
    sys.stdin.readline()
    write, written = files.write_file, []
    def killed(path, data):
        if path.name == "weights.safetensors":
            write(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)
    files.write_file = killed
    facts = {"wall_seconds": 1.0, "updates": 1, "sequences_seen": 1}
    store.save(config, weights={"w": torch.ones(100)}, metrics=[{"loss": 1.0}], manifest=facts, root=root)
"""


def test_two_processes_want_one_run_and_one_is_killed_while_it_writes(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "locked\n"
        taken = rf"fixture@0 is being trained by another process \(pid {child.pid} "
        with pytest.raises(RunError, match=taken), store.lock(CONFIG, tmp_path):
            pytest.fail("two processes hold one lock")
        with store.lock(CONFIG.replace(seed=1), tmp_path):
            pass  # another seed is another run
        child.communicate("go\n", timeout=60)
    finally:
        child.kill()
    assert child.returncode == -signal.SIGKILL

    (half,) = tmp_path.glob(".tmp-*")
    assert {"config.json", "weights.safetensors"} <= {path.name for path in half.iterdir()}
    with warnings.catch_warnings(action="error"):
        assert store.find(root=tmp_path) == []
    with store.lock(CONFIG, tmp_path):
        assert save(tmp_path).path.exists()
    assert not half.exists()
    assert store.verify(store.folder(CONFIG, tmp_path)) == []


def test_a_folder_whose_writer_lives_is_not_swept(tmp_path):
    half = tmp_path / ".tmp-fixture-0123456789"
    half.mkdir()
    with filelock.FileLock(store.lock_file(half)):
        assert store.sweep(tmp_path) == []
        assert half.exists()
    assert store.sweep(tmp_path) == [half]
    assert not half.exists()


def test_the_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), store.lock(CONFIG, tmp_path):
        raise ZeroDivisionError
    with store.lock(CONFIG, tmp_path):
        pass


# ---------------------------------------------------------------------------------------------------------- checkpoints


def state() -> dict[str, torch.Tensor]:
    return {
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "half": torch.tensor([1.0, float("nan")], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
        "random": torch.get_rng_state(),
    }


def test_a_checkpoint_is_read_back_exactly(tmp_path):
    meta = {"update": 7, "best": float("inf"), "history": [{"loss": 0.1}], 10: "a", 9: "b"}
    tensors = state()
    tensors["shared"] = tensors["random"]
    files.write_state(tmp_path / "new" / "state", tensors, meta)
    read, read_meta = files.read_state(tmp_path / "new" / "state")
    assert read_meta == {"update": 7, "best": float("inf"), "history": [{"loss": 0.1}], "10": "a", "9": "b"}
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(torch.nan_to_num(read[name]), torch.nan_to_num(tensor))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["state"]


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        files.write_state(tmp_path / name, state(), {"b": 1, "a": 2})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_no_checkpoint_is_no_error(tmp_path):
    assert files.read_state(tmp_path / "state") is None


def test_a_damaged_checkpoint_says_what_to_delete(tmp_path):
    path, chance = tmp_path / "state", random.Random(0)
    files.write_state(path, state(), {"update": 7})
    data = path.read_bytes()
    broken = [data[: int(len(data) * share)] for share in (0, 0.01, 0.1, 0.5, 0.999)] + [data + b"\0", b"not a state"]
    for _ in range(100):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        broken.append(bytes(flipped))
    for damaged in broken:
        path.write_bytes(damaged)
        with pytest.raises(RunError, match="state is truncated or was edited: delete it"):
            files.read_state(path)


def test_a_folder_in_place_of_a_checkpoint_gives_one_sentence(tmp_path):
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        files.read_state(tmp_path)


def test_two_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    """As two chapters that are executed at once and keep the same measurement."""
    path, write, others = tmp_path / "table.csv", files.write_file, [b"second"]

    def interrupted(temporary, data):
        write(temporary, data[:2])
        if others:
            files.replace_file(path, others.pop())
        write(temporary, data)

    monkeypatch.setattr(files, "write_file", interrupted)
    files.replace_file(path, b"first")
    assert path.read_bytes() == b"first"
    assert [item.name for item in tmp_path.iterdir()] == ["table.csv"]


def test_what_a_killed_writer_left_goes_after_a_while_and_a_living_ones_stays(tmp_path):
    old, new, other = (tmp_path / f".{name}.tmp" for name in ("table.csv.7-0a", "table.csv.8-0b", "other.csv.7-0a"))
    for left in (old, new, other):
        left.touch()
    for left in (old, other):
        os.utime(left, times=(0, 0))
    files.replace_file(tmp_path / "table.csv", b"1")
    assert {item.name for item in tmp_path.iterdir()} == {"table.csv", new.name, other.name}


# ---------------------------------------------------------------------------------------------------------------- disks


@pytest.fixture
def full_disk(monkeypatch):
    """The system notices that the disk is full when the data must really go there."""

    def fail(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", fail)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, full_disk):
    files.write_state(tmp_path / "state", {"w": torch.zeros(3)}, {"update": 1})
    full_disk()
    with pytest.raises(RunError, match=r"checkpoint .*state could not be written: No space left on device"):
        files.write_state(tmp_path / "state", {"w": torch.ones(3)}, {"update": 2})
    assert files.read_state(tmp_path / "state")[1] == {"update": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_full_disk_leaves_the_runs_that_were_there(tmp_path, full_disk):
    run = save(tmp_path)
    full_disk()
    with pytest.raises(RunError, match=r"run .*fixture-.* could not be written: No space left on device"):
        save(tmp_path, CONFIG.replace(seed=1))
    assert store.find(root=tmp_path) == [run]
    assert list(tmp_path.glob(".tmp-*")) == []


def test_a_broken_run_stays_in_place_when_the_disk_is_full(tmp_path, full_disk):
    run = save(tmp_path)
    flip(run.path / "metrics.csv", 0)
    full_disk()
    with pytest.raises(RunError, match="No space left"):
        save(tmp_path)
    assert (run.path / "weights.safetensors").exists()


def test_a_read_only_cache_can_be_read_and_says_that_it_cannot_be_written(tmp_path, monkeypatch):
    run = save(tmp_path)

    def refuse(*arguments, **keywords):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("mkdir", "open", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse)  # root may write everywhere, so rights do not test this
    assert store.find(root=tmp_path) == [run]
    assert run.weights()
    with pytest.raises(RunError, match="could not be written: Read-only file system"):
        save(tmp_path, CONFIG.replace(seed=1))
    with pytest.raises(RunError, match="could not be written: Read-only file system"), store.lock(CONFIG, tmp_path):
        pass
    with pytest.raises(RunError, match="could not be written: Read-only file system"):
        files.write_state(tmp_path / "new" / "state", {"w": torch.zeros(3)}, {})
