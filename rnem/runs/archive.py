"""Finished runs in one file, to bring them home from another machine: packed there, merged here.

An archive is a plain tar of ``<name>-<key>/<file>``, the same bytes for the same runs. Its headers are judged before
anything is unpacked, and each run is verified in a folder of its own before it enters the cache by one rename. A good
run that is already there is never replaced.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import torch

from rnem import paths
from rnem.errors import ArchiveError, RunError
from rnem.model.network import build
from rnem.runs import files, provenance, store
from rnem.runs.files import MANIFEST
from rnem.runs.store import CONFIG, METRICS, TRUNK, WEIGHTS, Run

MiB = 2**20
LIMITS = {CONFIG: MiB, MANIFEST: MiB, METRICS: 64 * MiB, WEIGHTS: 256 * MiB, TRUNK: 1024 * MiB}
"""The files of a run, and how large each may be: some ten times what the largest run of the book has."""
TOTAL = 64 * 1024 * MiB
"""How large all files of an archive may be together, bytes."""
FACTS = {
    "updates": int, "sequences_seen": int, "wall_seconds": (int, float), "threads": int, "created": str,
    "hardware": str, "torch": str, "python": str, "code_digest": str,
}  # fmt: skip
"""What a manifest says besides names and hashes, and others rely on."""
_MEMBER = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]*/({'|'.join(map(re.escape, LIMITS))})")


@dataclass(frozen=True)
class Outcome:
    """What became of one run of an archive."""

    name: str
    state: Literal["added", "already here", "conflict", "refused"]
    why: str = ""


def pack(chosen: Iterable[Run], out: Path | str, trunk: bool = False) -> None:
    """Write finished runs to a tar file, whole or not at all; ``trunk``: also what a longer run would go on from.

    RunError where a run is damaged, or the file cannot be written.
    """
    folders = sorted({run.path for run in chosen}, key=lambda path: path.name)
    for folder in folders:
        if problems := store.verify(folder):
            raise RunError(f"{folder}: {problems[0]}")
    wanted = [name for name in sorted(LIMITS) if trunk or name != TRUNK]
    with (
        files.writing(f"archive {out}"),
        files.replacing(Path(out)) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in (folder / name for folder in folders for name in wanted if (folder / name).exists()):
            data, member = path.read_bytes(), tarfile.TarInfo(f"{path.parent.name}/{path.name}")
            member.size = len(data)  # no owner, time 0
            tar.addfile(member, io.BytesIO(data))


def merge(path: Path | str, root: Path | None = None) -> Iterator[Outcome]:
    """Bring the runs of an archive into the cache, one by one; what became of each, as it happens.

    ArchiveError before anything entered where the archive is damaged, or holds what is no file of a run. A run that is
    not what its manifest says is refused, and one that differs from the one here is a conflict: the others still enter.
    RunError where the disk is full or read-only.
    """
    root = paths.runs_root() if root is None else Path(root)
    staging = root / ".tmp-merge"  # named so that `store.sweep` removes what a killed process left of it
    with _read(path), tarfile.open(paths.plain_file(path), "r:") as tar:
        runs = _judged(tar, path)
        with files.writing(f"merging into {root}"), filelock.FileLock(files.lock_file(staging), timeout=60):
            for name, members in sorted(runs.items()):
                shutil.rmtree(staging, ignore_errors=True)
                try:
                    tar.extractall(staging, members.values(), filter="data")
                    yield _enter(staging / name, root)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _read(path: Path | str) -> Iterator[None]:
    """Whatever goes wrong with reading an archive, as one sentence."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(f"archive {path} cannot be read: {error.strerror}") from None
    except tarfile.TarError as error:
        raise ArchiveError(f"{path} is no whole tar file ({error}): nothing more of it was merged") from None


