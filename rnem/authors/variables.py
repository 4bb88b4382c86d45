"""The authors' variables: their names, shapes and order, read from files and told apart.

Source: github.com/sjoerdvansteenkiste/Relational-NEM (MIT), read and run, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from rnem.model.config import AUTOENCODERS, MODEL_LABELS, MODELS, Autoencoder, NetworkConfig
from rnem.model.network import EMBEDDED

PREFIX = "R-RNNEM/"
OPTIMISER = {"Adam", "Adam_1", "beta1_power", "beta2_power", "global_step"}
"""Last parts of names that a checkpoint holds beside the network; left out when read."""


@dataclass(frozen=True)
class Variable:
    """One variable: its name and shape in TensorFlow, and the parameter of rnem.model.network that it is."""

    name: str
    shape: tuple[int, ...]
    parameter: str
    first: int = 0
    """Rows of a recurrent kernel that read the input, and come first in theirs; last here, after the state's."""

    def ours(self, array: np.ndarray) -> np.ndarray:
        """Their layout to ours: (h,w,in,out) to (out,in,h,w), (in,out) to (out,in)."""
        array = np.roll(array, -self.first, 0)
        return array.transpose((3, 2, 0, 1)) if array.ndim == 4 else array.T

    def theirs(self, array: np.ndarray) -> np.ndarray:
        """Our layout to theirs."""
        array = array.transpose((2, 3, 1, 0)) if array.ndim == 4 else array.T
        return np.roll(array, self.first, 0)


def variables_of(config: NetworkConfig) -> list[Variable]:
    """Every variable of the authors' network of that config, in the order in which their graph creates them.

    ValueError for N-EM with actions, which their code does not have.
    """
    shape = AUTOENCODERS[config.autoencoder]
    return [*_encoder(shape), *_core(config, shape.code), *_decoder(shape, config.state)]


def _layer(scope: str, module: str, *shape: int) -> list[Variable]:
    return [
        Variable(f"{PREFIX}{scope}/weights", shape, f"{module}.weight"),
        Variable(f"{PREFIX}{scope}/biases", shape[-1:], f"{module}.bias"),
    ]


def _norm(scope: str, module: str, channels: int) -> list[Variable]:
    return [
        Variable(f"{PREFIX}{scope}/beta", (channels,), f"{module}.bias"),
        Variable(f"{PREFIX}{scope}/gamma", (channels,), f"{module}.weight"),
    ]


