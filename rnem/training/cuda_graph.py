"""Training on an NVIDIA GPU as one CUDA graph: one call launches thousands of small kernels.

At K = 5 an update is some 3,500 kernels of a few microseconds each, less than the processor needs to launch them.
"""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from rnem.model import em, fast
from rnem.model.network import Network
from rnem.runs.config import TrainingConfig

WARM_UP = 3
"""Passes before the recording, in which libraries choose their kernels and take their memory."""


def can_record(fabric: Fabric, training: TrainingConfig, batch: tuple) -> bool:
    """Return whether all later updates make the same calls as this batch, on one GPU, in the weights' own precision."""
    return (
        fabric.device.type == "cuda"
        and fabric.world_size == 1
        and training.path == "fast"
        and training.precision == "32-true"
        and not training.curriculum
        and (len(batch) > 4) == (training.stretches != (1,))
    )


class Gradients:
    """The loss of :class:`em.TrainingLoss` and its gradients, recorded once and replayed for every batch of one shape.

    The gradients lie in memory of the graph: each call writes them anew into the parameters' ``grad``.
    """

    def __init__(self, network: Network, *batch) -> None:
        """Record with a batch as TrainingLoss takes it: features, flips, raw[, actions[, carried, fresh]]."""
        self.parameters = list(network.parameters())
        self.inputs = [None if each is None else each.clone() for each in _tensors(batch)]
        model = fast.TrainingLoss(network)

        def gradients() -> tuple[Tensor, em.Carried]:
            for p in self.parameters:
                p.grad = None
            loss, ended = model(*_arguments(self.inputs))
            loss.backward()
            return loss.detach(), ended

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                gradients()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss, self.ended = gradients()
        self.gradients = [p.grad for p in self.parameters]

    def fits(self, *batch) -> bool:
        """Return whether a batch has the shapes of the recorded one."""
        return [_shape(each) for each in _tensors(batch)] == [_shape(each) for each in self.inputs]

    def __call__(self, *batch) -> tuple[Tensor, em.Carried]:
        """Return the loss and what is carried over, as copies of their own; leave the gradients in the parameters."""
        for own, given in zip(self.inputs, _tensors(batch), strict=True):
            if own is not None:
                own.copy_(given)
        self.graph.replay()
        for p, gradient in zip(self.parameters, self.gradients, strict=True):
            p.grad = gradient
        return self.loss.clone(), em.Carried(self.ended.theta.clone(), self.ended.inputs.clone())


def _tensors(batch: tuple) -> list[Tensor | None]:
    """The arguments of TrainingLoss with what is carried laid open."""
    return [t for each in batch for t in (vars(each).values() if isinstance(each, em.Carried) else [each])]


def _arguments(tensors: list[Tensor | None]) -> list:
    """Inverse of :func:`_tensors`."""
    own = tensors[:4]
    return [*own, em.Carried(*tensors[4:6]), tensors[6]] if len(tensors) > 4 else own


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
