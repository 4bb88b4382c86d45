"""Muon in float32: momentum orthogonalised by Newton-Schulz, for matrices and kernels (Jordan et al., 2024).

torch.optim.Muon does the same in bfloat16, which halves the speed on CPUs without it, and takes no kernels.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic iteration, kellerjordan.github.io/posts/muon
ITERATIONS = 5
UPDATE_RMS = 0.2  # of Adam's updates, so that both take step sizes of one scale (Liu et al., arXiv 2502.16982)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrices, (N,R,C) -> (N,R,C)."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to Adam's update RMS. Kernels count as (O, C*h*w) matrices."""

    def __init__(self, params, lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            same_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"]
                momentum.lerp_(p.grad, 1 - group["momentum"])
                direction = p.grad.lerp(momentum, group["momentum"]).reshape(len(p), -1)
                same_shape[tuple(direction.shape)].append((p, direction))
            for (rows, columns), members in same_shape.items():
                updates = orthogonalise(torch.stack([direction for _, direction in members]))
                scale = UPDATE_RMS * max(rows, columns) ** 0.5
                for (p, _), update in zip(members, updates, strict=True):
                    p.add_(update.view(p.shape), alpha=-group["lr"] * scale)


def optimizers(network: nn.Module, kind: str, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Adam for everything; or Muon for matrices and kernels of more than one row, and Adam for the rest."""
    params = list(network.parameters())
    if kind == "adam":
        return [torch.optim.Adam(params, lr=lr, eps=1e-8)]
    matrices = [p for p in params if p.ndim >= 2 and len(p) > 1]
    chosen = {id(p) for p in matrices}
    return [Muon(matrices, lr=muon_lr), torch.optim.Adam([p for p in params if id(p) not in chosen], lr=lr, eps=1e-8)]


def state_tensors(network: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Everything the optimisers carry, as flat names ``<optimiser>/<parameter>/<quantity>``."""
    names = {id(p): name for name, p in network.named_parameters()}
    return {
        f"{i}/{names[id(p)]}/{quantity}": value
        for i, optimizer in enumerate(optimizers)
        for p, state in optimizer.state.items()
        for quantity, value in state.items()
    }


def load_state_tensors(network: nn.Module, optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Inverse of :func:`state_tensors`."""
    params = dict(network.named_parameters())
    for key, value in tensors.items():
        i, name, quantity = key.split("/")
        p = params[name]
        if quantity != "step" and value.shape != p.shape:
            raise ValueError(f"{key} has shape {tuple(value.shape)}, not {tuple(p.shape)}")
        device = "cpu" if quantity == "step" else p.device  # Adam counts its steps on the CPU
        optimizers[int(i)].state[p][quantity] = value.to(device).clone()
