"""Videos in memory: sequences with everything that is known about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rnem.errors import VideoError

PER_SEQUENCE = ("masses", "radii", "curtain")
"""The fields of a file that have no time axis."""
WITHOUT_TIME = (*PER_SEQUENCE, "numbers")
"""All fields that have none."""


@dataclass(frozen=True)
class Videos:
    """N sequences of T frames with what is known about them; M balls at most."""

    features: Tensor
    """uint8 (T,N,1,H,W), 0 or 1"""
    groups: Tensor
    """uint8 (T,N,1,H,W), the ball's number from 1, 0 for background, overlaps and hidden pixels"""
    collisions: Tensor
    """uint8 (T,N,1,H,W), pixels of balls that hit another ball since the frame before"""
    events: Tensor
    """uint8 (T,N,M), since the frame before the ball hit 1: a ball, 2: a wall, 3: both"""
    positions: Tensor
    """float32 (T,N,M,2), (y, x) in box units (the box has side 10), rounded to 1/2048"""
    velocities: Tensor
    """float32 (T,N,M,2), box units a simulator frame"""
    masses: Tensor
    """float32 (N,M), 0 for an absent ball"""
    radii: Tensor
    """float32 (N,M), box units, 0 for an absent ball"""
    actions: Tensor | None
    """uint8 (T,N) or None"""
    name: str
    curtain: Tensor | None = None
    """float32 (N,2), the curtain's top left corner (y, x) in box units, or None"""
    split: str = "file"
    """What the sequences are of: training, validation or test, and ``file`` where that is not known."""
    numbers: Tensor | None = None
    """int64 (N,), each sequence's place in its split or file, from 0; 0 .. N-1 where nothing else is given."""

    def __post_init__(self) -> None:
        if self.numbers is None:
            object.__setattr__(self, "numbers", torch.arange(len(self)))  # the class is frozen

    def __len__(self) -> int:
        return self.features.shape[1]

    @property
    def frames(self) -> int:
        """T"""
        return self.features.shape[0]

    def select(self, which: slice | Tensor) -> Videos:
        """Some of the sequences."""
        return self._map(lambda field, a: a[which] if field in WITHOUT_TIME else a[:, which])

    def first(self, frames: int) -> Videos:
        """The first frames of every sequence."""
        return self.clip(0, frames)

    def clip(self, start: int, stop: int) -> Videos:
        """Return frames ``start`` .. ``stop`` - 1 of every sequence."""
        return self._map(lambda field, a: a if field in WITHOUT_TIME else a[start:stop])

    def to(self, device: str | torch.device) -> Videos:
        """The same on another device."""
        return self._map(lambda _, a: a.to(device))

    def arrays(self) -> dict[str, Tensor]:
        """The fields that hold a tensor, by name."""
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: a for name, a in fields if isinstance(a, Tensor)}

    def one_hot(self, actions: int) -> Tensor | None:
        """Actions as float32 (T,N,actions), None where there are to be 0 of them; VideoError where they do not fit."""
        if not actions:
            return None
        if self.actions is None or int(self.actions.max()) >= actions:
            there = "none" if self.actions is None else f"one of number {int(self.actions.max())}"
            raise VideoError(f"the network takes {actions} actions, and {self.name} has {there}")
        return torch.nn.functional.one_hot(self.actions.long(), actions).float()

    def _map(self, function: Callable[[str, Tensor], Tensor]) -> Videos:
        return dataclasses.replace(self, **{name: function(name, a) for name, a in self.arrays().items()})


def join(parts: list[Videos]) -> Videos:
    """Sequences of several of the same data set, one after the other."""
    if len(parts) == 1:
        return parts[0]
    whole = {f: torch.cat([getattr(p, f) for p in parts], 0 if f in WITHOUT_TIME else 1) for f in parts[0].arrays()}
    return dataclasses.replace(parts[0], **whole)
