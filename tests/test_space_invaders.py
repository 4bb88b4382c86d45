"""Space Invaders: one seed is one play, labels name what is on, actions move the ship, and ale-py may be absent."""

import importlib.util
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from rnem.cli import main
from rnem.errors import VideoError
from rnem.videos import datasets, hdf5, space_invaders, videos
from rnem.videos.datasets import DATASETS, Stream, fixed, generate
from rnem.videos.space_invaders import (
    ALIEN,
    BORDER,
    OTHER,
    SHIELDS,
    SHIP,
    SHOTS,
    SIZE,
    SPACING,
    SPRITES,
    label,
    pool,
    ship_column,
)

needs_the_game = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale-py is not installed")


@pytest.fixture(scope="module")
def test_set() -> videos.Videos:
    """The committed one of full size."""
    return fixed("spaceinvaders84", "test", 100)


@pytest.fixture
def no_ale(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)


@pytest.fixture
def small_blocks(monkeypatch, tmp_path):
    """Three blocks of two sequences are the training videos, kept in a folder of their own."""
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "BLOCK", 2)
    monkeypatch.setattr(datasets, "TRAINING_BLOCKS", 3)
    return tmp_path / "videos" / ".blocks"


def test_the_data_sets_are_what_is_promised(test_set):
    for size in (84, 42):
        v = fixed(f"spaceinvaders{size}", "test", 100)
        assert v.name == f"spaceinvaders{size}"
        assert v.features.shape == v.groups.shape == v.collisions.shape == (25, 100, 1, size, size)
        assert v.actions.shape == (25, 100)
        assert set(v.actions.unique().tolist()) == set(range(len(space_invaders.ACTIONS)))
        assert v.masses.shape == (100, 0)
        assert not v.collisions.any()
        assert not DATASETS[v.name].world.curtain
    assert test_set.features.shape[-1] == SIZE


def test_labels_name_every_pixel_that_is_on_and_no_other(test_set):
    for v in (test_set, fixed("spaceinvaders42", "test", 100)):
        assert torch.equal(v.groups > 0, v.features == 1)
        assert v.groups.unique().tolist() == list(range(len(SPRITES)))


def test_the_small_frames_are_the_large_ones_pooled(test_set):
    small = fixed("spaceinvaders42", "test", 100)
    assert torch.equal(small.features.float(), torch.nn.functional.max_pool3d(test_set.features.float(), (1, 2, 2)))
    assert torch.equal(small.actions, test_set.actions)
    blocks = test_set.groups.unfold(3, 2, 2).unfold(4, 2, 2).flatten(-2)  # (T,N,1,42,42,4)
    assert ((blocks == small.groups[..., None]).any(-1) | (small.groups == 0)).all()


def test_sprites_are_where_the_game_has_them(test_set):
    rows, columns = torch.arange(SIZE), torch.arange(SIZE)

    def extent(which, axis, numbers):
        seen = numbers[(test_set.groups == which).transpose(axis, -1).flatten(0, -2).any(0)]
        return int(seen.min()), int(seen.max())

    assert extent(SHIP, 3, rows)[0] == SIZE - 10 // 2
    first, last = extent(SHIELDS, 3, rows)
    assert 60 < first < last < 75
    assert not test_set.groups[..., :BORDER].any()
    assert not test_set.groups[..., -BORDER:].any()
    seen = [(test_set.groups == c).sum((2, 3)) for c in range(ALIEN, ALIEN + 6)]  # (T,N,W) each
    for left, right in pairwise((columns * s).sum(-1) / s.sum(-1) for s in seen):
        away = (right - left)[(right - left).isfinite()]
        assert (away.median() - SPACING / 2).abs() < 0.5
        assert (away > 2).all()


def test_the_first_column_of_aliens_keeps_its_number_when_others_are_shot(test_set):
    """From frame to frame a column moves with the formation, by far less than to its neighbour's place."""
    for c in range(ALIEN, ALIEN + 6):
        on = (test_set.groups == c).sum((2, 3)).float()
        left = torch.where(on.any(-1), on.bool().float().argmax(-1), torch.nan)  # (T,N)
        moved = (left[1:] - left[:-1]).abs()
        assert moved[moved.isfinite()].quantile(0.999) <= 4


