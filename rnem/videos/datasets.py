"""Video data sets: named, endless training streams and fixed validation and test sets."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import filelock
import torch
from torch import Tensor

from rnem.errors import VideoError
from rnem.paths import videos_root
from rnem.runs.code import code_digest
from rnem.videos import balls, space_invaders
from rnem.videos.balls import World
from rnem.videos.hdf5 import SPLITS, read, size, write
from rnem.videos.videos import Videos, join

FRAMES = 51
"""T of the fixed sets of balls, the authors'."""
FIXED = 500
"""Sequences of a fixed set, where no other number is asked for."""
BLOCK = 256
"""Sequences that are generated at once, from one random generator."""
GAME = "spaceinvaders"
"""Family of the videos of rnem.videos.space_invaders."""
TRAINING_BLOCKS = 24
"""Blocks of the game that training goes through, again and again in another order; balls are always fresh."""


@dataclass(frozen=True)
class Dataset:
    """Videos of one world at one size: ``size`` pixels, every ``stride``-th simulator frame, ``frames`` in fixed sets.

    The game has a world without balls, and no sequences of more than ``frames``.
    """

    family: str
    world: World
    size: int
    stride: int
    frames: int = FRAMES


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
DATASETS |= {f"{GAME}{size}": Dataset(GAME, World(balls=(0,)), size, 1, space_invaders.FRAMES) for size in (84, 42)}
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
    _check_frames(name, frames)
    parts = [_block(name, split, seed, b, frames, part, device) for b, part in _parts(start, start + count)]
    return _placed(join(parts), split, start)


def _placed(videos: Videos, split: str, start: int = 0) -> Videos:
    """The same, known to be numbers ``start``, ``start`` + 1 ... of a split."""
    return dataclasses.replace(videos, split=split, numbers=torch.arange(start, start + len(videos)))


def _check_frames(name: str, frames: int, most: int | None = None) -> None:
    """Of the game there are sequences of ``most`` (else the data set's) frames only; VideoError for more."""
    data = dataset(name)
    if data.family == GAME and frames > (most or data.frames):
        raise VideoError(f"{name} has sequences of {most or data.frames} frames, and {frames} are asked for")


def _generator(*words) -> torch.Generator:
    """A random generator of its own for what the words say."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _parts(start: int, stop: int) -> list[tuple[int, slice]]:
    """Sequences start .. stop as (number of a block, which of its sequences)."""
    blocks = range(start // BLOCK, -(-stop // BLOCK))
    return [(b, slice(max(start - b * BLOCK, 0), min(stop - b * BLOCK, BLOCK))) for b in blocks]


def _block(name: str, split: str, seed: int, block: int, frames: int, which: slice, device) -> Videos:
    """Some sequences of block number ``block`` of a stream."""
    data = dataset(name)
    if split not in SPLITS:
        raise VideoError(f"{split!r} is not a split; there are {', '.join(SPLITS)}")
    generator = _generator(data.family, split, seed, block)
    if data.family == GAME:
        whole = space_invaders.generate(f"{GAME}{space_invaders.SIZE}", which.stop, generator.initial_seed())
        return _of_game(whole, name, which, frames, device)
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


def _of_game(whole: Videos, name: str, which: slice | Tensor, frames: int, device) -> Videos:
    """Some sequences of a block of the game, at the size of a data set."""
    part = whole.select(which).first(frames)
    return (part if part.name == name else space_invaders.pool(part, name)).to(device)


def _kept(split: str, seed: int, block: int, frames: int = space_invaders.FRAMES) -> Videos:
    """A whole block of the game at full size, from a file that is made when it is first needed, or again if damaged.

    All runs of all sizes share it. Its name has a digest of the rules, so that other rules make another file.
    """
    rules = code_digest(["rnem.videos.space_invaders"])[:8]
    long = "" if frames == space_invaders.FRAMES else f"-{frames}"
    path = videos_root() / ".blocks" / f"{GAME}{space_invaders.SIZE}-{split}-{seed}-{block}{long}-{rules}.h5"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise VideoError(f"cannot write {path}: {error.strerror}") from None
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        with contextlib.suppress(VideoError):
            return read(path, split, BLOCK)
        made = space_invaders.generate(
            f"{GAME}{space_invaders.SIZE}", BLOCK, _generator(GAME, split, seed, block).initial_seed(), frames
        )
        write({split: made}, path)
        return made


def _training_block(name: str, seed: int, block: int, frames: int, lane: str, device) -> Videos:
    """A block of a run's training stream: of balls always fresh; of the game in an order of (run, lane, epoch)."""
    if dataset(name).family != GAME:
        return _block(name, "training", seed, block, frames, slice(0, BLOCK), device)
    epoch, place = divmod(block, TRAINING_BLOCKS)
    order = (GAME, "order", f"{seed}{lane}", epoch)
    kept = int(torch.randperm(TRAINING_BLOCKS, generator=_generator(*order))[place])
    which = torch.randperm(BLOCK, generator=_generator(*order, kept))
    whole = _kept("training", 0, kept, space_invaders.LONG if lane else space_invaders.FRAMES)
    return _of_game(whole, name, which, frames, device)


