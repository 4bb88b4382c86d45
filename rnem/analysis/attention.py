"""Whom a component attends to, and whether attention rises between two balls that are about to touch.

What time means. Step t (from 0) applies Υ, hence attention, to theta as frames 0..t-1 left it; the code of frame t
joins only after Υ, and what comes out predicts frame t+1 (rnem.model.em.step). A contact at frame c happens on the way
from frame c-1 to c, so step c-1 is the last whose attention can still change the prediction of frame c. That step has

    lag = (t + 1) - c = 0.

A positive lag comes too late for the contact itself. Which component stands for which ball during step t is read from
gamma of frame t, the one that the step is given. Pairs are directed as in the network: att_ki, focus k, other i.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rnem.analysis import cache
from rnem.evaluation import evaluate, metrics
from rnem.model import em
from rnem.model.network import Network
from rnem.runs.store import Run
from rnem.videos.datasets import fixed
from rnem.videos.videos import Videos

REACH = 6
"""Lags from -REACH to REACH are measured, in frames; a pair is *quiet* with no contact so near."""
FIRST = 10
"""First predicted frame that counts, as in rnem.claims.rules: before it components still look for their balls."""
QUANTITIES = ("attention", "contribution")
"""att_ki, and the norm of att_ki ctx_ki: what i adds to the effect on k."""
EDGES = (0.0, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 15.0)
"""Bins of the distance of two centres, box units (side 10); balls touch at 1.6 to 2.0."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Record:
    """What every step did between every two balls, float64 (T-1,D*N,M,M) by QUANTITIES: [t,n,a,b] is focus a, other b.

    n counts the N videos of draw 0, then those of draw 1, and so on for all D draws. nan where one of the two has no
    component of its own, on the diagonal, and in step 0, which has seen nothing.
    """

    values: dict[str, np.ndarray]

    def __getitem__(self, quantity: str) -> np.ndarray:
        return self.values[quantity]

    def draws(self, videos: Videos) -> int:
        """How many draws of these videos it holds."""
        return self["attention"].shape[1] // len(videos)


@torch.no_grad()
def record(network: Network | Run, videos: Videos, *, draws: int = 1) -> Record:
    """Unroll a network on true frames and keep what happens between the balls. ValueError without attention."""
    network = evaluate.load_network(network) if isinstance(network, Run) else network
    if network.config.model != "rnem" or network.config.components < 2:
        raise ValueError(f"{network.config.model} with K = {network.config.components} has no attention to record")
    with _norms(network) as norms:
        parts = [
            _between_balls(network, states, part, norms)
            for draw in range(draws)
            for part, states in evaluate.in_batches(network, videos, draw=draw)
        ]
    return Record({q: np.concatenate([p[q] for p in parts], 1) for q in QUANTITIES})


@contextmanager
def _norms(network: Network) -> Iterator[list[Tensor]]:
    """A list whose last entry is the norm of every ctx_ki of the last step, (B*K*(K-1),)."""
    norms: list[Tensor] = []
    hook = network.core.interaction.context.register_forward_hook(
        lambda _module, _inputs, context: norms.__setitem__(slice(None), [context.norm(dim=-1)])
    )
    try:
        yield norms
    finally:
        hook.remove()


def _between_balls(
    network: Network, states: Iterable[em.State], videos: Videos, norms: list[Tensor]
) -> dict[str, np.ndarray]:
    steps: dict[str, list[Tensor]] = {q: [] for q in QUANTITIES}
    gamma = None
    for t, state in enumerate(states):
        attention = network.attention  # (N,K,K)
        N, K, _ = attention.shape
        norm = torch.zeros_like(attention)
        norm[:, ~torch.eye(K, dtype=torch.bool, device=norm.device)] = norms[-1].view(N, K * (K - 1))  # i ascending
        for quantity, value in zip(QUANTITIES, (attention, attention * norm), strict=True):
            steps[quantity].append(_of_balls(value, gamma, videos, t))
        gamma = state.gamma  # of frame t+1: what the next step is given
    return {q: torch.stack(rows).double().cpu().numpy() for q, rows in steps.items()}


def _of_balls(value: Tensor, gamma: Tensor | None, videos: Videos, t: int) -> Tensor:
    """(N,K,K) between components -> (N,M,M) between the balls that have one to themselves at frame t, nan elsewhere."""
    N, M = videos.masses.shape
    if gamma is None:
        return value.new_full((N, M, M), torch.nan)
    component = metrics.component_of_each_ball(videos.groups[t].to(gamma.device), gamma, M)  # (N,M)
    own = metrics.has_one_of_its_own(component, gamma.shape[1])
    component = component.clamp_min(0)
    rows = value.gather(1, component[..., None].expand(-1, -1, value.shape[2]))  # (N,M,K)
    pairs = rows.gather(2, component[:, None].expand(-1, M, -1))  # (N,M,M)
    known = own[:, :, None] & own[:, None] & ~torch.eye(M, dtype=torch.bool, device=own.device)
    return torch.where(known, pairs, torch.nan)


