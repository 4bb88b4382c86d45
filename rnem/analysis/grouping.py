"""Who holds which ball: every component's balls in every frame, and what that says about the adjusted Rand index.

A component *holds* a ball by the rule "over half" of rnem.evaluation.metrics.component_of_each_ball; a ball has a
component *of its own* when that component holds no other ball.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnem.analysis import cache
from rnem.authors.ari import ari_frames
from rnem.evaluation import evaluate, metrics
from rnem.model import em
from rnem.model.network import Network
from rnem.runs.store import Run
from rnem.videos.datasets import fixed
from rnem.videos.videos import Videos

SINCE = 15
"""The frame whose components a ball must keep, for *identity kept*."""


def with_background(groups: Int[Tensor, "*frames 1 H W"], features: Tensor) -> Int[Tensor, "*frames 1 H W"]:
    """Groups in which the background is one more, numbered after the last ball; overlaps stay 0, thus left out."""
    if groups.shape != features.shape:
        raise ValueError(f"groups is {tuple(groups.shape)} and features is {tuple(features.shape)}; they must agree")
    return torch.where(features > 0, groups.long(), groups.long().max() + 1)


def background_share(gamma: Float[Tensor, "N K 1 H W"], features: Float[Tensor, "N 1 H W"]) -> Float[Tensor, " N"]:
    """Largest share of the background's gamma that one component has: 1/K where all share alike, 1 if one has all."""
    share = (gamma * (features == 0)[:, None]).sum((2, 3, 4))  # (N,K)
    return share.amax(1) / share.sum(1)


@torch.no_grad()
def measure(network: Network, videos: Videos, *, since: int = SINCE, draws: int = 1) -> pd.DataFrame:
    """A row per predicted frame ``step`` (from 1), averaged over videos and draws; frames without noise.

    ``ari``: rnem.evaluation.metrics.ari; ``with_background``: the background as one more group; ``authors``: their
    clipped index; ``difference``: the largest of any video and draw between ``ari`` and ``authors``; ``own``: share of
    balls with a component of their own; ``torn``: share of balls that no component holds; ``held0`` .. ``held3``: mean
    number of components that hold no, one, two, three or more balls; ``background``: :func:`background_share`;
    ``background_over_half``: share of videos in which it is over 1/2; ``kept``: of the balls with a component of their
    own at frame ``since``, the share that has the same one to itself; ``kept_all``: the share of videos in which every
    ball does. ValueError where the videos are too short.
    """
    if not 1 <= since < videos.frames:
        raise ValueError(f"since is frame {since}, and must be one of the predicted frames 1..{videos.frames - 1}")
    # Draws are counted like more videos: shares of balls are then shares over all of them.
    parts = [
        _part([_frame(state, part, t + 1) for t, state in enumerate(states)], since)
        for draw in range(draws)
        for part, states in evaluate.in_batches(network, videos, draw=draw)
    ]
    names = parts[0].keys()
    rows = {name: np.nanmean(np.concatenate([p[name] for p in parts], 1), 1) for name in names}  # (T-1,) each
    rows["difference"] = np.concatenate([p["difference"] for p in parts], 1).max(1)
    stayed, owned = rows.pop("stayed"), rows.pop("own_since")
    rows["kept"] = stayed / np.where(owned > 0, owned, np.nan)  # of counts: the mean over balls, not over videos
    return pd.DataFrame({"step": np.arange(1, videos.frames)} | rows)


def _frame(state: em.State, videos: Videos, frame: int) -> dict[str, Tensor]:
    """Everything about one frame of N videos, (N,...) each."""
    x = videos.features[frame].to(state.gamma.device, state.gamma.dtype)
    groups, gamma = videos.groups[frame].to(x.device), state.gamma
    K, M = gamma.shape[1], videos.masses.shape[1]
    component = metrics.component_of_each_ball(groups, gamma, M)  # (N,M)
    own = metrics.has_one_of_its_own(component, K)
    balls = (videos.masses > 0).to(x.device).sum(1)  # (N,)
    held = metrics.balls_of_each_component(component, K)
    theirs = torch.from_numpy(ari_frames(groups[None].cpu().numpy(), gamma[None].cpu().numpy())[0][0])
    share = background_share(gamma, x)
    ari = metrics.ari(groups[None], gamma[None])[0]
    return {
        "ari": ari,
        "with_background": metrics.ari(with_background(groups, x)[None], gamma[None])[0],
        "authors": theirs,
        "difference": (ari.cpu() - theirs).abs().nan_to_num(0),
        "own": own.sum(1) / balls,
        "torn": 1 - (component >= 0).sum(1) / balls,
        **{f"held{n}": (held == n).sum(1) for n in range(3)},
        "held3": (held >= 3).sum(1),
        "background": share,
        "background_over_half": share > 0.5,
        "component": torch.where(own, component, -1),  # (N,M)
        "balls": balls,
    }


