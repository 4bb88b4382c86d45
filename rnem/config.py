"""Every run of the book, by name: frozen dataclasses that together decide a result (with the seed and one machine)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from rnem.errors import RnemError

Model = Literal["rnem", "rnem_noatt", "nem", "rnn", "lstm"]
MODELS: tuple[Model, ...] = ("rnem", "rnem_noatt", "nem", "rnn", "lstm")
MODEL_LABELS = {
    "rnem": "R-NEM",
    "rnem_noatt": "R-NEM without attention",
    "nem": "N-EM",
    "rnn": "RNN",
    "lstm": "LSTM",
}
PROFILES = ("smoke", "laptop", "long", "paper")
"""Of which ``long`` is the laptop's size with three times the updates and sequences that carry state."""


@dataclass(frozen=True)
class Autoencoder:
    """Shape of an encoder and its decoder; sizes in pixels, widths in units.

    ``convs`` holds (kernel, stride, channels) per encoder convolution; ``ups`` holds (size reached by nearest
    upsampling, kernel, channels) per decoder convolution; ``code`` is the width of both fully connected layers and
    (``grid``, ``grid``, ``channels``) the map the decoder starts from.
    """

    size: int
    convs: tuple[tuple[int, int, int], ...]
    code: int
    grid: int
    channels: int
    ups: tuple[tuple[int, int, int], ...]


AUTOENCODERS: dict[str, Autoencoder] = {
    # The authors' two networks, exactly.
    "balls64": Autoencoder(
        64, ((4, 2, 16), (4, 2, 32), (4, 2, 64)), 512, 8, 64, ((16, 4, 32), (32, 4, 16), (64, 4, 1))
    ),
    "atari84": Autoencoder(84, ((8, 4, 16), (4, 2, 32)), 250, 10, 32, ((21, 4, 16), (84, 8, 1))),
    # Their coarse (Space Invaders) network at smaller frames; the grid divides the sizes, which is what is fast.
    "coarse32": Autoencoder(32, ((8, 4, 16), (4, 2, 32)), 128, 4, 32, ((8, 4, 16), (32, 8, 1))),
    "coarse42": Autoencoder(42, ((8, 4, 16), (4, 2, 32)), 128, 7, 32, ((14, 4, 16), (42, 6, 1))),
    "tiny16": Autoencoder(16, ((4, 2, 8), (4, 2, 16)), 32, 4, 16, ((8, 4, 8), (16, 4, 1))),
}


@dataclass(frozen=True)
class NetworkConfig:
    """One model: R-NEM, one of its ablations or a baseline. RNN and LSTM are the K = 1 case."""

    model: Model = "rnem"
    components: int = 5
    """K; 1 for rnn and lstm."""
    autoencoder: str = "balls64"
    """A key of AUTOENCODERS; its size must be the data set's."""
    state: int = 250
    """D, width of theta, of Υ's hidden layers and of its effect."""
    attention: int = 100
    """Width of the attention branch's hidden layer."""
    actions: int = 0
    """Number of discrete actions the videos come with; 0 for none."""
    output_bias: float = 0.0
    """Initial bias of the last layer, in logits; negative where most pixels are off."""
    action_order: Literal["correct", "authors"] = "correct"
    """Whose action a component gets: its own sequence's, or as in the authors' code (see Network.embed)."""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"network.model is {self.model!r}, not one of {', '.join(MODELS)}")
        if self.components < 1 or (self.model in ("rnn", "lstm") and self.components != 1):
            raise ValueError(
                f"network.components is {self.components}: {self.model} needs 1 where it is rnn or lstm, else >= 1"
            )
        if self.autoencoder not in AUTOENCODERS:
            raise ValueError(f"network.autoencoder is {self.autoencoder!r}, not one of {', '.join(AUTOENCODERS)}")


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
    """A name of rnem.videos, size included: balls4mass64, spaceinvaders42."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    semantics: int = 1
    """Raised by hand whenever the meaning of a config changes (a test holds a fingerprint)."""

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


def to_dict(config: RunConfig) -> dict:
    """Plain JSON types, in field order."""
    return dataclasses.asdict(config)


ADDED_LATER = {"training": {"curriculum": (), "stretches": (1,)}, "network": {"action_order": "correct"}}
"""Fields younger than some runs -> the value by which those were trained; at that value no key has them."""


def identity(config: RunConfig) -> dict:
    """What a run's key is made from: :func:`to_dict` without ADDED_LATER at their old values."""
    tree = to_dict(config)
    for part, fields in ADDED_LATER.items():
        tree[part] = {k: v for k, v in tree[part].items() if k not in fields or v != fields[k]}
    return tree


