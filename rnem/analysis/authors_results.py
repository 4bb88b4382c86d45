"""The authors' result videos as a test set: their balls tracked, our runs evaluated on them beside the authors' model.

Windows are counted in frames as the model sees them. A run for 32 px sees every second frame at half the size, so
that its video has 250 frames and other numbers than the authors' own of 500: compare ratios to copying the last frame.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import torch
from torch import Tensor

from rnem.analysis import cache
from rnem.authors.ball_fitting import uncovered
from rnem.authors.ball_tracking import contacts, masses, track
from rnem.authors.result_videos import HASHES, KINDS, PIXEL, SIZE, ResultVideo, digest, fetch, read
from rnem.errors import VideoError
from rnem.evaluation import evaluate, metrics
from rnem.model.network import Network
from rnem.paths import authors_root, authors_videos_root
from rnem.runs import files
from rnem.runs.store import Run
from rnem.videos import balls
from rnem.videos.datasets import dataset
from rnem.videos.videos import Videos

WINDOWS = {"10-28": (10, 28), "29-48": (29, 48), "49-499": (49, 499)}
"""First and last predicted frame, numbered from 0 as the model sees them."""
QUANTITIES = ("bce_max", "bce_mixture", "wrong", "wrong_mixture", "copy_last", "ari")
"""What is measured of a video; rnem.evaluation.quantities says what each is."""


class NotAtHandError(VideoError):
    """A result video is needed, and is not here."""


# --------------------------------------------------------------------------------------------------------------- videos


def as_videos(video: ResultVideo, size: int = SIZE, stride: int = 1) -> Videos:
    """A result video as one of ours (N = 1): every ``stride``-th frame from the first, ``size`` x ``size`` pixels.

    At 64 px the features are the true frames; at another size the tracked balls are drawn as in training, which is some
    ten times nearer to the frames of a training video than any rule that makes one pixel of a block of four. Groups,
    positions, velocities and collisions come from the tracked balls; a collision in a frame that is left out counts for
    the next one. VideoError where a ball cannot be tracked.
    """
    path, radii = track(video)
    touched = _since(contacts(path, radii), stride)
    curtain = None
    if video.world.curtain and not uncovered(video).all():
        curtain = torch.from_numpy(np.argwhere(~uncovered(video))[:1] * PIXEL)  # (1,2)
    one = [torch.from_numpy(a)[None] for a in (radii, masses(video, radii))]
    positions = torch.from_numpy(path[::stride])[:, None]  # (T,1,n,2)
    velocities = torch.from_numpy(np.gradient(path, axis=0)[::stride])[:, None]
    hits = torch.from_numpy(touched)[:, None]
    drawn = balls.Trajectories(
        positions, velocities, *one, torch.ones_like(one[0], dtype=torch.bool), hits, torch.zeros_like(hits), curtain
    )
    features, groups, collisions = balls.render(drawn, size)
    if size == SIZE:
        features = torch.from_numpy(video.truth[::stride].astype(np.uint8))[:, None, None]  # (T,1,1,H,W)
    return Videos(
        features=features,
        groups=groups * features,
        collisions=collisions * features,
        events=hits.byte(),
        positions=positions.float(),
        velocities=velocities.float(),
        masses=one[1].float(),
        radii=one[0].float(),
        actions=None,
        name=video.name,
        curtain=None if curtain is None else curtain.float(),
    )


def _since(events: np.ndarray, stride: int) -> np.ndarray:
    """Events (F,n) of every ``stride``-th frame, with those of the frames left out before it."""
    kept = range(0, len(events), stride)
    return np.stack([events[max(frame - stride + 1, 0) : frame + 1].any(0) for frame in kept])


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, sha256: str, size: int, stride: int) -> Videos:
    """Tracked once for all runs of a process; the hash is in the key in case the file is replaced."""
    return as_videos(read(path), size, stride)


# ----------------------------------------------------------------------------------------------------------- evaluation


def theirs(path: str | Path) -> pd.DataFrame:
    """What the authors' own model does in a GIF, a row per window: the QUANTITIES that a mixture has."""
    video = read(path)
    truth = torch.from_numpy(video.truth.astype(np.float32))[:, None]  # (F,1,64,64)
    prediction = torch.from_numpy(video.prediction)[:, None]
    groups = _loaded(Path(path), digest(path), SIZE, 1).groups  # (F,1,1,64,64)
    gamma = torch.nn.functional.one_hot(torch.from_numpy(video.assignment()).long(), video.components)
    gamma = gamma.permute(0, 3, 1, 2)[:, None, :, None].float()  # (F,1,K,1,64,64)
    values = {
        "bce_mixture": metrics.bce(prediction, truth)[1:],
        "wrong_mixture": metrics.wrong_pixels(prediction, truth)[1:],
        "copy_last": metrics.wrong_pixels(truth[:-1], truth[1:]),
        "ari": metrics.ari(groups, gamma)[1:, 0],
    }
    return _windows(values, video.name)


