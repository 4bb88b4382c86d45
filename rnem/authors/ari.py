"""The authors' adjusted Rand index and confidence, clip and rounding included.

Source: github.com/sjoerdvansteenkiste/Relational-NEM (MIT), read and run, not copied.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# ---------------------------------------------------------------------------------------------------------------- ARI


class Grouping(NamedTuple):
    """The authors' four numbers: ARI and confidence, averaged over all steps and of the last step."""

    ari: float
    last_ari: float
    confidence: float
    last_confidence: float


def ari(groups: np.ndarray, gammas: np.ndarray, weights: np.ndarray | None = None) -> Grouping:
    """The authors' adjusted Rand index and confidence of a batch, clip and rounding included.

    groups (T+1,B,1,H,W,1), gammas (T+1,B,K,H,W,1), or this project's (T+1,B,1,H,W) and (T+1,B,K,1,H,W); index 0, the
    initial state, is left out. ``weights`` (T,) of the steps; default all 1. See :func:`ari_frames` for what differs
    from the textbook (rnem.evaluation.metrics.ari).
    """
    scores, confidence = ari_frames(groups, gammas)
    scores, confidence = scores[1:], confidence[1:]
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights)
    if len(scores) == 0 or weights.shape != (len(scores),):
        raise ValueError(f"weights is {weights.shape} for {len(scores)} steps after the initial state")
    weights = (weights / weights.sum()).astype(np.float32)[:, None]
    return Grouping(
        float((scores * weights).sum(0).mean()),
        float(scores[-1].mean()),
        float((confidence * weights).sum(0).mean()),
        float(confidence[-1].mean()),
    )


def ari_frames(groups: np.ndarray, gammas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The authors' index and confidence (mean largest gamma on foreground pixels) of every frame: (T,B) float32 each.

    (R - E) / clip(M - E, 1e-6, 1e6) in float32, R, E, M the number of ordered pixel pairs together in both partitions,
    its expectation and its maximum. The clip makes large perfect groupings exceed 1, and one ball in one component
    score 0 (or a large negative number by rounding); without foreground the index is 0 and the confidence nan.
    """
    groups, gammas = np.asarray(groups), np.asarray(gammas)
    if groups.ndim == 5 and gammas.ndim == 6:
        groups, gammas = groups[..., None], np.moveaxis(gammas, 3, -1)
    if groups.ndim != 6 or gammas.ndim != 6 or groups.shape != (*gammas.shape[:2], 1, *gammas.shape[3:]):
        raise ValueError(
            f"groups is {groups.shape} and gammas is {gammas.shape}; they must be (T,B,1,H,W,1) and (T,B,K,H,W,1)"
        )
    T, B, K = gammas.shape[:3]
    gammas = gammas.reshape(T * B, K, -1).astype(np.float32)  # (T*B,K,N)
    groups = groups.reshape(T * B, -1)  # (T*B,N)
    mask = (groups > 0.5).astype(np.float32)
    balls = np.eye(int(groups.max(initial=0)) + 1, dtype=np.float32)[groups.astype(int)] * mask[..., None]  # (T*B,N,G)
    parts = np.eye(K, dtype=np.float32)[gammas.argmax(1)] * mask[..., None]  # (T*B,N,K)
    table = balls.transpose(0, 2, 1) @ parts  # (T*B,G,K)
    n, a, b = mask.sum(1), table.sum(1), table.sum(2)
    together = (table * (table - 1)).sum((1, 2))
    components, truth = (a * (a - 1)).sum(1), (b * (b - 1)).sum(1)
    with np.errstate(invalid="ignore"):
        expected = components * truth / (n * (n - 1) + np.float32(1e-6))
        most = (components + truth) / 2
        scores = (together - expected) / np.clip(most - expected, np.float32(1e-6), np.float32(1e6))
        confidence = (gammas.max(1) * mask).sum(1) / n
    return scores.reshape(T, B), confidence.reshape(T, B)
