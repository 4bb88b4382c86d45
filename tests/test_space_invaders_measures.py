"""Measures of the game on made-up videos and predictions whose answers are known."""

import math

import numpy as np
import pytest
import torch

from rnem import figures
from rnem.analysis import space_invaders
from rnem.evaluation import evaluate
from rnem.model import em
from rnem.model.network import build
from rnem.runs import experiments, store
from rnem.videos import space_invaders as simulator

SHIP, SHIELDS, SHOTS = (simulator.SPRITES.index(name) for name in ("ship", "shields", "shots"))
ALIEN = simulator.SPRITES.index("alien column 1")
HEADING = {"right": 1, "left": -1, "noop": 0}
WIDTH, FIRST, FRAMES, SIZE = 4, 3, 9, 42


def labels(columns) -> torch.Tensor:
    """Sprites (T,N,1,42,42): a ship of 4 x 2 pixels from given first columns (T,N), shields, an alien that walks."""
    T, N = np.shape(columns)
    groups = torch.zeros(T, N, 1, SIZE, SIZE, dtype=torch.uint8)
    groups[..., 30:33, 10:16] = SHIELDS
    for t in range(T):
        groups[t, :, 0, 5:8, 4 + t : 8 + t] = ALIEN
        for n in range(N):
            groups[t, n, 0, 38:40, columns[t][n] : columns[t][n] + WIDTH] = SHIP
    return groups


def path(actions, begin: int) -> list[int]:
    """First columns of a ship that does what the actions say, a pixel a step."""
    columns = [begin]
    for action in actions[:-1]:
        columns.append(columns[-1] + HEADING[simulator.ACTIONS[action]])
    return columns


@pytest.fixture
def game(monkeypatch, tmp_path):
    """Two videos, in which the ship does as it is told."""
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    actions = torch.tensor([[2, 3, 0, 2, 2, 0, 3, 3, 0], [3, 3, 3, 0, 2, 2, 2, 2, 2]]).T
    columns = np.stack([path(actions[:, n].tolist(), 18 + n) for n in range(2)], 1)
    test = simulator.videos("spaceinvaders42", labels(columns), actions.byte())
    monkeypatch.setattr(space_invaders, "fixed", lambda name, split, count, frames=None: test.first(frames or FRAMES))
    return test


@pytest.fixture
def run(game):
    torch.manual_seed(0)
    this = experiments.named("smoke-spaceinvaders-rnem-k4")
    return store.save(
        this, weights=build(this.network).state_dict(), metrics=[{"update": 1}],
        manifest={"wall_seconds": 1.0, "updates": 1, "sequences_seen": 8},
    )  # fmt: skip


def predict(monkeypatch, frame_of):
    """Let every network predict what ``frame_of`` says of (videos, t, real_steps): labels (N,1,H,W) of frame t+1."""

    def states(network, videos, *, real_steps=None, **_):
        for t in range(videos.frames - 1):
            groups = frame_of(videos, t, real_steps).long()
            psi = torch.stack([groups == kind for kind in (SHIP, SHIELDS, ALIEN, SHOTS)], 1).float()
            yield em.State(torch.zeros(len(videos), 4, 1), psi, psi + 1e-3)

    monkeypatch.setattr(space_invaders.evaluate, "states", states)


def obedient(videos, t, real_steps):
    """The true frames while they are given; then a ship that goes where the actions say."""
    if real_steps is None or t < real_steps:
        return videos.groups[t + 1]
    start = simulator.ship_column(videos.groups)[real_steps] - (WIDTH - 1) / 2
    moved = torch.tensor([[HEADING[simulator.ACTIONS[a]] for a in row] for row in videos.actions[real_steps : t + 1]])
    return labels((start + moved.sum(0)).int()[None].tolist())[0]


def test_all_columns_of_aliens_are_one_kind():
    numbers = space_invaders.kinds(torch.arange(len(simulator.SPRITES)))
    names = ["background", *space_invaders.KINDS]
    assert [names[n] for n in numbers] == [
        "background", "shields", "ship", "shots", *["aliens"] * 6, "other",
    ]  # fmt: skip


def test_the_ship_is_known_from_the_true_frames(game):
    known = space_invaders.ship(game)
    assert (known.rows, known.width, known.area, known.speed) == (slice(38, 40), WIDTH, 2 * WIDTH, 1.0)
    columns = simulator.ship_column(game.groups).numpy()
    assert (known.left, known.right) == (columns.min(), columns.max())


def test_a_predicted_ship_is_seen_where_it_is_and_a_faint_one_is_lost(game):
    known = space_invaders.ship(game)
    frames = (game.groups[:, 0, 0] == SHIP).float()
    np.testing.assert_allclose(
        space_invaders.seen_at(frames, known), simulator.ship_column(game.groups)[:, 0].numpy(), atol=1e-5
    )
    half_a_pixel = (frames[:1] + frames[:1].roll(1, 2)) / 2
    assert space_invaders.seen_at(half_a_pixel, known)[0] - space_invaders.seen_at(frames[:1], known)[
        0
    ] == pytest.approx(0.5)
    assert np.isnan(space_invaders.seen_at(0.4 * frames, known)).all()


