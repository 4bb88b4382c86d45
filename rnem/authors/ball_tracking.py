"""The balls of a result video in all its frames: the simulator predicts the next frame, its pixels correct that."""

from __future__ import annotations

import numpy as np
import torch

from rnem.authors.ball_fitting import discs, find, locate, uncovered
from rnem.authors.result_videos import ResultVideo
from rnem.errors import VideoError
from rnem.videos import balls

GAIN = 0.3
"""Share of a tracked ball's surprise that changes its velocity."""
TOUCH = 0.06
"""Gap of two balls, box units (0.4 pixels), below which they may have collided."""


def track(video: ResultVideo) -> tuple[np.ndarray, np.ndarray]:
    """Centres (F,n,2) and radii (n,), box units, of a video's balls in all frames, also hidden ones.

    From the first frame that shows all balls the simulator predicts each next frame, forwards and backwards in time
    (collisions are elastic), and the pixels correct it. VideoError where no frame shows all, or where a ball is lost.
    """
    seen = uncovered(video)
    for start in range(len(video.truth) - 1):
        try:
            centres, radii = find(video.truth[start], video.world, seen)
            break
        except VideoError:
            continue
    else:
        raise VideoError(f"no frame of {video.name} shows all its balls, so they cannot be tracked")
    forwards = _walk(video, range(start, len(video.truth)), centres, radii, seen)
    backwards = _walk(video, range(start, -1, -1), centres, radii, seen)
    path = np.concatenate([backwards[:0:-1], forwards])  # (F,n,2)
    wrong = wrong_pixels(video, path, radii)
    if wrong.max() > 8 * len(radii):  # a ball lost is some 80
        raise VideoError(f"a ball of {video.name} is lost in frame {wrong.argmax()}: {wrong.max()} pixels are wrong")
    return path, radii


def wrong_pixels(video: ResultVideo, path: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Pixels of each frame (F,) that discs at ``path`` (F,n,2) get wrong, those behind the curtain left out."""
    seen = uncovered(video)
    return np.array([_wrong(*at, radii, seen) for at in zip(video.truth, path, strict=True)])


def _wrong(frame: np.ndarray, centres: np.ndarray, radii: np.ndarray, seen: np.ndarray) -> int:
    return int(((discs(centres, radii).any(0) != frame) & seen).sum())


def _walk(video: ResultVideo, order: range, centres: np.ndarray, radii: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Centres (len(order),n,2) in the frames ``order``, which begins where the balls are at ``centres``."""
    path = [centres]
    if len(order) < 2:
        return np.stack(path)
    velocities = locate(video.truth[order[1]], centres, radii, seen) - centres
    per_ball = [torch.from_numpy(a)[None] for a in (radii, masses(video, radii), np.ones(len(radii), bool))]
    for frame in (video.truth[number] for number in order[1:]):
        state = (torch.from_numpy(a)[None] for a in (path[-1], velocities))
        guess, velocities, _, _ = (a[0].numpy() for a in balls.step(*state, *per_ball))
        found = locate(frame, guess, radii, seen)
        if _wrong(frame, found, radii, seen) > 2 * len(radii):  # a collision a frame early or late: look elsewhere too
            guesses = [path[-1], *([2 * path[-1] - path[-2]] if len(path) > 1 else [])]
            others = [found, *(locate(frame, other, radii, seen) for other in guesses)]
            found = min(others, key=lambda centres: _wrong(frame, centres, radii, seen))
        velocities = velocities + GAIN * (found - guess)
        path.append(found)
    return np.stack(path)


def masses(video: ResultVideo, radii: np.ndarray) -> np.ndarray:
    """Masses (n,) of balls of these radii."""
    return np.array([dict(zip(video.world.radii, video.world.masses, strict=True))[radius] for radius in radii])


def contacts(path: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Which balls collide in which frame, bool (F,n): they touch, came nearer before, and part afterwards."""
    i, j = np.triu_indices(len(radii), 1)
    gap = np.hypot(*(path[:, i] - path[:, j]).transpose(2, 0, 1)) - radii[i] - radii[j]  # (F,n(n-1)/2)
    change = np.diff(gap, axis=0)
    hit = np.zeros(gap.shape, bool)
    hit[1:-1] = (gap[1:-1] < TOUCH) & (change[:-1] < 0) & (change[1:] >= 0)
    touched = np.zeros(path.shape[:2], bool)
    np.logical_or.at(touched, (slice(None), i), hit)
    np.logical_or.at(touched, (slice(None), j), hit)
    return touched
