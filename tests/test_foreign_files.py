"""Files that others made: whatever is in them is said in one sentence, with exit code 2, and changes nothing.

A test for each reader (HDF5, runs and checkpoints, GIF, tar), and one for words of the command line and the shell.
"""

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from rnem import paths
from rnem.cli.main import main
from rnem.evaluation.evaluate import QUANTITIES
from rnem.model.network import build
from rnem.runs import files, store
from rnem.runs.experiments import named
from rnem.training import train

NAME = "smoke-balls4mass-rnem-k5"
CONFIG = named(NAME)
EVALUATE = ("evaluate", f"{NAME}@0", "--count", "2", "--frames", "4")


def save(config, root: Path) -> store.Run:
    """A finished run, as training leaves it; its weights are fresh."""
    torch.manual_seed(config.seed)
    rows = [{"update": 40, **{q: 1.0 for name in QUANTITIES for q in (name, f"last10_{name}")}}]
    facts = {"wall_seconds": 60.0, "updates": 40, "sequences_seen": 320}
    return store.save(
        config, weights=build(config.network).state_dict(), metrics=rows, manifest=facts, root=root / "runs"
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A cache with two finished runs."""
    root = tmp_path_factory.mktemp("original")
    for seed in (0, 1):
        save(CONFIG.replace(seed=seed), root)
    return root


@pytest.fixture
def cache(original, tmp_path, monkeypatch):
    """A copy of it, which is the one in force."""
    shutil.copytree(original, tmp_path / "data")
    monkeypatch.setenv("RNEM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def soon():
    """A command that waits for a pipe, or reads without end, fails."""

    def late(*_):
        pytest.fail("the command did not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder but locks, which stay."""
    there = [path for path in sorted(folder.rglob("*")) if "locks" not in path.parts]
    return {str(path): path.read_bytes() if path.is_file() else None for path in there}


def refused(capsys, folder: Path, *words: object) -> str:
    """The one sentence of a command that is given something wrong; what is below ``folder`` stays as it was."""
    before = contents(folder)
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not line.startswith("warning: ")]
    assert (code, said.out, len(lines)) == (2, "", 1), said
    assert re.match("error: .{10}", lines[0])
    assert said.err.replace("\n", "").isprintable()
    assert contents(folder) == before
    return said.err


def forge(
    run: store.Run, changed: dict[str, bytes] | None = None, without: tuple[str, ...] = (), **manifest
) -> store.Run:
    """Change files of a finished run, and its manifest, with every hash set right."""
    data = {name: (run.path / name).read_bytes() for name in run.manifest["files"]} | (changed or {})
    kept = {name: value for name, value in (run.manifest | manifest).items() if name not in ("digest", *without)}
    for name, content in files.seal(data, kept).items():
        (run.path / name).write_bytes(content)
    return run


# ----------------------------------------------------------------------------------------------------------------- HDF5


def video_file(path: Path) -> Path:
    """A good file of 3 sequences with 4 frames of 16 x 16 pixels."""
    with h5py.File(path, "w") as file:
        for name in ("features", "groups", "collisions"):
            file[f"test/{name}"] = np.zeros((4, 3, 16, 16, 1), np.uint8)
    return path


def replace(name: str, put):
    """A change of a file: its data set ``name`` goes, and ``put(group, name)`` puts something else in its place."""

    def change(file: h5py.File) -> None:
        del file[f"test/{name}"]
        put(file["test"], name)

    return change


def link(target):
    return lambda group, name: group.__setitem__(name, target)


def claim(*shape: int, **options):
    """A data set that claims a shape, and of which nothing was written."""
    return lambda group, name: group.create_dataset(name, shape, np.uint8, **options)


def spoil_filter(group: h5py.Group, name: str) -> None:
    data = group.create_dataset(name, (4, 3, 16, 16, 1), np.uint8, chunks=(4, 3, 16, 16, 1), compression="gzip")
    data.id.write_direct_chunk((0, 0, 0, 0, 0), b"this was never compressed")


def virtual(group: h5py.Group, name: str) -> None:
    layout = h5py.VirtualLayout((4, 3, 16, 16, 1), np.uint8)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (4, 3, 16, 16, 1))
    group.create_virtual_dataset(name, layout)


def group_is(target):
    def change(file: h5py.File) -> None:
        del file["test"]
        file["test"] = target

    return change


