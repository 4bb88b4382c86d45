"""The network: encode a masked difference, update K states that influence each other, decode K predictions.

Sizes and constants are the authors' (github.com/sjoerdvansteenkiste/Relational-NEM, network.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnem.model.config import AUTOENCODERS, MODELS, Autoencoder, NetworkConfig
from rnem.model.interaction import INTERACTIONS, Interaction
from rnem.model.layers import Activation, Dense, Norm, StridedConv, UpsampledConv, glorot

EMBEDDED = 10
"""Width of the authors' action embedding."""


# ------------------------------------------------------------------------------------------------- encoder and decoder


class Encoder(nn.Module):
    """Masked difference (N,1,H,W) -> code (N,C): strided convolutions, then one dense layer; ELU throughout."""

    def __init__(self, shape: Autoencoder) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        channels, size = 1, shape.size
        for kernel, stride, width in shape.convs:
            self.convs.append(StridedConv(channels, width, kernel, stride))
            channels, size = width, -(-size // stride)
        self.dense = Dense(size * size * channels, shape.code, "elu")

    def forward(self, x: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N C"]:
        for conv in self.convs:
            x = conv(x)
        return self.dense(x.permute(0, 2, 3, 1).flatten(1))  # (N,h*w*c): the authors' channels-last order


class Decoder(nn.Module):
    """State (N,D) -> logits of the Bernoulli means (N,1,H,W): two dense layers, then upsampled convolutions; ReLU."""

    def __init__(self, shape: Autoencoder, state: int, output_bias: float) -> None:
        super().__init__()
        self.grid, self.channels = shape.grid, shape.channels
        self.dense = nn.ModuleList(
            [
                Dense(state, shape.code, "relu"),
                Dense(shape.code, shape.grid**2 * shape.channels, "relu"),
            ]
        )
        self.convs = nn.ModuleList()
        channels = shape.channels
        for i, (size, kernel, width) in enumerate(shape.ups):
            last = i == len(shape.ups) - 1
            self.convs.append(UpsampledConv(channels, width, kernel, size, norm=not last))
            channels = width
        nn.init.constant_(self.convs[-1].conv.bias, output_bias)

    def forward(self, theta: Float[Tensor, "N D"]) -> Float[Tensor, "N 1 H W"]:
        x = self.dense[1](self.dense[0](theta))
        x = x.view(-1, self.grid, self.grid, self.channels).permute(0, 3, 1, 2)  # (N,c,h,w), channels last in memory
        for conv in self.convs:
            x = conv(x)
        return x


# ------------------------------------------------------------------------------------------------- recurrent cores


class RecurrentCore(nn.Module):
    """new_k = W [Υ(theta)_k ; encode(input_k) ; action]; carried sigmoid(new_k), decoded sigmoid(LN(new_k))."""

    def __init__(self, interaction: Interaction, code: int, state: int, actions: int) -> None:
        super().__init__()
        self.interaction = interaction
        self.carried = state
        self.update = glorot(nn.Linear(interaction.width + code + actions, state))
        self.norm = Norm(state)
        self.activation = Activation("sigmoid")

    def forward(self, theta: Float[Tensor, "B K D"], code: Float[Tensor, "B K C"], action: Tensor | None = None):
        """Next state (B,K,D) and what the decoder reads (B*K,D)."""
        parts = [self.interaction(theta, action), code] + ([] if action is None else [action])
        new = self.update(torch.cat(parts, 2).flatten(0, 1))  # (B*K,D)
        return torch.sigmoid(new).view_as(theta), self.activation(self.norm(new))


class LSTMCore(nn.Module):
    """Layer-normalised LSTM of TensorFlow 1: tanh, forget bias 1, gates i j f o without bias, normalised c carried."""

    def __init__(self, code: int, state: int, actions: int) -> None:
        super().__init__()
        self.carried = 2 * state
        self.gates = glorot(nn.Linear(code + actions + state, 4 * state, bias=False))
        self.norms = nn.ModuleDict({name: Norm(state) for name in ("input", "transform", "forget", "output", "state")})

    def forward(self, theta: Float[Tensor, "B K 2*D"], code: Float[Tensor, "B K C"], action: Tensor | None = None):
        """Next state (B,K,2D), c and h side by side, and what the decoder reads (B*K,D)."""
        c, h = theta.flatten(0, 1).chunk(2, 1)
        inputs = [code.flatten(0, 1), *([] if action is None else [action.flatten(0, 1)]), h]
        gates = self.gates(torch.cat(inputs, 1)).chunk(4, 1)  # 4 x (B*K,D)
        i, j, f, o = (self.norms[n](g) for n, g in zip(("input", "transform", "forget", "output"), gates, strict=True))
        c = self.norms["state"](c * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(j))
        h = torch.tanh(c) * torch.sigmoid(o)
        return torch.cat([c, h], 1).view_as(theta), h


# ------------------------------------------------------------------------------------------------- the whole


class Network(nn.Module):
    """One step of all K components: masked differences and states in, states and logits of the next frame out."""

    def __init__(
        self, config: NetworkConfig, encoder: Encoder, core: RecurrentCore | LSTMCore, decoder: Decoder,
        action: Dense | None = None,
    ):  # fmt: skip
        """``action`` embeds the videos' actions, where the network takes any."""
        super().__init__()
        self.config, self.shape = config, AUTOENCODERS[config.autoencoder]
        self.action, self.encoder, self.core, self.decoder = action, encoder, core, decoder

    @property
    def attention(self) -> Tensor | None:
        """att_ki of the last step, (B,K,K); None for a model without attention, or while gradients are recorded."""
        return getattr(getattr(self.core, "interaction", None), "attention", None)

    def initial_state(self, batch: int) -> Float[Tensor, "B K S"]:
        """Zeros; S is D, and 2D (c and h) for the LSTM."""
        weight = self.encoder.dense.linear.weight
        return weight.new_zeros(batch, self.config.components, self.core.carried)

    def embed(self, actions: Float[Tensor, "B A"], order: str | None = None) -> Float[Tensor, "B K E"]:
        """Actions embedded, for each component; the order "authors" mixes them over the batch as their code does.

        Without ``order`` it is that of the config. Their rows are b*K+k and their ``tf.tile(action, [k, 1])`` is
        k-major: row r gets the action of sample r mod B.
        """
        K = self.config.components
        embedded = self.action(actions)  # (B,E)
        if (order or self.config.action_order) == "authors":
            return embedded.repeat(K, 1).view(len(actions), K, -1)
        return embedded[:, None].expand(-1, K, -1)

    def forward(
        self,
        inputs: Float[Tensor, "B K 1 H W"],
        theta: Float[Tensor, "B K S"],
        action: Float[Tensor, "B K E"] | None = None,
    ) -> tuple[Float[Tensor, "B K 1 H W"], Float[Tensor, "B K S"]]:
        """Equation 2 (M-step): return the logits of psi for the next frame, and the next state."""
        B, K = inputs.shape[:2]
        code = self.encoder(inputs.flatten(0, 1)).view(B, K, -1)
        theta, read = self.core(theta, code, action)
        return self.decoder(read).view(inputs.shape), theta


def build(config: NetworkConfig) -> Network:
    """Return the plain network of a config, with fresh weights from torch's global generator.

    rnem.model.fast.accelerate makes it fast. ValueError where the config names no model of MODELS (in NetworkConfig).
    """
    shape, model = AUTOENCODERS[config.autoencoder], MODELS[config.model]
    embedded = EMBEDDED if config.actions else 0
    # Weights are drawn in this order, which is part of what a seed means.
    action = Dense(config.actions, embedded, "relu") if config.actions else None
    encoder = Encoder(shape)
    if model.interaction is None:
        core: RecurrentCore | LSTMCore = LSTMCore(shape.code, config.state, embedded)
    else:
        attention = config.attention if model.attention else 0
        interaction = INTERACTIONS[model.interaction](config.state, attention, embedded)
        core = RecurrentCore(interaction, shape.code, config.state, embedded)
    return Network(config, encoder, core, Decoder(shape, config.state, config.output_bias), action)
