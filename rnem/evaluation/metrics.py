"""What a result is measured by: BCE, KL, relational BCE, adjusted Rand index, wrong pixels, intervals over seeds.

All of it works on predictions already made, on any device. Every shape is checked: a ValueError says what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnem.model import em


def bce(psi: Float[Tensor, "*frames 1 H W"], x: Float[Tensor, "*frames 1 H W"]) -> Float[Tensor, "*frames"]:
    """Binary cross entropy -x log psi - (1-x) log(1-psi), summed over the pixels of a frame: nats per frame.

    psi is clipped to [1e-6, 1 - 1e-6]. To compare models without their gamma, psi is max_k psi_k (the upper bound's
    first term). ValueError where the shapes differ.
    """
    _same_frames(psi=psi, x=x)
    return em.intra(psi, x).sum((-3, -2, -1))


def kl(psi: Float[Tensor, "*frames 1 H W"]) -> Float[Tensor, "*frames"]:
    """KL(Bernoulli(0) || psi) = -log(1-psi), summed over the pixels of a frame: nats, with the authors' clips."""
    _same_frames(psi=psi)
    return em.inter(psi).sum((-3, -2, -1))


def relational_bce(
    psi: Float[Tensor, "*frames 1 H W"], x: Float[Tensor, "*frames 1 H W"], collisions: Tensor
) -> Float[Tensor, "*frames"]:
    """BCE over the pixels of colliding balls only (``collisions`` is 1 there): nats per frame, 0 without a collision.

    ``collisions`` is the mask that belongs to the prediction; the authors pair mask t with target t + 1.
    """
    _same_frames(psi=psi, x=x, collisions=collisions)
    return (em.intra(psi, x) * collisions.to(psi.dtype)).sum((-3, -2, -1))


def wrong_pixels(
    psi: Float[Tensor, "*frames 1 H W"], x: Float[Tensor, "*frames 1 H W"], threshold: float = 0.5
) -> Int[Tensor, "*frames"]:
    """Number of pixels of a frame that are on (psi > threshold) where x is off, or off where x is on."""
    _same_frames(psi=psi, x=x)
    return ((psi > threshold) != (x > 0.5)).sum((-3, -2, -1))


def ari(groups: Int[Tensor, "T B 1 H W"], gamma: Float[Tensor, "T B K 1 H W"]) -> Float[Tensor, "T B"]:
    """Adjusted Rand index between balls and components, frame by frame, over foreground pixels (group > 0) only.

    A pixel belongs to the component with the largest gamma. 1 is a perfect grouping, 0 what chance gives. A frame
    without foreground is nan; where both partitions are trivial (one ball in one component) the index is 1, as
    scikit-learn's ``adjusted_rand_score``. Hubert & Arabie (1985); rnem.authors.ari.ari is the authors' variant.
    """
    table = contingency(groups, gamma)  # (T,B,G,K)
    n = table.sum((-2, -1))
    squares = table.square().sum((-2, -1))
    rows, columns = table.sum(-1).square().sum(-1), table.sum(-2).square().sum(-1)
    both = squares - n  # ordered pairs of pixels that are together in both partitions
    split, merged = rows - squares, columns - squares  # together in one partition only
    neither = n.square() - squares - split - merged
    index = 2 * (both * neither - split * merged)
    index = index / ((both + split) * (split + neither) + (both + merged) * (merged + neither))
    index = torch.where((split == 0) & (merged == 0), 1.0, index)
    return torch.where(n > 0, index, torch.nan)


