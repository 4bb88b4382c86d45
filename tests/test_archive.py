"""Runs brought home in a tar file: good ones enter the cache whole, and nothing else gets in or out."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import random
import re
import shutil
import tarfile
import threading

import pytest
import torch

from rnem import errors
from rnem.cli.main import main
from rnem.errors import ArchiveError
from rnem.model.network import build
from rnem.runs import archive, store
from rnem.runs.experiments import named
from rnem.runs.files import seal

CONFIG = named("smoke-balls4mass-rnn")
FACTS = {"wall_seconds": 1.5, "updates": 40, "sequences_seen": 320}
METRICS = [{"update": 20, "loss": 3.5}, {"update": 40, "loss": 1 / 3}]


@functools.cache
def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build(CONFIG.network).state_dict()


def save(root, seed=0, drawn=None, **others) -> store.Run:
    """A finished run; ``drawn``: whose weights, where not the seed's own."""
    trunk = {"momentum": torch.ones(2, 3)}
    return store.save(
        CONFIG.replace(seed=seed), weights=weights(seed if drawn is None else drawn), metrics=METRICS,
        manifest={**FACTS, **others}, trunk=trunk, trunk_meta={"update": 32}, root=root,
    )  # fmt: skip


@pytest.fixture
def box(tmp_path):
    """Another machine: two finished runs, and both in a tar file."""
    found = [save(tmp_path / "box", seed) for seed in (0, 1)]
    archive.pack(found, tmp_path / "runs.tar")
    return found


def merged(path, root) -> dict[str, str]:
    return {outcome.name.rsplit("-", 1)[1]: outcome.state for outcome in archive.merge(path, root)}


def members(run) -> dict[str, bytes]:
    return {f"{run.path.name}/{file.name}": file.read_bytes() for file in sorted(run.path.iterdir())}


def write_tar(path, files: dict[str, bytes], *others: tarfile.TarInfo):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in others:
            tar.addfile(member)
    return path


# ------------------------------------------------------------------------------------------------------ there and back


def test_what_was_packed_is_merged_bit_by_bit(box, tmp_path):
    home = tmp_path / "home"
    assert merged(tmp_path / "runs.tar", home) == {run.key: "added" for run in box}
    for run in box:
        assert store.verify(home / run.path.name) == []
        for file in ("config.json", "metrics.csv", "weights.safetensors", "manifest.json"):
            assert (home / run.path.name / file).read_bytes() == (run.path / file).read_bytes()
        assert store.load(home / run.path.name).trunk() is None
    assert {path.name for path in home.iterdir()} == {run.path.name for run in box} | {".work"}


