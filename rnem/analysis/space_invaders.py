"""Measures for Space Invaders: the pixels that move, what is grouped together, and whether the ship obeys.

Sprites are the game's own (rnem.videos.space_invaders.SPRITES); their kinds are what moves together: all aliens, the
ship, the shields, the shots. 100 test videos where nothing else is asked for (``count``), frames without noise. Every
draw of a video (rnem.evaluation.evaluate.number_of_draws) counts like a video of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnem.analysis import cache
from rnem.evaluation import evaluate, metrics
from rnem.model import em
from rnem.model.network import Network
from rnem.runs.store import Run
from rnem.videos import space_invaders as simulator
from rnem.videos.datasets import fixed
from rnem.videos.videos import Videos

COUNT = cache.TEST_VIDEOS["spaceinvaders"]
KINDS = ("shields", "ship", "shots", "aliens", "other")
"""Kind number g + 1 of what moves together; 0 is the background."""
DIRECTIONS = {"left": "left", "stay": "noop", "right": "right"}
"""What the ship should do -> the action that is held."""


def kinds(groups: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Sprite numbers of the videos -> numbers of KINDS: all columns of aliens are one."""
    names = ["aliens" if name.startswith("alien") else name for name in simulator.SPRITES[1:]]
    table = torch.tensor([0, *(KINDS.index(name) + 1 for name in names)], device=groups.device)
    return table[groups.long()]


# ------------------------------------------------------------------------------------------------------ by frame


def per_step(run: Run, *, count: int | None = None) -> pd.DataFrame:
    """A row per predicted frame ``step`` (from 1), averaged over test videos.

    ``bce``: of max_k psi_k; ``moving``: its part on pixels that change from frame t to t+1; ``copy``, ``copy_moving``:
    the same of a copy of frame t that expects each pixel to change with the average probability of these videos;
    ``changed``: pixels that change; ``together``: foreground ARI of the components against KINDS; ``sprites``: against
    the sprites, in which every column of aliens is one of its own.
    """

    count = cache.video_count(run, COUNT, count)

    def compute() -> pd.DataFrame:
        test, draws = fixed(run.config.data, "test", count), evaluate.number_of_draws(run)
        every = _repeated(test, draws)
        rows = [_frame(state, every, t) for t, state in _unrolled(evaluate.load_network(run), test, draws)]
        table = pd.DataFrame(rows)
        rate = table["changed"].mean() / test.features[0, 0].numel()
        table["copy_moving"] = -math.log(rate) * table["changed"]
        still = test.features[0, 0].numel() - table["changed"]
        table["copy"] = table["copy_moving"] - math.log1p(-rate) * still
        return table

    return cache.cached(run, "space-invaders-steps", __name__, compute, data=run.config.data, count=count)


@torch.no_grad()
def _unrolled(network: Network, videos: Videos, draws: int, **unroll) -> Iterator[tuple[int, em.State]]:
    """Number and state of each step, all draws of all videos (:func:`_repeated`); ``unroll``: em.unroll's."""
    parts = [states for draw in range(draws) for _, states in evaluate.in_batches(network, videos, draw=draw, **unroll)]
    for t, states in enumerate(zip(*parts, strict=True)):
        yield t, em.State(*(torch.cat([getattr(s, f.name) for s in states]) for f in dataclasses.fields(em.State)))


def _repeated(videos: Videos, draws: int) -> Videos:
    """All videos for draw 0, then all for draw 1, and so on: what the rows of :func:`_unrolled` are of."""
    return videos.select(torch.arange(len(videos)).repeat(draws))


