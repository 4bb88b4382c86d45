"""Runs that travel in a tar file, and files that only look like one."""

from __future__ import annotations

import functools
import io
import itertools
import pickle
import signal
import tarfile
from pathlib import Path

from injected.case import Case, Happened, die_at, expect, line, registry
from injected.lab import NAME, VICTIM, Lab, Said, fill, small_disk, undisturbed
from rnem.runs import store
from rnem.runs.files import MANIFEST, seal

CASES: list[Case] = []
case = registry(CASES)

# ------------------------------------------------------------------------------------------------------------- archives


def packed(lab: Lab) -> Path:
    """The undisturbed run in a tar file, as another machine sends it."""
    path = lab.folder / "runs.tar"
    assert lab.rnem("runs", "pack", f"{NAME}@1", "--out", path, RNEM_DATA=undisturbed() / "data").code == 0
    return path


def merges(lab: Lab, path: Path) -> bool:
    return lab.rnem("runs", "merge", path).code == 0 and lab.ends_the_same()


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    if kind == tarfile.SYMTYPE:
        info.linkname = "/etc/passwd"
    return info, io.BytesIO(data)


def with_more(lab: Lab, *more: tuple[tarfile.TarInfo, io.BytesIO]) -> Path:
    path = lab.folder / "evil.tar"
    path.write_bytes(packed(lab).read_bytes())
    with tarfile.open(path, "a") as tar:
        for info, data in more:
            tar.addfile(info, data)
    return path


def refused_whole(lab: Lab, name: str, data: bytes, kind: bytes, sentence: str) -> Happened:
    said = lab.rnem("runs", "merge", with_more(lab, member(name, data, kind)))
    expect(said, 2, f"error: .*evil.tar is refused: .*{sentence}")
    assert not lab.victim.exists(), "nothing of it entered"
    assert not (lab.folder / "evil-0123456789").exists()
    return said, merges(lab, lab.folder / "runs.tar")


for _id, _fault, _name, _data, _kind, _sentence in (
    ("archive-path", "an archive with ../", "../../evil-0123456789/config.json", b"{}",
     tarfile.REGTYPE, "is no file of a run"),
    ("archive-link", "an archive with a link", f"{NAME}-0123456789/config.json", b"", tarfile.SYMTYPE, "is a link"),
    ("archive-pickle", "an archive with a pickle", f"{NAME}-0123456789/weights.pkl", pickle.dumps({"w": 1}),
     tarfile.REGTYPE, "no file of a run"),
):  # fmt: skip
    case(_fault, "`rnem runs merge` of a good run and this", _name, _data, _kind, _sentence, id=_id)(refused_whole)


@case("an archive with 10 GB of holes", "a sparse member of 10 GB, in a file of 10 KB")
def archive_sparse(lab: Lab) -> Happened:
    info = tarfile.TarInfo(f"{lab.victim.name}/weights.safetensors")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = tarfile.itn(10 * 2**30, 12, tarfile.GNU_FORMAT)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path = lab.folder / "evil.tar"
    path.write_bytes(bytes(header) + bytes(10240 - len(header)))
    with tarfile.open(path) as tar:
        assert [each.size for each in tar] == [10 * 2**30]
    said = lab.rnem("runs", "merge", path)
    expect(said, 2, "is not a plain file")
    return said, merges(lab, packed(lab))


