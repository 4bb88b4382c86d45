"""Object permanence: balls that a curtain hides, where predictions have them afterwards, and whose they are then.

A ball is hidden in a frame when all of its disc lies behind the curtain; other balls in front of it do not count. A
*spell* is an uninterrupted time of hiding that begins after frame 0 and once the ball was in sight. Positions are the
simulator's, known also while hidden. Frame t is predicted by the step that reads frame t-1, so that whatever belongs
to frame t (prediction, theta, and gamma, inferred from frame t itself) has row t-1.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnem.analysis import cache
from rnem.evaluation import ball_detection, evaluate, metrics
from rnem.model import em
from rnem.model.network import Network
from rnem.runs import store
from rnem.runs.store import Run
from rnem.videos import balls
from rnem.videos.balls import BOX
from rnem.videos.datasets import dataset, fixed
from rnem.videos.videos import Videos

COUNT = 300
"""Test videos."""
QUARTER, HALF = 0.25, 0.5
"""Shares of a disc in sight: of a ball that came back, and of one that a component may have."""
NEAR = 2.0
"""Pixels: a ball is found when a predicted disc is as near."""
BAND = 4
"""Pixels around the curtain in which a returning ball shows first."""
FAR = 8.0
"""Pixels, about a ball's width: a disc farther away is not this ball's. Where there is none, it counts as this far."""
GUESSES = {
    "straight": "constant velocity",
    "reflected": "constant velocity, walls known",
    "last_seen": "where last seen",
}
"""What :func:`without_model` guesses."""


# ----------------------------------------------------------------------------------------------------- what is in sight


def behind(videos: Videos) -> Bool[Tensor, "N H W"]:
    """Pixels behind the curtain; ValueError where the videos have none."""
    if videos.curtain is None:
        raise ValueError(f"the videos {videos.name} have no curtain")
    return balls.behind_curtain(videos.curtain, balls.pixel_centres(videos.features.shape[-1]))


def in_sight(videos: Videos) -> Float[np.ndarray, "T N M"]:
    """Share of each ball's pixels that are not behind the curtain, whatever balls lie over each other."""
    pixels, open_ = balls.pixel_centres(videos.features.shape[-1]), ~behind(videos)
    shares = []
    for positions in videos.positions:  # (N,M,2), a frame at a time to save memory
        disc = balls.discs(positions, videos.radii, pixels)  # (N,M,H,W)
        shares.append((disc & open_[:, None]).sum((2, 3)) / disc.sum((2, 3)))
    return torch.stack(shares).numpy()


def spells(share: Float[np.ndarray, "T N M"]) -> pd.DataFrame:
    """A row per spell: ``video``, ``ball``, ``start`` (first hidden frame), ``end`` (first frame out of it, or T).

    ``hidden`` is its length. Before it and since an earlier spell: ``since``, the first frame in sight, and ``before``,
    the last with HALF of the ball in sight. After it and until another spell: ``back`` and ``after``, the first frames
    with a QUARTER and HALF in sight. -1 where there is no such frame.
    """
    T = len(share)
    rows = []
    for n, m in np.ndindex(share.shape[1:]):
        s = share[:, n, m]
        bounds = np.flatnonzero(np.diff(np.r_[True, s == 0, True]))
        visible = [*bounds.reshape(-1, 2), (T, T)]  # from, to (excluded)
        for (since, start), (end, again) in itertools.pairwise(visible):
            if start < T:
                before = _first(s[since:start][::-1] >= HALF)
                row = {"video": n, "ball": m, "start": start, "end": end, "hidden": end - start, "since": since}
                row["before"] = start - 1 - before if before >= 0 else -1
                for name, least in (("back", QUARTER), ("after", HALF)):
                    place = _first(s[end:again] >= least)
                    row[name] = end + place if place >= 0 else -1
                rows.append(row)
    columns = ["video", "ball", "start", "end", "hidden", "since", "before", "back", "after"]
    return pd.DataFrame(rows, columns=columns, dtype=int)


def _first(is_so: np.ndarray) -> int:
    return int(is_so.argmax()) if is_so.any() else -1