def _judged(tar: tarfile.TarFile, path: Path | str) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Folder -> file -> member, from the headers alone; ArchiveError at the first that should not be there."""
    try:
        members = tar.getmembers()
    except (ValueError, OverflowError, MemoryError) as error:  # of numbers and texts in a header
        raise tarfile.ReadError(f"damaged header: {error}") from None
    runs: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        match, (folder, _, file) = _MEMBER.fullmatch(member.name), member.name.partition("/")
        if member.issym() or member.islnk():
            problem = "is a link"
        elif member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            problem = "is not a plain file"
        elif not match:
            problem = "is no file of a run"
        elif not 0 <= member.size <= LIMITS[file]:
            problem = f"has {member.size} bytes, and a run's may have {LIMITS[file]}"
        else:
            problem = "is in it twice" if file in runs.get(folder, {}) else ""
        if problem:
            raise ArchiveError(f"{path} is refused: {member.name[:100]!a} {problem}")
        runs.setdefault(folder, {})[file] = member
    if sum(member.size for member in members) > TOTAL:
        raise ArchiveError(f"{path} is refused: its files have more than {TOTAL} bytes together")
    # tarfile takes a damaged header for the end, and an archive that was cut between two members for a whole one.
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(tarfile.RECORDSIZE + 1)
    if not 2 * tarfile.BLOCKSIZE <= len(end) <= tarfile.RECORDSIZE or any(end):
        raise ArchiveError(f"{path} is cut off or damaged at byte {tar.offset}: it does not end as a tar file does")
    if not runs:
        raise ArchiveError(f"{path} holds no runs")
    return runs


def _enter(folder: Path, root: Path) -> Outcome:
    """Move an unpacked run into the cache, if it is good and nothing else is there."""
    if problem := _problem(folder):
        return Outcome(folder.name, "refused", problem)
    run, target, entered = store.load(folder), root / folder.name, False
    if not target.exists() or store.verify(target):
        contents = {file.name: file.read_bytes() for file in folder.iterdir()}
        files.write_folder(target, contents, is_good=lambda path: not store.verify(path))
        entered = True
    here = store.load(target)
    if here.manifest["digest"] != run.manifest["digest"]:
        same = all(here.manifest["files"][name] == run.manifest["files"][name] for name in (WEIGHTS, METRICS))
        what = "with the same weights and metrics and another manifest" if same else "with other weights or metrics"
        made = f"made {here.manifest['created']} on {here.manifest['hardware']}"
        return Outcome(folder.name, "conflict", f"a run {what} is here ({made}), and stays")
    if entered:
        codes = [digest[:10] for digest in (run.manifest["code_digest"], provenance.code_digest())]
        other = "" if codes[0] == codes[1] else f"trained by other code than is here ({codes[0]}, here {codes[1]})"
        return Outcome(folder.name, "added", other)
    if (folder / TRUNK).exists() and not (target / TRUNK).exists():
        files.replace_file(target / TRUNK, (folder / TRUNK).read_bytes())
        return Outcome(folder.name, "already here", "its trunk was added")
    return Outcome(folder.name, "already here")


def _problem(folder: Path) -> str | None:
    """What is wrong with an unpacked run, or None. Its hashes may be right and its contents still nonsense."""
    try:
        if problems := store.verify(folder):
            return problems[0]
        if unnamed := store.strangers(folder):
            return f"{unnamed[0]} is there, but {MANIFEST} does not name it"
        run = store.load(folder)
        for name, kind in FACTS.items():
            if not isinstance(run.manifest.get(name), kind):
                return f"{MANIFEST} lacks {name}, or it is {run.manifest.get(name)!r}"
        run.metrics()  # raises where it is no table, or an empty one
        with torch.device("meta"):
            expected = build(run.config.network).state_dict()
        weights = run.weights()
    except Exception as error:  # whatever parsers make of files that hold something else
        return f"it cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not store.fits(weights, expected):
        return f"{WEIGHTS} does not fit the network of {CONFIG}"
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        return f"{WEIGHTS} has values that are not finite"
    return None


@contextlib.contextmanager
def local(source: str, sha256: str | None = None) -> Iterator[Path]:
    """An archive by its path or http(s) address as a file on this disk, gone afterwards where it was downloaded.

    What is downloaded must have the SHA-256 that is asked for, and so must a file where one is. ArchiveError if not.
    """
    import pooch

    is_remote = re.match("https?://", source)
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ArchiveError(f"{sha256!r} is no SHA-256: it has 64 hexadecimal digits")
    if is_remote and sha256 is None:
        raise ArchiveError(f"{source} is not on this disk: say which SHA-256 it must have")
    with tempfile.TemporaryDirectory(prefix="rnem-") as folder:
        path = Path(source)
        if is_remote:
            pooch.get_logger().setLevel("WARNING")
            try:
                path = Path(pooch.retrieve(source, f"sha256:{sha256}", "runs.tar", folder, progressbar=False))
            except (OSError, ValueError) as error:  # no network; a hash that differs
                raise ArchiveError(f"cannot download {source}: {error}") from None
        elif sha256 is not None:
            with _read(source):
                found = pooch.file_hash(str(paths.plain_file(path)))
            if found != sha256:
                raise ArchiveError(f"{path} has the SHA-256 {found}, not {sha256}")
        yield path
