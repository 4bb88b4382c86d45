"""Video data sets: named, endless training streams and fixed validation and test sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from rnem import balls
from rnem.balls import World
from rnem.runs import data_root
from rnem.sequences import VideoError, Videos, join
from rnem.video_files import SPLITS, check, read, size, write

__all__ = [
    "BLOCK", "DATASETS", "FIXED", "FRAMES", "SPLITS", "WORLDS", "Dataset", "Stream", "VideoError", "Videos", "check",
    "dataset", "fixed", "generate", "join", "pieces", "read", "write",
]  # fmt: skip

FRAMES = 51
"""T of the fixed sets, the authors'."""
FIXED = 500
"""Sequences of a fixed set, where no other number is asked for."""
BLOCK = 256
"""Sequences that are generated at once, from one random generator."""


@dataclass(frozen=True)
class Dataset:
    """Videos of one world at one size: ``size`` pixels, every ``stride``-th simulator frame."""

    family: str
    world: World
    size: int
    stride: int


WORLDS: dict[str, World] = {
    "balls4mass": World(balls=(4,)),
    "balls5mass": World(balls=(5,)),
    "balls678mass": World(balls=(6, 7, 8)),
    "balls3curtain": World(balls=(3,), radii=(1.2, 1.2), masses=(1.0, 1.0), speed=1 / 2, curtain=True),
}
DATASETS: dict[str, Dataset] = {
    f"{family}{size}": Dataset(family, world, size, 64 // size)
    for family, world in WORLDS.items()
    for size in (64, 32, 16)
}
"""By name, ``balls4mass32``: at half the size every second frame, so that a ball moves as many pixels a frame."""


def dataset(name: str) -> Dataset:
    """The named data set; VideoError lists the names."""
    if name not in DATASETS:
        raise VideoError(f"no data set is named {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def generate(
    name: str, split: str, start: int, count: int, frames: int, seed: int = 0, device: str | torch.device = "cpu"
) -> Videos:
    """Sequences ``start`` .. ``start + count`` of the endless stream (data set, split, seed), ``frames`` frames each.

    The same numbers give the same trajectories at every size (of which smaller frames keep fewer), and a smaller
    ``frames`` the beginning of the same videos.
    """
    if start < 0 or count < 1 or frames < 1:
        raise VideoError(f"cannot generate {count} sequences of {frames} frames from number {start} on")
    return join([_block(name, split, seed, b, frames, part, device) for b, part in _parts(start, start + count)])


def _parts(start: int, stop: int) -> list[tuple[int, slice]]:
    """Sequences start .. stop as (number of a block, which of its sequences)."""
    blocks = range(start // BLOCK, -(-stop // BLOCK))
    return [(b, slice(max(start - b * BLOCK, 0), min(stop - b * BLOCK, BLOCK))) for b in blocks]


def _block(name: str, split: str, seed: int, block: int, frames: int, which: slice, device) -> Videos:
    """Some sequences of block number ``block`` of a stream."""
    data = dataset(name)
    if split not in SPLITS:
        raise VideoError(f"{split!r} is not a split; there are {', '.join(SPLITS)}")
    digest = hashlib.sha256(f"{data.family}/{split}/{seed}/{block}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    # The whole block is simulated whatever part is wanted, since its videos share a generator; that part is drawn.
    t = balls.simulate(data.world, BLOCK, frames, generator, stride=data.stride, device=device)
    t = balls.Trajectories(
        **{f: getattr(t, f)[:, which] for f in ("positions", "velocities", "contacts", "bounces")},
        **{f: getattr(t, f)[which] for f in ("radii", "masses", "present")},
        curtain=None if t.curtain is None else t.curtain[which],
    )
    features, groups, collisions = balls.render(t, data.size)
    return Videos(
        features=features,
        groups=groups,
        collisions=collisions,
        events=t.contacts.byte() + 2 * t.bounces.byte(),
        positions=(t.positions * 2048).round().div(2048).float(),  # more digits would fill the files
        velocities=t.velocities.float(),
        masses=t.masses.float(),
        radii=t.radii.float(),
        actions=None,
        name=name,
        curtain=None if t.curtain is None else t.curtain.float(),
    )


def pieces(name: str, split: str, count: int, frames: int = FRAMES, seed: int = 0) -> Iterator[Videos]:
    """The first ``count`` sequences of a stream in parts, for what is too large for memory (paper-size training)."""
    for start in range(0, count, BLOCK):
        yield generate(name, split, start, min(BLOCK, count - start), frames, seed)


def fixed(
    name: str, split: str, count: int | None = None, frames: int = FRAMES, root: str | Path | None = None
) -> Videos:
    """The fixed validation or test set of a data set: its first ``count`` (FIXED) sequences, ``frames`` frames each.

    Read from ``<root>/<name>-<split>.h5`` (root: ``data/videos``) where that holds as many, else generated: the
    content is the same.
    """
    count = FIXED if count is None else count
    path = (data_root() / "videos" if root is None else Path(root)) / f"{name}-{split}.h5"
    if dataset(name) and path.exists():
        there = size(path, split)
        if there[0] >= frames and there[1] >= count:
            return read(path, split, count).first(frames)
    return generate(name, split, 0, count, frames)


class Stream:
    """Training batches of a data set, without end: ``stream[u]`` is the batch of update ``u``, fresh for every ``u``.

    Any ``u`` may be asked for, so that a resumed run sees the data of an uninterrupted one. In order it costs one
    block per BLOCK sequences, since the last two blocks are kept.
    """

    def __init__(self, name: str, frames: int, batch: int, seed: int, device: str | torch.device = "cpu"):
        self.name, self.frames, self.batch, self.seed, self.device = name, frames, batch, seed, device
        dataset(name)
        self._block = lru_cache(maxsize=2)(
            lambda block: _block(name, "training", seed, block, frames, slice(0, BLOCK), device)
        )

    def __getitem__(self, update: int) -> Videos:
        start = update * self.batch
        return join([self._block(b).select(part) for b, part in _parts(start, start + self.batch)])
