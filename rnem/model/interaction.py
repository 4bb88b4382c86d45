"""The interaction function Υ: how the other components influence a component.

Source: equations of the paper's section 2.2 (arXiv 1802.10353) and the authors' network.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnem.model import fast
from rnem.model.layers import NORM_EPSILON, Dense

# ------------------------------------------------------------------------------------------------- interaction Υ


class Identity(nn.Module):
    """Υ = identity: components do not influence each other (N-EM, and with K = 1 the RNN)."""

    def __init__(self, state: int) -> None:
        super().__init__()
        self.width = state
        self.attention: Tensor | None = None

    def forward(self, theta: Float[Tensor, "B K D"], action: Tensor | None) -> Float[Tensor, "B K D"]:
        return theta


class Pairwise(nn.Module):
    """Υ of R-NEM: the sum over all other components of one function of (focus, context), weighted by attention."""

    def __init__(self, state: int, attention: int, actions: int, *, path: str) -> None:
        super().__init__()
        self.width, self.path = 2 * state, path
        self.encode = Dense(state + actions, state, "relu", path=path)
        self.core = Dense(2 * state, state, "relu", path=path)
        self.context = Dense(state, state, "relu", path=path)
        self.attend = (
            nn.Sequential(
                Dense(state, attention, "tanh", path=path),
                Dense(attention, 1, "sigmoid", norm=False, path=path),
            )
            if attention
            else None
        )
        self.attention: Tensor | None = None
        """att_ki of the last call, (B,K,K) with zeros on the diagonal; None without attention."""

    def forward(self, theta: Float[Tensor, "B K D"], action: Tensor | None) -> Float[Tensor, "B K 2*D"]:
        B, K, _ = theta.shape
        if not torch.compiler.is_compiling():
            self.attention = None  # not the last call's, where this one keeps none
        if action is not None:
            theta = torch.cat([theta, action], 2)  # (B,K,D+A)
        e = self.encode(theta.flatten(0, 1)).view(B, K, -1)
        if K == 1:
            return torch.cat([e, torch.zeros_like(e)], 2)
        others = _others(K, e.device)  # (K,K-1)
        if self.path == "fast":
            core = fast.pairs_dense(e, others, self.core, NORM_EPSILON)  # (B*K*(K-1),D)
        else:
            focus = e[:, :, None].expand(B, K, K - 1, -1)  # (B,K,K-1,D)
            context = e[:, others]  # (B,K,K-1,D)
            core = self.core(torch.cat([focus, context], 3).flatten(0, 2))  # (B*K*(K-1),D)
        effects = self.context(core)
        if self.attend is not None:
            weight = self.attend(core)  # (B*K*(K-1),1)
            effects = effects * weight
            if not torch.compiler.is_compiling() and not torch.is_grad_enabled():
                self.attention = e.new_zeros(B, K, K).scatter_(2, others.expand(B, -1, -1), weight.view(B, K, K - 1))
        effect = effects.view(B, K, K - 1, -1).sum(2)
        return torch.cat([e, effect], 2)


def _others(K: int, device: torch.device) -> Tensor:
    """(K,K-1): row k lists the components other than k, in ascending order."""
    index = torch.arange(K, device=device)
    return (index[:, None] + 1 + torch.arange(K - 1, device=device)[None]).remainder(K).sort(1).values