def pieces(name: str, split: str, count: int, frames: int | None = None, seed: int = 0) -> Iterator[Videos]:
    """The first ``count`` sequences of a stream in parts, for what is too large for memory (paper-size training)."""
    frames = dataset(name).frames if frames is None else frames
    for start in range(0, count, BLOCK):
        yield generate(name, split, start, min(BLOCK, count - start), frames, seed)


def fixed(
    name: str, split: str, count: int | None = None, frames: int | None = None, root: str | Path | None = None
) -> Videos:
    """The fixed validation or test set of a data set: its first ``count`` (FIXED) sequences, ``frames`` frames each.

    Read from ``<root>/<name>-<split>.h5`` (root: ``data/videos``) where that holds as many, else generated: the
    content is the same. Without ``frames`` as many as the data set says.
    """
    data = dataset(name)
    count = FIXED if count is None else count
    frames = data.frames if frames is None else frames
    _check_frames(name, frames)
    path = (videos_root() if root is None else Path(root)) / f"{name}-{split}.h5"
    if path.exists():
        there = size(path, split)
        if there[0] >= frames and there[1] >= count:
            return _placed(read(path, split, count).first(frames), split)
    if data.family != GAME:
        return generate(name, split, 0, count, frames)
    parts = [_of_game(_kept(split, 0, b), name, part, frames, "cpu") for b, part in _parts(0, count)]
    return _placed(join(parts), split)


class Stream:
    """Training batches of a data set, without end: ``stream[u]`` is the batch of update ``u``.

    It is fresh for every ``u``; of the game it is once an epoch of TRAINING_BLOCKS blocks, the same for all seeds, in
    an order of (seed, epoch). Any ``u`` may be asked for, so that a resumed run sees the data of an uninterrupted one.
    In order it costs one block per BLOCK sequences, since the last two blocks are kept.

    Several streams of one seed share its sequences where each has a ``lane`` of ``lanes``; of the game they then are
    LONG frames at most, and each goes through all of them in an order of its own.
    """

    def __init__(
        self, name: str, frames: int, batch: int, seed: int, device: str | torch.device = "cpu", lane: int = 0,
        lanes: int = 1,
    ):  # fmt: skip
        self.name, self.frames, self.batch, self.seed, self.device = name, frames, batch, seed, device
        _check_frames(name, frames, space_invaders.LONG if lanes > 1 else None)
        own = f"/{lane}" if lanes > 1 else ""

        def block(number: int) -> Videos:
            number = number if dataset(name).family == GAME else number * lanes + lane
            return _training_block(name, seed, number, frames, own, device)

        self._block = lru_cache(maxsize=2)(block)

    def __getitem__(self, update: int) -> Videos:
        start = update * self.batch
        return join([self._block(b).select(part) for b, part in _parts(start, start + self.batch)])


class Stretches:
    """Training batches whose sequences go on over several updates (TrainingConfig.stretches).

    Group g of the batch lives ``stretches[g]`` updates, each of which takes the next ``steps`` + 1 frames, the first of
    them the last of the update before. With (1,) this is :class:`Stream`.
    """

    def __init__(
        self, name: str, steps: int, batch: int, seed: int, stretches: tuple[int, ...] = (1,),
        device: str | torch.device = "cpu",
    ):  # fmt: skip
        self.steps, self.stretches, lanes = steps, stretches, len(stretches)
        self.streams = [
            Stream(name, lives * steps + 1, batch // lanes, seed, device, lane, lanes)
            for lane, lives in enumerate(stretches)
        ]

    def __getitem__(self, update: int) -> Videos:
        """Return the batch of an update, groups one after the other: ``steps`` + 1 frames of each sequence."""
        parts = []
        for lives, stream in zip(self.stretches, self.streams, strict=True):
            first = update % lives * self.steps
            parts.append(stream[update // lives].clip(first, first + self.steps + 1))
        return join(parts)

    def fresh(self, update: int) -> Tensor:
        """Return which sequences of the batch begin with this update, bool (B,)."""
        each = torch.tensor([update % lives == 0 for lives in self.stretches])
        return each.repeat_interleave(self.streams[0].batch)
