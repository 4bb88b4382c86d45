"""What the subcommands share: from the words of a command line to runs and videos, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from rnem.errors import UserError, printable
from rnem.model import config

# Whatever needs torch is imported where it is used, so that --help answers at once.
if TYPE_CHECKING:
    from rnem.runs.store import Run
    from rnem.videos.videos import Videos

Name = Annotated[str, Positional, arg(metavar="NAME")]
RunName = Annotated[str, Positional, arg(metavar="RUN")]
File = Annotated[Path, Positional, arg(metavar="FILE")]
Split = Literal["training", "validation", "test"]


def videos_for(run: Run, data: str | None, split: str, count: int, frames: int) -> Videos:
    """Videos of the run's data set, another one or a file, of the size that the run's network is for."""
    from rnem.videos import datasets, hdf5

    if data is not None and data.endswith(".h5"):
        chosen = hdf5.read(data, split, count)
        if chosen.frames < frames:
            raise UserError(f"{data} has {chosen.frames} frames a sequence in {split}, and {frames} are needed")
        chosen = chosen.first(frames)
    else:
        chosen = datasets.fixed(data or run.config.data, split, count, frames)
    size = config.AUTOENCODERS[run.config.network.autoencoder].size
    if tuple(chosen.features.shape[-2:]) != (size, size):
        height, width = chosen.features.shape[-2:]
        raise UserError(f"{run.label} is for {size} x {size} pixels, and {chosen.name} has {height} x {width}")
    return chosen


def write_animation(path: Path, videos: Videos, psi, gamma) -> None:
    """Truth, prediction and grouping side by side as a GIF, a row per video; psi, gamma (T-1,N,K,1,H,W)."""
    import numpy as np

    from rnem import figures
    from rnem.runs import files

    psi, gamma = psi[:, :, :, 0].cpu().numpy(), gamma[:, :, :, 0].cpu().numpy()  # (T-1,N,K,H,W)
    truth, best = videos.features[1:, :, 0].cpu().numpy().astype(float), psi.max(2)  # (T-1,N,H,W)
    grouping = [figures.grouping_rgb(gamma[:, n], best[:, n]) for n in range(len(videos))]
    films = [np.concatenate(list(film), axis=1) for film in (truth.swapaxes(0, 1), best.swapaxes(0, 1), grouping)]
    with files.writing(f"animation {path}"):
        files.replace_file(path, figures.animation(*films, limit=10**9))


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def without_nan(numbers: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if value != value else value for name, value in numbers.items()}


def minutes(run: Run) -> str:
    seconds = run.number("wall_seconds")
    return "-" if seconds is None else f"{seconds / 60:.1f}"


def at_least(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}, and must be at least {least}")


def writable(out: Path | None) -> None:
    """UserError where ``--out`` cannot be a file."""
    if out is not None and (not out.name or (out.exists() and not out.is_file())):
        raise UserError(f"--out is {str(out)!r}, which is no file")
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out is {out}, and there is no folder {out.parent}")


def seed_in_range(seed: int) -> None:
    """UserError where a seed is none that the generators take."""
    if not 0 <= seed < 2**64:
        raise UserError(f"--seed is {seed}, and must be a whole number from 0 to 2^64 - 1")


def available(accelerator: str, devices: int, flag: str = "accelerator") -> str:
    """The accelerator that was asked for, or what "auto" means here; UserError where it, or so many, cannot be used."""
    import torch

    from rnem.runs import provenance

    accelerator = provenance.accelerator(accelerator)
    if problem := provenance.accelerator_problem(accelerator):
        raise UserError(f"--{flag} is {accelerator}, and {problem}")
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise UserError(f"--devices is {devices}, and this machine has {torch.cuda.device_count()} GPUs")
    return accelerator


def without(flag: str, command, *others: str) -> None:
    """``--flag`` was given: none of the arguments ``others`` of a command may be, as it decides them."""
    for field in dataclasses.fields(command):
        if field.name in others and getattr(command, field.name) != field.default:
            raise UserError(f"--{field.name.replace('_', '-')} cannot be combined with --{flag}")


def probability(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"--{name} is {value}, and must be between 0 and 1")
