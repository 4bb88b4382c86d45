"""The fast path: the same mathematics as the plain layers and losses, arranged for less arithmetic and memory traffic.

:func:`accelerate` swaps the class of each layer of a plain network for one of these, over the same weights. Each names
the plain code that it replaces; tests hold both together (float64 to 1e-9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from rnem.model import em, interaction, layers
from rnem.model.network import Network


def strided_conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int, before: int, after: int) -> Tensor:
    """Strided convolution of a padded image, (N,C,H,W) -> (N,O,h,w); replaces ``conv2d(pad(x), stride)``.

    With one input channel it becomes a stride-1 convolution after space-to-depth: the library's backward pass of a
    one-channel strided convolution costs many times its arithmetic.
    """
    if x.shape[1] > 1:
        if before == after:
            return F.conv2d(x, weight, bias, stride, before)
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, bias, stride)
    x = F.pad(x, (before, after, before, after))
    return F.conv2d(_space_to_depth(x, stride), _space_to_depth(weight, stride), bias)


def _space_to_depth(x: Tensor, block: int) -> Tensor:
    """(N,1,H,W) -> (N,block*block,H/block,W/block), channels last in memory."""
    N, _, H, W = x.shape
    x = x.reshape(N, H // block, block, W // block, block).transpose(2, 3)
    return x.reshape(N, H // block, W // block, block * block).permute(0, 3, 1, 2)


def phase_taps(kernel: int, factor: int, before: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(factor, kernel, 3): 1 where tap u of output phase a reads the low-resolution pixel at offset p - 1."""
    a = torch.arange(factor, device=device)[:, None]
    u = torch.arange(kernel, device=device)[None]
    offset = torch.div(a + u - before, factor, rounding_mode="floor")  # (factor,kernel), within -1..1
    return F.one_hot(offset + 1, 3).to(dtype)


def phase_kernels(weight: Tensor, factor: int, before: int) -> Tensor:
    """(O,C,kernel,kernel) -> (factor*factor*O,C,3,3): per phase of the output, sums of the kernel's taps."""
    out, C, kernel, _ = weight.shape
    taps = phase_taps(kernel, factor, before, weight.device, weight.dtype)
    phases = torch.einsum("aup,ocuv,bvq->abocpq", taps, weight, taps)
    return phases.reshape(factor * factor * out, C, 3, 3).contiguous(memory_format=torch.channels_last)


def upsampled_conv(x: Tensor, phases: Tensor, bias: Tensor, factor: int) -> Tensor:
    """Nearest upsampling by ``factor`` and a SAME convolution, (N,C,h,w) -> (N,O,H,W), without the upsampled image.

    Output pixel (factor*i + a) sees at most three low-resolution pixels, through sums of the kernel's taps: a 3x3
    convolution with :func:`phase_kernels` to factor**2 * O channels, then a pixel shuffle.
    """
    out = len(bias)
    y = F.conv2d(x, phases, bias.repeat(factor * factor), padding=1)  # (N,factor*factor*O,h,w)
    N, _, h, w = y.shape
    y = y.permute(0, 2, 3, 1).reshape(N, h, w, factor, factor, out).transpose(2, 3)  # (N,h,factor,w,factor,O)
    return y.reshape(N, h * factor, w * factor, out).permute(0, 3, 1, 2)


class _PixelStep(Function):
    """All that happens to pixels between two passes through the network, with its gradient written out by hand."""

    @staticmethod
    def forward(ctx, logits, target, noisy, epsilon):
        ctx.set_materialize_grads(False)
        B, x = len(logits), target[:, None]
        psi = torch.sigmoid(logits)
        p = torch.addcmul(1 - x + epsilon, 2 * x - 1, psi)  # x psi + (1 - x)(1 - psi) + epsilon
        gamma = p.div_(p.sum(1, keepdim=True))
        loss = (F.softplus(logits).sum() - (gamma * logits * x).sum()) / B
        ctx.save_for_backward(psi, gamma, x)
        return loss, gamma * (noisy[:, None] - psi)

    @staticmethod
    def backward(ctx, loss_gradient, input_gradient):
        psi, gamma, x = ctx.saved_tensors
        gradient = torch.zeros_like(psi)
        if loss_gradient is not None:
            gradient = torch.addcmul(psi, gamma, x, value=-1).mul_(loss_gradient / len(psi))  # psi - gamma x
        if input_gradient is not None:
            slope = torch.addcmul(psi, psi, psi, value=-1)  # psi (1 - psi)
            gradient.addcmul_(slope.mul_(gamma), input_gradient, value=-1)
        return gradient, None, None, None


