"""The shapes of a network: the authors' autoencoders, the models by name, and one network's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Model:
    """A row of the table of models."""

    label: str
    """As the book calls it."""
    interaction: str | None
    """A key of rnem.model.interaction.INTERACTIONS; None for the LSTM, whose core has no Υ."""
    attention: bool = False
    """Whether Υ weights its effects by attention."""
    several: bool = True
    """Whether it has several components; the baselines have one (K = 1)."""


MODELS = {
    "rnem": Model("R-NEM", "pairwise", attention=True),
    "rnem_noatt": Model("R-NEM without attention", "pairwise"),
    "nem": Model("N-EM", "identity"),
    "lstm": Model("LSTM", None, several=False),
    "rnn": Model("RNN", "identity", several=False),
}
"""By the name that runs are named with (``laptop-balls4mass-rnem-k5``), in the order in which pages list them."""
MODEL_LABELS = {name: model.label for name, model in MODELS.items()}


def model_label(model: str) -> str:
    """Return what the book calls a model with its number of components: ``rnem-k5`` -> R-NEM, K = 5."""
    name, _, components = model.partition("-k")
    return MODEL_LABELS[name] + (f", K = {components}" if components else "")


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

    model: str = "rnem"
    """A key of MODELS."""
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
        if self.components < 1 or (not MODELS[self.model].several and self.components != 1):
            raise ValueError(
                f"network.components is {self.components}: {self.model} needs "
                f"{'at least 1' if MODELS[self.model].several else '1'}"
            )
        if self.autoencoder not in AUTOENCODERS:
            raise ValueError(f"network.autoencoder is {self.autoencoder!r}, not one of {', '.join(AUTOENCODERS)}")