HDF5 = {
    "dangling link": replace("features", link(h5py.SoftLink("/nowhere"))),
    "dangling link beside": replace("groups", link(h5py.SoftLink("/nowhere"))),
    "cyclic link": replace("features", link(h5py.SoftLink("/test/features"))),
    "dangling group": group_is(h5py.SoftLink("/nowhere")),
    "cyclic group": group_is(h5py.SoftLink("/test")),
    "link to a file that is not there": replace("features", link(h5py.ExternalLink("elsewhere.h5", "/x"))),
    "link to a pipe": replace("features", link(h5py.ExternalLink("pipe", "/x"))),
    "link to itself": replace("features", link(h5py.ExternalLink("v.h5", "/test/features"))),
    "a group within itself": replace("features", lambda group, name: group.__setitem__(name, group)),
    "values in another file": replace("features", claim(4, 3, 16, 16, 1, external=[("pipe", 0, h5py.h5f.UNLIMITED)])),
    "virtual": replace("features", virtual),
    "empty": replace("features", link(h5py.Empty("u1"))),
    "empty beside": replace("positions", lambda group, name: None) and (
        lambda file: file["test"].__setitem__("masses", h5py.Empty("f4"))
    ),
    "a number": replace("features", link(np.uint8(1))),
    "texts": replace("features", link(np.full((4, 3, 16, 16, 1), "x", h5py.string_dtype()))),
    "10^9 sequences": replace("features", claim(4, 10**9, 16, 16, 1, chunks=(4, 1, 16, 16, 1))),
    "a PiB": replace("features", claim(2**10, 2**20, 2**10, 2**10, 1, chunks=(1, 1, 64, 64, 1), compression="gzip")),
    "a PiB beside": replace("groups", claim(4, 3, 16, 16, 2**40, chunks=(1, 1, 16, 16, 1))),
    "a chunk of GiB": replace("features", claim(4, 3, 16, 16, 1, chunks=(4, 2**20, 16, 16, 1),
                                                maxshape=(4, None, 16, 16, 1), compression="gzip")),
    "a damaged chunk": replace("features", spoil_filter),
}  # fmt: skip


@pytest.mark.parametrize("case", HDF5)
@pytest.mark.parametrize("command", [("data", "check"), (*EVALUATE, "--data")], ids=["check", "evaluate"])
def test_videos_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, case, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = video_file(tmp_path / "v.h5")
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(path, "a") as file:
        HDF5[case](file)
    assert str(path) in refused(capsys, tmp_path, *command, path)


@pytest.mark.parametrize("name", [h5py.Empty("S1"), np.arange(3), "a\x1b[31mb\nc", np.bytes_(b"\xff\x1b"), 1.5])
def test_the_name_of_a_file_of_videos_is_shown_without_control_characters(capsys, cache, tmp_path, name):
    with h5py.File(video_file(tmp_path / "v.h5"), "a") as file:
        file.attrs["name"] = name
    for words in (("data", "check"), (*EVALUATE, "--data")):
        assert main([*words, str(tmp_path / "v.h5")]) == 0
        assert capsys.readouterr().out.replace("\n", "").isprintable()


# ------------------------------------------------------------------------------------------------- runs and checkpoints


def header(text: bytes, length: int | None = None) -> bytes:
    """A safetensors file: a header, perhaps with a length that is wrong, and some values."""
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(64)


DEEP = b"[" * 100_000 + b"]" * 100_000
ONE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
SAFETENSORS = {
    "nothing": b"",
    "seven bytes": b"seven b",
    "a header without end": header(ONE, 2**63),
    "a header of 200 MB": header(ONE, 2 * 10**8),
    "no JSON": header(b"{no JSON"),
    "a list": header(b"[]"),
    "too deep": header(DEEP),
    "values out of the file": header(ONE.replace(b"[0,8]", b"[0,8000]").replace(b"[2]", b"[2000]")),
    "shapes beyond counting": header(ONE.replace(b"[2]", b"[18446744073709551615,2]")),
    "an unknown type": header(ONE.replace(b"F32", b"F33")),
    "no network": header(ONE.replace(b"[0,8]", b"[0,64]").replace(b"[2]", b"[16]")),
}


def fitting(change) -> bytes:
    """Weights of the network, one of them changed."""
    weights = files.portable(build(CONFIG.network).state_dict())
    change(weights, sorted(weights)[0])
    return safetensors.torch.save(weights)


