"""The layers: dense, strided and upsampled convolutions with the authors' layer normalisation.

Sizes and constants are the authors' (github.com/sjoerdvansteenkiste/Relational-NEM, network.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem.model import fast

NORM_EPSILON = 1e-12  # of TensorFlow's slim.layer_norm


class Norm(nn.Module):
    """Layer normalisation as the authors': moments over ALL non-batch axes, gain and bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "N C *HW"]) -> Float[Tensor, "N C *HW"]:
        return F.group_norm(x, 1, self.weight, self.bias, NORM_EPSILON)


class Dense(nn.Module):
    """Fully connected layer, then layer normalisation and an activation. Glorot uniform weights, zero bias."""

    def __init__(self, inputs: int, outputs: int, activation: str = "linear", *, norm: bool = True, path: str) -> None:
        super().__init__()
        self.linear = _linear(inputs, outputs, path)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.norm = Norm(outputs) if norm else None
        self.activation, self.path = activation, path

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        return _norm_act(self.linear(x), self.norm, self.activation, self.path)


class StridedConv(nn.Module):
    """Strided convolution with TensorFlow's SAME padding, layer normalisation, ELU (encoder)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, path: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.norm = Norm(outputs)
        self.path = path

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O h w"]:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        before, after = same_padding(x.shape[-1], kernel, stride)
        if self.path == "fast":
            y = fast.strided_conv(x, self.conv.weight, self.conv.bias, stride, before, after)
        else:
            y = self.conv(F.pad(x, (before, after, before, after)))
        return _norm_act(y, self.norm, "elu", self.path)


class UpsampledConv(nn.Module):
    """Nearest upsampling to ``size``, convolution with SAME padding, layer normalisation, ReLU (decoder)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, from_size: int, size: int, *, norm: bool, path: str
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.norm = Norm(outputs) if norm else None
        self.size, self.path = size, path
        # Where the size is no multiple (10 to 21), phases differ from pixel to pixel, and the plain layer serves both.
        self.factor = size // from_size if path == "fast" and size % from_size == 0 else None
        self._phases: Tensor | None = None

    def begin(self) -> None:
        if self.factor:
            before, _ = same_padding(self.size, self.conv.kernel_size[0], 1)
            self._phases = fast.phase_kernels(self.conv.weight, self.factor, before)

    def end(self) -> None:
        self._phases = None

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N O H W"]:
        before, after = same_padding(self.size, self.conv.kernel_size[0], 1)
        if self.factor:
            phases = self._phases
            if phases is None:
                phases = fast.phase_kernels(self.conv.weight, self.factor, before)
            y = fast.upsampled_conv(x, phases, self.conv.bias, self.factor)
        else:
            x = F.interpolate(x, size=(self.size, self.size), mode="nearest")
            y = self.conv(F.pad(x, (before, after, before, after)))
        return _norm_act(y, self.norm, "relu" if self.norm else "linear", self.path)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels that TensorFlow's SAME rule adds before and after an axis of ``size`` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _linear(inputs: int, outputs: int, path: str) -> nn.Linear:
    return (fast.Linear if path == "fast" else nn.Linear)(inputs, outputs)


def _norm_act(x: Tensor, norm: Norm | None, activation: str, path: str) -> Tensor:
    if path == "fast" and norm is not None:
        return fast.norm_act(x, norm.weight, norm.bias, NORM_EPSILON, activation)
    x = x if norm is None else norm(x)
    return x if activation == "linear" else getattr(torch, activation, getattr(F, activation, None))(x)