def evaluate_video(run: Run, path: str | Path) -> dict:
    """A run on one of the authors' videos, without noise, at its own size and stride; K = 8 for balls678mass.

    Keys: run, key, video, sha256, size, stride, frames and windows (by name: first and last frame really used, and the
    QUANTITIES). Kept with the measures. VideoError where the file is no result video.
    """
    name, sha256 = Path(path).stem, digest(path)
    if name.split("_")[0] not in KINDS:
        _ = read(path).world  # says what is wrong with the file, or else with its name
    rows = _kept(run, name, sha256, Path(path))
    data = dataset(run.config.data)
    windows = {row.pop("window"): row for row in rows.drop(columns="frames").to_dict("records")}
    about = {"run": run.label, "key": run.key, "video": name, "sha256": sha256.removeprefix("sha256:")}
    return about | {"size": data.size, "stride": data.stride, "frames": int(rows["frames"].iloc[0]), "windows": windows}


def _kept(run: Run, name: str, sha256: str, path: Path | None) -> pd.DataFrame:
    """A row per window, kept by the video's hash; VideoError where it is not and there is no file."""
    data, kind = dataset(run.config.data), name.split("_")[0]

    def compute() -> pd.DataFrame:
        if path is None:
            raise NotAtHandError(f"{name} is not at hand, and {run.label} was never measured on it")
        videos = _loaded(path, sha256, data.size, data.stride)
        network = _network(run, name)
        drawn = [_measure(network, videos, draw) for draw in range(evaluate.number_of_draws(run))]
        mean = {q: torch.stack([each[q] for each in drawn]).double().nanmean(0) for q in QUANTITIES}
        return _windows(mean, name).assign(frames=videos.frames)

    return cache.cached(run, "authors-results", __name__, compute, kind=kind, sha256=sha256)