SAFETENSORS |= {
    "weights of another shape": fitting(lambda w, n: w.update({n: torch.zeros(3)})),
    "one weight less": fitting(lambda w, n: w.pop(n)),
    "one weight more": fitting(lambda w, n: w.update({"more": torch.zeros(3)})),
    "whole numbers": fitting(lambda w, n: w.update({n: w[n].long()})),
}


@pytest.mark.parametrize("case", SAFETENSORS)
@pytest.mark.parametrize("command", [EVALUATE, ("export", f"{NAME}@0", "--out", "x.js")], ids=["evaluate", "export"])
def test_weights_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, monkeypatch, case, command):
    monkeypatch.chdir(tmp_path)
    run = forge(store.load_run(f"{NAME}@0"), {"weights.safetensors": SAFETENSORS[case]})
    assert f"{run.path}/weights.safetensors" in refused(capsys, tmp_path, *command)


METRICS = {"text": b"update,loss\nmany,1\n", "no UTF-8": b"update\n\xff\n", "nothing": b"", "long rows": b"a\n1,2,3\n"}


@pytest.mark.parametrize("case", METRICS)
def test_metrics_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, case):
    run = forge(store.load_run(f"{NAME}@0"), {"metrics.csv": METRICS[case]})
    assert f"{run.path}/metrics.csv" in refused(capsys, tmp_path, "runs", "show", f"{NAME}@0")


def config(change) -> bytes:
    tree = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    change(tree)
    return json.dumps(tree).encode()


CONFIGS = {
    "too deep": DEEP,
    "a list": b"[1]",
    "no training": config(lambda t: t.pop("training")),
    "training is a text": config(lambda t: t.update(training="fast")),
    "an unknown field": config(lambda t: t["network"].update(colour="red")),
    "a text for a number": config(lambda t: t["training"].update(updates="many")),
    "no number": config(lambda t: t["training"].update(lr=float("nan"))),
    "infinite": config(lambda t: t["training"].update(lr=float("inf"))),
    "a list for a number": config(lambda t: t["network"].update(state=[24])),
    "a number for stretches": config(lambda t: t["training"].update(stretches=3)),
    "a seed of 70 bits": config(lambda t: t.update(seed=2**70)),
    "a seed below 0": config(lambda t: t.update(seed=-1)),
    "a seed that is a text": config(lambda t: t.update(seed="x")),
    "updates of 400 digits": config(lambda t: t["training"].update(updates=10**400)),
    "a number of 5000 digits": config(lambda t: t.update(seed=1)).replace(b'"seed": 1', b'"seed": ' + b"1" * 5000),
    "a name with control characters": config(lambda t: t.update(name="a\x1b[31m")),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, case):
    run = forge(store.load_run(f"{NAME}@0"), {"config.json": CONFIGS[case]})
    assert str(run.path) in refused(capsys, tmp_path, "evaluate", run.path)
    assert main(["runs", "list"]) == 0
    said = capsys.readouterr()
    assert f"{NAME}@1" in said.out
    assert re.fullmatch(rf"warning: left out a broken run: {run.path}: [^\n]*\n", said.err)
    assert main(["runs", "verify"]) == 1


def write_manifest(text: bytes):
    return lambda path: path.write_bytes(text)


def make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


MANIFESTS = {
    "too deep": write_manifest(DEEP),
    "a text": write_manifest(b'"text"'),
    "a pipe": make_pipe,
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, case):
    run = store.load_run(f"{NAME}@0")
    MANIFESTS[case](run.path / "manifest.json")
    assert f"{run.path}: manifest.json" in refused(capsys, cache / "runs" / run.path.name / "..", "evaluate", run.path)
    assert main(["runs", "list"]) == 0
    assert f"{NAME}@1" in capsys.readouterr().out


FACTS = ("wall_seconds", "sequences_seen", "threads", "created", "hardware", "torch", "python", "code_digest", "commit")
ODD = {
    **{f"no {name}": {"without": (name,)} for name in FACTS},
    "nothing": {"without": FACTS},
    **{f"wall_seconds {value}": {"wall_seconds": value} for value in (0, -1, float("nan"), float("inf"), "long", None)},
    "10^400 seconds": {"wall_seconds": 10**400},
    "no threads": {"threads": 0},
    "control characters": {"created": "\x1b[2J\r\n\x07", "hardware": "\x9b31m\ud800", "commit": "\x00\x1b"},
    "lists": {name: ["x", 1] for name in FACTS},
}


