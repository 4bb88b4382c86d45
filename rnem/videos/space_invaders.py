"""Space Invaders: binary frames, sprite labels and actions from the real game, played by a stated policy.

The game and its emulator come from ale-py (extra ``atari``). ALE is free software under GPL-2.0, and its wheel carries
the game's ROM; neither is part of this package, and nothing but new frames needs them.

Game. Deterministic (no sticky actions). One step is 4 game frames with one action; a frame of ours is the maximum over
the last two, since a shot is drawn in every second game frame only where there are several. Kept are screen rows 27 to
194: no score line (in which the mother ship flies, too) and no ground. Two by two screen pixels become one, on where at
least two of them are, and two empty columns at each side make 80 columns 84: 84 x 84. The ship then moves by exactly
one pixel a step, and the aliens' columns are exactly 8 pixels apart.

Policy. Turn by turn, with equal chance: one of the six actions held for 2 to 12 steps, or for 8 to 32 steps a shooter
that fires all the time and moves below a column of aliens, drawn among those there are.

Sequences. Of a game the first 32 to 132 steps are left out: 32 last until the ship can move, the rest is random.
Sequences follow one another without overlap. None begins while the game stands still, which is while the ship explodes
and while the number of ships left is shown (but a sequence may show that), and none goes on past the end of a game.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from rnem.errors import VideoError
from rnem.videos.videos import Videos

FRAMES = 25
"""T of a sequence of the fixed sets, the authors'."""
LONG = 57
"""T of a sequence that training goes through in several stretches: four of 14 steps."""
SIZE = 84
"""Pixels of a frame, each way."""
ACTIONS = ("noop", "fire", "right", "left", "right fire", "left fire")
"""ALE's minimal set for this game, in its order."""
SPRITES = ("background", "shields", "ship", "shots", *(f"alien column {c}" for c in range(1, 7)), "other")
"""What the labels 0 .. 10 of ``groups`` mean; other is the ship that explodes, and then the number of ships left."""

SKIP = 4
"""Game frames of a step."""
ROWS = slice(27, 195)
"""Screen rows kept."""
BORDER = 2
"""Empty columns at each side."""
WARM_UP = (32, 132)
"""Steps before a game's first sequence, least and most."""
SHIELDS, SHIP, SHOTS, ALIEN, OTHER = 1, 2, 3, 4, 10
DIGIT = 133
LABELS = {98: SHIP, 107: SHIELDS, 122: ALIEN, DIGIT: OTHER, 142: SHOTS}
"""Label by grey level; where two sprites share a pixel the brighter one counts."""
FORMATION, SHIP_AT, LIVE, STATE = 26, 28, slice(18, 24), 42
"""Where the game's memory holds the formation's left edge, the ship's, a bit for each living alien of each row, and
whether the ship explodes (bit 2)."""
SPACING = 16
"""Screen columns from one column of aliens to the next."""


class Game:
    """The running game: act, and see the screen. Knows where the first column of aliens is, or would be."""

    def __init__(self):
        self.ale = _emulator()
        self.actions = self.ale.getMinimalActionSet()
        self.screens = np.zeros((2, *self.ale.getScreenDims()), np.uint8)
        self.reset()

    def reset(self) -> None:
        """Start a new game."""
        self.ale.reset_game()
        self.lost = 0  # columns of aliens that are gone at the left: the formation's edge in memory skips them
        self.edge = int(self.ale.getRAM()[FORMATION])

    def step(self, action: int) -> None:
        """SKIP game frames."""
        for frame in range(SKIP):
            self.ale.act(self.actions[action])
            if frame >= SKIP - 2:
                self.ale.getScreenGrayscale(self.screens[frame - SKIP + 2])
        edge = int(self.ale.getRAM()[FORMATION])
        if abs(edge - self.edge) > SPACING // 2:
            self.lost += round((edge - self.edge) / SPACING)
        if len(self.aliens()) == 6:  # a new wave
            self.lost = 0
        self.edge = edge

    def over(self) -> bool:
        """Whether the game has ended."""
        return self.ale.game_over()

    def explodes(self) -> bool:
        """Whether the ship was hit and explodes."""
        return bool(self.ale.getRAM()[STATE] & 4)

    def stands_still(self) -> bool:
        """Whether the ship explodes, or the number of ships left is shown."""
        return self.explodes() or bool((self.screen() == DIGIT).any())

    def screen(self) -> np.ndarray:
        """The kept rows of the last two game frames' maximum, grey levels (168,160)."""
        return self.screens[:, ROWS].max(0)

    def left(self) -> int:
        """Screen column where the first column of aliens begins, or would begin were it alive."""
        return self.edge - 1 - SPACING * self.lost

    def aliens(self) -> np.ndarray:
        """Numbers, from 0, of the formation's columns with a living alien; all where there is none, between waves."""
        living = np.bitwise_or.reduce(self.ale.getRAM()[LIVE]) >> np.arange(6) & 1
        return self.lost + np.flatnonzero(living) if living.any() else np.arange(6)

    def distance(self, column: int) -> int:
        """Screen columns from the ship to the middle of a column of aliens, or of where it would be."""
        return self.left() + SPACING * column + 4 - (int(self.ale.getRAM()[SHIP_AT]) + 2)


