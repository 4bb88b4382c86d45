"""Find balls in frames of grey values: greedy matching with hard discs of the world's radii.

Any frame will do, a true one or a prediction of any model: nothing is asked of the model but its picture. A pixel of
value p speaks for a ball with p - 1/2, so that what is less likely than not speaks against one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rnem.videos.balls import BOX, discs

RADII = (0.8, 1.0)
"""Of a light and of a heavy ball, box units."""
SHARE = 0.5
"""Least score of a ball, as a share of the score of a perfect one."""
SHARPNESS = 1.0
"""A position weighs exp(SHARPNESS * score) in a centre: found on true frames, where 0.5 and 2 give larger errors."""
MOST = 12
"""Balls that are looked for in a frame at most."""
SEEN = 0.1
"""Least share of a disc's pixels that is not hidden: a few pixels at an edge are no ball."""
BATCH = 1024
"""Frames that are searched at once: their scores fill some 30 MB."""


@dataclass(frozen=True)
class Discs:
    """M discs at most in each of N frames, the best first."""

    centres: Tensor
    """float32 (N,M,2), (y, x) in box units; nan where there is no further disc"""
    radii: Tensor
    """float32 (N,M), box units; nan where there is no further disc"""
    counts: Tensor
    """int64 (N,)"""


def find(
    frames: Tensor,
    radii: tuple[float, ...] = RADII,
    *,
    share: float = SHARE,
    most: int = MOST,
    hidden: Tensor | None = None,
) -> Discs:
    """The discs in frames (N,H,W) of values 0..1, H = W: the best one, then the best in what is left, and so on.

    A disc's score is the sum of (value - 1/2) over its pixels; centres lie on a grid of half pixels, and are refined
    to the mean of all positions that score nearly as well. The pixels of a disc that was found are set to 1/2: they
    speak neither for nor against another one, so that balls may overlap. The search in a frame ends when the best
    disc left has less than ``share`` of the score of a perfect one. Positions behind the frame's edge count as off.
    Pixels that are ``hidden`` (N,H,W; bool) speak neither for nor against, so that a disc there is judged by its other
    pixels, which must be SEEN of it. ValueError for another shape or values outside 0..1.
    """
    if frames.ndim != 3 or frames.shape[1] != frames.shape[2]:
        raise ValueError(f"frames is {tuple(frames.shape)}, and must be (N,H,W) with H = W")
    if not frames.numel():
        raise ValueError("there are no frames to search")
    if not (frames.min() >= 0 and frames.max() <= 1):  # also where one is nan
        raise ValueError(f"frames has values from {frames.min():.3g} to {frames.max():.3g}, and must lie in 0..1")
    if hidden is not None and hidden.shape != frames.shape:
        raise ValueError(f"hidden is {tuple(hidden.shape)} and frames is {tuple(frames.shape)}; they must agree")
    masks = [None] * -(-len(frames) // BATCH) if hidden is None else hidden.split(BATCH)
    pairs = zip(frames.split(BATCH), masks, strict=True)
    parts = [_find(part.float(), radii, share, most, mask) for part, mask in pairs]
    width = max(1, *(int(counts.max()) for *_, counts in parts)) if parts else 1
    centres, sizes, counts = (torch.cat(column) for column in zip(*parts, strict=True))
    return Discs(centres[:, :width], sizes[:, :width], counts)


def _find(
    frames: Tensor, radii: tuple[float, ...], share: float, most: int, hidden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    N, size = frames.shape[:2]
    reach, kernels, areas, owner = _templates(radii, size)
    centres = torch.full((N, most, 2), torch.nan)
    sizes = torch.full((N, most), torch.nan)
    counts = torch.zeros(N, dtype=torch.int64)
    evidence = torch.nn.functional.pad(frames - 0.5, [reach] * 4, value=-0.5)  # (N,H+2R,W+2R)
    least = (share / 2 * areas)[:, None, None].expand(N, -1, size, size)  # (N,4R,H,W): scores that a ball needs
    if hidden is not None:
        covered = torch.nn.functional.pad(hidden, [reach] * 4)
        evidence = evidence.masked_fill(covered, 0)
        seen = torch.nn.functional.conv2d((~covered).float()[:, None], kernels)  # (N,4R,H,W): pixels of each disc
        least = (share / 2 * seen).masked_fill(seen < SEEN * areas[:, None, None], torch.inf)
    active = torch.arange(N)
    for number in range(most):
        scores = torch.nn.functional.conv2d(evidence[active, None], kernels)  # (A,4R,H,W): R radii, 4 offsets
        ranked = scores if hidden is None else scores.where(scores >= least[active], -torch.inf)
        best, place = ranked.flatten(1).max(1)
        template, row, column = place // size**2, place % size**2 // size, place % size
        found = best >= least[active, template, row, column]
        active, scores = active[found], scores[found]
        template, row, column = template[found], row[found], column[found]
        if not len(active):
            break
        radius = owner[template]
        centres[active, number] = _refine(scores, radius, template % 4, row, column, len(radii)) * (BOX / size)
        sizes[active, number] = torch.tensor(radii)[radius]
        counts[active] += 1
        window = torch.arange(2 * reach + 1)
        rows, columns = row[:, None, None] + window[:, None], column[:, None, None] + window
        evidence[active[:, None, None], rows, columns] *= 1 - kernels[template, 0]
    return centres, sizes, counts


def _templates(radii: tuple[float, ...], size: int) -> tuple[int, Tensor, Tensor, Tensor]:
    """Discs in a window that reaches R pixels: R, kernels (4R,1,2R+1,2R+1) of 0 and 1, their areas, whose radius.

    Four of each radius, with the centre at a pixel's top left corner or half a pixel further down, right, or both.
    """
    reach = int(np.ceil(max(radii) * size / BOX)) + 1
    middle = torch.arange(2 * reach + 1) - reach + 0.5  # centres of the window's pixels
    kernels = []
    for radius in radii:
        for down in (0, 0.5):
            for right in (0, 0.5):
                kernels.append(discs(torch.tensor([down, right]), torch.tensor(radius * size / BOX), middle))
    stacked = torch.stack(kernels)[:, None].float()
    return reach, stacked, stacked.sum((1, 2, 3)), torch.arange(len(radii)).repeat_interleave(4)


def _refine(scores: Tensor, radius: Tensor, offset: Tensor, row: Tensor, column: Tensor, sizes: int) -> Tensor:
    """Centres (A,2) in pixels: mean of the positions within a pixel of the best, weighted by exp(score above best).

    Half a pixel of shift often changes no pixel of a disc; the best position is then one of several equals.
    """
    A, size = len(scores), scores.shape[-1]
    split = scores.view(A, sizes, 2, 2, size, size)[torch.arange(A), radius]  # (A,2,2,H,W)
    fine = split.permute(0, 3, 1, 4, 2).reshape(A, 2 * size, 2 * size)  # (A,2H,2W): every half pixel
    fine = torch.nn.functional.pad(fine, [2] * 4, value=-torch.inf)
    near = torch.arange(-2, 3)
    y, x = 2 * row + offset // 2, 2 * column + offset % 2
    around = fine[torch.arange(A)[:, None, None], (y[:, None] + near + 2)[..., None], (x[:, None] + near + 2)[:, None]]
    weight = (SHARPNESS * around).flatten(1).softmax(1).view(A, 5, 5)
    shift = torch.stack([(weight.sum(2) * near).sum(1), (weight.sum(1) * near).sum(1)], 1)  # (A,2)
    return (torch.stack([y, x], 1) + shift) / 2


def match(a: np.ndarray, b: np.ndarray, limit: float = np.inf) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairing of points a (A,2) and b (B,2) with the least sum of distances (Hungarian method).

    Rows that start with nan are no points. Returns indices into a, into b, and distances. Pairs that are farther apart
    than ``limit`` are no pairs; the others are then those with the least sum of min(distance, limit).
    """
    real_a, real_b = (np.flatnonzero(~np.isnan(points[:, 0])) for points in (a, b))
    away = np.linalg.norm(a[real_a, None] - b[None, real_b], axis=-1)
    i, j = linear_sum_assignment(np.minimum(away, limit))
    near = away[i, j] <= limit
    return real_a[i[near]], real_b[j[near]], away[i, j][near]
