"""Files that are whole or absent: atomic writing, and checkpoints that notice when they were damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import safetensors.torch
import torch


class RunError(ValueError):
    """A run or checkpoint that cannot be used or written; one sentence that names the file and what is wrong."""


def write_state(path: Path | str, tensors: Mapping[str, torch.Tensor], meta: dict) -> None:
    """Replace a checkpoint by a new one in one step: tensors, and JSON meta data, in one safetensors file.

    RunError where it cannot be written; the old checkpoint is then still there, whole.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(f"checkpoint {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_file(temporary, pack(tensors, meta))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def read_state(path: Path | str) -> tuple[dict[str, torch.Tensor], dict] | None:
    """What :func:`write_state` wrote: tensors and meta data; None where there is none. RunError says what to delete."""
    try:
        data = Path(path).read_bytes()
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
    # One metadata entry only: safetensors writes several in an order that changes from process to process.
    tensors, meta = portable(tensors), json.loads(canonical(meta))
    return safetensors.torch.save(tensors, {"rnem": canonical({"meta": meta, "sha256": _fingerprint(tensors, meta)})})


def unpack(data: bytes, path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Inverse of :func:`pack`; RunError where a bit is not as it was written."""
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        record = json.loads(header["__metadata__"]["rnem"])
        meta, good = record["meta"], record["sha256"] == _fingerprint(tensors, record["meta"])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise RunError(f"{path} is truncated or was edited: delete it to start again without it")
    return tensors, meta


def _fingerprint(tensors: Mapping[str, torch.Tensor], meta: dict) -> str:
    """SHA-256 over meta data and tensors, in the order of their names."""
    digest = hashlib.sha256(canonical(meta).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def portable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them."""
    return {name: t.detach().clone(memory_format=torch.contiguous_format).cpu() for name, t in tensors.items()}


def write_file(path: Path, data: bytes) -> None:
    """Write, and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make a rename in this folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
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
