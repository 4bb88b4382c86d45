"""Measure a network on videos: every quantity of the claims, per predicted frame and per sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnem import em, metrics
from rnem.networks import Network, build
from rnem.runs import Run
from rnem.videos import Videos

QUANTITIES = {
    "loss": "training loss: gamma BCE + (1 - gamma) KL, summed over components (nats)",
    "bce": "next-frame BCE of max_k psi_k (nats); needs no E-step, comparable across K",
    "kl": "KL(Bernoulli(0) || max_k psi_k) (nats)",
    "relational": "BCE of max_k psi_k on the balls in contact at frame t, target t+1 (nats; 0 where none was)",
    "contact": "BCE of max_k psi_k on the balls in contact at the target frame itself (nats; 0 where none is)",
    "mixture": "BCE of sum_k gamma_k psi_k with gamma AFTER the E-step: it has seen the target (nats)",
    "wrong": "pixels on the wrong side of 0.5 in max_k psi_k",
    "copy_last": "pixels that change from frame t to t+1: what copying the last frame gets wrong",
    "ari": "adjusted Rand index of argmax_k gamma_k over the pixels of single balls",
}


BATCH = 64
"""Sequences that are unrolled together; the initial gamma of a sequence depends on its place in one."""


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
    network = build(config, path)
    network.load_state_dict(run.weights())
    return network.to(memory_format=torch.channels_last).eval()


def initial_draws(shape: tuple[int, ...], components: int, noise: float, seed: int, device) -> tuple[Tensor, Tensor]:
    """Bit flips (T,B,1,H,W) and raw initial gamma (B,K,1,H,W) of an evaluation, from its seed."""
    generator = torch.Generator().manual_seed(seed)
    flips = (torch.rand(shape, generator=generator) < noise).float()
    raw = torch.randn((shape[1], components, *shape[2:]), generator=generator)
    return flips.to(device), raw.to(device)


@torch.no_grad()
def predict(
    network: Network | Run, videos: Videos, *, noise: float = 0.0, seed: int = 0, **unroll
) -> tuple[Tensor, Tensor]:
    """psi and gamma of every step, (T-1,N,K,1,H,W) each: for pictures of a few sequences; ``unroll``: em.unroll's."""
    steps = list(states(_network(network), videos, noise=noise, seed=seed, **unroll))
    return torch.stack([s.psi for s in steps]), torch.stack([s.gamma for s in steps])


@torch.no_grad()
def evaluate(
    network: Network | Run,
    videos: Videos,
    *,
    noise: float = 0.0,
    seed: int = 0,
    batch: int = BATCH,
    real_steps: int | None = None,
) -> Evaluation:
    """All QUANTITIES on all sequences; from step ``real_steps`` on the model sees only its own predictions.

    ``noise`` is the bit-flip probability of the input frames (the authors evaluate with 0.2). In simulated steps the
    losses use the true next frame and the gamma inferred from it; the ARI uses the gamma that the model carries on.
    """
    network = _network(network)
    parts = []
    for start in range(0, len(videos), batch):
        part = videos.select(slice(start, start + batch))
        x = part.features.to(_device(network), torch.float32)
        steps = states(network, part, noise=noise, seed=seed + start, real_steps=real_steps)
        parts.append([_measure(state, part, x, t) for t, state in enumerate(steps)])
    values = {q: np.stack([np.concatenate([p[t][q] for p in parts]) for t in range(len(parts[0]))]) for q in QUANTITIES}
    return Evaluation(values, real_steps)


def states(
    network: Network, videos: Videos, *, noise: float = 0.0, seed: int = 0, real_steps: int | None = None, **unroll
) -> Iterator[em.State]:
    """The states of every step on sequences as they are read; ``seed`` decides flips and the initial gamma.

    ``unroll``: further arguments of em.unroll. Gradients are recorded unless the caller forbids it.
    """
    device = _device(network)
    x = videos.features.to(device, torch.float32)
    flips, raw = initial_draws(tuple(x.shape), network.config.components, noise, seed, device)
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
