"""The interaction function Υ: how the other components influence a component.

Source: section 2.2 of the paper (arXiv 1802.10353) and the authors' network.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnem.model.layers import Dense


class Interaction(nn.Module):
    """Υ: from the states of all components to what each component's update reads instead of its own."""

    width: int
    """E, width of what it gives; ``attention`` is att_ki of the last call without gradient, (B,K,K), or None."""
    attention: Float[Tensor, "B K K"] | None = None

    def forward(self, theta: Float[Tensor, "B K D"], action: Float[Tensor, "B K A"] | None) -> Float[Tensor, "B K E"]:
        raise NotImplementedError


class Identity(Interaction):
    """Υ = identity: components do not influence each other (N-EM, and with K = 1 the RNN)."""

    def __init__(self, state: int, attention: int, actions: int) -> None:
        super().__init__()
        self.width = state

    def forward(self, theta: Float[Tensor, "B K D"], action: Tensor | None) -> Float[Tensor, "B K D"]:
        return theta


class Pairwise(Interaction):
    """Equation 4: the sum over all other components of one function of (focus, context), weighted by attention."""

    def __init__(self, state: int, attention: int, actions: int) -> None:
        super().__init__()
        self.width = 2 * state
        self.encode = Dense(state + actions, state, "relu")
        self.core = Dense(2 * state, state, "relu")
        self.context = Dense(state, state, "relu")
        self.attend = (
            nn.Sequential(Dense(state, attention, "tanh"), Dense(attention, 1, "sigmoid", norm=False))
            if attention
            else None
        )

    def forward(self, theta: Float[Tensor, "B K D"], action: Tensor | None) -> Float[Tensor, "B K 2*D"]:
        B, K, _ = theta.shape
        if not torch.compiler.is_compiling():
            self.attention = None  # not the last call's, where this one keeps none
        if action is not None:
            theta = torch.cat([theta, action], 2)  # (B,K,D+A)
        e = self.encode(theta.flatten(0, 1)).view(B, K, -1)
        if K == 1:
            return torch.cat([e, torch.zeros_like(e)], 2)
        others = all_others(K, e.device)  # (K,K-1)
        core = self.pairs(e, others)  # (B*K*(K-1),D)
        effects = self.context(core)
        if self.attend is not None:
            weight = self.attend(core)  # (B*K*(K-1),1)
            effects = effects * weight
            if not torch.compiler.is_compiling() and not torch.is_grad_enabled():
                self.attention = e.new_zeros(B, K, K).scatter_(2, others.expand(B, -1, -1), weight.view(B, K, K - 1))
        effect = effects.view(B, K, K - 1, -1).sum(2)
        return torch.cat([e, effect], 2)

    def pairs(self, e: Float[Tensor, "B K D"], others: Tensor) -> Float[Tensor, "N D"]:
        """Return core([e_k ; e_i]) for all pairs k, i, N = B*K*(K-1)."""
        B, K, _ = e.shape
        focus = e[:, :, None].expand(B, K, K - 1, -1)  # (B,K,K-1,D)
        context = e[:, others]  # (B,K,K-1,D)
        return self.core(torch.cat([focus, context], 3).flatten(0, 2))  # (B*K*(K-1),D)


INTERACTIONS: dict[str, type[Interaction]] = {"identity": Identity, "pairwise": Pairwise}
"""By the name that the table of models uses (rnem.model.config.MODELS); built as ``(state, attention, actions)``."""


def all_others(K: int, device: torch.device) -> Tensor:
    """Return (K,K-1): row k lists the components other than k, in ascending order."""
    index = torch.arange(K, device=device)
    return (index[:, None] + 1 + torch.arange(K - 1, device=device)[None]).remainder(K).sort(1).values