def contingency(
    groups: Int[Tensor, "T B 1 H W"], gamma: Float[Tensor, "T B K 1 H W"], balls: int | None = None
) -> Float[Tensor, "T B G K"]:
    """Foreground pixels of ball g (1..G) that component k has, counted exactly in float64; background left out.

    G is the number of ``balls`` where it is given, else the largest number among the groups.
    """
    if groups.ndim != 5 or gamma.ndim != 6 or (*gamma.shape[:2], *gamma.shape[3:]) != tuple(groups.shape):
        raise ValueError(
            f"groups is {_shape(groups)} and gamma is {_shape(gamma)}; they must be (T,B,1,H,W) and (T,B,K,1,H,W)"
        )
    if groups.shape[2] != 1:
        raise ValueError(f"groups is {_shape(groups)}, and its third axis must have one channel")
    T, B, K = gamma.shape[:3]
    component = gamma.max(2).indices.reshape(T * B, -1)  # (T*B,H*W); argmax takes eight times as long here
    ball = groups.long().reshape(T * B, -1)
    G = balls or max(int(ball.max()) if ball.numel() else 0, 1)
    cell = (ball - 1).clamp(min=0) * K + component  # (T*B,H*W)
    table = torch.zeros(T * B, G * K, dtype=torch.float64, device=gamma.device)
    return table.scatter_add_(1, cell, (ball > 0).double()).view(T, B, G, K)


def component_of_each_ball(
    groups: Int[Tensor, "N 1 H W"],
    gamma: Float[Tensor, "N K 1 H W"],
    balls: int,
    rule: Literal["over half", "most gamma"] = "over half",
) -> Int[Tensor, "N M"]:
    """The component 0..K-1 that has each of M ``balls`` in a frame, -1 where none has it.

    Only pixels of single balls count, as in :func:`ari`. There are two rules, for two questions. "over half": more than
    half of the ball's pixels are the component's, that is, its gamma is the largest there. A ball without such a
    component is torn. This says how well a frame is grouped. "most gamma": of all components this one has the largest
    sum of gamma over the ball's pixels, be it less than half. None has the ball only where no pixel shows it. This
    follows a ball that a curtain hides in part, of which a few pixels are left to judge by.
    """
    if rule == "over half":
        table = contingency(groups[None], gamma[None], balls)[0]  # (N,M,K)
        most, component = table.max(-1)
        return torch.where(2 * most > table.sum(-1), component, -1)
    numbers = torch.arange(1, balls + 1, device=groups.device)
    pixels = (groups[:, None, 0] == numbers[:, None, None]).flatten(2).to(gamma.dtype)  # (N,M,HW)
    mass = torch.einsum("nmp,nkp->nmk", pixels, gamma[:, :, 0].flatten(2))
    return torch.where(pixels.sum(2) > 0, mass.argmax(2), -1)


def balls_of_each_component(component: Int[Tensor, "*batch M"], K: int) -> Int[Tensor, "*batch K"]:
    """The number of balls that each of K components has, from the component of each ball (-1: none)."""
    return (component[..., None] == torch.arange(K, device=component.device)).sum(-2)


def has_one_of_its_own(component: Int[Tensor, "*batch M"], K: int) -> Bool[Tensor, "*batch M"]:
    """Whether the component of each ball (-1: none) has no other ball."""
    alone = balls_of_each_component(component, K).gather(-1, component.clamp_min(0)) == 1
    return alone & (component >= 0)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % Student-t interval over seeds; a nan half width for one value."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values is {values.shape}, and must be one number per seed")
    n = len(values)
    if n == 1:
        return float(values[0]), float("nan")
    return float(values.mean()), float(quantile(n) * values.std(ddof=1) / np.sqrt(n))


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of positive ratios, low and high end of the 95 % Student-t interval of their logarithm.

    The ends are nan for one value; ValueError where a ratio is not positive.
    """
    if not all(0 < ratio < np.inf for ratio in ratios):
        raise ValueError(f"ratios are {list(ratios)}, and must be positive")
    mean, half = interval(np.log(ratios))
    return float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half))


def quantile(n: int) -> float:
    """Return the 97.5 % quantile of Student's t for the mean of ``n`` values."""
    from scipy.stats import t  # here, as scipy.stats takes a second to import

    return float(t.ppf(0.975, n - 1))


def _shape(x: Tensor) -> str:
    return "(" + ",".join(str(n) for n in x.shape) + ")"


def _same_frames(**tensors: Tensor) -> None:
    shapes = {tuple(x.shape) for x in tensors.values()}
    if len(shapes) > 1 or any(len(s) < 3 or s[-3] != 1 for s in shapes):
        came = " and ".join(f"{name} is {_shape(x)}" for name, x in tensors.items())
        raise ValueError(f"{came}; " + ("all must be the same" if len(tensors) > 1 else "it must be") + " (...,1,H,W)")