def test_the_action_moves_the_ship_from_its_frame_to_the_next(test_set):
    ship, action = ship_column(test_set.groups), test_set.actions[:-1]
    moved = (ship[1:] - ship[:-1]).round()
    free = moved.isfinite() & (ship[:-1] > 22) & (ship[:-1] < 60)
    for actions, step in (((2, 4), 1), ((3, 5), -1), ((0, 1), 0)):
        cases = moved[free & torch.isin(action, torch.tensor(actions))]
        assert len(cases) > 100
        assert (cases == step).float().mean() > 0.95
        assert ((cases - step).abs() <= 1).all()


def test_sequences_show_aliens_that_move_shots_and_hits(test_set):
    x, groups = test_set.features, test_set.groups
    assert (groups == SHOTS).flatten(2).any(-1).float().mean() > 0.5
    assert (groups == OTHER).flatten(2).any(-1).any(0).float().mean() > 0.05
    assert not (groups[0] == OTHER).any()  # none begins while the game stands still
    assert (groups[1:] != groups[:-1]).where(groups[1:] >= ALIEN, 0).flatten(2).any(-1).any(0).float().mean() > 0.9
    assert (x[1:] != x[:-1]).flatten(2).any(-1).any(0).all()
    assert len({x[:, n].numpy().tobytes() for n in range(len(test_set))}) == len(test_set)


# -------------------------------------------------------------------------------------------------------------- labels


def screen(*sprites) -> np.ndarray:
    """One screen (1,168,160) with (grey, rows, columns)."""
    grey = np.zeros((1, 168, 160), np.uint8)
    for level, rows, columns in sprites:
        grey[0, rows, columns] = level
    return grey


def labels(*sprites, left=0, explodes=False) -> np.ndarray:
    return label(screen(*sprites), np.array([left]), np.array([explodes]))[0]


def test_a_pixel_is_on_where_two_of_four_are_and_has_the_brighter_sprites_label():
    one, two = (np.s_[10:11], np.s_[20:21]), (np.s_[10:12], np.s_[20:21])
    assert not labels((98, *one)).any()
    assert labels((98, *two))[5, 10 + BORDER] == SHIP
    assert (labels((98, *two)) > 0).sum() == 1
    assert labels((98, *two), explodes=True)[5, 10 + BORDER] == OTHER
    assert labels((107, np.s_[10:12], np.s_[20:22]), (142, *two))[5, 10 + BORDER] == SHOTS


@pytest.mark.parametrize("left", [0, 13, 40])
def test_an_aliens_column_is_counted_from_the_formations_edge(left):
    aliens = [(122, np.s_[20:30], np.s_[left + SPACING * c : left + SPACING * c + 8]) for c in range(6)]
    whole = labels(*aliens, left=left)
    assert set(np.unique(whole)) == {0, *range(ALIEN, ALIEN + 6)}
    assert np.array_equal(labels(*aliens[2:], left=left), whole * (whole >= ALIEN + 2))
    for c in range(6):
        assert abs(np.flatnonzero((whole == ALIEN + c).any(0)).mean() - (left + SPACING * c + 3.5) / 2 - BORDER) < 1


def test_pooling_keeps_the_brightest_label():
    four = torch.tensor([[SHIP, SHIELDS], [ALIEN, SHOTS]], dtype=torch.uint8)[None, None, None]
    for expected in (SHOTS, ALIEN, SHIELDS, SHIP):
        pooled = pool(space_invaders.videos("a", four, torch.zeros(1, 1, dtype=torch.uint8)), "b")
        assert pooled.groups.item() == expected
        assert pooled.features.item() == 1
        four = four.where(four != expected, 0)


# ------------------------------------------------------------------------------------------------------------- streams


@needs_the_game
def test_one_seed_is_one_play_and_splits_and_seeds_are_others():
    one = generate("spaceinvaders84", "validation", 0, 2, 25)
    again = generate("spaceinvaders84", "validation", 1, 1, 9)
    assert torch.equal(again.features, one.features[:9, 1:])
    assert torch.equal(again.groups, one.groups[:9, 1:])
    assert torch.equal(again.actions, one.actions[:9, 1:])
    first = {generate("spaceinvaders42", *which, 1, 25).features.numpy().tobytes()
             for which in (("validation", 0), ("training", 0), ("test", 0), ("training", datasets.BLOCK))}  # fmt: skip
    first.add(generate("spaceinvaders42", "test", 0, 1, 25, seed=1).features.numpy().tobytes())
    assert len(first) == 5