def _emulator():
    try:
        import ale_py
        from ale_py import roms
    except ImportError:
        raise VideoError("Space Invaders needs ale-py: pip install 'rnem[atari]'") from None
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path("space_invaders"))
    return ale


def _policy(game: Game, rng: np.random.Generator) -> Iterator[int]:
    """Actions without end, as the module says."""
    while True:
        if rng.random() < 0.5:
            action = int(rng.integers(len(ACTIONS)))
            for _ in range(rng.integers(2, 13)):
                yield action
        else:
            column = rng.choice(game.aliens())
            for _ in range(rng.integers(8, 33)):
                away = game.distance(column)
                yield 1 if abs(away) < 2 else 4 if away > 0 else 5


def play(seed: int, frames: int = FRAMES) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sequences of T = ``frames`` without end: sprite labels uint8 (T,84,84) and actions uint8 (T,).

    Action t is the one taken between frames t and t + 1. VideoError where ale-py is missing.
    """
    rng = np.random.default_rng(seed)
    game = Game()
    actions = _policy(game, rng)
    while True:
        for _ in range(rng.integers(*WARM_UP, endpoint=True)):
            game.step(next(actions))
        while not game.over():
            if game.stands_still():
                game.step(next(actions))
            elif len((sequence := _sequence(game, actions, frames))[0]) == frames:
                yield sequence
        game.reset()


def _sequence(game: Game, actions: Iterator[int], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The next ``frames`` frames as :func:`play` gives them, fewer where the game ends."""
    screens, lefts, explodes, taken = [], [], [], []
    while len(screens) < frames and not game.over():
        screens.append(game.screen())
        lefts.append(game.left())
        explodes.append(game.explodes())
        taken.append(next(actions))
        game.step(taken[-1])
    return label(np.stack(screens), np.array(lefts), np.array(explodes)), np.array(taken, np.uint8)


def label(screens: np.ndarray, lefts: np.ndarray, explodes: np.ndarray) -> np.ndarray:
    """Sprite labels uint8 (T,84,84), above 0 where a pixel is on.

    Of grey screens (T,168,160), the screen column where the aliens' first column begins, and whether the ship explodes
    (T,).
    """
    blocks = screens.reshape(len(screens), SIZE, 2, -1, 2)
    grey = blocks.max((2, 4)) * ((blocks > 0).sum((2, 4)) >= 2)
    table = np.zeros(256, np.uint8)
    table[list(LABELS)] = list(LABELS.values())
    labels = table[grey]  # (T,84,80)
    column = (2 * np.arange(labels.shape[2]) - lefts[:, None] + SPACING // 4) // SPACING  # (T,80)
    labels += (labels == ALIEN) * column.clip(0, 5).astype(np.uint8)[:, None]
    labels[(labels == SHIP) & explodes[:, None, None]] = OTHER
    return np.pad(labels, ((0, 0), (0, 0), (BORDER, BORDER)))


def generate(name: str, count: int, seed: int, frames: int = FRAMES) -> Videos:
    """The first ``count`` sequences of ``frames`` frames that a seed gives, 84 x 84; see rnem.videos.videos.Videos.

    ``groups`` holds the number of a SPRITES name, and is 0 exactly where ``features`` is.
    """
    parts = list(islice(play(seed, frames), count))
    labels = torch.from_numpy(np.stack([p[0] for p in parts], 1))[:, :, None]  # (T,N,1,84,84)
    return videos(name, labels, torch.from_numpy(np.stack([p[1] for p in parts], 1)))


def videos(name: str, labels: Tensor, actions: Tensor) -> Videos:
    """Videos without balls from sprite labels (T,N,1,H,W) and actions (T,N)."""
    frames, count = actions.shape
    none = torch.zeros(frames, count, 0, 2)
    return Videos(
        features=(labels > 0).byte(),
        groups=labels,
        collisions=torch.zeros_like(labels),
        events=none[..., 0].byte(),
        positions=none,
        velocities=none,
        masses=none[0, ..., 0],
        radii=none[0, ..., 0],
        actions=actions,
        name=name,
    )


_RANK = torch.tensor([0, SHIP, SHIELDS, *range(ALIEN, ALIEN + 6), OTHER, SHOTS], dtype=torch.uint8)
"""Labels, darkest sprite first."""


def pool(video: Videos, name: str) -> Videos:
    """The same at half the size: a pixel is on where one of two by two is, with the label of the brightest sprite."""
    rank = _RANK.argsort().byte()[video.groups.long()]  # (T,N,1,H,W)
    half = rank.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).amax((-1, -3))
    return videos(name, _RANK[half.long()], video.actions)


def ship_column(groups: Tensor) -> Tensor:
    """Column of the ship's middle, float32 (T,N) in pixels from the left, of labels (T,N,1,H,W); NaN without a ship."""
    on = (groups == SHIP).sum((2, 3)).float()  # (T,N,W)
    return (on * torch.arange(on.shape[-1])).sum(-1) / on.sum(-1)
