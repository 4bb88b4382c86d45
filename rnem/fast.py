"""The fast path: the same mathematics as the plain layers and losses, arranged for less arithmetic and memory traffic.

Each function names the plain code it replaces; tests hold both together (float64 to 1e-9), and weights are the same.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


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


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor, factor: int, before: int) -> Tensor:
    """Nearest upsampling by ``factor`` and a SAME convolution, (N,C,h,w) -> (N,O,H,W), without the upsampled image.

    Output pixel (factor*i + a) sees at most three low-resolution pixels, through sums of the kernel's taps: a 3x3
    convolution to factor**2 * O channels, then a pixel shuffle.
    """
    out, C, kernel, _ = weight.shape
    taps = phase_taps(kernel, factor, before, weight.device, weight.dtype)
    phases = torch.einsum("aup,ocuv,bvq->abocpq", taps, weight, taps)
    phases = phases.reshape(factor * factor * out, C, 3, 3)
    y = F.conv2d(x, phases, bias.repeat(factor * factor), padding=1)  # (N,factor*factor*O,h,w)
    N, _, h, w = y.shape
    y = y.permute(0, 2, 3, 1).reshape(N, h, w, factor, factor, out).transpose(2, 3)  # (N,h,factor,w,factor,O)
    return y.reshape(N, h * factor, w * factor, out).permute(0, 3, 1, 2)


_ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def norm_act(x: Tensor, gain: Tensor, bias: Tensor, epsilon: float, activation: str) -> Tensor:
    """Layer normalisation over all non-batch axes (gain and bias per channel), then the activation."""
    return _ACTIVATIONS[activation](F.group_norm(x, 1, gain, bias, epsilon))


def pairs_dense(e: Float[Tensor, "B K E"], others: Tensor, layer, epsilon: float) -> Tensor:
    """core([e_k ; e_i]) for all pairs, (B*K*(K-1),E): one product per component and side instead of one per pair."""
    E = e.shape[-1]
    weight = layer.linear.weight
    focus = F.linear(e, weight[:, :E], layer.linear.bias)  # (B,K,E)
    context = F.linear(e, weight[:, E:])  # (B,K,E)
    pairs = focus[:, :, None] + context[:, others]  # (B,K,K-1,E)
    return norm_act(pairs.flatten(0, 2), layer.norm.weight, layer.norm.bias, epsilon, layer.activation)


def loss(logits: Float[Tensor, "B K 1 H W"], gamma: Tensor, x: Float[Tensor, "B 1 H W"]) -> Tensor:
    """The training loss in logits: with a prior of 0 its two terms collapse to softplus(z) - gamma x z. Nats per frame.

    Equal to the literal loss wherever that does not clip (psi within [1e-6, 1 - 1e-6]).
    """
    return (F.softplus(logits) - gamma.detach() * x[:, None] * logits).sum() / len(logits)