@case("an archive whose weights do not match the manifest", "a bit of the weights flipped inside the tar file")
def archive_bit(lab: Lab) -> Happened:
    path = packed(lab)
    with tarfile.open(path) as tar:
        place = tar.getmember(f"{lab.victim.name}/weights.safetensors")
    data = bytearray(path.read_bytes())
    data[place.offset_data + place.size // 2] ^= 1
    (lab.folder / "evil.tar").write_bytes(data)
    said = lab.rnem("runs", "merge", lab.folder / "evil.tar")
    sentence = line(said, f"{lab.victim.name}: refused: weights.safetensors was edited")
    assert said.code == 1
    assert not lab.victim.exists()
    return Said(said.code, sentence, ""), merges(lab, path)


@case("an archive that was cut off", "half of the file")
def archive_half(lab: Lab) -> Happened:
    path = packed(lab)
    (lab.folder / "half.tar").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = lab.rnem("runs", "merge", lab.folder / "half.tar")
    expect(said, 2, "error: .*half.tar is (cut off|no whole tar file)")
    assert not lab.victim.exists()
    return said, merges(lab, path)


@case("an archive with another run of the same config", "the run here was made on another day")
def archive_conflict(lab: Lab) -> Happened:
    path = packed(lab)
    lab.finish_victim()
    files = {file.name: file.read_bytes() for file in lab.victim.iterdir() if file.name != MANIFEST}
    mine = seal(files, store.load(VICTIM, lab.cache).manifest | {"created": "2018-04-30T00:00:00Z"})
    (lab.victim / MANIFEST).write_bytes(mine[MANIFEST])
    said = lab.rnem("runs", "merge", path)
    sentence = line(said, f"{lab.victim.name}: conflict: ")
    assert said.code == 1
    assert (lab.victim / MANIFEST).read_bytes() == mine[MANIFEST], "what is here stays"
    return Said(said.code, sentence, ""), lab.trains_on()


@case("a merge is killed", "kill -9 at each of its writes, syncs and renames, one after the other", slow=True)
def kill_merge(lab: Lab) -> Happened:
    path = packed(lab)
    for moment in itertools.count(1):
        said = lab.rnem("runs", "merge", path, patch=functools.partial(die_at, moment))
        if said.code == 0:
            break
        expect(said, -signal.SIGKILL, "nothing")
        assert not lab.victim.exists() or lab.ends_the_same(), "whole or absent"
        killed = said
    return Said(killed.code, "", ""), moment > 5 and merges(lab, path) and not list(lab.cache.glob(".tmp-*"))


@case("the disk is full when runs are merged", "the cache on a tmpfs that has no room for another run")
def full_at_merge(lab: Lab) -> Happened:
    path, kept = packed(lab), {f: f.read_bytes() for f in lab.cache.rglob("*") if f.is_file()}
    with small_disk(lab.cache, "512k") as patch:
        for file, data in kept.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if patch is None:
            fill(lab.cache / ".filler")
        said = lab.rnem("runs", "merge", path, patch=patch)
        expect(said, 2, "error: .* could not be written: No space left on device")
        assert lab.lost() == 0
        assert not lab.victim.exists()
    return said, merges(lab, path)


@case("two commands merge one archive", "both start at once")
def two_merges(lab: Lab) -> Happened:
    path = packed(lab)
    both = [lab.start("runs", "merge", path) for _ in range(2)]
    first, second = sorted((command.wait() for command in both), key=lambda said: said.out)  # "added" comes first
    for said, state in ((first, "added"), (second, "already here")):
        assert (said.code, said.out) == (0, f"{lab.victim.name}: {state}\n1 {state}\n"), said
    return second, lab.ends_the_same()


@case("the disk is full when runs are packed", "the file on a tmpfs of 16 KB, where an older one is")
def full_at_pack(lab: Lab) -> Happened:
    folder = lab.folder / "stick"
    words = ("runs", "pack", "--out", folder / "runs.tar")
    with small_disk(folder, "16k") as patch:
        (folder / "runs.tar").write_bytes(b"older")
        said = lab.rnem(*words, patch=patch)
        expect(said, 2, "error: archive .*runs.tar could not be written: No space left on device")
        assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("runs.tar", b"older")]
    return said, lab.rnem(*words).code == 0


@case("an archive that is not the one that was meant", "`rnem runs merge --sha256` with the hash of another file")
def archive_hash(lab: Lab) -> Happened:
    path = packed(lab)
    said = lab.rnem("runs", "merge", path, "--sha256", "0" * 64)
    expect(said, 2, "error: .*runs.tar has the SHA-256 [0-9a-f]{64}, not 0{64}")
    assert not lab.victim.exists()
    return said, merges(lab, path)