def _encoder(shape: Autoencoder) -> list[Variable]:
    out, channels, size = [], 1, shape.size
    for i, (kernel, stride, width) in enumerate(shape.convs):  # numbered from 1: their layer 0 is a reshape
        out += _layer(f"InputWrapper{i + 1}/Conv", f"encoder.convs.{i}.conv", kernel, kernel, channels, width)
        out += _norm(f"LayerNormI{i + 1}/LayerNorm", f"encoder.convs.{i}.norm", width)
        channels, size = width, -(-size // stride)
    i = len(shape.convs) + 2  # and so is the one after the convolutions
    out += _layer(f"InputWrapper{i}/fully_connected", "encoder.dense.linear", size**2 * channels, shape.code)
    return out + _norm(f"LayerNormI{i}/LayerNorm", "encoder.dense.norm", shape.code)


def _decoder(shape: Autoencoder, state: int) -> list[Variable]:
    out, widths = [], (state, shape.code, shape.grid**2 * shape.channels)
    for i in range(2):
        out += _layer(f"OutputWrapper{i}/fully_connected", f"decoder.dense.{i}.linear", *widths[i : i + 2])
        out += _norm(f"LayerNormO{i}/LayerNorm", f"decoder.dense.{i}.norm", widths[i + 1])
    channels = shape.channels
    for i, (_, kernel, width) in enumerate(shape.ups):  # their layer 2 is a reshape
        out += _layer(f"OutputWrapper{i + 3}/Conv", f"decoder.convs.{i}.conv", kernel, kernel, channels, width)
        if i < len(shape.ups) - 1:
            out += _norm(f"LayerNormO{i + 3}/LayerNorm", f"decoder.convs.{i}.norm", width)
        channels = width
    return out


def _core(config: NetworkConfig, code: int) -> list[Variable]:
    D = config.state
    if MODELS[config.model].interaction is None:
        cell = "layer_norm_basic_lstm_cell"
        gates = ("input", "transform", "forget", "output", "state")
        norms = [v for gate in gates for v in _norm(f"{cell}/{gate}", f"core.norms.{gate}", D)]
        return [Variable(f"{PREFIX}{cell}/kernel", (code + D, 4 * D), "core.gates.weight"), *norms]
    if MODELS[config.model].interaction == "pairwise":
        out = _interaction(config, code)
    elif MODELS[config.model].interaction != "identity":
        raise ValueError(f"the authors have no {MODELS[config.model].label}, so it has no form in their layout")
    elif config.actions:
        raise ValueError("the authors' RNN-EM takes no actions, so this network has no form in their layout")
    else:
        out = [
            Variable(f"{PREFIX}basic_rnn_cell/kernel", (code + D, D), "core.update.weight", first=code),
            Variable(f"{PREFIX}basic_rnn_cell/bias", (D,), "core.update.bias"),
        ]
    return out + _norm("LayerNormR0/LayerNorm", "core.norm", D)


def _interaction(config: NetworkConfig, code: int) -> list[Variable]:
    """R-NEM's dense layers share one scope and are numbered in order of use, the action's first where there is one."""
    D, E = config.state, EMBEDDED if config.actions else 0
    layers = [("action", config.actions, E)] if config.actions else []
    layers += [("core.interaction.encode", D + E, D), ("core.interaction.core", 2 * D, D)]
    layers += [("core.interaction.context", D, D)]
    if MODELS[config.model].attention:
        attend = "core.interaction.attend"
        layers += [(f"{attend}.0", D, config.attention), (f"{attend}.1", config.attention, 1)]
    out = []
    for i, (module, inputs, outputs) in enumerate(layers):
        suffix = f"_{i}" if i else ""
        out += _layer(f"NPE/fully_connected{suffix}", f"{module}.linear", inputs, outputs)
        if outputs != 1:  # the attention's output has no layer normalisation
            out += _norm(f"NPE/LayerNorm{suffix}", f"{module}.norm", outputs)
    return out + _layer(f"NPE/fully_connected_{len(layers)}", "core.update", 2 * D + code + E, D)


# -------------------------------------------------------------------------------------------- telling networks apart


def canonical(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names with ``R-RNNEM/`` and without ``:0``, an optimiser's left out; ValueError where a name comes twice."""
    arrays: dict[str, np.ndarray] = {}
    for given, value in variables.items():
        name = given.removesuffix(":0")
        if name.split("/")[-1] in OPTIMISER:
            continue
        name = PREFIX + name.split(PREFIX)[-1]
        if name in arrays:
            raise ValueError(f"variable {name} is there twice, the second time as {given}")
        arrays[name] = np.asarray(value)
    return arrays


def infer(arrays: Mapping[str, np.ndarray], components: int) -> NetworkConfig:
    """The config of which canonical variables are, complete and finite; ValueError names those that are not."""
    config = max(_candidates(arrays, components), key=lambda c: _agreement(arrays, variables_of(c)))
    side, wanted = AUTOENCODERS[config.autoencoder].size, {v.name: v.shape for v in variables_of(config)}
    what = f"{MODEL_LABELS[config.model]}{' with actions' if config.actions else ''} at {side}x{side}"
    lacking = [f"{name} {_text(shape)}" for name, shape in wanted.items() if name not in arrays]
    unknown = [f"{name} {_text(a.shape)}" for name, a in arrays.items() if name not in wanted]
    wrong = [
        f"{name} ({_text(arrays[name].shape)} where {_text(shape)} belongs)"
        for name, shape in wanted.items()
        if name in arrays and arrays[name].shape != shape
    ]
    for problem, names in (("lack", lacking), ("hold the unknown", unknown), ("hold the mis-shaped", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"the variables are nearest to {what}, but {problem} {', '.join(names[:3])}{more}")
    for name in wanted:
        if arrays[name].dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"variable {name} holds a value that is not a finite number")
    return config


def _candidates(arrays: Mapping[str, np.ndarray], components: int) -> list[NetworkConfig]:
    """Every network whose recurrent cell the variables have, with the widths that they show."""

    def size(name: str, axis: int, default: int) -> int:
        shape = arrays[PREFIX + name].shape if PREFIX + name in arrays else ()
        return max(int(shape[axis]), 1) if axis < len(shape) else default

    cells = {"NPE", "basic_rnn_cell", "layer_norm_basic_lstm_cell"}
    cells &= {name.removeprefix(PREFIX).split("/")[0] for name in arrays}
    if len(cells) != 1:
        raise ValueError(
            f"the {len(arrays)} variables must be of one of the authors' recurrent cells (NPE, basic_rnn_cell, "
            f"layer_norm_basic_lstm_cell), and are of {' and '.join(sorted(cells)) or 'none'}"
        )
    models = {
        "NPE": [("rnem", 0), ("rnem_noatt", 0), ("rnem", 1), ("rnem_noatt", 1)],
        "basic_rnn_cell": [("rnn" if components == 1 else "nem", 0)],
        "layer_norm_basic_lstm_cell": [("lstm", 0)],
    }[cells.pop()]
    return [
        NetworkConfig(
            model=model,
            components=components,
            autoencoder=autoencoder,
            state=size("OutputWrapper0/fully_connected/weights", 0, 250),
            attention=size(f"NPE/fully_connected_{3 + acts}/weights", 1, 100),
            actions=size("NPE/fully_connected/weights", 0, 1) * acts,
        )
        for model, acts in models
        for autoencoder in AUTOENCODERS
    ]


def _agreement(arrays: Mapping[str, np.ndarray], wanted: list[Variable]) -> int:
    agree = sum(v.name in arrays and arrays[v.name].shape == v.shape for v in wanted)
    return 2 * agree - len(wanted)  # of two networks that agree alike, the smaller


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


# -------------------------------------------------------------------------------------------------------------- files


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Variables by name from a NumPy archive, for rnem.authors.weights.from_tensorflow.

    OSError where it cannot be read, ValueError where it is no archive of arrays; pickled objects are refused.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (BadZipFile, ValueError, EOFError, AttributeError, TypeError):
        raise ValueError(f"{path} is not a NumPy archive (.npz) of variables") from None


def load_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Variables by name from a TensorFlow checkpoint (its path without ``.index``), for from_tensorflow.

    Needs the optional extra ``tensorflow``, ImportError says so; ValueError where it is no checkpoint.
    """
    try:
        import tensorflow
    except ImportError:
        raise ImportError(
            "reading a TensorFlow checkpoint needs TensorFlow: pip install 'rnem[tensorflow]' "
            "(or save the variables to .npz where it is installed)"
        ) from None
    try:
        reader = tensorflow.train.load_checkpoint(str(path))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (ValueError, RuntimeError, tensorflow.errors.OpError) as error:
        raise ValueError(f"{path} is not a TensorFlow checkpoint: {str(error).splitlines()[0]}") from None