@pytest.mark.parametrize("case", ODD)
def test_of_a_manifest_is_shown_what_is_in_it(capsys, cache, case):
    forge(store.load_run(f"{NAME}@0"), **ODD[case])
    for words in (
        "runs list",
        f"runs list {NAME}",
        "runs names smoke",
        "campaign smoke --dry-run",
        f"runs show {NAME}",
    ):
        assert main(words.split()) == 0
        said = capsys.readouterr()
        assert NAME in said.out
        assert (said.out + said.err).replace("\n", "").isprintable()
        if words == "runs list":
            assert re.search(rf"^{NAME}@0 +[0-9a-f]{{10}} +40 +(1\.0|0\.0|-) ", said.out, re.MULTILINE)
    assert main(["export", NAME, "--out", str(cache / "x.js")]) == 0


TRAIN = ("train", NAME, "--seed", "7", "--accelerator", "cpu", "--quiet")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """What a training that was stopped left."""
    root = tmp_path_factory.mktemp("stopped")
    chosen = CONFIG.replace(seed=7)
    train.train(chosen, root=root, accelerator="cpu", progress=False, stop_after=1)
    return (store.work_folder(chosen, root) / train.CHECKPOINT).read_bytes()


def packed(change):
    def make(good: bytes) -> bytes:
        tensors, meta = files.unpack(good, Path("good"))
        change(tensors, meta)
        return files.pack(tensors, meta)

    return make


def first(tensors: dict, prefix: str) -> str:
    return next(name for name in sorted(tensors) if name.startswith(prefix) and tensors[name].ndim)


CHECKPOINTS = {
    **{name: lambda good, data=data: data for name, data in SAFETENSORS.items() if name != "one weight more"},
    "of nothing": packed(lambda tensors, meta: tensors.clear()),
    "of another shape": packed(lambda t, meta: t.update({first(t, "network/"): torch.zeros(3)})),
    "of another optimiser": packed(lambda t, meta: t.update({first(t, "optimizer/"): torch.zeros(3, 3, 3)})),
    "of an optimiser that is none": packed(lambda t, meta: t.update({"optimizer/9/nothing": torch.zeros(3)})),
    "of another run": packed(lambda tensors, meta: meta.update(key="0123456789")),
    "without updates": packed(lambda tensors, meta: meta.pop("update")),
    "with a text for updates": packed(lambda tensors, meta: meta.update(update="many")),
    "with rows that are none": packed(lambda tensors, meta: meta.update(rows=7)),
    "a pipe": None,
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, checkpoint, case):
    path = store.work_folder(CONFIG.replace(seed=7)) / train.CHECKPOINT
    path.parent.mkdir(parents=True)
    make_pipe(path) if CHECKPOINTS[case] is None else path.write_bytes(CHECKPOINTS[case](checkpoint))
    assert str(path) in refused(capsys, tmp_path, *TRAIN)


# ------------------------------------------------------------------------------------------------------------------ GIF


def gif(frames: int = 3) -> bytes:
    pictures = [Image.new("L", (64, 194), 255 * (n % 2)) for n in range(frames)]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], optimize=False)
    return file.getvalue()


