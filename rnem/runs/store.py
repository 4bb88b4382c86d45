"""The run cache: one folder per finished run, named by a key over its config, and verified whenever it is read.

A run appears by one rename when it is complete, so a folder is either a whole run or none:

    data/runs/<name>-<key>/   config.json  metrics.csv  weights.safetensors  manifest.json  [trunk.safetensors]
    data/runs/.work/          checkpoints of runs in training, and locks
    data/runs/.tmp-*          a run being written, or what a killed process left of one (swept)
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from rnem.errors import RunError, UntrainedError, reading
from rnem.paths import runs_root
from rnem.runs.config import RunConfig, from_dict, in_key, to_dict
from rnem.runs.experiments import named
from rnem.runs.files import (
    MANIFEST,
    canonical,
    file_problem,
    lock_file,
    pack,
    portable,
    read_manifest,
    seal,
    set_aside,
    sweep_folder,
    unpack,
    write_folder,
    writing,
)
from rnem.runs.provenance import environment

if TYPE_CHECKING:
    import pandas
    import torch  # which takes seconds to import, and is not needed to find a run

CONFIG, METRICS, WEIGHTS, TRUNK = "config.json", "metrics.csv", "weights.safetensors", "trunk.safetensors"
REQUIRED = (CONFIG, METRICS, WEIGHTS)
_FOLDER = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)-([0-9a-f]{10})")


def key(config: RunConfig) -> str:
    """10 hex digits of the SHA-256 over the config (see config.in_key), sorted JSON with 1.0 as 1."""
    return hashlib.sha256(canonical(_plain(in_key(config)), allow_nan=False).encode()).hexdigest()[:10]


def folder(config: RunConfig, root: Path | str | None = None) -> Path:
    """Where the finished run is, or would be."""
    return _root(root) / _folder_name(config)


def work_folder(config: RunConfig, root: Path | str | None = None) -> Path:
    """Where a run keeps its checkpoint while it is trained (not made here)."""
    return _root(root) / ".work" / _folder_name(config)


def _root(root: Path | str | None) -> Path:
    return runs_root() if root is None else Path(root)


def _folder_name(config: RunConfig) -> str:
    name = f"{config.name}-{key(config)}"
    if not _FOLDER.fullmatch(name):
        raise RunError(f"run name {config.name!r} cannot name a folder: use letters, digits, '-', '_' and '.'")
    return name


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Run:
    """A finished, verified run."""

    path: Path
    config: RunConfig
    manifest: dict

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def key(self) -> str:
        return key(self.config)

    @property
    def updates(self) -> int:
        """Optimiser steps really made (fewer than the config's where training stopped early)."""
        return self.manifest["updates"]

    @property
    def label(self) -> str:
        """``name@seed``, as the command line takes it."""
        return f"{self.config.name}@{self.seed}"

    def fact(self, name: str) -> str | None:
        """A text that the manifest holds about how the run was made; None where it holds none."""
        value = self.manifest.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> float | None:
        """A number that the manifest holds, such as ``wall_seconds``; None where it holds none, or one below 0."""
        value = self.manifest.get(name)
        return float(value) if type(value) in (int, float) and 0 <= value < 2**63 else None

    def metrics(self) -> pandas.DataFrame:
        """One row per evaluation during training, floats exactly as they were saved."""
        import pandas

        with reading(self.path / METRICS, RunError):
            rows = csv.DictReader(io.StringIO(self._read(METRICS).decode()))
            table = pandas.DataFrame([{column: _number(text) for column, text in row.items()} for row in rows])
        if table.empty:
            raise RunError(f"{self.path / METRICS} has no rows")
        return table

    def weights(self) -> dict[str, torch.Tensor]:
        """The network's state dict, on the CPU; what a file holds in float16, to be half as large, is float32 here."""
        import safetensors.torch
        import torch

        with reading(self.path / WEIGHTS, RunError):
            stored = safetensors.torch.load(self._read(WEIGHTS))
        return {name: each.float() if each.dtype == torch.float16 else each for name, each in stored.items()}

    def trunk(self) -> tuple[dict[str, torch.Tensor], dict] | None:
        """The state that a longer run goes on from, and its meta data; None where that file was not fetched."""
        if not (self.path / TRUNK).exists():
            return None
        return unpack(self._read(TRUNK), self.path / TRUNK)

    def _read(self, name: str) -> bytes:
        if problem := file_problem(self.path, name, self.manifest["files"].get(name)):
            raise RunError(f"{self.path}: {problem}")
        return (self.path / name).read_bytes()


def fits(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    """Return whether weights have the names, shapes and types of a network's state dict."""
    kinds = [{name: (each.shape, each.dtype) for name, each in state.items()} for state in (weights, expected)]
    return kinds[0] == kinds[1]


def load(config_or_path: RunConfig | Path | str, root: Path | str | None = None, *, weights: bool = True) -> Run:
    """The finished run of a config, or in a folder, once everything in it is verified (a trunk when it is read).

    Without ``weights`` these are hashed not now, but only when they are read.

    RunError names the file and what is wrong: missing, half-written, truncated, edited, or of another config.
    """
    is_config = isinstance(config_or_path, RunConfig)
    path = folder(config_or_path, root) if is_config else Path(config_or_path)
    run, problems = _inspect(path, REQUIRED if weights else (CONFIG, METRICS))
    if problems:
        raise RunError(f"{path}: {problems[0]}")
    return run


def load_run(text: str | Path) -> Run:
    """Return a finished run by its folder, ``name@seed``, or ``name`` (of its seeds the one with the most updates).

    UntrainedError says which command makes it where there is none; RnemError lists near names where none is named so.
    """
    for path in (Path(text), runs_root() / text):
        if str(text) and path.is_dir():
            return load(path)
    name, _, seed = str(text).partition("@")
    if seed and not (re.fullmatch("[0-9]{1,20}", seed) and int(seed) < 2**64):
        raise RunError(f"{text!r} is no run: after the @ comes a seed from 0 to 2^64 - 1, such as {name}@0")
    candidates = best(name, int(seed) if seed else None)
    if not candidates:
        command = f"rnem train {named(name).name} --seed {seed or 0}"
        raise UntrainedError(f"no finished run of {text} in {runs_root()}; `{command}` makes one")
    return max(candidates, key=lambda run: (run.updates, -run.seed))


def finished(config: RunConfig, root: Path | str | None = None) -> Run | None:
    """The finished run of a config, verified with its trunk; None where there is none.

    RunError where it is broken: what exists is never trained anew unless the user says so.
    """
    path = folder(config, root)
    if not path.exists():
        return None
    run, problems = _inspect(path, (*REQUIRED, TRUNK))
    if problems:
        raise RunError(
            f"{path}: {problems[0]}: put a good copy in its place, move the folder away, or train the run anew with "
            "`rnem train --again`"
        )
    return run


def set_broken_aside(config: RunConfig, root: Path | str | None = None) -> None:
    """Rename a broken run's folder, so that it can be trained anew, and warn of it; a good one stays.

    RunError where another process trains it, or the disk is read-only.
    """
    path = folder(config, root)
    if path.exists() and verify(path):  # without the lock first: other processes of one training ask too
        with lock(config, root), writing(f"run {path}"):
            if path.exists() and verify(path):
                set_aside(path, "was broken; it is now {aside}, and the run is trained anew")


def strangers(path: Path | str) -> list[str]:
    """Names of the files in a run's folder that are not the run's own: an editor's or a file manager's, say.

    RunError where the manifest cannot be read.
    """
    named = read_manifest(Path(path), allowed=(*REQUIRED, TRUNK))["files"]
    return sorted({item.name for item in Path(path).iterdir()} - {*named, MANIFEST})


def verify(path: Path | str) -> list[str]:
    """Everything that is wrong with a run's folder, a sentence each; empty when it is good."""
    return _inspect(Path(path), (*REQUIRED, TRUNK))[1]


def find(
    name: str | None = None, *, seed: int | None = None, root: Path | str | None = None, weights: bool = True
) -> list[Run]:
    """All good finished runs (of one name, of one seed), sorted by name, seed and updates; warns of each broken one.

    ``weights``: see :func:`load`.
    """
    found = []
    for path in folders(root):
        match = _FOLDER.fullmatch(path.name)
        if name is not None and (match is None or match[1] != name):
            continue
        try:
            run = load(path, weights=weights)
        except RunError as error:
            warnings.warn(f"left out a broken run: {error}", stacklevel=2)
            continue
        if seed is None or run.seed == seed:
            found.append(run)
    return sorted(found, key=lambda run: (run.config.name, run.seed, run.updates, run.key))


def best(name: str, seed: int | None = None, root: Path | str | None = None) -> list[Run]:
    """Per seed the run with the most updates (of the newest meaning of the config), sorted by seed."""
    chosen: dict[int, Run] = {}
    for run in sorted(find(name, seed=seed, root=root), key=lambda run: (run.config.version, run.updates, run.key)):
        chosen[run.seed] = run
    return [chosen[number] for number in sorted(chosen)]


def exactly(name: str, root: Path | str | None = None, *, weights: bool = True) -> list[Run]:
    """The finished runs of a named config, sorted by seed: those whose config is the named one at their seed.

    A run of the same name that was trained shorter or longer is none of them: claims and pages compare equals.
    ``weights``: see :func:`load`.
    """
    config = named(name)
    return [run for run in find(name, root=root, weights=weights) if run.config == config.replace(seed=run.seed)]


def names(root: Path | str | None = None) -> set[str]:
    """The names of all runs in the cache, good or not, by their folders."""
    return {match[1] for path in folders(root) if (match := _FOLDER.fullmatch(path.name))}


def folders(root: Path | str | None = None) -> list[Path]:
    """Every folder in the cache that is named as a run or holds a manifest, good or not."""
    try:
        there = sorted(path for path in _root(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{_root(root)} cannot be read: {error.strerror}") from error
    return [path for path in there if _FOLDER.fullmatch(path.name) or (path / MANIFEST).exists()]


def _inspect(path: Path, hashed: tuple[str, ...]) -> tuple[Run | None, list[str]]:
    """The run in a folder as far as it can be read, and what is wrong with it; of other files the size is compared."""
    path = Path(os.path.abspath(path))  # "." has no name
    if not path.is_dir():
        return None, ["there is no such run"]
    try:
        manifest = read_manifest(path, allowed=(*REQUIRED, TRUNK))
        files = manifest["files"]
        checked = [file_problem(path, name, files.get(name), name in hashed) for name in REQUIRED]
        if TRUNK in files and (path / TRUNK).exists():
            checked.append(file_problem(path, TRUNK, files[TRUNK], TRUNK in hashed))
        problems = [problem for problem in checked if problem]
        if any(CONFIG in problem for problem in problems):
            return None, problems
        config = from_dict(json.loads((path / CONFIG).read_bytes()))
        belongs = _folder_name(config)
    except RunError as error:
        return None, [str(error)]
    except (OSError, ValueError, RecursionError) as error:
        return None, [f"{CONFIG} cannot be read: {error}"]
    if path.name != belongs:
        problems.append(f"{CONFIG} belongs to {belongs}: edited, or written for another version of rnem")
    for field, value in (("name", config.name), ("seed", config.seed), ("key", key(config))):
        if manifest.get(field) != value:
            problems.append(f"{MANIFEST} has {field} {manifest.get(field)!r}, {CONFIG} has {value!r}")
    return Run(path, config, manifest), problems


# -------------------------------------------------------------------------------------------------------------- writing


def save(
    config: RunConfig,
    *,
    weights: Mapping[str, torch.Tensor],
    metrics: list[dict],
    manifest: dict,
    trunk: Mapping[str, torch.Tensor] | None = None,
    trunk_meta: dict | None = None,
    root: Path | str | None = None,
) -> Run:
    """Write a finished run: whole or not at all. Where a good run of this config is already there, it is kept.

    ``manifest`` says what only the caller knows: ``wall_seconds``, ``updates``, ``sequences_seen``, and
    :func:`environment` as it was when training began (else it is taken now). Names, time and hashes are added.
    RunError where the disk is full or read-only; what was there stays.
    """
    import safetensors.torch

    if missing := {"wall_seconds", "updates", "sequences_seen"} - set(manifest):
        raise TypeError(f"the manifest of {config.name} lacks {', '.join(sorted(missing))}")
    files = {
        CONFIG: (json.dumps(to_dict(config), indent=2) + "\n").encode(),
        METRICS: _csv(metrics),
        WEIGHTS: safetensors.torch.save(portable(weights)),
    }
    if trunk is not None:
        files[TRUNK] = pack(trunk, trunk_meta or {})
    write_folder(
        folder(config, root), seal(files, _provenance(config, manifest)), is_good=lambda path: not verify(path)
    )
    return load(config, root)


def sweep(root: Path | str | None = None) -> list[Path]:
    """Remove what killed processes left half-written, and say what (:func:`save` does so too)."""
    return sweep_folder(_root(root))


@contextlib.contextmanager
def lock(config: RunConfig, root: Path | str | None = None) -> Iterator[None]:
    """Hold the right to train this run; RunError says which process has it. A killed process lets go by itself."""
    path = lock_file(folder(config, root))
    holder = path.with_suffix(".pid")
    with writing(f"lock {path}"):
        held = filelock.FileLock(path, timeout=0)
        try:
            held.acquire()
        except filelock.Timeout:
            pid = holder.read_text() if holder.exists() else "unknown"
            raise RunError(f"{config.name}@{config.seed} is being trained by another process (pid {pid})") from None
    try:
        with writing(f"lock {path}"):
            holder.write_text(f"{os.getpid()} on {platform.node()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _provenance(config: RunConfig, given: dict) -> dict:
    return {
        **(given if "code_digest" in given else {**environment(), **given}),
        "name": config.name,
        "seed": config.seed,
        "key": key(config),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _csv(rows: list[dict]) -> bytes:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text or "nan")