def test_the_same_runs_give_the_same_bytes_in_any_order(box, tmp_path):
    archive.pack([*reversed(box), box[0]], tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "runs.tar").read_bytes()
    with tarfile.open(tmp_path / "runs.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_a_trunk_travels_where_it_is_asked_for_and_completes_a_run_that_lacks_it(box, tmp_path):
    archive.pack(box, tmp_path / "long.tar", trunk=True)
    home = tmp_path / "home"
    assert merged(tmp_path / "runs.tar", home) == {run.key: "added" for run in box}
    assert [o.why for o in archive.merge(tmp_path / "long.tar", home)] == 2 * ["its trunk was added"]
    assert [o.why for o in archive.merge(tmp_path / "long.tar", home)] == 2 * [""]
    assert torch.equal(store.load(home / box[0].path.name).trunk()[0]["momentum"], torch.ones(2, 3))


def test_a_run_whose_weights_are_kept_in_float16_travels_and_is_read_in_float32(tmp_path):
    half = {name: each.half() for name, each in weights(0).items()}
    run = store.save(CONFIG, weights=half, metrics=METRICS, manifest=FACTS, root=tmp_path / "box")
    assert {each.dtype for each in run.weights().values()} == {torch.float32}
    assert all(torch.equal(each, half[name].float()) for name, each in run.weights().items())
    archive.pack([run], tmp_path / "runs.tar")
    assert list(merged(tmp_path / "runs.tar", tmp_path / "here").values()) == ["added"]


def test_a_run_that_is_here_stays_and_one_that_differs_is_a_conflict(box, tmp_path):
    home = tmp_path / "home"
    mine = save(home, seed=0, drawn=7)
    before = members(mine)
    added, conflict = sorted(archive.merge(tmp_path / "runs.tar", home), key=lambda outcome: outcome.state)
    assert (conflict.name, conflict.state, added.state) == (mine.path.name, "conflict", "added")
    assert re.search("a run with other weights or metrics is here .*, and stays", conflict.why)
    assert members(mine) == before
    assert merged(tmp_path / "runs.tar", home) == {box[0].key: "conflict", box[1].key: "already here"}


def test_the_same_weights_with_another_manifest_are_called_so(box, tmp_path):
    save(tmp_path / "home", seed=0, wall_seconds=9.0)
    _, conflict = sorted(archive.merge(tmp_path / "runs.tar", tmp_path / "home"), key=lambda outcome: outcome.state)
    assert "with the same weights and metrics and another manifest" in conflict.why


def test_a_broken_run_makes_room_for_a_good_one(box, tmp_path):
    mine = save(tmp_path / "home", seed=0, drawn=7)
    (mine.path / "metrics.csv").write_text("update\n")
    with pytest.warns(UserWarning, match=r"was broken; it is now \.broken-0-"):
        assert merged(tmp_path / "runs.tar", tmp_path / "home") == {run.key: "added" for run in box}
    assert len(list((tmp_path / "home").glob(".broken-*/metrics.csv"))) == 1


def test_other_code_is_reported(tmp_path):
    other = save(tmp_path / "box", hardware="H100", threads=2, commit="0" * 40, dirty=False, code_digest="f" * 64,
                 torch="2.9", python="3.12")  # fmt: skip
    archive.pack([other], tmp_path / "runs.tar")
    (outcome,) = archive.merge(tmp_path / "runs.tar", tmp_path / "home")
    assert outcome.state == "added"
    assert outcome.why.startswith("trained by other code than is here (ffffffffff, here ")


def test_a_damaged_run_is_not_packed(box, tmp_path):
    (box[1].path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(errors.RunError, match=r"weights\.safetensors is truncated"):
        archive.pack(box, tmp_path / "new.tar")
    assert not (tmp_path / "new.tar").exists()


# ------------------------------------------------------------------------------------------------- what is not let in


def refused(path, home, sentence: str) -> None:
    """Nothing enters and nothing appears elsewhere; one sentence says why."""
    around = {item for item in path.parent.rglob("*") if home not in item.parents and item != home}
    with pytest.raises(ArchiveError, match=sentence) as caught:
        list(archive.merge(path, home))
    assert "\n" not in str(caught.value)
    assert store.folders(home) == []
    assert list(home.glob(".tmp-*")) == []
    assert {item for item in path.parent.rglob("*") if home not in item.parents and item != home} == around


@pytest.mark.parametrize(
    "name",
    ["../evil-0123456789/config.json", "/tmp/evil-0123456789/config.json", "a/../../config.json", "config.json",
     "a/b/config.json", "../config.json", "./config.json", ".work/config.json", "a\\..\\b/config.json",
     "a-0123456789/weights.pkl", "a-0123456789/config.json\n", "a-0123456789/.config.json", "a-0123456789/x.py"],
)  # fmt: skip
def test_a_path_that_is_none_of_a_run_is_refused(box, tmp_path, name):
    files = members(box[0]) | {name: pickle.dumps({"weights": 1})}
    refused(write_tar(tmp_path / "evil.tar", files), tmp_path / "home", r"evil\.tar is refused: .* is no file of a run")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.DIRTYPE, "is not a plain file"),
        (tarfile.FIFOTYPE, "is not a plain file"),
        (tarfile.CHRTYPE, "is not a plain file"),
        (tarfile.CONTTYPE, "is not a plain file"),
    ],
)
def test_what_is_no_plain_file_is_refused(box, tmp_path, kind, sentence):
    member = tarfile.TarInfo(f"{box[1].path.name}/weights.safetensors")
    member.type, member.linkname = kind, "/etc/passwd"
    refused(write_tar(tmp_path / "evil.tar", members(box[0]), member), tmp_path / "home", sentence)


def sparse(name: str, size: int) -> bytes:
    """Header of a GNU sparse member: ``size`` bytes, all of them holes."""
    member = tarfile.TarInfo(name)
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(header)


def test_ten_gigabytes_of_holes_are_refused_without_unpacking_them(box, tmp_path):
    evil = tmp_path / "evil.tar"
    evil.write_bytes(sparse(f"{box[0].path.name}/weights.safetensors", 10 * 2**30) + bytes(10240 - 512))
    with tarfile.open(evil) as tar:
        (member,) = tar
        assert member.issparse()
        assert member.size == 10 * 2**30
    refused(evil, tmp_path / "home", "is not a plain file")


def test_a_member_larger_than_any_run_has_is_refused(box, tmp_path):
    member = tarfile.TarInfo(f"{box[0].path.name}/config.json")
    member.size = 10 * 2**30
    evil = tmp_path / "evil.tar"
    evil.write_bytes(member.tobuf())
    os.truncate(evil, 10 * 2**30 + 10240)  # holes, so that the disk is not filled
    refused(evil, tmp_path / "home", f"has {10 * 2**30} bytes, and a run's may have {2**20}")


