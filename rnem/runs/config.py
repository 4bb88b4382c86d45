"""A run's configuration: frozen dataclasses that together decide a result (with the seed and one machine)."""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass, field
from typing import Literal

from rnem.model.config import NetworkConfig

PROFILES = ("smoke", "laptop", "long", "paper")
"""Of which ``long`` is the laptop's size with three times the updates and sequences that carry state."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained: warm-up, constant step, linear decay; a longer run shares a shorter one's trunk."""

    updates: int = 390_000
    """Optimiser steps."""
    batch: int = 64
    """B, sequences an update."""
    steps: int = 30
    """Predicted frames a sequence (T - 1 of its T frames)."""
    stretches: tuple[int, ...] = (1,)
    """The batch is divided into as many groups of equal size; the sequences of group g live ``stretches[g]`` updates.

    Each update takes the next ``steps`` frames of a sequence: it begins fresh at the first, and at the others goes on
    with the state and the masked difference of the one before, without gradient (truncated backpropagation through
    time). (1,): every sequence is fresh at every update.
    """
    curriculum: tuple[tuple[int, int], ...] = ()
    """(update, steps) pairs: before that update sequences have so many predicted frames only; after all, ``steps``."""
    optimizer: Literal["adam", "muon"] = "adam"
    lr: float = 1e-3
    """Adam's step size (everything, or what Muon leaves)."""
    muon_lr: float = 0.0
    """Muon's step size on matrices and kernels, matched to Adam's update RMS."""
    warmup: int = 0
    """Updates of linear warm-up."""
    decay: float = 0.0
    """Last share of the updates over which the step size goes linearly to zero."""
    clip: float = 0.0
    """Largest global gradient norm; 0 for no clipping."""
    noise: float = 0.2
    """Bit-flip probability of the input frames."""
    evaluate_every: int = 781
    """Updates between two validations (an epoch of 50,000 sequences)."""
    validation: int = 1000
    """Sequences of the validation split that are used."""
    validation_steps: int = 30
    """Predicted frames of a validation sequence (at least ``steps``)."""
    patience: int = 10
    """Validations without a better loss before training stops; 0 for never."""
    path: Literal["fast", "plain", "compiled"] = "fast"
    """Implementation of the same mathematics (results differ by rounding); compiled: for GPUs."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Lightning Fabric's word for it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "curriculum", tuple(tuple(stage) for stage in self.curriculum))  # JSON has lists
        object.__setattr__(self, "stretches", tuple(self.stretches))
        if not self.stretches or min(self.stretches) < 1 or self.batch % len(self.stretches):
            raise ValueError(
                f"training.stretches is {self.stretches}: numbers of at least 1, as many as divide the batch "
                f"{self.batch}"
            )
        if self.curriculum and self.stretches != (1,):
            raise ValueError("training has a curriculum and stretches, and can have one of them only")
        for stage in self.curriculum:
            if len(stage) != 2 or not 1 <= stage[1] <= self.steps:
                raise ValueError(f"training.curriculum has {stage}, no (update, steps) with 1 to {self.steps} steps")
        for name in ("updates", "batch", "steps", "evaluate_every", "validation"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}, and must be at least 1")
        if not 0 <= self.noise < 1:
            raise ValueError(f"training.noise is {self.noise}, and must be a probability below 1")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"training.decay is {self.decay}, and must be between 0 and 1")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result, but the machine."""

    name: str
    data: str
    """A name of rnem.videos.datasets, size included: balls4mass64, spaceinvaders42."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    version: int = 1
    """Of what a config means, raised by hand whenever that changes (a test holds a fingerprint)."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}, and must be from 0 to 2^64 - 1, as random generators take it")

    @property
    def profile(self) -> str:
        """``smoke``, ``laptop``, ``long`` or ``paper``: the first word of the name."""
        return self.name.split("-")[0]

    def replace(self, *, seed: int | None = None, **training) -> RunConfig:
        """The same run with another seed or other training fields."""
        return dataclasses.replace(
            self,
            seed=self.seed if seed is None else seed,
            training=dataclasses.replace(self.training, **training),
        )


VERSION = "semantics"
"""What config.json files and keys call RunConfig.version."""
FIRST_FIELDS = {
    "run": {"name": None, "data": None, "seed": 0, VERSION: 1},
    "network": {
        "model": "rnem", "components": 5, "autoencoder": "balls64", "state": 250, "attention": 100, "actions": 0,
        "output_bias": 0.0,
    },
    "training": {
        "updates": 390_000, "batch": 64, "steps": 30, "optimizer": "adam", "lr": 1e-3, "muon_lr": 0.0, "warmup": 0,
        "decay": 0.0, "clip": 0.0, "noise": 0.2, "evaluate_every": 781, "validation": 1000, "validation_steps": 30,
        "patience": 10, "path": "fast", "precision": "32-true",
    },
}  # fmt: skip
"""The fields that a config had when keys were first made, and their defaults then: every key has them all, for ever."""


def to_dict(config: RunConfig) -> dict:
    """Plain JSON types, in field order."""
    return {VERSION if name == "version" else name: value for name, value in dataclasses.asdict(config).items()}


def in_key(config: RunConfig) -> dict:
    """What a run's key is made from: FIRST_FIELDS, and of younger fields those that differ from their defaults.

    So a new field changes no key of a run that was trained without it, if its default is what those were trained with.
    """
    tree = to_dict(config)
    parts = {
        name: _in_key(getattr(config, name), tree.pop(name), FIRST_FIELDS[name]) for name in ("network", "training")
    }
    return _in_key(config, tree, FIRST_FIELDS["run"]) | parts


def _in_key(part: RunConfig | NetworkConfig | TrainingConfig, values: dict, first: dict) -> dict:
    defaults = {each.name: each.default for each in dataclasses.fields(part)}
    return first | {name: value for name, value in values.items() if name in first or value != defaults[name]}


def from_dict(tree: dict) -> RunConfig:
    """Inverse of :func:`to_dict`; ValueError names a field that is unknown, missing or of another type."""
    try:
        rest = {"version" if name == VERSION else name: value for name, value in tree.items()}
        parts = {
            "network": _typed(NetworkConfig, tree["network"]),
            "training": _typed(TrainingConfig, tree["training"]),
        }
        return _typed(RunConfig, rest | parts)
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"not a run config: {error}") from None


def _typed(kind: type, values: dict):
    """A config of this kind; TypeError where a value is none of its field's type."""
    for name, expected in _types(kind).items():
        if name in values and not _fits(values[name], expected):
            raise TypeError(f"{name} is {str(values[name])[:40]!r}")
    return kind(**values)


def _fits(value, expected) -> bool:
    """Whether a value from JSON is one of a field's type; numbers are finite and have 64 bits at most."""
    if typing.get_origin(expected) is Literal:
        return value in typing.get_args(expected)
    if expected in (int, float):
        return type(value) in (int, expected) and abs(value) < 2**64
    return typing.get_origin(expected) is not None or isinstance(value, expected)


_types = functools.cache(typing.get_type_hints)
