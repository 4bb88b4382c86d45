"""Balls in the authors' result videos: found in a frame, located below a pixel, followed with our simulator."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, optimize

from rnem.authors.result_videos import PIXEL, SIZE, ResultVideo
from rnem.errors import VideoError
from rnem.videos import balls
from rnem.videos.balls import CURTAIN_GRID, CURTAIN_SIDE, World

# --------------------------------------------------------------------------------------------------------------- balls


def find(frame: np.ndarray, world: World, seen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Balls of one frame (64,64), from it alone: centres (n,2) and radii (n,), box units.

    Takes the largest disc that fits the pixels, removes it, and so on. VideoError where that gives no such world, as
    when most of a ball is hidden. ``seen`` (64,64) is False behind the curtain.
    """
    left, centres, radii = frame.copy(), [], []
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    while len(centres) < max(world.balls):
        depth = ndimage.distance_transform_edt(np.pad(left, 1))[1:-1, 1:-1]  # pixels from the nearest that is off
        if depth.max() < 0.75 * min(world.radii) / PIXEL:
            break
        tops = np.argwhere(depth == depth.max()) + 0.5
        top = tops[np.hypot(*(tops - tops[0]).T) < 4].mean(0)  # of one ball, where several are equally deep
        radius = min(world.radii, key=lambda r: abs(r / PIXEL - depth.max()))
        left &= np.hypot(y - top[0], x - top[1]) > radius / PIXEL + 0.7
        centres.append(top * PIXEL)
        radii.append(radius)
    if len(centres) not in world.balls:
        raise VideoError(f"{len(centres)} balls are found, and {' or '.join(map(str, world.balls))} expected")
    radii = np.array(radii)
    centres = locate(frame, np.array(centres), radii, seen)
    wrong = (discs(centres, radii).any(0) != frame)[slice(None) if seen is None else seen].sum()
    if wrong > 3 * len(radii):
        raise VideoError(f"{wrong} pixels are not those of the {len(radii)} balls found")
    return centres, radii