# ------------------------------------------------------------------------------------------------------------- contacts


def touching(videos: Videos) -> np.ndarray:
    """Who hit whom since the frame before: bool (T,N,M,M), symmetric.

    A frame tells which balls hit a ball, not which. Each of them is paired with the one among them whose distance is
    nearest to touching, so two make one pair, and three in a row two; of four in a row the middle pair is missed.
    """
    hit = (videos.events & 1).bool().numpy()  # (T,N,M)
    gap = np.abs(distances(videos) - (videos.radii[:, :, None] + videos.radii[:, None]).numpy())  # (T,N,M,M)
    both = hit[..., :, None] & hit[..., None, :] & ~np.eye(hit.shape[-1], dtype=bool)
    gap = np.where(both, gap, np.inf)
    nearest = np.eye(hit.shape[-1], dtype=bool)[gap.argmin(-1)] & both  # (T,N,M,M)
    return nearest | nearest.swapaxes(-1, -2)


def distances(videos: Videos) -> np.ndarray:
    """Distance of every two centres, box units, (T,N,M,M)."""
    return (videos.positions[..., :, None, :] - videos.positions[..., None, :, :]).norm(dim=-1).numpy()


def approaching(videos: Videos) -> np.ndarray:
    """Whether the distance of two centres is getting smaller at a frame, bool (T,N,M,M)."""
    apart = videos.positions[..., :, None, :] - videos.positions[..., None, :, :]  # (T,N,M,M,2)
    speed = videos.velocities[..., :, None, :] - videos.velocities[..., None, :, :]
    return ((apart * speed).sum(-1) < 0).numpy()


def near_contact(touch: np.ndarray, reach: int = REACH) -> np.ndarray:
    """Pairs with a contact within ``reach`` frames of the frame that a step predicts: bool, (T,...) -> (T-1,...)."""
    T = len(touch)
    near = np.zeros_like(touch)
    for lag in range(-reach, reach + 1):
        near[max(lag, 0) : T + min(lag, 0)] |= touch[max(-lag, 0) : T - max(lag, 0)]
    return near[1:]  # step t predicts frame t+1


# ------------------------------------------------------------------------------------------------------------- by lag


def lags(values: Record, videos: Videos, reach: int = REACH, first: int = FIRST) -> pd.DataFrame:
    """Attention around contacts: a row per quantity and lag, over all contacts whose whole window lies in the video.

    Each contact counts twice, once with either ball as focus. ``partner``: to the ball it hits; ``others``: to its
    other balls at the same time, those that are quiet; ``quiet``: to the same ball, mean over all times when the pair
    is quiet (no contact within ``reach`` frames). ``above_others`` and ``above_quiet`` are the differences, with
    ``_low`` and ``_high``, a 95 % bootstrap interval over videos, each with all its draws. ``contacts`` is the number
    of directed contacts, the mean over draws.
    """
    D = values.draws(videos)
    touch = np.tile(touching(videos), (1, D, 1, 1))
    near = near_contact(touch, reach)
    allowed = np.arange(len(touch))
    allowed = (allowed - reach >= first) & (allowed + reach < len(touch))
    frame, video, focus, other = np.nonzero(touch & allowed[:, None, None, None])
    rows = []
    for quantity in QUANTITIES:
        value = values[quantity]
        calm = np.where(near, np.nan, value)
        others = evaluate.nanmean(calm, -1)  # (T-1,N,M): the focus's quiet balls
        quiet = evaluate.nanmean(calm[first - 1 :], 0)  # (N,M,M)
        for lag in range(-reach, reach + 1):
            step = frame - 1 + lag
            three = value[step, video, focus, other], others[step, video, focus], quiet[video, focus, other]
            three = np.stack(three, -1)  # (E,3)
            rows.append({"quantity": quantity, "lag": lag} | _compared(three, video % len(videos), len(videos), D))
    return pd.DataFrame(rows)


def _compared(three: np.ndarray, video: np.ndarray, N: int, draws: int) -> dict[str, float]:
    """One row of :func:`lags` from (E,3) partner, others, quiet of every contact and the video (E,) of each."""
    known = np.isfinite(three).all(-1)
    three, video = three[known], video[known]
    partner, others, quiet = three.T
    columns = {
        "partner": partner,
        "others": others,
        "quiet": quiet,
        "above_others": partner - others,
        "above_quiet": partner - quiet,
    }
    sums = np.stack([np.bincount(video, column, N) for column in columns.values()], -1)  # (N,5)
    mean, low, high = bootstrap(sums, np.bincount(video, minlength=N)[:, None])
    row = {"contacts": round(len(video) / draws)} | dict(zip(columns, mean, strict=True))
    for place, name in list(enumerate(columns))[3:]:
        row |= {f"{name}_low": low[place], f"{name}_high": high[place]}
    return row


