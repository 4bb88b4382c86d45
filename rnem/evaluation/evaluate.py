"""Measure a network on videos: every quantity of the claims, per predicted frame and per sequence.

The initial gamma is random, and so are the bits that noise flips. Both are a function of the video (data set, split,
its number there) and of the number of the draw, and of nothing else: :func:`dice`. A reported number is the mean of
DRAWS draws; a picture of a single video shows draw 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rnem.errors import RunError
from rnem.evaluation import metrics
from rnem.model import em
from rnem.model.fast import on_path
from rnem.model.network import Network, build
from rnem.runs.store import CONFIG, WEIGHTS, Run, fits
from rnem.videos.videos import Videos

QUANTITIES = ("loss", "bce", "kl", "relational", "contact", "mixture", "wrong", "copy_last", "ari")
"""What :func:`evaluate` measures; rnem.evaluation.quantities says what each is."""
BATCH = 64
"""Sequences that are unrolled together; more need more memory, and all else stays the same."""
DRAWS = 5
"""Draws of the initial gamma (and of the noise) that a reported number is the mean of."""


@dataclass(frozen=True)
class Evaluation:
    """Each quantity as float64 (T-1,N): row t belongs to the prediction of frame t+1 from frames 0..t."""

    values: dict[str, np.ndarray]
    real_steps: int | None = None

    def mean(self, quantity: str, first: int = 1, last: int | None = None) -> float:
        """Mean over predicted frames ``first`` .. ``last`` (both included) and over sequences; nan entries left out."""
        array = self.values[quantity][first - 1 : last]
        return float(np.nanmean(array)) if np.isfinite(array).any() else float("nan")

    def curve(self, quantity: str) -> np.ndarray:
        """Mean over sequences of each predicted frame, (T-1,)."""
        with np.errstate(invalid="ignore"):
            counts = np.isfinite(self.values[quantity]).sum(1)
            return np.nansum(self.values[quantity], 1) / np.where(counts, counts, np.nan)

    def summary(self) -> dict[str, float]:
        """Means over all predicted frames, and over the last 10 as ``last10_<quantity>``."""
        steps = len(next(iter(self.values.values())))
        first = max(steps - 9, 1)
        return {q: self.mean(q) for q in self.values} | {f"last10_{q}": self.mean(q, first) for q in self.values}


def load_network(run: Run, path: str = "fast", *, components: int | None = None) -> Network:
    """The trained network of a run, ready to evaluate; with another K where it has several components."""
    config = run.config.network
    if components is not None and config.components > 1:
        config = dataclasses.replace(config, components=components)
    network = on_path(build(config), path)
    weights = run.weights()
    if not fits(weights, network.state_dict()):
        raise RunError(f"{run.path / WEIGHTS} does not fit the network of {CONFIG}")
    network.load_state_dict(weights)
    return network.to(memory_format=torch.channels_last).eval()


def number_of_draws(run: Run, *, noise: float = 0.0) -> int:
    """How many draws a reported number of a run is the mean of: DRAWS.

    One is enough where nothing is random (gamma is all ones where K = 1, and no bits are flipped without noise), and
    for the profile smoke, which tests the machinery.
    """
    certain = run.config.network.components == 1 and noise == 0
    return 1 if certain or run.config.profile == "smoke" else DRAWS


def dice(videos: Videos, components: int, *, noise: float = 0.0, draw: int = 0) -> tuple[Tensor, Tensor]:
    """Bit flips (T,N,1,H,W) and raw initial gamma (N,K,1,H,W), standard normal, of one draw; float32 on the CPU.

    Each sequence has its own, from the data set's name, the split, its number there and ``draw``: they depend neither
    on the sequences beside it nor on how many frames are used. The first frames of a longer video have the flips of a
    shorter one, and the first components of a larger K the gamma of a smaller one.
    """
    frames, shape = videos.frames, tuple(videos.features.shape[2:])
    flips, raw = [], []
    for number in videos.numbers.tolist():
        words = (videos.name, videos.split, number, draw)
        # A component at a time: torch fills a tensor in blocks of 16, so that one call's numbers depend on its size.
        gamma = _generator("gamma", *words)
        raw.append(torch.stack([torch.randn(shape, generator=gamma) for _ in range(components)]))
        if noise > 0:
            bits = _generator("flips", *words)
            flips.append(torch.stack([torch.rand(shape, generator=bits) for _ in range(frames)]) < noise)
    none = torch.zeros(()).expand(videos.features.shape)
    return torch.stack(flips, 1).float() if flips else none, torch.stack(raw)


def _generator(*words: str | int) -> torch.Generator:
    """A random generator of its own for what the words say."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@torch.no_grad()
def predict(
    network: Network | Run, videos: Videos, *, noise: float = 0.0, draw: int = 0, **unroll
) -> tuple[Tensor, Tensor]:
    """psi and gamma of every step, (T-1,N,K,1,H,W) each: for pictures of a few sequences; ``unroll``: em.unroll's."""
    steps = list(states(_network(network), videos, noise=noise, draw=draw, **unroll))
    return torch.stack([s.psi for s in steps]), torch.stack([s.gamma for s in steps])


