"""Hard discs in a box: the simulator behind the bouncing-ball videos, batched in torch, in float64, on any device.

Units: the box has side 10, a step is one frame of the authors' videos, a light ball has mass 1. A point is (y, x), row
first, as in an image. The constants were recovered from the authors' published result videos
(rnem.authors.result_videos follows them with this simulator).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BOX = 10.0
"""Side of the box."""
CURTAIN_GRID = 64
"""A curtain's corner lies on the pixel grid of the authors' frames, at every resolution."""
CURTAIN_SIDE = 28
"""Side of the curtain, in steps of that grid."""
CURTAIN = CURTAIN_SIDE * (BOX / CURTAIN_GRID)
"""The same in box units."""
ATTEMPTS = 200_000
"""Placements of a video's balls that are tried before its masses are drawn anew."""


@dataclass(frozen=True)
class World:
    """What the videos of one data set have in common, but the size of a frame."""

    balls: tuple[int, ...]
    """Numbers of balls; each video has one of them, all equally likely."""
    radii: tuple[float, float] = (0.8, 1.0)
    """Of a light and of a heavy ball, in box units."""
    masses: tuple[float, float] = (1.0, 6.0)
    """Of a light and of a heavy ball; each ball is one or the other with probability 1/2."""
    speed: float = 1 / 3
    """Norm of the initial velocities of all balls of a video together, box units a frame."""
    curtain: bool = False
    """Whether a black square hides a part of the box."""
    margin: float = 1.25
    """Least distance of a centre from a wall in the first frame, box units."""

    def __post_init__(self) -> None:
        if max(self.balls) * max(self.radii) ** 2 * math.pi > 0.3 * BOX**2:
            raise ValueError(f"{max(self.balls)} balls of radius {max(self.radii)} are too many to be placed at random")


@dataclass(frozen=True)
class Trajectories:
    """T frames of N videos of at most M balls; an absent ball has radius, mass, position and velocity 0."""

    positions: Tensor
    """(T,N,M,2) centres (y, x), box units."""
    velocities: Tensor
    """(T,N,M,2) box units a simulator frame."""
    radii: Tensor
    """(N,M) box units."""
    masses: Tensor
    """(N,M)"""
    present: Tensor
    """(N,M) bool"""
    contacts: Tensor
    """(T,N,M) bool, the ball hit another one on the way to this frame."""
    bounces: Tensor
    """(T,N,M) bool, the ball hit a wall on the way to this frame."""
    curtain: Tensor | None
    """(N,2) top left corner (y, x) of the curtain in box units, or None."""