def pixel_step(
    logits: Float[Tensor, "B K 1 H W"], target: Tensor, noisy: Tensor, epsilon: float
) -> tuple[Tensor, Float[Tensor, "B K 1 H W"]]:
    """Loss of the prediction against ``target`` (nats per frame), and the network's next input; (B,1,H,W) frames.

    The E-step, the masked difference to the ``noisy`` frame, and the loss. In logits the loss' two terms collapse for
    a prior of 0, to softplus(z) - gamma x z; this equals the literal loss wherever that does not clip (psi within
    [1e-6, 1 - 1e-6]). gamma gets no gradient, psi does.
    """
    return _PixelStep.apply(logits, target, noisy, epsilon)


# ------------------------------------------------------------------------------------------- one gradient per unroll


class _StepLinear(Function):
    """x W^T + b inside an unroll; its backward pass leaves W's gradient to :class:`_Shared`."""

    @staticmethod
    def forward(ctx, x, weight, bias, transposed, uses):
        ctx.save_for_backward(x, weight)
        ctx.uses = uses
        return torch.addmm(bias, x, transposed)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        ctx.uses.append((x, gradient))
        return gradient @ weight, None, None, None, None


class _Shared(Function):
    """The weight and bias of all steps; their gradient is one matrix product over the rows of all steps.

    W^T is laid out in memory once, too: products of few rows with it are a third faster.
    """

    @staticmethod
    def forward(ctx, weight, bias, uses):
        ctx.uses = uses
        ctx.set_materialize_grads(False)
        transposed = weight.T.contiguous()
        ctx.mark_non_differentiable(transposed)
        return weight.view_as(weight), bias.view_as(bias), transposed

    @staticmethod
    def backward(ctx, *_):
        inputs, gradients = (torch.cat(rows) for rows in zip(*ctx.uses, strict=True))
        ctx.uses.clear()
        return gradients.T @ inputs, gradients.sum(0), None


# --------------------------------------------------------------------------------------------------------- the layers

_SHARED: ContextVar[dict[nn.Module, object] | None] = ContextVar("shared", default=None)
"""What the steps of the unroll that is under way share, by layer: it belongs to the call, not to the layers."""


class Linear(nn.Linear):
    """Like nn.Linear, but within :func:`unrolling` its gradient is computed once for all steps."""

    def share(self) -> tuple[Tensor, Tensor, Tensor, list]:
        uses: list[tuple[Tensor, Tensor]] = []
        return (*_Shared.apply(self.weight, self.bias, uses), uses)

    def forward(self, x: Tensor) -> Tensor:
        shared = (_SHARED.get() or {}).get(self)
        # Under autocast the library's own layer decides on the precision.
        if shared is None or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return _StepLinear.apply(x, *shared)