@torch.no_grad()
def evaluate(
    network: Network | Run,
    videos: Videos,
    *,
    noise: float = 0.0,
    draw: int = 0,
    batch: int = BATCH,
    real_steps: int | None = None,
    feedback: str = "grey",
) -> Evaluation:
    """All QUANTITIES on all sequences in one draw; from step ``real_steps`` on the model sees its own predictions only.

    They are then fed to it by ``feedback``, a name of em.FEEDBACKS. ``noise`` is the bit-flip probability of the input
    frames (the authors evaluate with 0.2). In rollout steps the losses use the true next frame and the gamma inferred
    from it; the ARI uses the gamma that the model carries on.
    """
    network, parts = _network(network), []
    settings = {"noise": noise, "draw": draw, "real_steps": real_steps, "feedback": feedback}
    for part, steps in in_batches(network, videos, batch=batch, **settings):
        x = part.features.to(_device(network), torch.float32)
        parts.append([_measure(state, part, x, t) for t, state in enumerate(steps)])
    values = {q: np.stack([np.concatenate([p[t][q] for p in parts]) for t in range(len(parts[0]))]) for q in QUANTITIES}
    return Evaluation(values, real_steps)


def reported(run: Run, videos: Videos, *, noise: float = 0.0, **settings) -> Evaluation:
    """:func:`evaluate` of a run, the mean over its :func:`number_of_draws`."""
    network = load_network(run)
    return averaged(
        evaluate(network, videos, noise=noise, draw=draw, **settings)
        for draw in range(number_of_draws(run, noise=noise))
    )


def averaged(evaluations: Iterable[Evaluation]) -> Evaluation:
    """The mean over draws of each entry; nan only where it is in every draw."""
    several = list(evaluations)
    values = {q: nanmean(np.stack([e.values[q] for e in several]), 0) for q in several[0].values}
    return Evaluation(values, several[0].real_steps)


def mean_of_draws(one: Callable[[int], pd.DataFrame], draws: int) -> pd.DataFrame:
    """The mean over draws 0, 1, ... of tables with the same rows, all numbers; nan only where it is in every draw."""
    tables = [one(draw) for draw in range(draws)]
    whole = nanmean(np.stack([table.to_numpy(float) for table in tables]), 0)
    return pd.DataFrame(whole, tables[0].index, tables[0].columns)


def nanmean(array: np.ndarray, axis: int) -> np.ndarray:
    """np.nanmean without its warning where there is nothing."""
    count = np.isfinite(array).sum(axis)
    return np.nansum(array, axis) / np.where(count, count, np.nan)


def in_batches(
    network: Network, videos: Videos, *, draw: int = 0, batch: int = BATCH, **settings
) -> Iterator[tuple[Videos, Iterator[em.State]]]:
    """The sequences in batches, each with :func:`states` of it: every measure's way through videos."""
    for start in range(0, len(videos), batch):
        part = videos.select(slice(start, start + batch))
        yield part, states(network, part, draw=draw, **settings)


def states(
    network: Network, videos: Videos, *, noise: float = 0.0, draw: int = 0, real_steps: int | None = None, **unroll
) -> Iterator[em.State]:
    """The states of every step on sequences as they are read; flips and initial gamma are those of ``draw``.

    ``unroll``: further arguments of em.unroll. Gradients are recorded unless the caller forbids it.
    """
    device = _device(network)
    x = videos.features.to(device, torch.float32)
    flips, raw = (a.to(device) for a in dice(videos, network.config.components, noise=noise, draw=draw))
    actions = videos.to(device).one_hot(network.config.actions)
    return em.unroll(network, x, flips, raw, actions=actions, real_steps=real_steps, **unroll)


def _measure(state: em.State, videos: Videos, x: Tensor, t: int) -> dict[str, np.ndarray]:
    """Every quantity of step t, (N,) each."""
    target, psi = x[t + 1], state.psi
    best = psi.amax(1)
    gamma = em.e_step(psi, target)
    hit, contact = (videos.collisions[i].to(x.device, torch.float32) for i in (t, t + 1))
    groups = videos.groups[t + 1][None].to(x.device)
    values = {
        "loss": (gamma * em.intra(psi, target[:, None]) + (1 - gamma) * em.inter(psi)).sum((1, 2, 3, 4)),
        "bce": metrics.bce(best, target),
        "kl": metrics.kl(best),
        "relational": metrics.relational_bce(best, target, hit),
        "contact": metrics.relational_bce(best, target, contact),
        "mixture": metrics.bce((gamma * psi).sum(1), target),
        "wrong": metrics.wrong_pixels(best, target),
        "copy_last": metrics.wrong_pixels(x[t], target),
        "ari": metrics.ari(groups, state.gamma[None])[0],
    }
    return {
        name: np.asarray(value.double().cpu() if isinstance(value, Tensor) else value) for name, value in values.items()
    }


def _network(network: Network | Run) -> Network:
    return load_network(network) if isinstance(network, Run) else network


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device