GIFS = {
    "nothing": b"",
    "a header alone": b"GIF89a",
    "half": gif()[: len(gif()) // 2],
    "half with an end": gif()[: len(gif()) // 2] + b";",
    "a picture of 65535 x 65535": gif().replace((64).to_bytes(2, "little"), b"\xff\xff", 1).replace(
        (194).to_bytes(2, "little"), b"\xff\xff", 1),
    "values that are none": gif().replace(b"\x00\x00\x00\x00\x40\x00\xc2\x00", b"\x00\x00\x00\x00\xff\xff\xff\xff"),
    **{f"byte {n} changed": bytes([*gif()[:n], 255 - gif()[n], *gif()[n + 1 :]]) for n in (6, 10, 800, 812, 820)},
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "100000 frames": gif(2)[:-1] + 100_000 * (b"," + bytes(4) + b"\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00") + b";",
}  # fmt: skip


@pytest.mark.parametrize("case", GIFS)
def test_pictures_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, case):
    path = tmp_path / "balls4mass_rnem9.gif"
    path.write_bytes(GIFS[case])
    assert str(path) in refused(capsys, tmp_path, "evaluate", NAME, "--video", path)


# ------------------------------------------------------------------------------------------------------------------ tar


def archive(change) -> bytes:
    """An archive of a run, some headers changed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("x-0123456789/config.json")
        change(member)
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    return file.getvalue()


TARS = {
    "nothing": b"",
    "no tar": b"these are no runs" * 1000,
    "half": archive(lambda m: setattr(m, "size", 1000))[:900],
    "a link": archive(lambda m: (setattr(m, "type", tarfile.SYMTYPE), setattr(m, "linkname", "/etc/passwd"))),
    "elsewhere": archive(lambda m: setattr(m, "name", "../config.json")),
    "a name with control characters": archive(lambda m: setattr(m, "name", "\x1b[31m/config.json")),
    "a pipe": None,
}


@pytest.mark.parametrize("case", TARS)
def test_archives_of_others_are_refused_in_one_sentence(capsys, cache, tmp_path, case):
    path = tmp_path / "runs.tar"
    os.mkfifo(path) if TARS[case] is None else path.write_bytes(TARS[case])
    assert str(path) in refused(capsys, tmp_path, "runs", "merge", path)
    assert str(path) in refused(capsys, tmp_path, "runs", "merge", path, "--sha256", "0" * 64)


# ---------------------------------------------------------------------------------------------------- words of the user

WRITES = {
    "rollout": ("rollout", f"{NAME}@0", "--real-steps", "2", "--steps", "2", "--count", "1", "--out"),
    "export": ("export", f"{NAME}@0", "--out"),
    "pack": ("runs", "pack", f"{NAME}@0", "--out"),
    "write": ("data", "write", "balls4mass16", "--count", "1", "--frames", "3", "--out"),
}


@pytest.mark.parametrize("out", ["", ".", "..", "/", "folder", "pipe", "/dev/null", "absent/file", "v.h5/file"])
@pytest.mark.parametrize("command", WRITES)
def test_what_cannot_be_written_is_refused_before_anything_is_done(capsys, cache, tmp_path, monkeypatch, command, out):
    (tmp_path / "here" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    video_file(Path("v.h5"))
    os.mkfifo("pipe")
    assert "--out" in refused(capsys, tmp_path, *WRITES[command], out)


@pytest.mark.parametrize("out", ["", ".", "..", "/"])
def test_the_current_folder_is_no_place_for_an_edition(capsys, cache, tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "--out" in refused(capsys, tmp_path, "reproduce", "--profile", "smoke", "--dry-run", "--out", out)


READS = {
    "check": ("data", "check"),
    "data": (*EVALUATE, "--data"),
    "video": ("evaluate", f"{NAME}@0", "--video"),
    "merge": ("runs", "merge"),
}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("command", READS)
def test_only_plain_files_are_read(capsys, cache, tmp_path, command, kind):
    path = tmp_path / "balls4mass_given.h5"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
    assert str(path) in refused(capsys, tmp_path, *READS[command], path)


@pytest.mark.parametrize("seed", [2**64, 10**30, "9" * 100, "²", "-1", "1_0", "0x1"], ids=lambda seed: str(seed)[:8])
def test_a_seed_of_a_run_that_no_generator_takes(capsys, cache, tmp_path, seed):
    for command in ("evaluate", "runs show"):
        assert "seed" in refused(capsys, tmp_path, *command.split(), f"{NAME}@{seed}")


@pytest.mark.parametrize("variable", ["RNEM_DATA", "RNEM_BOOK", "RNEM_AUTHORS"])
def test_a_folder_of_a_user_who_is_not_there(capsys, cache, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "~nouser/x")
    video = f"evaluate {NAME} --video balls4mass_rnem1"
    words = {"RNEM_DATA": "runs list", "RNEM_BOOK": "chapter", "RNEM_AUTHORS": video}[variable]
    assert f"{variable}" in refused(capsys, tmp_path, *words.split())


def test_a_cache_that_is_a_file(capsys, tmp_path, monkeypatch):
    (tmp_path / "data").write_text("no folder\n")
    monkeypatch.setenv("RNEM_DATA", str(tmp_path / "data"))
    for words in ("runs list", f"evaluate {NAME}", f"train {NAME} --accelerator cpu --quiet"):
        assert str(paths.data_root()) in refused(capsys, tmp_path, *words.split())