def test_a_header_that_claims_gigabytes_is_refused(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 10 * 2**30
    evil = tmp_path / "evil.tar"
    evil.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(evil, tmp_path / "home", "no whole tar file")


def test_the_size_of_all_files_together_is_bounded(box, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "TOTAL", 1000)
    refused(tmp_path / "runs.tar", tmp_path / "home", "more than 1000 bytes together")


def test_a_file_that_is_in_it_twice_is_refused(box, tmp_path):
    member = tarfile.TarInfo(f"{box[0].path.name}/config.json")
    refused(write_tar(tmp_path / "evil.tar", members(box[0]), member), tmp_path / "home", "is in it twice")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no whole tar file"),
        (b"not a tar file\n", "no whole tar file"),
        (b"\x1f\x8b\x08\x00" + bytes(2000), "no whole tar file"),
        (bytes(10240), "holds no runs"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path, data, sentence):
    (tmp_path / "notes.tar").write_bytes(data)
    refused(tmp_path / "notes.tar", tmp_path / "home", sentence)


def test_an_archive_that_was_cut_anywhere_is_refused(box, tmp_path):
    whole, cut = (tmp_path / "runs.tar").read_bytes(), tmp_path / "cut.tar"
    with tarfile.open(tmp_path / "runs.tar") as tar:
        between = [member.offset for member in tar][1:]
    end = len(whole.rstrip(b"\0"))
    for length in (*between, 100, 512, 5000, end // 2, end - 1, end + 512):
        cut.write_bytes(whole[:length])
        refused(cut, tmp_path / "home", r"cut\.tar is (cut off or damaged at byte \d+|no whole tar file)")


def test_no_flipped_bit_gets_a_run_in_that_was_not_sent(box, tmp_path):
    whole, chance, home = (tmp_path / "runs.tar").read_bytes(), random.Random(0), tmp_path / "home"
    with tarfile.open(tmp_path / "runs.tar") as tar:
        headers = [member.offset for member in tar]
    sent = [members(run) for run in box]
    for number in range(80):
        flipped = bytearray(whole)
        place = chance.choice(headers) + chance.randrange(512) if number % 2 else chance.randrange(len(whole))
        flipped[place] ^= 1 << chance.randrange(8)
        (tmp_path / "flipped.tar").write_bytes(flipped)
        with contextlib.suppress(ArchiveError):
            list(archive.merge(tmp_path / "flipped.tar", home))
        for run in store.find(root=home):
            assert any(members(run).items() <= of_one.items() for of_one in sent)
        assert not list(home.glob(".tmp-*"))
        shutil.rmtree(home, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------- runs that lie


def forged(run, **changes: bytes) -> dict[str, bytes]:
    """The run with files replaced (``config_json``: config.json) and a manifest whose hashes are right."""
    named = {file.name: file.read_bytes() for file in run.path.iterdir() if file.name != "manifest.json"}
    named |= {name.replace("_", "."): data for name, data in changes.items()}
    return {f"{run.path.name}/{name}": data for name, data in seal(named, run.manifest).items()}


def edited(run, **changes) -> bytes:
    """Its manifest with other facts (None leaves one out), and a digest that is right."""
    tree = {name: value for name, value in {**run.manifest, **changes}.items() if value is not None}
    files = {file.name: file.read_bytes() for file in run.path.iterdir() if file.name != "manifest.json"}
    return seal(files, tree)["manifest.json"]


LIES = {
    "weights that do not match the manifest": (
        lambda run: members(run) | {f"{run.path.name}/weights.safetensors": members(run)[
            f"{run.path.name}/weights.safetensors"][:-1] + b"\7"},
        r"weights\.safetensors was edited",
    ),
    "no weights": (
        lambda run: {name: data for name, data in members(run).items() if "weights" not in name},
        r"weights\.safetensors is missing",
    ),
    "no manifest": (
        lambda run: {name: data for name, data in members(run).items() if "manifest" not in name},
        r"manifest\.json is missing",
    ),
    "a pickle named weights": (
        lambda run: forged(run, weights_safetensors=pickle.dumps({"w": 1})),
        r"cannot read .*weights\.safetensors: SafetensorError",
    ),
    "weights of another network": (
        lambda run: forged(run, weights_safetensors=torch_bytes({"w": torch.ones(3)})),
        "does not fit the network",
    ),
    "weights that are no numbers": (
        lambda run: forged(run, weights_safetensors=torch_bytes(
            {name: tensor * float("nan") for name, tensor in run.weights().items()})),
        "not finite",
    ),
    "a config that is none": (
        lambda run: forged(run, config_json=members(run)[f"{run.path.name}/config.json"].replace(b"noise", b"nose")),
        "not a run config: .*nose",
    ),
    "a config without end": (
        lambda run: forged(run, config_json=b"[" * 100_000),
        r"config\.json cannot be read: maximum recursion",
    ),
    "metrics that are none": (
        lambda run: forged(run, metrics_csv=b"update\nseven\n"),
        r"cannot read .*metrics\.csv: ValueError",
    ),
    "a manifest without a fact": (
        lambda run: members(run) | {f"{run.path.name}/manifest.json": edited(run, wall_seconds=None)},
        r"manifest\.json lacks wall_seconds",
    ),
    "a manifest with nonsense": (
        lambda run: members(run) | {f"{run.path.name}/manifest.json": edited(run, threads="many")},
        "lacks threads, or it is 'many'",
    ),
}  # fmt: skip


def torch_bytes(tensors) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(tensors)


@pytest.mark.parametrize("lie", LIES)
def test_a_run_that_lies_is_refused_and_the_others_enter(box, tmp_path, lie):
    forge, sentence = LIES[lie]
    evil = write_tar(tmp_path / "evil.tar", forge(box[0]) | members(box[1]))
    first, second = sorted(archive.merge(evil, tmp_path / "home"), key=lambda outcome: outcome.state, reverse=True)
    assert (first.state, second.state) == ("refused", "added")
    assert re.search(sentence, first.why), first.why
    assert [run.seed for run in store.find(root=tmp_path / "home")] == [1]


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``rnem runs …`` in a cache: its exit code, and what it says."""

    def call(cache: str, *words: object) -> tuple[int, str]:
        monkeypatch.setenv("RNEM_DATA", str(tmp_path / cache))
        code = main(["runs", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_from_one_cache_to_another_by_command(command, tmp_path):
    for seed in (0, 1):
        save(tmp_path / "box" / "runs", seed)
    tar = tmp_path / "some.tar"
    code, said = command("box", "pack", f"{CONFIG.name}@1", "--out", tar)
    assert (code, said[:6]) == (0, "1 runs")
    assert command("home", "merge", tar) == (0, f"{store.folder(CONFIG.replace(seed=1)).name}: added\n1 added\n")
    for words in ([], [CONFIG.name], [tmp_path / "box/runs" / store.folder(CONFIG).name, f"{CONFIG.name}@1"]):
        code, said = command("box", "pack", *words, "--out", tar)
        assert (code, said[:6]) == (0, "2 runs")
    code, said = command("home", "merge", tar)
    assert code == 0
    assert said.endswith("1 added, 1 already here\n") or said.endswith("1 already here, 1 added\n")
    save(tmp_path / "other" / "runs", 0, drawn=7)
    code, said = command("other", "merge", tar)
    assert code == 1
    assert f"{store.folder(CONFIG).name}: conflict: a run with other weights" in said


def test_what_a_user_does_wrong_is_one_sentence(command, tmp_path):
    (tmp_path / "notes.tar").write_text("no archive")
    for words, sentence in (
        (("merge", tmp_path / "absent.tar"), r"absent\.tar cannot be read: No such file"),
        (("merge", tmp_path), "cannot be read: Is a directory"),
        (("merge", tmp_path / "notes.tar"), "no whole tar file"),
        (("merge", tmp_path / "notes.tar", "--sha256", "0" * 64), "has the SHA-256 [0-9a-f]{64}, not 0000"),
        (("merge", tmp_path / "notes.tar", "--sha256", "abc"), "'abc' is no SHA-256"),
        (("merge", "https://example.org/runs.tar"), "say which SHA-256 it must have"),
        (("pack", "--out", tmp_path / "a.tar"), "there is no finished run in"),
        (("pack", "nonsense", "--out", tmp_path / "a.tar"), "no run is named 'nonsense'"),
    ):
        code, said = command("empty", *words)
        assert code == 2
        assert re.fullmatch(rf"error: .*{sentence}.*\n", said), said
    save(tmp_path / "box" / "runs")
    code, said = command("box", "pack", "--out", tmp_path / "absent" / "a.tar")
    assert (code, said) == (2, f"error: --out is {tmp_path}/absent/a.tar, and there is no folder {tmp_path}/absent\n")


def test_an_archive_from_an_address_needs_the_right_hash(box, command, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.func.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        sha256 = hashlib.sha256((tmp_path / "runs.tar").read_bytes()).hexdigest()
        code, said = command("home", "merge", f"{address}/runs.tar", "--sha256", "0" * 64)
        assert code == 2
        assert re.fullmatch(r"error: cannot download http.*\n", said)
        code, said = command("home", "merge", f"{address}/absent.tar", "--sha256", sha256)
        assert code == 2
        assert re.fullmatch(r"error: cannot download http.*\n", said)
        code, said = command("home", "merge", f"{address}/runs.tar", "--sha256", sha256)
        assert (code, said.splitlines()[-1]) == (0, "2 added")
        server.shutdown()
    assert json.loads((tmp_path / "home/runs" / box[0].path.name / "manifest.json").read_bytes()) == box[0].manifest
