"""Files and folders that are whole or absent, and that notice when they were damaged.

A checkpoint is one safetensors file with a hash of itself in its header, replaced in one step. A sealed folder holds
files and a ``manifest.json`` with the size and hash of each, and of itself; it appears by one rename.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from rnem.errors import RunError
from rnem.paths import plain_file

if TYPE_CHECKING:
    import torch  # which takes seconds to import, and is imported where tensors are read or written

MANIFEST = "manifest.json"
ABANDONED = 3600
"""Seconds after which nobody is writing a temporary file any more; it takes one or two."""


# ---------------------------------------------------------------------------------------------------------- checkpoints


def write_state(path: Path | str, tensors: Mapping[str, torch.Tensor], meta: dict) -> None:
    """Replace a checkpoint by a new one in one step: tensors, and JSON meta data, in one safetensors file.

    RunError where it cannot be written; the old checkpoint is then still there, whole.
    """
    with writing(f"checkpoint {path}"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), pack(tensors, meta))


def read_state(path: Path | str) -> tuple[dict[str, torch.Tensor], dict] | None:
    """What :func:`write_state` wrote: tensors and meta data; None where there is none. RunError says what to delete."""
    try:
        data = plain_file(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    return unpack(data, Path(path))


def canonical(tree, allow_nan: bool = True) -> str:
    """JSON in the one way that is hashed: sorted names, no spaces."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)


def pack(tensors: Mapping[str, torch.Tensor], meta: dict) -> bytes:
    """One safetensors file in memory: tensors, and in its header the meta data and a SHA-256 over both."""
    import safetensors.torch

    # One metadata entry only: safetensors writes several in an order that changes from process to process.
    tensors, meta = portable(tensors), json.loads(json.dumps(meta))
    return safetensors.torch.save(tensors, {"rnem": canonical({"meta": meta, "sha256": _fingerprint(tensors, meta)})})