def bootstrap(sums: np.ndarray, counts: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, and low and high end of its 95 % bootstrap interval, of columns (C,) known by their sums over each video.

    ``sums`` and ``counts`` are (N,C) (or (N,1)); whole videos are drawn, since what happens within one is dependent.
    """
    N = len(sums)
    weights = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), RESAMPLES)  # (R,N)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, drawn = sums.sum(0) / counts.sum(0), (weights @ sums) / (weights @ counts)
    drawn = np.where(np.isfinite(drawn).any(0), drawn, mean)  # no entry at all: nan without a warning
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0) if np.isfinite(mean).any() else (mean, mean)
    return mean, low, high


# --------------------------------------------------------------------------------------------------------- by distance


def bins(values: Record, videos: Videos, edges: tuple[float, ...] = EDGES, first: int = FIRST) -> pd.DataFrame:
    """Attention against the distance of two centres in the frame that a step reads: a row per quantity, motion and bin.

    Columns: ``quantity``, ``motion`` ("approaching" or "separating" at that frame), ``low`` and ``high`` (the bin, box
    units), ``distance`` (mean in the bin), ``pairs`` (how many directed pairs, mean over draws), ``mean``, and
    ``mean_low``, ``mean_high``, its 95 % bootstrap interval over videos. Empty bins are nan.
    """
    steps = slice(first - 1, len(videos.positions) - 1)
    D = values.draws(videos)
    # step t reads frame t
    apart, closing = (np.tile(a[steps], (1, D, 1, 1)) for a in (distances(videos), approaching(videos)))
    place = np.digitize(apart, edges) - 1
    video = np.broadcast_to(np.tile(np.arange(len(videos)), D)[None, :, None, None], apart.shape)
    rows = []
    for quantity in QUANTITIES:
        value = values[quantity][steps]
        for motion in ("approaching", "separating"):
            known = np.isfinite(value) & (closing == (motion == "approaching"))
            for b in range(len(edges) - 1):
                some = known & (place == b)
                both = [np.bincount(video[some], a[some], len(videos)) for a in (value, apart)]
                count = np.bincount(video[some], minlength=len(videos))[:, None]
                (mean, distance), (low, _), (high, _) = bootstrap(np.stack(both, -1), count)
                rows.append(
                    (quantity, motion, edges[b], edges[b + 1], distance, round(some.sum() / D), mean, low, high)
                )
    columns = ["quantity", "motion", "low", "high", "distance", "pairs", "mean", "mean_low", "mean_high"]
    return pd.DataFrame(rows, columns=columns)


# -------------------------------------------------------------------------------------------------------------- of runs


def by_lag(run: Run, data: str, *, count: int = 100, frames: int = 51) -> pd.DataFrame:
    """:func:`lags` of a run on the first ``count`` test videos of a data set, computed once."""
    return _kept_table(run, "attention-lag", data, count, frames)


def by_distance(run: Run, data: str, *, count: int = 100, frames: int = 51) -> pd.DataFrame:
    """:func:`bins` of a run on the first ``count`` test videos of a data set, computed once."""
    return _kept_table(run, "attention-distance", data, count, frames)


def table(runs: Iterable[Run], data: str, of: str = "lag", **settings) -> pd.DataFrame:
    """:func:`by_lag` or, with ``of="distance"``, :func:`by_distance` of several runs, with columns model and seed."""
    one = {"lag": by_lag, "distance": by_distance}[of]
    parts = [one(r, data, **settings).assign(model=r.config.network.model, seed=r.seed) for r in runs]
    return pd.concat(parts, ignore_index=True)


def _kept_table(run: Run, what: str, data: str, count: int, frames: int) -> pd.DataFrame:
    settings = {"data": data, "count": count, "frames": frames}

    def compute() -> pd.DataFrame:
        # One pass serves both tables: the other is kept as well.
        test = fixed(data, "test", count, frames)
        values = record(run, test, draws=evaluate.number_of_draws(run))
        both = {"attention-lag": lags(values, test), "attention-distance": bins(values, test)}
        other = next(name for name in both if name != what)
        cache.cached(run, other, __name__, lambda: both[other], **settings)
        return both[what]

    return cache.cached(run, what, __name__, compute, **settings)


def rise(rows: pd.DataFrame, difference: str, quantity: str = "attention", lag: int = 0) -> tuple[float, float, float]:
    """A difference of :func:`table` at one lag: mean over seeds with low and high end of its 95 % interval.

    The interval is Student's over seeds; where there is one seed, the bootstrap's over videos.
    """
    rows = rows[(rows["quantity"] == quantity) & (rows["lag"] == lag)]
    mean, half = metrics.interval(rows[difference].to_numpy())
    if len(rows) == 1:
        return mean, float(rows[f"{difference}_low"].iloc[0]), float(rows[f"{difference}_high"].iloc[0])
    return mean, mean - half, mean + half


def before_contact(run: Run, first: int, last: int) -> float:
    """Attention between two balls at lag 0 of their contact, over that between the same two at quiet times.

    Of the run's own test videos; ``first`` and ``last`` are those of a claim's measure, and not read.
    """
    rows = by_lag(run, run.config.data)
    row = rows[(rows["quantity"] == "attention") & (rows["lag"] == 0)].iloc[0]
    return float(row["partner"] / row["quiet"])