def locate(frame: np.ndarray, guess: np.ndarray, radii: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    """Centres (n,2) near ``guess`` whose discs are the pixels that are on, by least squares over the ``seen`` pixels.

    The residual of a pixel on the wrong side is how far the nearest edge is from putting it right (damped
    Gauss-Newton); a ball that gets no pixel wrong, such as a hidden one, stays at its guess.
    """
    pixels, on = _centres(seen), frame[seen] if seen is not None else frame.ravel()
    outside = np.hypot(*(pixels[:, None] - guess).transpose(2, 0, 1)) - radii  # (P,n)
    near = (np.abs(outside) < 4 * PIXEL).any(1) | (on != (outside < 0).any(1))  # the others have no say
    pixels, on = pixels[near], on[near]

    def wrong(centres):  # of every pixel on the wrong side: its disc, how far outside it is, the way from its centre
        way = pixels[:, None] - centres  # (P,n,2)
        outside = np.hypot(way[..., 0], way[..., 1]) - radii
        which, rows = outside.argmin(1), np.arange(len(pixels))
        outside, way = outside[rows, which], way[rows, which]
        bad = on != (outside < 0)
        return which[bad], outside[bad], way[bad]

    centres, damping, (which, outside, way) = guess, 1e-2, wrong(guess)
    for _ in range(50):
        if not len(outside) or damping > 1e3:
            break
        jacobian = np.zeros((len(outside), *guess.shape))
        jacobian[np.arange(len(outside)), which] = -way / np.hypot(*way.T).clip(min=1e-9)[:, None]
        jacobian = jacobian.reshape(len(outside), -1)
        normal = jacobian.T @ jacobian + damping * np.eye(guess.size)
        moved = centres - np.linalg.solve(normal, jacobian.T @ outside).reshape(guess.shape)
        trial = wrong(moved)
        if np.square(trial[1]).sum() < np.square(outside).sum():
            centres, damping, (which, outside, way) = moved, damping / 3, trial
        else:
            damping *= 10
    return centres


def _centres(seen: np.ndarray | None = None) -> np.ndarray:
    """Centres (P,2) of the seen pixels, box units."""
    return (np.argwhere(np.ones((SIZE, SIZE), bool) if seen is None else seen) + 0.5) * PIXEL


def discs(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Pixels of every ball on its own, bool (n,64,64)."""
    return balls.discs(torch.from_numpy(centres), torch.from_numpy(radii), balls.pixel_centres(SIZE)).numpy()


# -------------------------------------------------------------------------------------------------------------- follow


@dataclass(frozen=True)
class Fit:
    """The initial state from which our simulator follows a video, and where it goes."""

    start: int
    """Frame of the video that is the initial state."""
    positions: np.ndarray
    """(F,n,2) the simulator's centres, box units; [0] is fitted."""
    velocities: np.ndarray
    """(n,2) fitted initial velocities, box units a frame."""
    radii: np.ndarray
    """(n,)"""
    wrong: np.ndarray
    """(F,) pixels of each frame that the simulator's balls get wrong."""


def uncovered(video: ResultVideo) -> np.ndarray:
    """Pixels (64,64) that no curtain hides, bool: all but the square that never lights up, where there is a curtain."""
    seen, truth = np.ones((SIZE, SIZE), bool), video.truth
    if not video.world.curtain:
        return seen
    lit = np.pad(truth.any(0).cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # summed-area table
    side = CURTAIN_SIDE * SIZE // CURTAIN_GRID
    inside = lit[side:, side:] - lit[:-side, side:] - lit[side:, :-side] + lit[:-side, :-side]
    y, x = np.unravel_index(inside.argmin(), inside.shape)
    if inside[y, x] == 0:
        seen[y : y + side, x : x + side] = False
    return seen


def follow(video: ResultVideo, start: int | None = None, frames: int = 50) -> Fit:
    """Fit positions and velocities at frame ``start`` so that our simulator follows the next ``frames`` frames.

    ``start`` is by default the first frame that shows all balls and from which the simulator does follow. VideoError
    where there is none, or where ``start`` does not show all balls.
    """
    seen = uncovered(video)
    if start is not None:
        return _fit(video, start, frames, seen)
    for candidate in range(len(video.truth) - frames):
        with contextlib.suppress(VideoError):
            fit = _fit(video, candidate, frames, seen)
            if fit.wrong.max() < 8 * len(fit.radii):  # pixels; a ball lost is some 80
                return fit
    raise VideoError(f"the simulator follows {video.name} for {frames} frames from none of its frames")


def _fit(video: ResultVideo, start: int, frames: int, seen: np.ndarray) -> Fit:
    """Longer and longer parts are fitted in turn: a small error at first is a large one some collisions later."""
    truth, world = video.truth[start : start + frames + 1], video.world
    if len(truth) <= frames:
        raise VideoError(
            f"{video.name} has {len(video.truth)} frames, too few to follow {frames} from frame {start} on"
        )
    first, radii = find(truth[0], world, seen)
    masses = np.array([dict(zip(world.radii, world.masses, strict=True))[r] for r in radii])
    state = np.stack([first, locate(truth[1], first, radii, seen) - first])  # positions, velocities (2,n,2)
    for horizon in [h for h in (2, 3, 5, 7, 11, 16, 24, 36, 54, 80) if h < frames] + [frames] * 2:
        path = _paths(state[None], radii, masses, horizon)[:, 0]
        observed = np.stack([_observe(*at, radii, seen) for at in zip(truth, path, strict=False)])
        state = _improve(state, observed, radii, masses)
    path = _paths(state[None], radii, masses, frames)[:, 0]  # (F,n,2)
    drawn = np.stack([discs(centres, radii).any(0) & seen for centres in path])
    return Fit(start, path, state[1], radii, (drawn != truth).sum((1, 2)))


def _observe(frame: np.ndarray, guess: np.ndarray, radii: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Centres (n,2) near ``guess``, NaN where less than a fifth of a ball is seen."""
    centres = locate(frame, guess, radii, seen)
    disc = discs(centres, radii)
    shown = (disc & seen).sum((1, 2)) / disc.sum((1, 2)).clip(min=1)
    return np.where((shown > 0.2)[:, None], centres, np.nan)


def _improve(state: np.ndarray, observed: np.ndarray, radii: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """The state (2,n,2) near ``state`` from which the simulator comes nearest to the centres ``observed`` (F,n,2)."""

    def residuals(flat):  # (P,4n) -> (P,2Fn), pixels
        off = _paths(flat.reshape(-1, *state.shape), radii, masses, len(observed) - 1) - observed[:, None]
        return np.nan_to_num(off.swapaxes(0, 1).reshape(len(flat), -1) / PIXEL)

    def jacobian(flat, h=1e-6):  # every parameter moved a little, all in one batch of the simulator
        moved = residuals(np.vstack([flat, flat + h * np.eye(len(flat))]))
        return ((moved[1:] - moved[0]) / h).T

    # Whether two balls touch now or a frame later is a jump that no gradient sees: look around first.
    scale = np.repeat([1, 0.1], state[0].size)
    random = np.random.default_rng(0)
    steps = np.geomspace(1e-4, 0.1, 128)[:, None] * scale * random.standard_normal((128, len(scale)))
    around = state.ravel() + np.vstack([np.zeros(len(scale)), steps])
    best = around[np.abs(residuals(around)).clip(max=3).sum(1).argmin()]
    flat = optimize.least_squares(lambda x: residuals(x[None])[0], best, jacobian, x_scale=scale, loss="soft_l1").x
    return flat.reshape(state.shape)


def _paths(states: np.ndarray, radii: np.ndarray, masses: np.ndarray, frames: int) -> np.ndarray:
    """Where P initial states (P,2,n,2) go: (frames + 1,P,n,2)."""
    positions, velocities = torch.from_numpy(np.ascontiguousarray(states)).unbind(1)
    per_ball = [torch.from_numpy(a).expand(len(states), -1) for a in (radii, masses, np.ones(len(radii), bool))]
    path = [positions]
    for _ in range(frames):
        positions, velocities, _, _ = balls.step(positions, velocities, *per_ball)
        path.append(positions)
    return torch.stack(path).numpy()
