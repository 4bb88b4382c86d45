"""The network: encode a masked difference, update K states that influence each other, decode K predictions.

Sizes and constants are the authors' (github.com/sjoerdvansteenkiste/Relational-NEM, network.py); every layer exists in
a plain and in a fast implementation of the same mathematics over the same weights, chosen by ``path``; ``compiled`` is
the fast one, which training hands to torch.compile.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnem.model.config import AUTOENCODERS, Autoencoder, NetworkConfig
from rnem.model.interaction import Identity, Pairwise
from rnem.model.layers import Dense, Norm, StridedConv, UpsampledConv, _linear, _norm_act

# ------------------------------------------------------------------------------------------------- encoder and decoder


class Encoder(nn.Module):
    """Masked difference (N,1,H,W) -> code (N,C): strided convolutions, then one dense layer; ELU throughout."""

    def __init__(self, shape: Autoencoder, *, path: str) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        channels, size = 1, shape.size
        for kernel, stride, width in shape.convs:
            self.convs.append(StridedConv(channels, width, kernel, stride, path=path))
            channels, size = width, -(-size // stride)
        self.dense = Dense(size * size * channels, shape.code, "elu", path=path)

    def forward(self, x: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N C"]:
        for conv in self.convs:
            x = conv(x)
        return self.dense(x.permute(0, 2, 3, 1).flatten(1))  # (N,h*w*c): the authors' channels-last order


class Decoder(nn.Module):
    """State (N,D) -> logits of the Bernoulli means (N,1,H,W): two dense layers, then upsampled convolutions; ReLU."""

    def __init__(self, shape: Autoencoder, state: int, output_bias: float, *, path: str) -> None:
        super().__init__()
        self.grid, self.channels = shape.grid, shape.channels
        self.dense = nn.ModuleList(
            [
                Dense(state, shape.code, "relu", path=path),
                Dense(shape.code, shape.grid**2 * shape.channels, "relu", path=path),
            ]
        )
        self.convs = nn.ModuleList()
        channels, grid = shape.channels, shape.grid
        for i, (size, kernel, width) in enumerate(shape.ups):
            last = i == len(shape.ups) - 1
            self.convs.append(UpsampledConv(channels, width, kernel, grid, size, norm=not last, path=path))
            channels, grid = width, size
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

    def __init__(self, interaction: Identity | Pairwise, code: int, state: int, actions: int, *, path: str) -> None:
        super().__init__()
        self.interaction = interaction
        self.carried = state
        self.update = _linear(interaction.width + code + actions, state, path)
        nn.init.xavier_uniform_(self.update.weight)
        nn.init.zeros_(self.update.bias)
        self.norm = Norm(state)
        self.path = path

    def forward(self, theta: Float[Tensor, "B K D"], code: Float[Tensor, "B K C"], action: Tensor | None = None):
        """Next state (B,K,D) and what the decoder reads (B*K,D)."""
        parts = [self.interaction(theta, action), code] + ([] if action is None else [action])
        new = self.update(torch.cat(parts, 2).flatten(0, 1))  # (B*K,D)
        return torch.sigmoid(new).view_as(theta), _norm_act(new, self.norm, "sigmoid", self.path)


class LSTMCore(nn.Module):
    """Layer-normalised LSTM of TensorFlow 1: tanh, forget bias 1, gates i j f o without bias, normalised c carried."""

    def __init__(self, code: int, state: int, actions: int, *, path: str) -> None:
        super().__init__()
        self.carried, self.path = 2 * state, path
        self.gates = nn.Linear(code + actions + state, 4 * state, bias=False)
        nn.init.xavier_uniform_(self.gates.weight)
        self.norms = nn.ModuleDict({name: Norm(state) for name in ("input", "transform", "forget", "output", "state")})

    def forward(self, theta: Float[Tensor, "B K 2*D"], code: Float[Tensor, "B K C"], action: Tensor | None = None):
        """Next state (B,K,2D), c and h side by side, and what the decoder reads (B*K,D)."""
        c, h = theta.flatten(0, 1).chunk(2, 1)
        inputs = [code.flatten(0, 1), *([] if action is None else [action.flatten(0, 1)]), h]
        gates = self.gates(torch.cat(inputs, 1)).chunk(4, 1)  # 4 x (B*K,D)
        i, j, f, o = (self._norm(n, g) for n, g in zip(("input", "transform", "forget", "output"), gates, strict=True))
        c = self._norm("state", c * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(j))
        h = torch.tanh(c) * torch.sigmoid(o)
        return torch.cat([c, h], 1).view_as(theta), h

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return _norm_act(x, self.norms[name], "linear", self.path)


# ------------------------------------------------------------------------------------------------- the whole


class Network(nn.Module):
    """One step of all K components: masked differences and states in, states and logits of the next frame out."""

    def __init__(self, config: NetworkConfig, path: str = "fast") -> None:
        super().__init__()
        if path not in ("fast", "plain", "compiled"):
            raise ValueError(f"path is {path!r}, and must be 'fast', 'plain' or 'compiled'")
        shape = AUTOENCODERS[config.autoencoder]
        self.config, self.shape, self.path = config, shape, path
        path = "plain" if path == "plain" else "fast"
        embedded = 10 if config.actions else 0  # width of the authors' action embedding
        self.action = Dense(config.actions, embedded, "relu", path=path) if config.actions else None
        self.encoder = Encoder(shape, path=path)
        if config.model == "lstm":
            self.core: nn.Module = LSTMCore(shape.code, config.state, embedded, path=path)
        else:
            if config.model in ("rnem", "rnem_noatt"):
                attention = config.attention if config.model == "rnem" else 0
                interaction: nn.Module = Pairwise(config.state, attention, embedded, path=path)
            else:
                interaction = Identity(config.state)
            self.core = RecurrentCore(interaction, shape.code, config.state, embedded, path=path)
        self.decoder = Decoder(shape, config.state, config.output_bias, path=path)

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
        """Logits of psi for the next frame, and the next state (M-step)."""
        B, K = inputs.shape[:2]
        code = self.encoder(inputs.flatten(0, 1)).view(B, K, -1)
        theta, read = self.core(theta, code, action)
        return self.decoder(read).view(inputs.shape), theta


def build(config: NetworkConfig, path: str = "fast") -> Network:
    """The network of a config, with fresh weights from torch's global generator."""
    return Network(config, path)