def watched(run: Run, path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a run sees of a result video and makes of it: frames 1..T-1 (T-1,H,W), psi and gamma (T-1,K,H,W)."""
    data = dataset(run.config.data)
    videos = _loaded(Path(path), digest(path), data.size, data.stride)
    psi, gamma = evaluate.predict(_network(run, Path(path).stem), videos)
    return videos.features[1:, 0, 0].float().numpy(), psi[:, 0, :, 0].numpy(), gamma[:, 0, :, 0].numpy()


def _network(run: Run, name: str) -> Network:
    return evaluate.load_network(run, components=8 if name.startswith("balls678mass") else None)


def _measure(network: Network, videos: Videos, draw: int) -> dict[str, Tensor]:
    """The QUANTITIES of every predicted frame 1..T-1 of one video, (T-1,) each."""
    x = videos.features[:, 0].float()  # (T,1,H,W)
    psi, gamma = evaluate.predict(network, videos, draw=draw)  # (T-1,1,K,1,H,W)
    best, mixture = psi[:, 0].amax(1), (gamma * psi)[:, 0].sum(1)  # (T-1,1,H,W)
    return {
        "bce_max": metrics.bce(best, x[1:]),
        "bce_mixture": metrics.bce(mixture, x[1:]),
        "wrong": metrics.wrong_pixels(best, x[1:]),
        "wrong_mixture": metrics.wrong_pixels(mixture, x[1:]),
        "copy_last": metrics.wrong_pixels(x[:-1], x[1:]),
        "ari": metrics.ari(videos.groups[1:], gamma)[:, 0],
    }


def _windows(values: dict[str, Tensor], name: str) -> pd.DataFrame:
    """Means over the windows of quantities (F-1,) that begin with frame 1: columns window, first, last, quantities."""
    steps = len(next(iter(values.values())))
    rows = []
    for window, (first, last) in WINDOWS.items():
        if first <= steps:
            part = {q: float(np.nanmean(v[first - 1 : last].double().numpy())) for q, v in values.items()}
            rows.append({"window": window, "first": first, "last": min(last, steps)} | part)
    if not rows:
        raise VideoError(f"{name} has {steps + 1} frames as the model sees them, and at least 11 are needed")
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------------- without the videos


def at_hand(name: str) -> Path | None:
    """A result video that is here, with its hash of HASHES: in $RNEM_AUTHORS (../shared/authors), or downloaded."""
    for folder in (authors_videos_root(), Path(pooch.os_cache("rnem"))):
        path = folder / f"{name}.gif"
        if path.is_file() and digest(path) == HASHES[name]:
            return path
    return None


def file_of(video: Path) -> Path:
    """A GIF that is here, or the file of a published video by its name: at hand, else downloaded and verified.

    VideoError where it cannot be downloaded; a path that is neither comes back as it is.
    """
    name = str(video).removesuffix(".gif")
    if video.exists() or name not in HASHES:
        return video
    return at_hand(name) or fetch(name)


def table(runs: Iterable[Run]) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Return runs on the authors' videos: rows that are kept, and those that can be computed as the video is at hand.

    A run is measured on the kind of video that it was trained on (those for balls4mass on balls678mass too); on curtain
    videos one trained without a curtain stands in where none of its name is trained with it. Columns: video, window,
    first, last, QUANTITIES, frames, model, components, seed, run. The second value: video -> runs that are left out.
    """
    runs, parts, missing = list(runs), [], {}
    for name, sha256 in HASHES.items():
        for run in _fitting(runs, name):
            network = run.config.network
            about = {"model": network.model, "components": network.components, "seed": run.seed, "run": run.config.name}
            try:
                parts.append(_kept(run, name, sha256, at_hand(name)).assign(video=name, **about))
            except NotAtHandError:
                missing.setdefault(name, []).append(run.label)
    columns = ["video", "window", "first", "last", *QUANTITIES, "frames", "model", "components", "seed", "run"]
    return (pd.concat(parts) if parts else pd.DataFrame(columns=columns))[columns].reset_index(drop=True), missing


def _fitting(runs: list[Run], name: str) -> list[Run]:
    curtain = [run for run in runs if dataset(run.config.data).world.curtain]
    open_ = [run for run in runs if run not in curtain]
    if name.split("_")[0] != "curtain":
        return open_
    there = {(run.config.network.model, run.config.network.components) for run in curtain}
    return curtain + [r for r in open_ if (r.config.network.model, r.config.network.components) not in there]


def theirs_path() -> Path:
    """Where the authors' own numbers are kept, which a chapter shows without their videos."""
    return authors_root() / "theirs.csv"


def write_theirs(folder: str | Path) -> Path:
    """Measure the authors' model in every GIF of a folder that is one of HASHES, and keep it: :func:`theirs_path`."""
    found = [name for name in HASHES if (Path(folder) / f"{name}.gif").is_file()]
    if not found:
        raise VideoError(f"{folder} has none of {', '.join(HASHES)}")
    parts = []
    for name in found:
        path = Path(folder) / f"{name}.gif"
        if HASHES[name] != digest(path):
            raise VideoError(f"{path} is not the authors' {name}: its hash is {digest(path)}")
        rows = theirs(path)
        rows.insert(0, "video", name)
        rows.insert(1, "sha256", digest(path).removeprefix("sha256:"))
        parts.append(rows)
    text = "# authors_results.write_theirs: the authors' own predictions in their result videos, 64 px, every frame\n"
    text += pd.concat(parts).to_csv(index=False, float_format=f"%.{cache.DIGITS}g", lineterminator="\n")
    with files.writing(f"table {theirs_path()}"):
        theirs_path().parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(theirs_path(), text.encode())
    return theirs_path()


def read_theirs() -> pd.DataFrame:
    """The table that :func:`write_theirs` made; VideoError where it is missing or damaged."""
    try:
        return pd.read_csv(theirs_path(), comment="#")
    except (OSError, ValueError) as error:
        raise VideoError(f"{theirs_path()} cannot be read: {error}") from None