def without_model(videos: Videos, some: pd.DataFrame, frame: str) -> dict[str, np.ndarray]:
    """Errors in pixels of the GUESSES where the ball of each spell is in the frame that column ``frame`` names.

    Constant velocity goes on from the true centres in the last two frames that showed any of the ball, nan where only
    one did: ``straight`` through walls, ``reflected`` by them, and through other balls both. ``last_seen``: where it
    was in the last of these.
    """
    positions, radii = videos.positions.double().numpy(), videos.radii.double().numpy()
    n, m, t, start = (some[column].to_numpy() for column in ("video", "ball", frame, "start"))
    true, last, earlier = positions[t, n, m], positions[start - 1, n, m], positions[start - 2, n, m]
    line = last + (last - earlier) * (t - start + 1)[:, None]
    line[start - some["since"] < 2] = np.nan
    least = radii[n, m][:, None]
    width = BOX - 2 * least  # the room of a centre; mirrored, it repeats every two of these
    mirrored = least + width - np.abs((line - least) % (2 * width) - width)
    guesses = zip(GUESSES, (line, mirrored, last), strict=True)
    return {name: np.linalg.norm(guess - true, axis=-1) / pixel(videos) for name, guess in guesses}


def pixel(videos: Videos) -> float:
    """Side of a pixel in box units."""
    return BOX / videos.features.shape[-1]


# -------------------------------------------------------------------------------------------------------- two questions


def reappearance(
    frames: Float[Tensor, "E H W"], videos: Videos, share: np.ndarray, some: pd.DataFrame
) -> Float[np.ndarray, "E M"]:
    """Distance in pixels of each ball from the disc that is found for it in a (predicted) frame ``back`` of each spell.

    Discs are looked for with the curtain's pixels left out, and matched with all balls of which the true frame shows
    anything, by least total distance up to FAR; nan where none is left for a ball.
    """
    n, t = some["video"].to_numpy(), some["back"].to_numpy()
    true = np.where(share[t, n, :, None] > 0, videos.positions.numpy()[t, n], np.nan)  # (E,M,2)
    radii = tuple(dict.fromkeys(dataset(videos.name).world.radii))
    found = ball_detection.find(frames, radii, hidden=behind(videos)[torch.tensor(n)])
    errors = np.full(true.shape[:2], np.nan)
    for event, centres in enumerate(found.centres.numpy()):
        _, j, away = ball_detection.match(centres, true[event], FAR * pixel(videos))
        errors[event, j] = away / pixel(videos)
    return errors


def faint(frames: Float[Tensor, "E H W"], videos: Videos, some: pd.DataFrame) -> Float[np.ndarray, "2 E"]:
    """How far off what shows at the curtain's rim is from the returning ball, however faint: pixels, for each spell.

    Between the centres of mass of the prediction (what is above a rollout's own threshold) and of the ball's visible
    pixels, both within BAND pixels of the curtain and a pixel away from other balls; nan where nothing shows. Second
    row: the same of a prediction that knows the curtain only, and has all of its rim alike.
    """
    n, m, t = (torch.tensor(some[column].to_numpy()) for column in ("video", "ball", "back"))
    curtain, groups = behind(videos)[n], videos.groups[t, n, 0]  # (E,H,W)
    own = groups == m[:, None, None] + 1
    others = torch.nn.functional.max_pool2d(((groups > 0) & ~own).float()[:, None], 3, 1, 1)[:, 0] > 0
    near = torch.nn.functional.max_pool2d(curtain.float()[:, None], 2 * BAND + 1, 1, BAND)[:, 0] > 0
    rim = near & ~curtain & ~others
    true = _centre((own & rim).float())
    shown = torch.where(frames > em.ROLLOUT_THRESHOLD, frames, 0) * rim
    return torch.stack([(_centre(mass) - true).norm(dim=1) for mass in (shown, rim.float())]).numpy()


def _centre(mass: Float[Tensor, "E H W"]) -> Float[Tensor, "E 2"]:
    """Centre of mass (y, x) in pixels; nan where there is none."""
    at = torch.arange(mass.shape[-1], dtype=mass.dtype)
    total = mass.sum((1, 2))
    return torch.stack([(mass.sum(2) * at).sum(1) / total, (mass.sum(1) * at).sum(1) / total], 1)