def _part(frames: list[dict[str, Tensor]], since: int) -> dict[str, np.ndarray]:
    """The frames of one batch as float64 (T-1,N), with who kept the component of frame ``since``."""
    columns = {name: torch.stack([f[name].cpu() for f in frames]).double() for name in frames[0]}
    component, balls = columns.pop("component"), columns.pop("balls")  # (T-1,N,M), (T-1,N)
    first = component[since - 1]
    stayed = ((component == first) & (first >= 0)).sum(-1).double()  # (T-1,N)
    columns["stayed"], columns["own_since"] = stayed, (first >= 0).sum(-1).double().expand_as(stayed)
    columns["kept_all"] = (stayed == balls).double()
    return {name: column.numpy() for name, column in columns.items()}


def per_step(
    run: Run, data: str, *, count: int = 100, frames: int = 51, since: int = SINCE, components: int | None = None
) -> pd.DataFrame:
    """:func:`measure` of a run on the first ``count`` test videos of a data set, computed once.

    ``components`` is another K than that of the training.
    """
    raised = {} if components in (None, run.config.network.components) else {"components": components}

    def compute() -> pd.DataFrame:
        test = fixed(data, "test", count, frames)
        network = evaluate.load_network(run, **raised)
        return measure(network, test, since=since, draws=evaluate.number_of_draws(run))

    return cache.cached(
        run, "grouping", __name__, compute,
        data=data, count=count, frames=frames, since=since, **raised,
    )  # fmt: skip


def table(runs: Iterable[Run], data: str, **settings) -> pd.DataFrame:
    """:func:`per_step` of several runs below each other, with columns model and seed."""
    parts = [per_step(r, data, **settings).assign(model=r.config.network.model, seed=r.seed) for r in runs]
    return pd.concat(parts, ignore_index=True)


# ------------------------------------------------------------------------------------------------ the authors' index


def squares(*areas: tuple[int, int], side: int = 64) -> np.ndarray:
    """One frame (1,1,1,side,side) with up to four rectangles (height, width), each in its own corner, as groups 1.."""
    groups = np.zeros((1, 1, 1, side, side), np.int64)
    for number, (height, width) in enumerate(areas, 1):
        rows = slice(0, height) if number < 3 else slice(side - height, side)
        columns = slice(0, width) if number % 2 else slice(side - width, side)
        if len(areas) > 4 or groups[..., rows, columns].any():
            raise ValueError(f"{len(areas)} rectangles of {areas} do not fit into a frame of {side} pixels")
        groups[..., rows, columns] = number
    return groups


def perfect_gamma(groups: np.ndarray, K: int = 5) -> np.ndarray:
    """gamma (T,B,K,1,H,W) that gives each group, background included, a component to itself with 0.9."""
    hard = np.moveaxis(np.eye(K)[groups], -1, 2)
    return hard * (0.9 - 0.1 / (K - 1)) + 0.1 / (K - 1)


def both_indices(groups: np.ndarray, gamma: np.ndarray) -> tuple[float, float]:
    """Adjusted Rand index of one frame: the textbook's (metrics.ari) and the authors' (ari_frames)."""
    ours = metrics.ari(torch.from_numpy(groups), torch.from_numpy(gamma))
    return float(ours[0, 0]), float(ari_frames(groups, gamma)[0][0, 0])


def constructed_cases() -> pd.DataFrame:
    """The authors' index on frames whose answer is known, each segmented perfectly: case, pixels, both indices."""
    cases = {
        "four objects of 100 pixels": [(10, 10)] * 4,
        "four objects of 900 pixels": [(30, 30)] * 4,
        "one object of 400 pixels in one component": [(20, 20)],
        "one object of 1300 pixels in one component": [(26, 50)],
    }
    rows = []
    for case, areas in cases.items():
        groups = squares(*areas)
        textbook, theirs = both_indices(groups, perfect_gamma(groups))
        rows.append(
            {"frame": case, "foreground pixels": int((groups > 0).sum()), "textbook": textbook, "authors": theirs}
        )
    return pd.DataFrame(rows)


def index_by_size(sides: Iterable[int] = range(4, 33)) -> pd.DataFrame:
    """Both indices of four equal squares segmented perfectly in a 64x64 frame, by the pixels of one of them."""
    rows = []
    for side in sides:
        groups = squares(*[(side, side)] * 4)
        textbook, theirs = both_indices(groups, perfect_gamma(groups))
        rows.append({"pixels": side * side, "textbook": textbook, "authors": theirs})
    return pd.DataFrame(rows)
