"""The authors' originals: their weights into our networks and back, their arrays replayed, their adjusted Rand index.

Source: github.com/sjoerdvansteenkiste/Relational-NEM (MIT), read and run, not copied. Arrays of theirs are channels
last with time first, (T+1,B,1,H,W,1); T steps predict frames 1..T.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnem import em
from rnem.authors_variables import canonical, infer, load_checkpoint, load_npz, variables_of
from rnem.networks import Network, build

__all__ = [
    "Grouping", "ari", "ari_frames", "from_tensorflow", "gradients", "load_checkpoint", "load_npz", "replay",
    "to_tensorflow",
]  # fmt: skip


def from_tensorflow(variables: Mapping[str, np.ndarray], components: int, *, path: str = "plain") -> Network:
    """The network that the authors' variables are of, with those weights.

    R-NEM (with or without attention, with or without actions), RNN-EM, RNN (``components`` 1) or LSTM, at 64x64 or
    84x84, told by names and shapes. Names may come without ``R-RNNEM/`` and with ``:0``; an optimiser's variables are
    left out. ``components`` is K, on which no weight depends. ValueError names a variable that is missing, unknown,
    mis-shaped or not finite.
    """
    arrays = canonical(variables)
    config = infer(arrays, components)
    with torch.random.fork_rng(devices=()):  # the fresh weights are overwritten, so let them leave no trace
        network = build(config, path)
    ours = {v.parameter: v.ours(arrays[v.name].astype(np.float32)) for v in variables_of(config)}
    network.load_state_dict({name: torch.tensor(np.ascontiguousarray(w)) for name, w in ours.items()})
    return network


def to_tensorflow(model: Network) -> dict[str, np.ndarray]:
    """Inverse of :func:`from_tensorflow`: the weights under the authors' names, in their layout and order."""
    return _theirs(model, dict(model.named_parameters()))