def unpack(data: bytes, path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Inverse of :func:`pack`; RunError where a bit is not as it was written."""
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        record = json.loads(header["__metadata__"]["rnem"])
        meta, good = record["meta"], record["sha256"] == _fingerprint(tensors, record["meta"])
    except Exception:  # whatever parsers make of files that were damaged, or written to deceive
        good = False
    if not good:
        raise RunError(f"{path} is truncated or was edited: delete it to start again without it")
    return tensors, meta


def _fingerprint(tensors: Mapping[str, torch.Tensor], meta: dict) -> str:
    """SHA-256 over meta data and tensors, in the order of their names."""
    import torch

    digest = hashlib.sha256(canonical(meta).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def portable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them."""
    import torch

    return {name: t.detach().clone(memory_format=torch.contiguous_format).cpu() for name, t in tensors.items()}


# ------------------------------------------------------------------------------------------------------- sealed folders


def seal(files: Mapping[str, bytes], manifest: dict) -> dict[str, bytes]:
    """The files and a manifest that vouches for them: their sizes and hashes, and a digest of the manifest itself."""
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    tree = {**manifest, "files": entries}
    return {**files, MANIFEST: (json.dumps({**tree, "digest": _digest(tree)}, indent=2) + "\n").encode()}


def read_manifest(path: Path, allowed: tuple[str, ...]) -> dict:
    """The manifest of a sealed folder; RunError where it is missing or damaged, or names a file that is not allowed."""
    try:
        manifest = json.loads(plain_file(path / MANIFEST).read_bytes())
        good = isinstance(manifest, dict) and manifest.get("digest") == _digest(manifest)
    except FileNotFoundError:
        raise RunError(f"{MANIFEST} is missing, so the run is half-written") from None
    except OSError as error:
        raise RunError(f"{MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):  # the latter where it is nested too deep
        raise RunError(f"{MANIFEST} is truncated or edited: it is not JSON") from None
    if not good:
        raise RunError(f"{MANIFEST} was edited: its digest does not match")
    try:
        whole = all(isinstance(entry["bytes"], int) and entry["sha256"] for entry in manifest["files"].values())
    except (AttributeError, KeyError, TypeError):
        whole = False
    if not whole or not isinstance(manifest.get("updates"), int) or not 0 <= manifest["updates"] < 2**63:
        raise RunError(f"{MANIFEST} lacks the number of updates, or the size or hash of a file")
    if strange := set(manifest["files"]) - set(allowed):
        raise RunError(f"{MANIFEST} names {min(strange)!r}, which is no file of a run")
    return manifest


def _digest(manifest: dict) -> str:
    return hashlib.sha256(canonical({k: v for k, v in manifest.items() if k != "digest"}).encode()).hexdigest()


def file_problem(path: Path, name: str, expected: dict | None, hashed: bool = True) -> str | None:
    """What is wrong with one file of a sealed folder, or None."""
    file = path / name
    if expected is None:
        return f"{name} is not named by {MANIFEST}"
    if file.is_symlink() or not file.is_file():
        return f"{name} is {'not a plain file' if file.exists() else 'missing'}"
    try:
        size = file.stat().st_size
        if size != expected["bytes"]:
            what = "truncated" if size < expected["bytes"] else "edited"
            return f"{name} is {what}: {size} of {expected['bytes']} bytes"
        if hashed and hashlib.sha256(file.read_bytes()).hexdigest() != expected["sha256"]:
            return f"{name} was edited: its SHA-256 is not the one in {MANIFEST}"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return None


def write_folder(target: Path, files: Mapping[str, bytes], is_good: Callable[[Path], bool]) -> None:
    """Make a folder appear by one rename, unless a good one is there; a broken one is set aside, not deleted.

    RunError where the disk is full or read-only; what was there stays.
    """
    temporary = target.with_name(f".tmp-{target.name}")
    with writing(f"run {target}"):
        sweep_folder(target.parent)
        # Whoever writes this temporary folder holds its lock: that tells a live writer from a dead one's leavings.
        with filelock.FileLock(lock_file(temporary), timeout=60):
            if target.exists() and is_good(target):
                return
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                temporary.mkdir()
                for name, data in files.items():
                    write_file(temporary / name, data)
                sync(temporary)
                if target.exists():
                    set_aside(target, "was broken; it is now {aside}, and a new run takes its place")
                os.rename(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            sync(target.parent)


def sweep_folder(root: Path) -> list[Path]:
    """Remove half-written folders whose writer is dead; returns them."""
    removed = []
    for path in sorted(root.glob(".tmp-*")):
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock_file(path), timeout=0):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def lock_file(path: Path) -> Path:
    """The lock that goes with a folder; it lies apart, so that the folder may come and go."""
    locks = path.parent / ".work" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"{path.name.removeprefix('.')}.lock"


def set_aside(target: Path, said: str) -> None:
    """Rename a broken folder to a hidden one, and warn of it with the sentence ``said``."""
    aside = next(p for n in range(10**6) if not (p := target.parent / f".broken-{n}-{target.name}").exists())
    os.rename(target, aside)
    warnings.warn(f"{target} {said.format(aside=aside.name)}", stacklevel=5)


# -------------------------------------------------------------------------------------------------------------- writing


def write_file(path: Path, data: bytes) -> None:
    """Write, and wait until it is on the disk."""
    path.write_bytes(data)
    sync(path)


def replace_file(path: Path, data: bytes) -> None:
    """Make a file appear, or replace an older one, in one step."""
    with replacing(path) as temporary:
        write_file(temporary, data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name of this writer's own beside ``path``; what is written there takes the place of ``path`` in one step.

    Where the block raises, ``path`` is as it was, and nothing is left. What writers that were killed left an hour ago
    or earlier is removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file is on the disk, or, where the system can, the names in a folder: they last a power cut."""
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Full and read-only disks, missing rights and missing locks, as one sentence."""
    try:
        yield
    except filelock.Timeout as error:
        raise RunError(f"{what} is being written by another process ({error.lock_file} is held)") from error
    except (OSError, NotImplementedError) as error:
        raise RunError(f"{what} could not be written: {getattr(error, 'strerror', None) or error}") from error
