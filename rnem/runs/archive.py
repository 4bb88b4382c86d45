"""Finished runs in one file, to bring them home from another machine: packed there, merged here.

An archive is a plain tar of ``<name>-<key>/<file>``, the same bytes for the same runs. Merging trusts nothing in it:
the headers are judged before anything is unpacked, and each run is verified in a folder of its own before it enters
the cache by one rename. A good run that is already there is never replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
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

from rnem import errors, paths
from rnem.errors import ArchiveError
from rnem.model.network import build
from rnem.runs import files, provenance, store
from rnem.runs.files import MANIFEST, replace_file, write_folder
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
_MEMBER = re.compile(rf"([A-Za-z0-9_][A-Za-z0-9_.-]*)/({'|'.join(map(re.escape, LIMITS))})")


@dataclass(frozen=True)
class Outcome:
    """What became of one run of an archive."""

    name: str
    state: Literal["added", "already here", "conflict", "refused"]
    why: str = ""


# -------------------------------------------------------------------------------------------------------------- packing


def pack(chosen: Iterable[Run], out: Path | str, trunk: bool = False) -> None:
    """Write finished runs to a tar file, whole or not at all; ``trunk``: also what a longer run would go on from.

    RunError where a run is damaged, or the file cannot be written.
    """
    out, paths = Path(out), sorted({run.path for run in chosen}, key=lambda path: path.name)
    for path in paths:
        if problems := store.verify(path):
            raise errors.RunError(f"{path}: {problems[0]}")
    with files.writing(f"archive {out}"):
        temporary = files.temporary_name(out)
        try:
            with open(temporary, "wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    for path in paths:
                        _add(tar, path, trunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
        files.sync_folder(out.parent)


def _add(tar: tarfile.TarFile, path: Path, trunk: bool) -> None:
    for name in sorted(LIMITS):
        if (path / name).exists() and (trunk or name != TRUNK):
            data = (path / name).read_bytes()
            member = tarfile.TarInfo(f"{path.name}/{name}")  # no owner, time 0
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


# -------------------------------------------------------------------------------------------------------------- merging


def merge(path: Path | str, root: Path | None = None) -> Iterator[Outcome]:
    """Bring the runs of an archive into the cache, one by one; what became of each, as it happens.

    ArchiveError before anything entered where the archive is damaged, or holds what is no file of a run. A run that is
    not what its manifest says is refused, and one that differs from the one here is a conflict: the others still enter.
    RunError where the disk is full or read-only.
    """
    path, root = Path(path), paths.runs_root() if root is None else Path(root)
    staging = root / ".tmp-merge"  # named so that `store.sweep` removes what a killed process left of it
    with _opened(path) as tar:
        found = _scan(tar, path)
        with files.writing(f"merging into {root}"), filelock.FileLock(files.lock_file(staging), timeout=60):
            for name, members in sorted(found.items()):
                shutil.rmtree(staging, ignore_errors=True)
                try:
                    for member in members:
                        tar.extract(member, staging, filter="data")
                    yield _enter(staging / name, root)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)


class _Reader(io.BufferedReader):
    """A file that is never read in large pieces, whatever sizes the headers in it claim."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MiB:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        file = _Reader(io.FileIO(paths.plain_file(path)))
    except OSError as error:
        raise ArchiveError(f"archive {path} cannot be read: {error.strerror}") from None
    with file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield tar
        except tarfile.TarError as error:
            raise ArchiveError(f"{path} is no whole tar file ({error}): nothing more of it was merged") from None


def _scan(tar: tarfile.TarFile, path: Path) -> dict[str, list[tarfile.TarInfo]]:
    """Folder -> its members, from the headers alone; ArchiveError at the first that should not be there."""
    found: dict[str, dict[str, tarfile.TarInfo]] = {}
    total = 0
    for member in _headers(tar, path):
        if problem := _member_problem(member):
            raise ArchiveError(f"{path} is refused: {member.name[:100]!a} {problem}")
        folder, file = member.name.split("/")
        if file in found.setdefault(folder, {}):
            raise ArchiveError(f"{path} is refused: {member.name!r} is in it twice")
        found[folder][file] = member
        total += member.size
        if total > TOTAL:
            raise ArchiveError(f"{path} is refused: its files have more than {TOTAL} bytes together")
    if not found:
        raise ArchiveError(f"{path} holds no runs")
    return {folder: list(files.values()) for folder, files in found.items()}