def walls(positions: Tensor, velocities: Tensor, radii: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put every ball (N,M,2) that crosses a wall back onto it and negate that component of its velocity.

    Returns positions, velocities (N,M,2) and which balls bounced (N,M).
    """
    inside = positions.maximum(radii[..., None]).minimum(BOX - radii[..., None])
    crossed = (inside != positions) & present[..., None]
    return (
        torch.where(crossed, inside, positions),
        torch.where(crossed, -velocities, velocities),
        crossed.any(-1),
    )


def collide(positions: Tensor, velocities: Tensor, radii: Tensor, masses: Tensor, hit: Tensor, i: int, j: int) -> None:
    """Separate balls i and j of the videos ``hit`` (N,), then exchange momentum along their line of centres.

    Each is moved by half the overlap, whatever its mass, as the authors' simulator does. Changes (N,M,2) in place.
    """
    line = positions[:, j] - positions[:, i]  # (N,2)
    distance = _norm(line)
    normal = line / distance.clamp_min(1e-12)[:, None]
    push = torch.where(hit, (radii[:, i] + radii[:, j] - distance) / 2, 0)[:, None] * normal
    closing = ((velocities[:, i] - velocities[:, j]) * normal).sum(-1)
    impulse = torch.where(hit, 2 * closing / (masses[:, i] + masses[:, j]), 0)[:, None] * normal  # (N,2)
    positions[:, i] -= push
    positions[:, j] += push
    velocities[:, i] -= impulse * masses[:, j, None]
    velocities[:, j] += impulse * masses[:, i, None]


def step(
    positions: Tensor, velocities: Tensor, radii: Tensor, masses: Tensor, present: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One simulator frame of N videos: x += v, then the walls, then every pair i < j in turn.

    Takes positions, velocities (N,M,2), radii, masses, present (N,M); returns new positions, velocities and which
    balls hit a ball (contacts) and a wall (bounces), both (N,M) bool. The inputs are left as they are.
    """
    positions, velocities, bounces = walls(positions + velocities, velocities, radii, present)
    contacts = torch.zeros_like(present)
    # A video without overlap now has none after its pairs either, so only the few others go through them one by one.
    rows = overlaps(positions, radii, present).any(-1).nonzero()[:, 0]
    if not len(rows):
        return positions, velocities, contacts, bounces
    x, v, r, m, real = (a[rows] for a in (positions, velocities, radii, masses, present))
    touched = torch.zeros_like(real)
    for i in range(x.shape[1]):
        for j in range(i + 1, x.shape[1]):
            hit = (_norm(x[:, j] - x[:, i]) < r[:, i] + r[:, j]) & real[:, i] & real[:, j]
            if hit.any():
                collide(x, v, r, m, hit, i, j)
                touched[:, i] |= hit
                touched[:, j] |= hit
    positions[rows], velocities[rows], contacts[rows] = x, v, touched
    return positions, velocities, contacts, bounces


def overlaps(positions: Tensor, radii: Tensor, present: Tensor) -> Tensor:
    """Whether pair i < j overlaps: positions (...,M,2), radii, present (...,M) -> (...,M(M-1)/2) bool."""
    i, j = torch.triu_indices(radii.shape[-1], radii.shape[-1], 1, device=radii.device)
    near = _norm(positions[..., j, :] - positions[..., i, :]) < radii[..., i] + radii[..., j]
    return near & present[..., i] & present[..., j]


def simulate(
    world: World, count: int, frames: int, generator: torch.Generator, *, stride: int = 1, device="cpu"
) -> Trajectories:
    """``count`` videos of ``frames`` frames, every ``stride``-th simulator frame kept; the first is the initial state.

    What happened in a frame that is not kept counts for the next one that is. ``generator`` is a CPU generator and
    draws the initial state only, so that a shorter video is the beginning of a longer one, on every device.
    """
    start = tuple(a if a is None else a.to(device) for a in _start(world, count, generator))
    positions, velocities, radii, masses, present, curtain = start
    contacts = torch.zeros_like(present)
    bounces = torch.zeros_like(present)
    kept = [(positions, velocities, contacts, bounces)]
    for _ in range(frames - 1):
        contacts, bounces = torch.zeros_like(present), torch.zeros_like(present)
        for _ in range(stride):
            positions, velocities, touched, bounced = step(positions, velocities, radii, masses, present)
            contacts |= touched
            bounces |= bounced
        kept.append((positions, velocities, contacts, bounces))
    positions, velocities, contacts, bounces = (torch.stack(column) for column in zip(*kept, strict=True))
    return Trajectories(positions, velocities, radii, masses, present, contacts, bounces, curtain)


def _start(world: World, count: int, generator: torch.Generator):
    """Initial positions, velocities (N,M,2), radii, masses, present (N,M), curtain (N,2) or None, on the CPU."""
    most = max(world.balls)
    pick = torch.randint(len(world.balls), (count,), generator=generator)
    present = torch.arange(most) < torch.tensor(world.balls)[pick][:, None]  # (N,M)
    # Rounded, so that the last bit of some machine's logarithm or cosine cannot change a video.
    velocities = torch.randn(count, most, 2, generator=generator, dtype=torch.float64).mul_(2**20).round_().div_(2**20)
    velocities = velocities * present[..., None]
    square = torch.zeros(count, dtype=torch.float64)
    for component in velocities.flatten(1).unbind(1):  # in this order on every machine
        square = square + component * component
    velocities = velocities * (world.speed / square.sqrt())[:, None, None]
    curtain = None
    if world.curtain:
        corner = torch.randint(CURTAIN_GRID - CURTAIN_SIDE + 1, (count, 2), generator=generator)
        curtain = corner.double() * (BOX / CURTAIN_GRID)
    positions, heavy = _place(world, present, generator)
    radii = torch.tensor(world.radii, dtype=torch.float64)[heavy] * present
    masses = torch.tensor(world.masses, dtype=torch.float64)[heavy] * present
    return positions, velocities, radii, masses, present, curtain


def _place(world: World, present: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions (N,M,2), uniform over all placements without overlap, by rejection, and who is heavy (N,M) int64.

    A video in which ATTEMPTS placements fail starts again with other masses.
    """
    count, most = present.shape
    sizes = torch.tensor(world.radii, dtype=torch.float64)
    heavy = torch.randint(2, (count, most), generator=generator)
    positions = torch.zeros(count, most, 2, dtype=torch.float64)
    tried = torch.zeros(count, dtype=torch.int64)
    left = torch.arange(count)
    while len(left):
        tries = max(4, 4096 // len(left))  # as the videos left get fewer, more attempts at once for each
        spots = torch.rand(len(left), tries, most, 2, generator=generator, dtype=torch.float64)
        spots = world.margin + (BOX - 2 * world.margin) * spots
        good = _free(spots, sizes[heavy[left]], present[left])  # (L,tries)
        done = good.any(-1)
        first = good.byte().argmax(-1)
        positions[left[done]] = spots[done, first[done]]
        left = left[~done]
        tried[left] += tries
        stuck = left[tried[left] >= ATTEMPTS]
        heavy[stuck] = torch.randint(2, (len(stuck), most), generator=generator)
        tried[stuck] = 0
    return positions * present[..., None], heavy


def _free(spots: Tensor, radii: Tensor, present: Tensor) -> Tensor:
    """Which attempts are free of overlap: spots (L,A,M,2), radii, present (L,M) -> (L,A) bool."""
    most = radii.shape[1]
    rows, radii, present = _flat(spots, radii, present)
    alive = torch.arange(len(rows))
    for j in range(1, most):
        for i in range(j):
            a, b = rows[alive, i], rows[alive, j]
            far = _norm(b - a) >= radii[alive, i] + radii[alive, j]
            alive = alive[far | ~present[alive, j] | ~present[alive, i]]
    good = torch.zeros(len(rows), dtype=torch.bool)
    good[alive] = True
    return good.view(spots.shape[:2])


def _flat(spots: Tensor, *per_video: Tensor) -> list[Tensor]:
    return [spots.flatten(0, 1), *(a.repeat_interleave(spots.shape[1], 0) for a in per_video)]


def _norm(vector: Tensor) -> Tensor:
    """Euclidean length over the last axis (of 2): every operation correctly rounded, so equal on every machine."""
    y, x = vector.unbind(-1)
    return (y * y + x * x).sqrt()


# --------------------------------------------------------------------------------------------------------------- frames


def pixel_centres(size: int, device=None) -> Tensor:
    """Return where the centres of a frame's pixels lie along one side, (S,), in box units."""
    return (torch.arange(size, device=device, dtype=torch.float64) + 0.5) * (BOX / size)


def discs(centres: Tensor, radii: Tensor, pixels: Tensor) -> Tensor:
    """Return the pixels whose centre is nearer to a ball's centre than its radius.

    Ball centres (...,2), radii (...) and pixel centres (S,) in one unit -> (...,S,S) bool, each ball on its own. An
    absent ball has radius 0 and no pixel.
    """
    rows, columns = (pixels - centres[..., None]).square().unbind(-2)  # (...,S) each
    return columns[..., None, :] < ((radii * radii)[..., None] - rows)[..., None]


def behind_curtain(corners: Tensor, pixels: Tensor) -> Tensor:
    """Return the pixels that curtains hide: top left corners (N,2), pixel centres (S,) in box units -> (N,S,S) bool."""
    offset = pixels - corners[..., None]  # (N,2,S)
    inside = (offset >= 0) & (offset < CURTAIN)
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def render(trajectories: Trajectories, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames of ``size`` x ``size`` pixels: features, groups, collisions, each uint8 (T,N,1,H,W).

    A pixel is on (features 1) iff its centre is nearer to a ball's centre than its radius. ``groups`` is the ball's
    number 1..M, 0 for background and where two balls overlap; ``collisions`` marks the balls that hit another one on
    the way to this frame. Behind the curtain all three are 0.
    """
    t = trajectories
    frames, count, most, _ = t.positions.shape
    device = t.positions.device
    pixels = pixel_centres(size, device)
    features, groups, collisions = torch.zeros(3, frames, count, size, size, dtype=torch.bool, device=device).byte()
    open_ = None if t.curtain is None else (~behind_curtain(t.curtain, pixels)).byte()
    for frame in range(frames):  # one frame of all videos at a time stays in the processor's cache
        twice = torch.zeros_like(features[0])
        for ball in range(most):
            disc = discs(t.positions[frame, :, ball], t.radii[:, ball], pixels).byte()  # (N,H,W)
            twice |= features[frame] & disc
            features[frame] |= disc
            groups[frame] += disc * (ball + 1)
            hit = t.contacts[frame, :, ball].nonzero()[:, 0]
            collisions[frame, hit] |= disc[hit]
        groups[frame] *= 1 - twice
        if open_ is not None:
            for frames_ in (features, groups, collisions):
                frames_[frame] *= open_
    return features[:, :, None], groups[:, :, None], collisions[:, :, None]  # (T,N,1,H,W)