def same_owner(owner: Int[np.ndarray, "T-1 N M"], share: np.ndarray, some: pd.DataFrame) -> dict[str, np.ndarray]:
    """Whether the component that had the ball in frame ``before`` has it in frame ``after``, for each spell.

    ``had``, ``has``: these components; ``kept``: 0 or 1; ``other``: the share of the other balls (HALF in sight in
    frame ``before``) whose component of then has this ball now: what two different balls give. nan where there is none.
    """
    n, m, t, u = (some[column].to_numpy() for column in ("video", "ball", "before", "after"))
    had, has = owner[t - 1, n, m], owner[u - 1, n, m]
    others = (share[t, n] >= HALF) & (np.arange(share.shape[2]) != m[:, None]) & (owner[t - 1, n] >= 0)  # (E,M)
    same = ((owner[t - 1, n] == has[:, None]) & others).sum(1)
    return {
        "had": had, "has": has, "kept": (had == has).astype(int),
        "other": same / np.where(others.any(1), others.sum(1), np.nan),
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Watched:
    """N videos and what a network did with them."""

    videos: Videos
    share: np.ndarray
    """in_sight, (T,N,M)"""
    spells: pd.DataFrame
    best: np.ndarray
    """(T-1,N,H,W) max_k psi_k"""
    theta: np.ndarray
    """(T-1,N,K,S)"""
    owner: np.ndarray
    """(T-1,N,M) component of each ball by the rule "most gamma", -1 where no pixel shows it"""


@torch.no_grad()
def watch_videos(network: Network, videos: Videos, draw: int = 0) -> Watched:
    """A network on true frames without noise."""
    best, theta, owner = [], [], []
    for part, steps in evaluate.in_batches(network, videos, draw=draw):
        states = list(steps)
        best.append(torch.stack([s.psi.amax(1)[:, 0] for s in states]))
        theta.append(torch.stack([s.theta for s in states]))
        M = videos.masses.shape[1]
        by_frame = [
            metrics.component_of_each_ball(part.groups[t + 1], s.gamma, M, "most gamma") for t, s in enumerate(states)
        ]
        owner.append(torch.stack(by_frame))
    share = in_sight(videos)
    return Watched(videos, share, spells(share), *(torch.cat(parts, 1).numpy() for parts in (best, theta, owner)))


@functools.lru_cache(maxsize=2)
def watched(path: Path, data: str, split: str, count: int, draw: int = 0) -> Watched:
    """:func:`watch_videos` of the run in a folder on the first videos of a split; the last two are remembered."""
    return watch_videos(evaluate.load_network(store.load(path)), fixed(data, split, count), draw)


def returned_rows(seen: Watched) -> pd.DataFrame:
    """A row per ball that came back; what :func:`returns` keeps."""
    some = seen.spells[seen.spells["back"] >= 0].reset_index(drop=True)
    n, m, t = (some[column].to_numpy() for column in ("video", "ball", "back"))
    frames = torch.from_numpy(seen.best[t - 1, n])
    errors = reappearance(frames, seen.videos, seen.share, some)
    error, whole = errors[np.arange(len(some)), m], seen.share[t, n] == 1  # (E,M)
    in_view = ((errors <= NEAR) & whole).sum(1) / np.where(whole.any(1), whole.sum(1), np.nan)
    rows = some[["video", "ball", "hidden"]].assign(frame=t, error=error, found=(error <= NEAR).astype(int))
    blurred, rim = faint(frames, seen.videos, some)
    return rows.assign(in_view=in_view, faint=blurred, rim=rim, **without_model(seen.videos, some, "back"))


def identity_rows(seen: Watched) -> pd.DataFrame:
    """A row per ball that a component could have before and after; what :func:`identity` keeps."""
    some = seen.spells[(seen.spells["before"] >= 1) & (seen.spells["after"] >= 1)].reset_index(drop=True)
    rows = some[["video", "ball", "hidden"]].assign(frame=some["after"], **same_owner(seen.owner, seen.share, some))
    return rows[(rows["had"] >= 0) & (rows["has"] >= 0)].reset_index(drop=True)


def returns(run: Run, data: str | None = None, count: int | None = None) -> pd.DataFrame:
    """Every return of a hidden ball in a run's predictions of the first ``count`` test videos, computed once.

    A row per return and draw. Columns: ``draw``, video, ball, ``hidden`` (frames), ``frame`` (the first with a QUARTER
    of it in sight), ``error`` (pixels, see :func:`reappearance`), ``found`` (whether that is at most NEAR),
    ``in_view`` (the share found of the balls in full view in that frame; nan where there is none), ``faint`` and
    ``rim`` (pixels, see :func:`faint`), and the errors of :func:`without_model`. ``data`` is the run's own where it
    is not given.
    """
    return keep_tables(run, "returns", _of_test_videos(run), ("test",), data, count)


def identity(run: Run, data: str | None = None, count: int | None = None) -> pd.DataFrame:
    """Every hidden ball with HALF in sight before and after, computed once.

    A row per such ball and draw. Columns: ``draw``, video, ball, ``hidden`` (frames), ``frame`` (after), and those of
    :func:`same_owner`.
    """
    return keep_tables(run, "identity", _of_test_videos(run) | {"identity": identity_rows}, ("test",), data, count)


def _of_test_videos(run: Run) -> dict[str, Callable[..., pd.DataFrame]]:
    """The tables that watching the test videos once gives; with one component there is no identity to ask for."""
    several = run.config.network.components > 1
    return {"returns": returned_rows} | ({"identity": identity_rows} if several else {})


def keep_tables(
    run: Run,
    what: str,
    tables: Mapping[str, Callable[..., pd.DataFrame]],
    splits: tuple[str, ...],
    data: str | None,
    count: int | None,
) -> pd.DataFrame:
    """The table ``what`` of a run watching ``count`` (COUNT) videos of each split, through rnem.analysis.cache.

    ``tables`` are functions of what was watched, by name; each gives the rows of one draw. They are all kept, since
    watching takes longer than anything that is made of it.
    """
    data, count = data or run.config.data, cache.video_count(run, COUNT, count)
    module = tables[what].__module__

    def compute() -> pd.DataFrame:
        drawn = []
        for draw in range(evaluate.number_of_draws(run)):
            seen = [watched(run.path, data, split, count, draw) for split in splits]
            drawn.append({name: rows(*seen) for name, rows in tables.items()})
            for table in drawn[-1].values():
                table.insert(0, "draw", draw)
        whole = {name: pd.concat([each[name] for each in drawn], ignore_index=True) for name in tables}
        for other in whole.keys() - {what}:
            cache.cached(run, other, module, lambda other=other: whole[other], data=data, count=count)
        return whole[what]

    return cache.cached(run, what, module, compute, data=data, count=count)


def returned(run: Run, first: int, last: int, data: str | None = None, count: int | None = None) -> float:
    """The claim's quantity: share found, of the balls hidden for two frames or more that return in these frames."""
    rows = returns(run, data, count)
    return float(rows.loc[(rows["hidden"] >= 2) & rows["frame"].between(first, last), "found"].mean())


def chance(rows: pd.DataFrame) -> float:
    """How often a component drawn as in ``had`` and one drawn as in ``has`` are the same: identity by habit alone."""
    had, has = (rows[column].value_counts(normalize=True) for column in ("had", "has"))
    return float((had * has).sum())


def detector(data: str, count: int = COUNT) -> dict[str, float]:
    """What :func:`reappearance` says of true frames and of a copy of each frame before.

    ``cases``; of true frames ``found`` (share) and ``error`` (median, pixels); of copies ``late_found`` and
    ``late_error`` (median of those where there is one).
    """
    seen = fixed(data, "test", count)
    share = in_sight(seen)
    some = spells(share)
    some = some[some["back"] >= 0].reset_index(drop=True)
    back, video = torch.tensor(some["back"].tolist()), torch.tensor(some["video"].tolist())
    every, ball = np.arange(len(some)), some["ball"].to_numpy()
    true, late = (reappearance(seen.features[back - ago, video, 0], seen, share, some)[every, ball] for ago in (0, 1))
    return {
        "cases": len(some), "found": float((true <= NEAR).mean()), "error": float(np.nanmedian(true)),
        "late_found": float((late <= NEAR).mean()), "late_error": float(np.nanmedian(late)),
    }  # fmt: skip
