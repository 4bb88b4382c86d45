"""Expectation maximisation through time: E-step, M-step, loss, unroll and rollout (arXiv 1802.10353).

The plain functions are the equations, literally, with their numbers on the book's page *The model*; ``unroll`` takes
them or their fast equivalents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rnem.model.network import Network

EPSILON = 1e-6  # of the E-step and of the clips in the loss
ROLLOUT_THRESHOLD = 0.1  # a predicted pixel counts as on above it, in the E-step of the authors' rollout
BINARY_THRESHOLD = 0.4  # the same, in both places, of a rollout that feeds binary frames back


def initial_gamma(raw: Float[Tensor, "B K 1 H W"]) -> Float[Tensor, "B K 1 H W"]:
    """|raw| normalised over components; ones when K = 1. ``raw`` is standard normal."""
    gamma = raw.abs()
    return gamma / gamma.sum(1, keepdim=True) if raw.shape[1] > 1 else torch.ones_like(raw)


def e_step(psi: Float[Tensor, "B K 1 H W"], x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B K 1 H W"]:
    """Equation 3: gamma_k = p_k / sum_j p_j with p_k = x psi_k + (1-x)(1-psi_k) + 1e-6, x the clean next frame."""
    x = x[:, None]
    p = x * psi + (1 - x) * (1 - psi) + EPSILON
    return p / p.sum(1, keepdim=True)


def masked_difference(gamma: Tensor, x: Float[Tensor, "B 1 H W"], psi: Tensor) -> Float[Tensor, "B K 1 H W"]:
    """Equation 1: input_k = gamma_k (x - psi_k), what component k has to explain; psi gets a gradient, gamma none."""
    return gamma.detach() * (x[:, None] - psi)


def flip(x: Tensor, noise: Tensor) -> Tensor:
    """x with the bits of ``noise`` flipped: x + n - 2xn (also for x in [0,1], as in the authors' rollout)."""
    return x + noise - 2 * x * noise


def intra(psi: Tensor, x: Tensor) -> Tensor:
    """Binary cross entropy of every pixel, nats, psi clipped to [1e-6, 1 - 1e-6]."""
    psi = psi.clamp(EPSILON, 1 - EPSILON)
    return -(x * psi.log() + (1 - x) * (1 - psi).log())


def inter(psi: Tensor) -> Tensor:
    """KL(Bernoulli(0) || psi) of every pixel, nats, with the authors' clips."""
    return (1 / (1 - psi).clamp(EPSILON, 1 / EPSILON)).clamp(EPSILON, 1 / EPSILON).log()


@dataclass(frozen=True)
class Losses:
    """Nats per frame, averaged over sequences: scalars of one step."""

    intra: Tensor
    inter: Tensor

    @property
    def total(self) -> Tensor:
        return self.intra + self.inter


def loss(
    psi: Float[Tensor, "B K 1 H W"], gamma: Tensor, x: Float[Tensor, "B 1 H W"], mask: Tensor | None = None
) -> Losses:
    """Equation 5: gamma BCE(psi, x) + (1-gamma) KL(Bernoulli(0) || psi), summed over pixels and components, over B.

    With a mask (B,1,H,W) only its pixels count: the relational loss.
    """
    gamma, x = gamma.detach(), x[:, None]
    mask = torch.ones_like(x) if mask is None else mask[:, None]
    B = len(psi)
    return Losses((mask * gamma * intra(psi, x)).sum() / B, (mask * (1 - gamma) * inter(psi)).sum() / B)


def upper_bound_loss(
    psi: Float[Tensor, "B K 1 H W"], x: Float[Tensor, "B 1 H W"], mask: Tensor | None = None
) -> Losses:
    """The loss of max_k psi_k, which needs no E-step; the KL counts in full, so compare ``intra`` across K."""
    best = psi.amax(1)
    mask = torch.ones_like(x) if mask is None else mask
    B = len(psi)
    return Losses((mask * intra(best, x)).sum() / B, (mask * inter(best)).sum() / B)


@dataclass
class State:
    """What is carried from frame to frame."""

    theta: Float[Tensor, "B K S"]
    psi: Float[Tensor, "B K 1 H W"]
    gamma: Float[Tensor, "B K 1 H W"]


def initial_state(network: Network, raw: Float[Tensor, "B K 1 H W"]) -> State:
    """theta = 0, psi = 0, gamma from ``raw``."""
    return State(network.initial_state(len(raw)), torch.zeros_like(raw), initial_gamma(raw))


def step(
    network: Network,
    state: State,
    x: Float[Tensor, "B 1 H W"],
    target: Float[Tensor, "B 1 H W"] | Callable[[Tensor], Tensor],
    action: Float[Tensor, "B K E"] | None = None,
) -> State:
    """One EM step on (noisy) frame ``x``: M-step, then E-step against the next frame.

    In a rollout step ``target`` is :func:`pseudo_target`: the E-step then sees what is made of the prediction.
    """
    logits, theta = network(masked_difference(state.gamma, x, state.psi), state.theta, action)
    psi = torch.sigmoid(logits)
    if callable(target):
        target = target(psi)
    return State(theta, psi, e_step(psi.detach(), target))


def pseudo_target(psi: Float[Tensor, "B K 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """max_k psi_k > 0.1: the next frame as a rollout's E-step takes it."""
    return (psi.amax(1) > ROLLOUT_THRESHOLD).to(psi.dtype)


def own_prediction(state: State) -> Float[Tensor, "B 1 H W"]:
    """sum_k gamma_k psi_k: what the model feeds itself in the authors' rollout."""
    return (state.gamma * state.psi).sum(1)


def binary_prediction(psi: Float[Tensor, "B K 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """max_k psi_k > 0.4: the prediction made binary, as the true frames are."""
    return (psi.amax(1) > BINARY_THRESHOLD).to(psi.dtype)


@dataclass(frozen=True)
class Feedback:
    """What stands for the true frames in a rollout."""

    frame: Callable[[State], Float[Tensor, "B 1 H W"]]
    """The frame that the next step reads, of the state that the last one left."""
    target: Callable[[Float[Tensor, "B K 1 H W"]], Float[Tensor, "B 1 H W"]]
    """The next frame as the E-step takes it, of psi."""


FEEDBACKS = {
    "grey": Feedback(own_prediction, pseudo_target),
    # A soft prediction fed back as it is fades: within a ball gamma_k psi_k - psi_k <= 0 everywhere, where a true frame
    # gives 1 - psi_k.
    "binary": Feedback(lambda state: binary_prediction(state.psi), binary_prediction),
}
"""By name: the authors' grey frames, and binary ones."""


def unroll(
    network: Network,
    features: Float[Tensor, "T B 1 H W"],
    flips: Float[Tensor, "T B 1 H W"],
    raw: Float[Tensor, "B K 1 H W"],
    *,
    actions: Float[Tensor, "T B A"] | None = None,
    action_order: str | None = None,
    real_steps: int | None = None,
    feedback: Feedback | str = "grey",
) -> Iterator[State]:
    """The states after each of the T-1 steps; step t reads (flipped) frame t and predicts frame t+1.

    From step ``real_steps`` on the model is fed its own prediction (rollout) by ``feedback`` (a name of FEEDBACKS, or
    one of your own); later frames are not read. Action t is the one taken between frames t and t+1;
    ``action_order``: see Network.embed.
    """
    feedback = FEEDBACKS[feedback] if isinstance(feedback, str) else feedback
    state = initial_state(network, raw)
    for t in range(len(features) - 1):
        real = real_steps is None or t < real_steps
        x = features[t] if real else feedback.frame(state)
        action = None if actions is None else network.embed(actions[t], action_order)
        state = step(network, state, flip(x, flips[t]), features[t + 1] if real else feedback.target, action)
        yield state


@dataclass
class Carried:
    """What a sequence hands on from one stretch of its frames to the next, without gradient."""

    theta: Float[Tensor, "B K S"]
    inputs: Float[Tensor, "B K 1 H W"]
    """The masked difference that the next step reads; its frame ends one stretch and begins the next."""

    def detach(self) -> Carried:
        """Return the same values without their gradients."""
        return Carried(self.theta.detach(), self.inputs.detach())

    def where(self, chosen: Bool[Tensor, " B"], other: Carried) -> Carried:
        """Return these sequences where ``chosen`` is true, those of ``other`` elsewhere."""
        return Carried(
            torch.where(chosen[:, None, None], self.theta, other.theta),
            torch.where(chosen[:, None, None, None, None], self.inputs, other.inputs),
        )


def pixel_step(
    logits: Float[Tensor, "B K 1 H W"], target: Float[Tensor, "B 1 H W"], noisy: Tensor, epsilon: float = EPSILON
) -> tuple[Tensor, Float[Tensor, "B K 1 H W"]]:
    """Return the loss of a prediction and the network's next input, as :func:`rnem.model.fast.pixel_step` does."""
    psi = torch.sigmoid(logits)
    gamma = e_step(psi.detach(), target)
    return loss(psi, gamma, target).total, masked_difference(gamma, noisy, psi)


class TrainingLoss(nn.Module):
    """The network unrolled over a batch: mean over the T-1 steps of the loss, nats per frame."""

    to_pixels = staticmethod(pixel_step)

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.step = network.forward

    def forward(
        self,
        features: Float[Tensor, "T B 1 H W"],
        flips: Float[Tensor, "T B 1 H W"],
        raw: Float[Tensor, "B K 1 H W"],
        actions: Float[Tensor, "T B A"] | None = None,
        carried: Carried | None = None,
        fresh: Bool[Tensor, " B"] | None = None,
    ) -> tuple[Tensor, Carried]:
        """Return the loss (a scalar) and what each sequence hands on to its next stretch.

        A sequence begins at theta = 0 with the gamma that ``raw`` gives where it is ``fresh`` (all are, without
        ``carried``); elsewhere it goes on from ``carried``, and its ``raw`` and ``flips[0]`` are not read.
        """
        noisy = flip(features, flips)
        state, losses = initial_state(self.network, raw), []
        start = Carried(state.theta, masked_difference(state.gamma, noisy[0], state.psi))
        if carried is not None:
            start = start.where(fresh, carried)
        theta, inputs = start.theta, start.inputs
        for t in range(len(features) - 1):
            action = None if actions is None else self.network.embed(actions[t])
            logits, theta = self.step(inputs, theta, action)
            loss_t, inputs = self.to_pixels(logits.to(features.dtype), features[t + 1], noisy[t + 1], EPSILON)
            losses.append(loss_t)
        return torch.stack(losses).mean(), Carried(theta, inputs).detach()