class Norm(layers.Norm):
    """Like layers.Norm; rows go through a kernel made for rows, which computes the same moments."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return F.layer_norm(x, x.shape[1:], self.weight, self.bias, layers.NORM_EPSILON)
        return super().forward(x)


class Activation(layers.Activation):
    """Like layers.Activation, in place: its backward pass needs the result only, so what it replaces is not kept."""

    FUNCTIONS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "linear": lambda x: x,
        "relu": torch.relu_,
        "elu": lambda x: F.elu(x, inplace=True),
        "tanh": torch.tanh_,
        "sigmoid": torch.sigmoid_,
    }


class StridedConv(layers.StridedConv):
    """Like layers.StridedConv, by :func:`strided_conv`."""

    def convolve(self, x: Tensor) -> Tensor:
        stride = self.conv.stride[0]
        before, after = layers.same_padding(x.shape[-1], self.conv.kernel_size[0], stride)
        return strided_conv(x, self.conv.weight, self.conv.bias, stride, before, after)


class UpsampledConv(layers.UpsampledConv):
    """Like layers.UpsampledConv, by :func:`upsampled_conv` where the size is a multiple of its input's.

    Where it is none (10 to 21), phases differ from pixel to pixel.
    """

    def share(self) -> dict[int, Tensor]:
        """Return phase kernels by factor, filled when a step first needs them."""
        return {}

    def convolve(self, x: Tensor) -> Tensor:
        factor, rest = divmod(self.size, x.shape[-1])
        if rest:
            return super().convolve(x)
        phases = (_SHARED.get() or {}).get(self, {})
        if factor not in phases:
            before, _ = layers.same_padding(self.size, self.conv.kernel_size[0], 1)
            phases[factor] = phase_kernels(self.conv.weight, factor, before)
        return upsampled_conv(x, phases[factor], self.conv.bias, factor)


class Pairwise(interaction.Pairwise):
    """Like interaction.Pairwise; core([e_k ; e_i]) takes one product per component and side, not one per pair."""

    def pairs(self, e: Float[Tensor, "B K D"], others: Tensor) -> Float[Tensor, "N D"]:
        D = e.shape[-1]
        weight = self.core.linear.weight
        focus = F.linear(e, weight[:, :D], self.core.linear.bias)  # (B,K,D)
        context = F.linear(e, weight[:, D:])  # (B,K,D)
        pairs = focus[:, :, None] + context[:, others]  # (B,K,K-1,D)
        return self.core.activation(self.core.norm(pairs.flatten(0, 2)))


FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Linear,
    layers.Norm: Norm,
    layers.Activation: Activation,
    layers.StridedConv: StridedConv,
    layers.UpsampledConv: UpsampledConv,
    interaction.Pairwise: Pairwise,
}
"""Plain layer -> its fast form. A layer that has none, such as a new interaction, stays as it is."""


def accelerate(network: nn.Module) -> nn.Module:
    """Swap the layers of a network for their fast forms, in place, and return it; weights and their names stay."""
    for module in network.modules():
        if type(module) in FAST and not (type(module) is nn.Linear and module.bias is None):
            module.__class__ = FAST[type(module)]
    return network


@contextmanager
def unrolling(network: nn.Module, *, linear: bool = True) -> Iterator[None]:
    """Compute what all steps of an unroll share once: phase kernels, and (``linear``) dense layers' gradients.

    Weights must stay as they are until it is left.
    """
    parts = [m for m in network.modules() if hasattr(m, "share") and (linear or not isinstance(m, Linear))]
    token = _SHARED.set({part: part.share() for part in parts})
    try:
        yield
    finally:
        _SHARED.reset(token)


# ---------------------------------------------------------------------------------------------------- training's loss


class TrainingLoss(em.TrainingLoss):
    """Like em.TrainingLoss, of an accelerated network."""

    to_pixels = staticmethod(pixel_step)

    def forward(self, *batch) -> tuple[Tensor, em.Carried]:
        with unrolling(self.network):
            return super().forward(*batch)


class CompiledTrainingLoss(TrainingLoss):
    """The same with each step of the network compiled by torch.compile, for GPUs."""

    def __init__(self, network: Network, backend: str = "inductor") -> None:
        super().__init__(network)
        self.step = torch.compile(network.forward, backend=backend)

    def forward(self, *batch) -> tuple[Tensor, em.Carried]:
        with unrolling(self.network, linear=False):
            return em.TrainingLoss.forward(self, *batch)


PATHS: dict[str, type[em.TrainingLoss]] = {
    "plain": em.TrainingLoss, "fast": TrainingLoss, "compiled": CompiledTrainingLoss,
}  # fmt: skip
"""A run's ``training.path``: implementations of one mathematics, which differ in rounding."""


def on_path(network: nn.Module, path: str) -> nn.Module:
    """Return a plain network as a path of PATHS has it: accelerated where that is not plain. ValueError for others."""
    if path not in PATHS:
        raise ValueError(f"path is {path!r}, and must be one of {', '.join(PATHS)}")
    return network if path == "plain" else accelerate(network)


def training_loss(network: Network, path: str) -> em.TrainingLoss:
    """Return the loss of a network that is on this path already."""
    return PATHS[path](network)