@needs_the_game
def test_training_that_carries_state_goes_through_longer_clips(small_blocks):
    stream = datasets.Stretches("spaceinvaders42", 14, 4, 0, (1, 2, 3, 4))
    for update in range(4):
        last, following = stream[update], stream[update + 1]
        assert (last.frames, len(last)) == (15, 4)
        assert last.actions.shape == (15, 4)
        goes_on = ~stream.fresh(update + 1)
        assert torch.equal(last.features[-1, goes_on], following.features[0, goes_on])
        assert torch.equal(last.actions[-1, goes_on], following.actions[0, goes_on])
    with pytest.raises(VideoError, match="sequences of 57 frames, and 58 are asked for"):
        datasets.Stretches("spaceinvaders42", 57, 4, 0, (1, 1))


def test_training_goes_through_kept_blocks_in_an_order_of_run_and_epoch(small_blocks):
    def epochs(seed, size=42):
        stream = Stream(f"spaceinvaders{size}", 25, 3, seed)
        return [[v.features[:, n].numpy().tobytes() for v in (stream[2 * e], stream[2 * e + 1]) for n in range(3)]
                for e in range(3)]  # fmt: skip

    first, second, third = epochs(0)
    assert len(set(first)) == 6
    assert set(first) == set(second) == set(third)
    assert not first == second == third
    files = {path: path.stat().st_mtime_ns for path in small_blocks.glob("*.h5")}
    assert len(files) == 3
    assert {frozenset(epoch) for epoch in epochs(1)} == {frozenset(first)}
    assert epochs(1) != epochs(0)
    resumed = Stream("spaceinvaders42", 25, 3, 0)[5]
    assert [resumed.features[:, n].numpy().tobytes() for n in range(3)] == third[3:]
    assert torch.equal(pool(Stream("spaceinvaders84", 4, 3, 0)[5], resumed.name).features, resumed.features[:4])
    assert {path: path.stat().st_mtime_ns for path in small_blocks.glob("*.h5")} == files


@needs_the_game
def test_a_damaged_block_is_made_again(small_blocks):
    expected = fixed("spaceinvaders84", "validation", 2)
    (path,) = small_blocks.glob("*.h5")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole.replace(b"features", b"leatures")):
        path.write_bytes(damaged)
        assert torch.equal(fixed("spaceinvaders84", "validation", 2).features, expected.features)
        assert path.read_bytes() == whole  # also: the same seed gives the same file


def test_more_frames_than_a_sequence_has_are_refused():
    for ask in (lambda: fixed("spaceinvaders42", "test", 3, 51), lambda: Stream("spaceinvaders42", 26, 4, 0)):
        with pytest.raises(VideoError, match=r"spaceinvaders42 has sequences of 25 frames, and \d+ are asked for"):
            ask()


# ----------------------------------------------------------------------------------------------------- without the game


def test_without_ale_one_sentence_says_what_to_install_and_the_test_set_is_there(no_ale, capsys, tmp_path):
    with pytest.raises(VideoError, match=r"^Space Invaders needs ale-py: pip install 'rnem\[atari\]'$"):
        generate("spaceinvaders84", "test", 0, 1, 25)
    assert len(fixed("spaceinvaders42", "test", 100)) == 100
    out = str(tmp_path / "v.h5")
    assert main.main(["data", "write", "spaceinvaders", "--count", "1", "--out", out]) == 2
    said = capsys.readouterr().err
    assert "needs ale-py" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@needs_the_game
def test_the_command_writes_the_authors_layout(capsys, tmp_path):
    path = tmp_path / "v.h5"
    assert not main.main(["data", "write", "spaceinvaders", "--count", "1", "--out", str(path)])
    assert "test: 1 sequences of 25 frames, 84 x 84; binary" in capsys.readouterr().out
    assert torch.equal(hdf5.read(path, "test").features, fixed("spaceinvaders84", "test", 1).features)
