"""The authors' originals: their weights into our networks and back, their arrays replayed, their adjusted Rand index.

Source: github.com/sjoerdvansteenkiste/Relational-NEM (MIT), read and run, not copied. Arrays of theirs are channels
last with time first, (T+1,B,1,H,W,1); T steps predict frames 1..T.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rnem.authors.variables import canonical, infer, variables_of
from rnem.model.fast import on_path
from rnem.model.network import Network, build


def from_tensorflow(variables: Mapping[str, np.ndarray], components: int, *, path: str = "plain") -> Network:
    """The network that the authors' variables are of, with those weights.

    R-NEM (with or without attention, with or without actions), RNN-EM, RNN (``components`` 1) or LSTM, at 64x64 or
    84x84, told by names and shapes. Names may come without ``R-RNNEM/`` and with ``:0``; an optimiser's variables are
    left out. ``components`` is K, on which no weight depends. ValueError names a variable that is missing, unknown,
    mis-shaped or not finite.
    """
    arrays = canonical(variables)
    config = infer(arrays, components)
    with torch.random.fork_rng(devices=()):  # the fresh weights are overwritten, so let them leave no trace
        network = on_path(build(config), path)
    ours = {v.parameter: v.ours(arrays[v.name].astype(np.float32)) for v in variables_of(config)}
    network.load_state_dict({name: torch.tensor(np.ascontiguousarray(w)) for name, w in ours.items()})
    return network


def to_tensorflow(model: Network) -> dict[str, np.ndarray]:
    """Inverse of :func:`from_tensorflow`: the weights under the authors' names, in their layout and order."""
    return _theirs(model, dict(model.named_parameters()))


def _theirs(model: Network, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return {v.name: np.ascontiguousarray(v.theirs(arrays[v.parameter])) for v in variables_of(model.config)}
