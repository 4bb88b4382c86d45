"""The authors' arrays run through a network: everything that their graph returns, and its gradients.

Source: github.com/sjoerdvansteenkiste/Relational-NEM (MIT), read and run, not copied. Arrays of theirs are channels
last with time first, (T+1,B,1,H,W,1); T steps predict frames 1..T.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from rnem.authors.weights import _theirs
from rnem.model import em
from rnem.model.network import Network

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