def from_dict(tree: dict) -> RunConfig:
    """Inverse of :func:`to_dict`; ValueError names a field that is unknown or missing."""
    try:
        return RunConfig(
            **{
                **tree,
                "network": NetworkConfig(**tree["network"]),
                "training": TrainingConfig(**tree["training"]),
            }
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a run config: {error}") from None


# ---------------------------------------------------------------------------------------------------------------- runs

_NETWORK = {
    "smoke": {"autoencoder": "tiny16", "state": 24, "attention": 12, "output_bias": -2.0},
    "laptop": {"autoencoder": "coarse32", "state": 128, "attention": 64, "output_bias": -3.0},
    "paper": {"autoencoder": "balls64", "state": 250, "attention": 100},
}
_NETWORK["long"] = _NETWORK["laptop"]
_TRAINING = {
    "smoke": TrainingConfig(
        updates=40, batch=8, steps=6, optimizer="muon", muon_lr=4e-3, warmup=5, decay=0.2, clip=1.0, noise=0.02,
        evaluate_every=20, validation=16, validation_steps=10, patience=0,
    ),
    "laptop": TrainingConfig(
        updates=4000, batch=16, steps=14, optimizer="muon", muon_lr=6e-3, warmup=100, decay=0.5, clip=1.0, noise=0.02,
        evaluate_every=250, validation=128, validation_steps=29, patience=0,
    ),
    "paper": TrainingConfig(),
}  # fmt: skip
CARRIED = (1, 2, 3, 4)
"""Stretches of the long campaign: half of the sequences of a batch begin fresh, the oldest are 57 frames long."""
_TRAINING["long"] = dataclasses.replace(_TRAINING["laptop"], updates=12_000, stretches=CARRIED)
_SIZE = {"smoke": 16, "laptop": 32, "long": 32, "paper": 64}


def _balls(profile: str, balls: str, model: Model, components: int, **training) -> RunConfig:
    name = f"{profile}-{balls}-{model}" + (f"-k{components}" if components > 1 else "")
    return RunConfig(
        name=name,
        data=f"{balls}{_SIZE[profile]}",
        network=NetworkConfig(model=model, components=components, **_NETWORK[profile]),
        training=dataclasses.replace(_TRAINING[profile], **training),
    )


def _invaders(profile: str, model: Model, components: int, **network) -> RunConfig:
    """Space Invaders as the authors: K = 4, 25 frames, few flips; paper: their network and batch."""
    size = 84 if profile == "paper" else 42
    own = {
        "smoke": {"validation_steps": 10},
        "laptop": {"validation_steps": 24, "updates": 2000},  # one costs half as much again as with balls
        "long": {"validation_steps": 24, "updates": 6000},
        "paper": {"validation_steps": 24, "steps": 24, "batch": 32, "evaluate_every": 1562},
    }
    return RunConfig(
        name=f"{profile}-spaceinvaders-{model}" + (f"-k{components}" if components > 1 else ""),
        data=f"spaceinvaders{size}",
        network=NetworkConfig(
            model=model, components=components, actions=6,
            **_NETWORK[profile] | {"autoencoder": "atari84" if size == 84 else "coarse42"} | network,
        ),
        training=dataclasses.replace(_TRAINING[profile], noise=0.002, **own[profile]),
    )  # fmt: skip


def _with_authors_order(run: RunConfig) -> RunConfig:
    """The same with actions handed out as in the authors' code: what that defect costs."""
    profile, data, model = run.name.split("-", 2)
    network = dataclasses.replace(run.network, action_order="authors")
    return dataclasses.replace(run, name=f"{profile}-{data}-order_{model}", network=network)


def _with_authors_training(run: RunConfig) -> RunConfig:
    """The authors' optimiser and noise at another size, for as many updates: what departing from them does."""
    profile, data, model = run.name.split("-", 2)
    theirs = {
        name: getattr(_TRAINING["paper"], name)
        for name in ("optimizer", "lr", "muon_lr", "warmup", "decay", "clip", "noise")
    }
    run = run.replace(**theirs)
    return dataclasses.replace(
        run, name=f"{profile}-{data}-authors_{model}", network=dataclasses.replace(run.network, output_bias=0.0)
    )


def _carried(run: RunConfig) -> RunConfig:
    """The same with sequences that carry state from update to update, for as many updates."""
    profile, data, model = run.name.split("-", 2)
    return dataclasses.replace(run, name=f"{profile}-{data}-carried_{model}").replace(stretches=CARRIED)


def _longer(run: RunConfig, updates: int) -> RunConfig:
    """The first runs that were made, three times as long and with smaller steps: what more training gives."""
    profile, data, model = run.name.split("-", 2)
    run = dataclasses.replace(run, name=f"{profile}-{data}-long_{model}")
    return run.replace(updates=updates, muon_lr=3e-3, decay=0.2, evaluate_every=500)


def _paper_with_long_recipe(model: Model, components: int) -> RunConfig:
    """The authors' network at 64 x 64 pixels, trained as the long campaign is: what a GPU does in ten minutes."""
    run = _balls("paper", "balls4mass", model, components)
    return dataclasses.replace(
        run,
        name=run.name.replace("balls4mass-", "balls4mass-long_"),
        network=dataclasses.replace(run.network, output_bias=_NETWORK["long"]["output_bias"]),
        training=dataclasses.replace(_TRAINING["long"], updates=6500, evaluate_every=1000),
    )


def _named() -> dict[str, RunConfig]:
    rows: list[RunConfig] = []
    for profile in PROFILES:
        rows += [_balls(profile, "balls4mass", model, 5) for model in ("rnem", "rnem_noatt", "nem")]
        rows += [_balls(profile, "balls4mass", model, 1) for model in ("rnn", "lstm")]
        rows += [_balls(profile, "balls4mass", "rnem", k) for k in (2, 3, 4, 6, 8)]
        rows += [_balls(profile, "balls5mass", "rnem", 5)]
        rows += [_with_authors_training(_balls(profile, "balls4mass", model, 5)) for model in ("rnem", "nem")]
        rows += [_balls(profile, "balls3curtain", model, 5) for model in ("rnem", "nem")]
        rows += [_balls(profile, "balls3curtain", model, 1) for model in ("rnn", "lstm")]
        rows += [_invaders(profile, model, 4) for model in ("rnem", "nem")]
        rows += [_invaders(profile, model, 1) for model in ("rnn", "lstm")]
        rows += [_with_authors_order(_invaders(profile, "rnem", 4))]
    laptop = {row.name.removeprefix("laptop-balls4mass-"): row for row in rows}
    long = {"rnem-k5": 12000, "nem-k5": 12000, "lstm": 16000, "rnn": 22000}
    rows += [_longer(laptop[model], updates) for model, updates in long.items()]
    rows += [_carried(laptop["rnem-k5"])]
    rows += [_paper_with_long_recipe(model, k) for model, k in (("rnem", 5), ("nem", 5), ("lstm", 1))]
    return {row.name: row for row in rows}


RUNS: dict[str, RunConfig] = _named()
"""One named run per row of a results table: ``<profile>-<data>-<model>[-k<K>]``."""


def named(name: str) -> RunConfig:
    """The named run; RnemError lists the nearest names."""
    if name not in RUNS:
        import difflib

        near = difflib.get_close_matches(name, RUNS, n=3, cutoff=0.3) or list(RUNS)[:3]
        raise RnemError(f"no run is named {name!r}; did you mean {', '.join(near)}? (`rnem runs names` lists them)")
    return RUNS[name]