def test_a_ship_that_obeys_follows_always(run, monkeypatch):
    predict(monkeypatch, obedient)
    assert space_invaders.follows(run, FIRST, FRAMES - 1) == 1.0
    rows = space_invaders.obeying(run, FIRST, FRAMES - 1)
    right = rows[(rows["action"] == "right") & (rows["cases"] > 0)]
    assert list(right["shift"]) == [step - FIRST for step in right["step"]]


def test_a_ship_that_ignores_its_action_follows_a_third_of_the_time(run, monkeypatch):
    predict(monkeypatch, lambda videos, t, real_steps: videos.groups[min(t + 1, real_steps or FRAMES)])
    assert space_invaders.follows(run, FIRST, FRAMES - 1) == pytest.approx(1 / 3)
    assert space_invaders.confusion(run, FIRST, FRAMES - 1).loc["left", "stay"] == 1.0


def test_a_ship_that_vanishes_does_not_follow(run, monkeypatch):
    predict(monkeypatch, lambda videos, t, real_steps: torch.zeros_like(videos.groups[0]))
    assert space_invaders.follows(run, FIRST, FRAMES - 1) == 0.0
    assert (space_invaders.confusion(run, FIRST, FRAMES - 1)["lost"] == 1.0).all()


def turner(monkeypatch, heading):
    """Let the network's next step put the ship ``heading(action)`` pixels from where it is, faintly."""
    predict(monkeypatch, obedient)

    def step(network, state, x, target, action):
        psi = state.psi.clone()
        psi[:, 0] = 0.1 * psi[:, 0].roll(heading(simulator.ACTIONS[int(action)]), -1)
        return em.State(state.theta, psi, state.gamma)

    monkeypatch.setattr(space_invaders.em, "step", step)
    monkeypatch.setattr(space_invaders.Network, "embed", lambda self, one_hot: one_hot[0].argmax())


def test_one_step_in_which_the_ship_turns_as_told(run, monkeypatch):
    turner(monkeypatch, HEADING.get)
    table = space_invaders.turning(run, FIRST, FRAMES - 1)
    assert (table["right"] == 1.0).all()
    assert table["shift"].tolist() == pytest.approx([-1, 0, 1])
    assert (table["cases"] > 0).all()


@pytest.mark.parametrize("heading", [lambda action: 0, lambda action: -HEADING[action]])
def test_one_step_in_which_the_ship_ignores_the_action_or_does_the_contrary(run, monkeypatch, heading):
    turner(monkeypatch, heading)
    right = space_invaders.turning(run, FIRST, FRAMES - 1).set_index("action")["right"]
    assert right["left"] == right["right"] == 0


def test_moving_pixels_of_a_perfect_prediction_and_of_a_copy(run, game, monkeypatch):
    predict(monkeypatch, obedient)
    table = space_invaders.per_step(run)
    changed = (game.features[1:] != game.features[:-1]).float().sum((2, 3, 4)).mean(1).numpy()
    np.testing.assert_allclose(table["changed"], changed)
    np.testing.assert_allclose(table["copy_moving"], -math.log(changed.mean() / SIZE**2) * changed, rtol=1e-6)
    assert table["moving"].max() < 1e-3
    assert space_invaders.moving(run, 1, FRAMES - 1) < 1e-3
    assert space_invaders.together(run, 1, FRAMES - 1) == 1.0
    predict(monkeypatch, lambda videos, t, real_steps: videos.groups[t])
    table = space_invaders.per_step(run, count=99)  # other settings, since the first answer is kept
    np.testing.assert_allclose(table["moving"], -math.log(em.EPSILON) * changed, rtol=1e-3)


def test_videos_are_watched_in_the_batches_of_every_other_measure(run, game, monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 1)
    expected = evaluate.evaluate(run, game, batch=1).curve("bce")
    np.testing.assert_allclose(space_invaders.per_step(run)["bce"], expected, rtol=1e-5)


def test_pixels_of_one_sprite_share_a_component_and_those_of_two_do_not(run, monkeypatch):
    predict(monkeypatch, obedient)
    share = space_invaders.shared(run, 1, FRAMES - 1).set_index(["a", "b"])["share"]
    there = ("shields", "ship", "alien column 1")
    for a in there:
        for b in there:
            assert share[a, b] == (1.0 if a == b else 0.0)
    assert math.isnan(share["shots", "ship"])  # there was none
    assert figures.space_invaders.shared(space_invaders.shared(run, 1, FRAMES - 1)).axes


def test_sprites_have_colours_of_their_own():
    rgb = figures.space_invaders.sprite_rgb(np.arange(len(simulator.SPRITES))[None, None])[0, 0]
    assert rgb.shape == (len(simulator.SPRITES), 3)
    assert not np.array_equal(rgb[ALIEN], rgb[ALIEN + 1])
    assert len({tuple(c) for c in rgb[[0, SHIELDS, SHIP, SHOTS, ALIEN, -1]]}) == 6
