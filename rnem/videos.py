"""Video data sets: named, endless training streams and fixed validation and test sets."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from rnem import balls
from rnem.balls import World

SPLITS = ("training", "validation", "test")
BLOCK = 256
"""Sequences that are generated at once, from one random generator."""


class VideoError(ValueError):
    """A data set, or a file of videos, that cannot be used; one sentence."""


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


@dataclass(frozen=True)
class Videos:
    """N sequences of T frames with what is known about them; M balls at most."""

    features: Tensor
    """uint8 (T,N,1,H,W), 0 or 1"""
    groups: Tensor
    """uint8 (T,N,1,H,W), the ball's number from 1, 0 for background, overlaps and hidden pixels"""
    collisions: Tensor
    """uint8 (T,N,1,H,W), pixels of balls that hit another ball since the frame before"""
    events: Tensor
    """uint8 (T,N,M), since the frame before the ball hit 1: a ball, 2: a wall, 3: both"""
    positions: Tensor
    """float32 (T,N,M,2), (y, x) in box units (the box has side 10)"""
    velocities: Tensor
    """float32 (T,N,M,2), box units a simulator frame"""
    masses: Tensor
    """float32 (N,M), 0 for an absent ball"""
    radii: Tensor
    """float32 (N,M), box units, 0 for an absent ball"""
    actions: Tensor | None
    """uint8 (T,N) or None"""
    name: str
    curtain: Tensor | None = None
    """float32 (N,2), the curtain's top left corner (y, x) in box units, or None"""

    def __len__(self) -> int:
        return self.features.shape[1]

    @property
    def frames(self) -> int:
        """T"""
        return self.features.shape[0]

    def select(self, which: slice) -> Videos:
        """Some of the sequences."""
        return self._map(lambda field, a: a[which] if field in _PER_SEQUENCE else a[:, which])

    def first(self, frames: int) -> Videos:
        """The first frames of every sequence."""
        return self._map(lambda field, a: a if field in _PER_SEQUENCE else a[:frames])

    def to(self, device) -> Videos:
        """The same on another device."""
        return self._map(lambda field, a: a.to(device))

    def _map(self, function) -> Videos:
        return dataclasses.replace(self, **{f: function(f, getattr(self, f)) for f in _arrays(self)})


_PER_SEQUENCE = ("masses", "radii", "curtain")


def _arrays(videos: Videos) -> list[str]:
    """Names of the fields that hold a tensor."""
    return [f.name for f in dataclasses.fields(videos) if isinstance(getattr(videos, f.name), Tensor)]


def join(parts: list[Videos]) -> Videos:
    """Sequences of several of the same data set, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return parts[0]._map(lambda f, _: torch.cat([getattr(p, f) for p in parts], 0 if f in _PER_SEQUENCE else 1))


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
    # The whole block is simulated whatever part is wanted, since its videos share one generator; only that part is drawn.
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
        positions=t.positions.float(),
        velocities=t.velocities.float(),
        masses=t.masses.float(),
        radii=t.radii.float(),
        actions=None,
        name=name,
        curtain=None if t.curtain is None else t.curtain.float(),
    )


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