def _headers(tar: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Every member; ArchiveError where what comes after the last is not the end of a tar file."""
    try:
        yield from tar
        # tarfile takes a damaged header for the end, and an archive that was cut between two members for a whole one.
        tar.fileobj.seek(tar.offset)
        rest = tar.fileobj.read(MiB)
    except (ValueError, OverflowError) as error:  # of numbers and texts in a header
        raise tarfile.ReadError(f"damaged header: {error}") from None
    if len(rest) < 2 * tarfile.BLOCKSIZE or any(rest) or tar.fileobj.read(1):
        raise ArchiveError(f"{path} is cut off or damaged at byte {tar.offset}: it does not end as a tar file does")


def _member_problem(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "is a link"
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        return "is not a plain file"
    match = _MEMBER.fullmatch(member.name)
    if not match:
        return "is no file of a run"
    if not 0 <= member.size <= LIMITS[match[2]]:
        return f"has {member.size} bytes, and a run's may have {LIMITS[match[2]]}"
    return None


def _enter(folder: Path, root: Path) -> Outcome:
    """Move an unpacked run into the cache, if it is good and nothing else is there."""
    if problem := _problem(folder):
        return Outcome(folder.name, "refused", problem)
    run, target = store.load(folder), root / folder.name
    there = target.exists() and not store.verify(target)
    if not there:
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
        write_folder(target, files, is_good=lambda path: not store.verify(path))
    here = store.load(target)
    if here.manifest["digest"] != run.manifest["digest"]:
        return Outcome(folder.name, "conflict", _difference(here, run))
    if not there:
        return Outcome(folder.name, "added", _other_code(run))
    if (folder / TRUNK).exists() and not (target / TRUNK).exists():
        replace_file(target / TRUNK, (folder / TRUNK).read_bytes())
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
        if run.metrics().empty:
            return f"{METRICS} has no rows"
        weights = run.weights()
        with torch.device("meta"):
            expected = build(run.config.network).state_dict()
    except Exception as error:  # whatever parsers make of files that were written to deceive
        return f"it cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if {n: (t.shape, t.dtype) for n, t in weights.items()} != {n: (t.shape, t.dtype) for n, t in expected.items()}:
        return f"{WEIGHTS} does not fit the network of {CONFIG}"
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        return f"{WEIGHTS} has values that are not finite"
    return None


def _difference(here: Run, other: Run) -> str:
    same = all(here.manifest["files"][name] == other.manifest["files"][name] for name in (WEIGHTS, METRICS))
    what = "with the same weights and metrics and another manifest" if same else "with other weights or metrics"
    made = f"made {here.manifest['created']} on {here.manifest['hardware']}"
    return f"a run {what} is here ({made}), and stays"


def _other_code(run: Run) -> str:
    there, here = run.manifest["code_digest"], provenance.code_digest()
    return "" if there == here else f"trained by other code than is here ({there[:10]}, here {here[:10]})"


# --------------------------------------------------------------------------------------------------------------- remote


@contextlib.contextmanager
def local(source: str, sha256: str | None = None) -> Iterator[Path]:
    """An archive by its path or http(s) address as a file on this disk, gone afterwards where it was downloaded.

    What is downloaded must have the SHA-256 that is asked for, and so must a file where one is. ArchiveError if not.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ArchiveError(f"{sha256!r} is no SHA-256: it has 64 hexadecimal digits")
    if not re.match("https?://", source):
        if sha256 is not None:
            _check(Path(source), sha256)
        yield Path(source)
        return
    if sha256 is None:
        raise ArchiveError(f"{source} is not on this disk: say which SHA-256 it must have")
    import pooch

    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory(prefix="rnem-") as folder:
        try:
            path = pooch.retrieve(source, f"sha256:{sha256}", "runs.tar", folder, progressbar=False)
        except (OSError, ValueError) as error:  # no network; a hash that differs
            raise ArchiveError(f"cannot download {source}: {error}") from None
        yield Path(path)


def _check(path: Path, sha256: str) -> None:
    try:
        with open(paths.plain_file(path), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArchiveError(f"archive {path} cannot be read: {error.strerror}") from None
    if found != sha256:
        raise ArchiveError(f"{path} has the SHA-256 {found}, not {sha256}")