def _frame(state: em.State, test: Videos, t: int) -> dict[str, float]:
    x, target = test.features[t].float(), test.features[t + 1].float()  # (N,1,H,W)
    best, groups, gamma = state.psi.amax(1), test.groups[t + 1][None], state.gamma[None]
    moved = x != target
    return {
        "step": t + 1,
        "bce": float(metrics.bce(best, target).mean()),
        "moving": float((em.intra(best, target) * moved).sum((1, 2, 3)).mean()),
        "changed": float(moved.float().sum((1, 2, 3)).mean()),
        "together": float(np.nanmean(metrics.ari(kinds(groups), gamma))),
        "sprites": float(np.nanmean(metrics.ari(groups, gamma))),
    }


def moving(run: Run, first: int, last: int) -> float:
    """BCE on the pixels that move, as a share of the copy's, frames ``first`` .. ``last``."""
    mean = per_step(run).set_index("step").loc[first:last].mean()
    return float(mean["moving"] / mean["copy_moving"])


def together(run: Run, first: int, last: int) -> float:
    """Mean foreground ARI against KINDS, frames ``first`` .. ``last``."""
    return float(per_step(run).set_index("step").loc[first:last, "together"].mean())


# ------------------------------------------------------------------------------------------------------- grouping


def shared(run: Run, first: int, last: int, *, count: int | None = None) -> pd.DataFrame:
    """How often two pixels have the same component: a row per pair of sprites ``a`` and ``b``, ``share``.

    Over all pairs of pixels of the two in one frame, frames ``first`` .. ``last`` of all test videos. It does not
    depend on the numbers of the components, which differ from video to video.
    """

    count = cache.video_count(run, COUNT, count)

    def compute() -> pd.DataFrame:
        test, draws = fixed(run.config.data, "test", count, last + 1), evaluate.number_of_draws(run)
        every = _repeated(test, draws)
        same = total = torch.zeros(())
        for t, state in _unrolled(evaluate.load_network(run), test, draws):
            if first <= t + 1:
                table = sprite_pixels(every.groups[t + 1], state.gamma)  # (N,S,K)
                pixels = table.sum(2)  # (N,S)
                alone = torch.diag_embed(pixels)  # a pixel is no pair with itself
                same = same + (table @ table.mT - alone).sum(0)
                total = total + (pixels[:, :, None] * pixels[:, None] - alone).sum(0)
        names = simulator.SPRITES[1:]
        rows = [
            {"a": a, "b": b, "share": float(same[i, j] / total[i, j]) if total[i, j] else math.nan}
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
        return pd.DataFrame(rows)

    settings = {"data": run.config.data, "count": count, "first": first, "last": last}
    return cache.cached(run, "space-invaders-shared", __name__, compute, **settings)


def sprite_pixels(groups: Int[Tensor, "N 1 H W"], gamma: Float[Tensor, "N K 1 H W"]) -> Float[Tensor, "N S K"]:
    """Pixels of every sprite (a row each, also of those that are not there) that each component has."""
    return metrics.contingency(groups[None], gamma[None], len(simulator.SPRITES) - 1)[0]


# -------------------------------------------------------------------------------------------------------- the ship


@dataclasses.dataclass(frozen=True)
class Ship:
    """What the true frames say about the ship."""

    rows: slice
    """Of the frame, in which its pixels are."""
    width: int
    area: int
    """Pixels: its width, and how many it has."""
    speed: float
    """Pixels a step, when it moves."""
    left: float
    right: float
    """The outermost columns of its centre."""


def ship(videos: Videos) -> Ship:
    """Size, speed and range of the ship in these videos."""
    its = videos.groups == simulator.SPRITES.index("ship")  # (T,N,1,H,W)
    rows = its.any(4).flatten(0, 2).any(0).nonzero()[:, 0]
    there = its.sum((2, 3, 4))  # (T,N)
    widths = its.any(3).sum(3)[:, :, 0][there > 0]
    columns = simulator.ship_column(videos.groups).numpy()
    moves = np.abs(np.diff(columns, axis=0))
    return Ship(
        slice(int(rows.min()), int(rows.max()) + 1), int(widths.median()), int(there[there > 0].median()),
        float(np.median(moves[moves > 0.25])), float(np.nanmin(columns)), float(np.nanmax(columns)),
    )  # fmt: skip


def seen_at(frames: Float[Tensor, "N H W"], known: Ship) -> Float[np.ndarray, " N"]:
    """Column of the ship's centre in predicted frames; nan where less than half of a ship is to be seen.

    The stretch of the ship's width that has the most value in its rows; its centre of mass.
    """
    profile = torch.nn.functional.pad(frames[:, known.rows].sum(1), [1, 1])  # (N,W+2)
    windows = profile.unfold(1, known.width + 2, 1)  # (N,W+1-width,width+2): a pixel more on both sides
    mass, start = windows.sum(2).max(1)
    window = windows[torch.arange(len(frames)), start]
    column = start - 1 + (window * torch.arange(known.width + 2)).sum(1) / mass.clamp_min(1e-9)
    return torch.where(mass >= known.area / 2, column, torch.nan).numpy()


def obeying(run: Run, first: int, last: int, *, count: int | None = None) -> pd.DataFrame:
    """After frame ``first`` the model simulates to frame ``last`` with one action held: what does its ship do?

    A row per action held (DIRECTIONS) and rollout frame: ``cases`` (videos with a ship at frame ``first`` that would
    not have reached the wall), and the shares of them in which the predicted ship went ``left`` or ``right`` by over
    half its speed since the frame before, did ``stay``, or is ``lost`` (not to be seen in one of the two frames);
    ``shift``: its mean distance from where it was at frame ``first``, pixels to the right.
    """

    count = cache.video_count(run, COUNT, count)

    def compute() -> pd.DataFrame:
        test = fixed(run.config.data, "test", count, last + 1)
        network, known = evaluate.load_network(run), ship(fixed(run.config.data, "test", count))
        parts = [
            _held(network, test, known, first, direction, evaluate.number_of_draws(run)) for direction in DIRECTIONS
        ]
        return pd.concat(parts, ignore_index=True)

    settings = {"data": run.config.data, "count": count, "first": first, "last": last}
    return cache.cached(run, "space-invaders-obeying", __name__, compute, **settings)


def _held(network: Network, test: Videos, known: Ship, first: int, direction: str, draws: int) -> pd.DataFrame:
    begin = np.tile(simulator.ship_column(test.groups)[first].numpy(), draws)
    actions = test.actions.clone()
    actions[first:] = simulator.ACTIONS.index(DIRECTIONS[direction])
    videos = dataclasses.replace(test, actions=actions)
    steps = [state for t, state in _unrolled(network, videos, draws, real_steps=first) if t >= first]
    heading = {"left": -1, "stay": 0, "right": 1}[direction]
    before, rows = begin, []
    for number, state in enumerate(steps, 1):
        column = seen_at(state.psi.amax(1)[:, 0], known)
        true = begin + heading * known.speed * number
        counts = (true >= known.left) & (true <= known.right)  # False also where there is no ship
        shift = (column - before)[counts]
        moved = (column - begin)[counts]
        row = {"action": direction, "step": first + number, "cases": int(counts.sum()) // draws}
        row["shift"] = float(np.nanmean(moved)) if np.isfinite(moved).any() else math.nan
        went = {
            "left": shift < -known.speed / 2,
            "stay": np.abs(shift) <= known.speed / 2,
            "right": shift > known.speed / 2,
            "lost": np.isnan(shift),
        }
        rows.append(row | {name: float(which.mean()) if len(which) else math.nan for name, which in went.items()})
        before = column
    return pd.DataFrame(rows)


def confusion(run: Run, first: int, last: int) -> pd.DataFrame:
    """Shares of the rollout steps (columns) by action held (index): :func:`obeying` over all frames."""
    rows = obeying(run, first, last).query("cases > 0")
    weighted = rows[[*DIRECTIONS, "lost"]].mul(rows["cases"], axis=0).groupby(rows["action"]).sum()
    return weighted.div(rows.groupby("action")["cases"].sum(), axis=0).loc[list(DIRECTIONS)]


def follows(run: Run, first: int, last: int) -> float:
    """Share of rollout steps in which the ship does what the action held says, the three alike in weight."""
    table = confusion(run, first, last)
    return float(np.mean([table.loc[direction, direction] for direction in DIRECTIONS]))


def turning(run: Run, first: int, last: int, *, count: int | None = None) -> pd.DataFrame:
    """One step, three actions: are the predicted ships in the order in which the actions say they should be?

    Every frame ``first`` .. ``last`` - 1 of the true video is followed by three predictions that differ in the action
    alone. A ship's place is the centre of what is predicted in its rows within REACH pixels of where it was, however
    faint. Columns: ``action``; ``cases`` (frames with a ship and room on both sides); ``right``, the share in which the
    ship of *left* lies left of both others, that of *right* right of them, that of *stay* between: by chance a third;
    ``shift``: mean distance from the ship of *stay*, pixels to the right.
    """

    count = cache.video_count(run, COUNT, count)

    def compute() -> pd.DataFrame:
        test, draws = fixed(run.config.data, "test", count), evaluate.number_of_draws(run)
        known, every = ship(test), _repeated(test, draws)
        columns = simulator.ship_column(every.groups).numpy()
        network = evaluate.load_network(run)
        places = [
            _around(_three(network, every, state, t + 1), columns[t + 1], known)
            for t, state in _unrolled(network, test, draws)
            if first <= t + 1 < last
        ]
        there = columns[first:last]
        room = (there - known.speed >= known.left) & (there + known.speed <= known.right)  # (S,N), False without a ship
        left, stay, right = np.stack(places, 1)[:, room]
        between = (np.minimum(left, right) < stay) & (stay < np.maximum(left, right))
        answers = {
            "left": (left < np.minimum(stay, right), left - stay),
            "stay": (between, stay - stay),
            "right": (right > np.maximum(stay, left), right - stay),
        }
        rows = [
            {"action": name, "cases": len(stay) // draws, "right": correct.mean(), "shift": np.nanmean(shift)}
            for name, (correct, shift) in answers.items()
        ]
        return pd.DataFrame(rows)

    settings = {"data": run.config.data, "count": count, "first": first, "last": last}
    return cache.cached(run, "space-invaders-turning", __name__, compute, **settings)


def turns(run: Run, first: int, last: int) -> float:
    """Share of :func:`turning` in which the ship is where its action says, the three actions alike in weight."""
    return float(turning(run, first, last)["right"].mean())


REACH = 5
"""Pixels on each side in which the ship of the next frame is looked for."""


@torch.no_grad()
def _three(network: Network, test: Videos, state: em.State, t: int) -> Float[Tensor, "3 N H W"]:
    """Next-frame predictions from frame t, read in ``state``, under the three actions of DIRECTIONS."""
    x, target, predictions = test.features[t].float(), test.features[t + 1].float(), []
    for name in DIRECTIONS.values():
        held = torch.full((len(test),), simulator.ACTIONS.index(name))
        action = network.embed(torch.nn.functional.one_hot(held, len(simulator.ACTIONS)).float())
        predictions.append(em.step(network, state, x, target, action).psi.amax(1)[:, 0])
    return torch.stack(predictions)


def _around(frames: Float[Tensor, "3 N H W"], columns: Float[np.ndarray, " N"], known: Ship) -> np.ndarray:
    """Centre of mass (3,N) of the ship's rows within REACH of its column; nan without one."""
    profile = frames[:, :, known.rows].sum(2).numpy()  # (3,N,W)
    at = np.arange(profile.shape[2])
    mass = profile * (np.abs(at - columns[:, None]) <= REACH)
    return np.where(np.isnan(columns), np.nan, (mass * at).sum(2) / np.maximum(mass.sum(2), 1e-12))
