"""The layers: dense, strided and upsampled convolutions with the authors' layer normalisation.

Sizes and constants are the authors' (github.com/sjoerdvansteenkiste/Relational-NEM, network.py). This is the plain
mathematics; rnem.model.fast has the same with less arithmetic, over the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPSILON = 1e-12  # of TensorFlow's slim.layer_norm


class Norm(nn.Module):
    """Normalise over ALL non-batch axes, as the authors do; gain and bias are per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "N C *HW"]) -> Float[Tensor, "N C *HW"]:
        return F.group_norm(x, 1, self.weight, self.bias, NORM_EPSILON)


class Activation(nn.Module):
    """Apply an activation by its name: linear, relu, elu, tanh or sigmoid."""

    FUNCTIONS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "linear": lambda x: x,
        "relu": F.relu,
        "elu": F.elu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return self.FUNCTIONS[self.name](x)


class Dense(nn.Module):
    """Fully connected layer, then layer normalisation and an activation. Glorot uniform weights, zero bias."""

    def __init__(self, inputs: int, outputs: int, activation: str = "linear", *, norm: bool = True) -> None:
        super().__init__()
        self.linear = glorot(nn.Linear(inputs, outputs))
        self.norm = Norm(outputs) if norm else None
        self.activation = Activation(activation)

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        x = self.linear(x)
        return self.activation(x if self.norm is None else self.norm(x))


class StridedConv(nn.Module):
    """Strided convolution with TensorFlow's SAME padding, layer normalisation, ELU (encoder)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = glorot(nn.Conv2d(inputs, outputs, kernel, stride))
        self.norm = Norm(outputs)
        self.activation = Activation("elu")

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O h w"]:
        return self.activation(self.norm(self.convolve(x)))

    def convolve(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O h w"]:
        before, after = same_padding(x.shape[-1], self.conv.kernel_size[0], self.conv.stride[0])
        return self.conv(F.pad(x, (before, after, before, after)))


class UpsampledConv(nn.Module):
    """Nearest upsampling to ``size``, convolution with SAME padding, layer normalisation, ReLU (decoder).

    Without ``norm`` it is the last layer, and gives logits.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, size: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = glorot(nn.Conv2d(inputs, outputs, kernel))
        self.norm = Norm(outputs) if norm else None
        self.activation = Activation("relu" if norm else "linear")
        self.size = size

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N O H W"]:
        x = self.convolve(x)
        return self.activation(x if self.norm is None else self.norm(x))

    def convolve(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N O H W"]:
        before, after = same_padding(self.size, self.conv.kernel_size[0], 1)
        x = F.interpolate(x, size=(self.size, self.size), mode="nearest")
        return self.conv(F.pad(x, (before, after, before, after)))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the pixels that TensorFlow's SAME rule adds before and after an axis of ``size`` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def glorot(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Give a layer the authors' initial values: Glorot uniform weights, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