def _theirs(model: Network, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return {v.name: np.ascontiguousarray(v.theirs(arrays[v.parameter])) for v in variables_of(model.config)}


# ------------------------------------------------------------------------------------------------------------- replay


def replay(
    model: Network,
    features: np.ndarray,
    corrupted: np.ndarray,
    gamma_raw: np.ndarray,
    *,
    collisions: np.ndarray | None = None,
    actions: np.ndarray | None = None,
    real_steps: int | None = None,
    action_order: str = "correct",
) -> dict[str, np.ndarray]:
    """Run a model (of either path) on arrays in the authors' layout, and return everything their graph returns.

    features, corrupted, collisions (T+1,B,1,H,W,1), gamma_raw (B,K,H,W,1), actions (T+1,B,1,A) one-hot. Returned:
    ``preds``, ``gammas`` (T+1,B,K,H,W,1) and ``thetas`` (T+1,B*K,D), (T+1,2,B*K,D) for the LSTM's c and h, with the
    initial state first; ``losses``, ``ub_losses``, ``r_losses``, ``r_ub_losses`` (T,3) [total, intra, inter] of each
    step and ``loss``, ``ub_loss``, ``r_loss``, ``r_ub_loss``, their mean totals, in nats per frame.

    From step ``real_steps`` on the input is the model's own prediction, with the same bits flipped as in ``corrupted``.
    The losses of those steps use the true next frame and the gamma inferred from it. ``gammas`` holds the one carried
    on, inferred from max_k psi_k > 0.1, as the original's ``rollout_from_file`` overwrites its graph's gamma.
    ``action_order="authors"`` mixes actions over the batch as their code does.
    """
    x, run = _prepare(model, features, corrupted, gamma_raw, actions, real_steps, action_order)
    with torch.no_grad():
        states = list(em.unroll(model, **run))
        out = {"losses": _losses(states, x), "ub_losses": _upper_bounds(states, x)}
        masks = torch.zeros_like(x) if collisions is None else _frames("collisions", collisions, x)
        out |= {"r_losses": _losses(states, x, masks), "r_ub_losses": _upper_bounds(states, x, masks)}
    out |= {name.removesuffix("es"): rows[:, 0].mean() for name, rows in out.items()}
    states.insert(0, em.initial_state(model, run["raw"]))
    theta = torch.stack([s.theta.flatten(0, 1) for s in states])  # (T+1,B*K,S)
    if model.config.model == "lstm":
        theta = torch.stack(theta.chunk(2, -1), 1)  # (T+1,2,B*K,D)
    out["thetas"] = theta
    out["preds"] = torch.stack([s.psi for s in states]).movedim(3, -1)  # (T+1,B,K,H,W,1)
    out["gammas"] = torch.stack([s.gamma for s in states]).movedim(3, -1)
    return {name: np.asarray(value.cpu().numpy()) for name, value in out.items()}


def gradients(
    model: Network,
    features: np.ndarray,
    corrupted: np.ndarray,
    gamma_raw: np.ndarray,
    *,
    collisions: np.ndarray | None = None,
    actions: np.ndarray | None = None,
    real_steps: int | None = None,
    action_order: str = "correct",
) -> dict[str, np.ndarray]:
    """d ``loss`` / d variable of :func:`replay` on the same arguments, under the authors' names and in their layout.

    ``collisions`` does not enter the loss; it is taken so that both functions can be called alike.
    """
    x, run = _prepare(model, features, corrupted, gamma_raw, actions, real_steps, action_order)
    if collisions is not None:
        _frames("collisions", collisions, x)
    with torch.enable_grad():
        loss = _losses(em.unroll(model, **run), x)[:, 0].mean()
        parameters = dict(model.named_parameters())
        slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return _theirs(model, dict(zip(parameters, slopes, strict=True)))


def _losses(states: Iterable[em.State], x: Tensor, masks: Tensor | None = None) -> Tensor:
    """(T,3): total, intra, inter of each step against the true next frame; mask t goes with target t + 1."""
    rows = []
    for t, state in enumerate(states):
        gamma = em.e_step(state.psi.detach(), x[t + 1])
        rows.append(em.loss(state.psi, gamma, x[t + 1], None if masks is None else masks[t]))
    return _table(rows)


def _upper_bounds(states: Iterable[em.State], x: Tensor, masks: Tensor | None = None) -> Tensor:
    """The same of max_k psi_k, which needs no gamma."""
    masks = [None] * len(x) if masks is None else masks
    return _table([em.upper_bound_loss(state.psi, x[t + 1], masks[t]) for t, state in enumerate(states)])


def _table(rows: list[em.Losses]) -> Tensor:
    return torch.stack([torch.stack([row.total, row.intra, row.inter]) for row in rows])


def _prepare(model: Network, features, corrupted, gamma_raw, actions, real_steps, action_order) -> tuple[Tensor, dict]:
    """Features (T+1,B,1,H,W) and the arguments of em.unroll, checked, in the model's dtype and on its device."""
    side, K, A = model.shape.size, model.config.components, model.config.actions
    features, gamma_raw = np.asarray(features), np.asarray(gamma_raw)
    if features.ndim != 6 or features.shape[2:] != (1, side, side, 1) or len(features) < 2:
        raise ValueError(
            f"features is {features.shape}, and must be (T+1,B,1,{side},{side},1) with at least two frames"
        )
    if gamma_raw.shape != (features.shape[1], K, side, side, 1):
        wanted = (features.shape[1], K, side, side, 1)
        raise ValueError(f"gamma_raw is {gamma_raw.shape}, and must be (B,K,H,W,1), here {wanted}")
    if (actions is not None) != bool(A):
        raise ValueError("this model needs actions" if A else "this model takes no actions")
    if action_order not in ("correct", "authors"):
        raise ValueError(f"action_order is {action_order!r}, and must be 'correct' or 'authors'")
    if real_steps is not None and real_steps < 0:
        raise ValueError(f"real_steps is {real_steps}, and must be at least 0")
    weight = next(model.parameters())
    x = torch.tensor(features[..., 0], dtype=weight.dtype, device=weight.device)  # (T+1,B,1,H,W)
    noisy = _frames("corrupted", corrupted, x)
    flips = (noisy - x[: len(noisy)]).abs()
    if not torch.allclose(em.flip(x[: len(noisy)], flips), noisy, atol=1e-5):
        raise ValueError("corrupted is not features with bits flipped: features must be 0 or 1, corrupted within [0,1]")
    raw = torch.tensor(gamma_raw[..., 0], dtype=x.dtype, device=x.device)[:, :, None]  # (B,K,1,H,W)
    run = {"features": x, "flips": flips, "raw": raw, "real_steps": real_steps, "action_order": action_order}
    if actions is not None:
        actions = np.asarray(actions)
        if actions.shape[1:] != (x.shape[1], 1, A) or len(actions) not in (len(x), len(x) - 1):
            raise ValueError(f"actions is {actions.shape}, and must be one-hot (T+1,B,1,{A})")
        run["actions"] = torch.tensor(actions[:, :, 0], dtype=x.dtype, device=x.device)  # (T+1,B,A)
    return x, run


def _frames(name: str, array: np.ndarray, x: Tensor) -> Tensor:
    """(T+1,B,1,H,W,1) to (T+1,B,1,H,W); the last frame, a target only, may be left out."""
    array = np.asarray(array)
    if array.ndim != 6 or array.shape[1:] != (*x.shape[1:], 1) or len(array) not in (len(x), len(x) - 1):
        raise ValueError(f"{name} is {array.shape}, and must be as features, {(*x.shape, 1)}")
    return torch.tensor(array[..., 0], dtype=x.dtype, device=x.device)


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
    from the textbook (rnem.metrics.ari).
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
