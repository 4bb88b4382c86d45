"""Hard discs in a box: what physics conserves, what the walls keep, and what a frame shows."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnem.videos import balls
from rnem.videos.balls import BOX, World
from rnem.videos.datasets import WORLDS

seeds = st.integers(0, 2**31)
few = settings(max_examples=25, deadline=None)
LIGHT, HEAVY = 0, 1


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def simulate(world: World | str, count=4, frames=60, seed=0, **kwargs) -> balls.Trajectories:
    world = WORLDS[world] if isinstance(world, str) else world
    return balls.simulate(world, count, frames, generator(seed), **kwargs)


def energy(velocities, masses):
    return (masses * velocities.square().sum(-1)).sum(-1) / 2


def momentum(velocities, masses):
    return (masses[..., None] * velocities).sum(-2)


def touching_pairs(seed: int, count: int = 64):
    """Two balls that overlap, of any mass, radius and velocity, in each of ``count`` videos; float64."""

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator_, dtype=torch.float64)

    generator_ = generator(seed)
    radii, masses = uniform(0.2, 1.5, count, 2), uniform(0.1, 10, count, 2)
    angle, share = uniform(0, 2 * math.pi, count), uniform(0.05, 0.999, count)
    first = uniform(2, 8, count, 2)
    way = torch.stack([angle.sin(), angle.cos()], -1) * (share * radii.sum(-1))[:, None]
    return torch.stack([first, first + way], 1), uniform(-1, 1, count, 2, 2), radii, masses


# ----------------------------------------------------------------------------------------------------------- collisions


@given(seeds)
@few
def test_a_collision_conserves_momentum_and_energy(seed):
    positions, before, radii, masses = touching_pairs(seed)
    after = before.clone()
    balls.collide(positions, after, radii, masses, torch.ones(len(radii), dtype=torch.bool), 0, 1)
    torch.testing.assert_close(momentum(after, masses), momentum(before, masses), rtol=0, atol=1e-9)
    torch.testing.assert_close(energy(after, masses), energy(before, masses), rtol=0, atol=1e-9)
    assert not torch.equal(after, before)


@given(seeds)
@few
def test_a_collision_turns_the_closing_speed_around_and_leaves_the_sliding_speed(seed):
    positions, before, radii, masses = touching_pairs(seed)
    line = positions[:, 1] - positions[:, 0]
    normal = line / line.norm(dim=-1, keepdim=True)
    after = before.clone()
    balls.collide(positions, after, radii, masses, torch.ones(len(radii), dtype=torch.bool), 0, 1)
    relative = [(v[:, 1] - v[:, 0]) for v in (before, after)]
    along = [(r * normal).sum(-1) for r in relative]
    across = [r - a[:, None] * normal for r, a in zip(relative, along, strict=True)]
    torch.testing.assert_close(along[1], -along[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(across[1], across[0], rtol=0, atol=1e-9)


@given(seeds)
@few
def test_a_pair_just_touches_after_its_separation_and_its_middle_stays(seed):
    positions, velocities, radii, masses = touching_pairs(seed)
    middle = positions.mean(1)
    balls.collide(positions, velocities, radii, masses, torch.ones(len(radii), dtype=torch.bool), 0, 1)
    distance = (positions[:, 1] - positions[:, 0]).norm(dim=-1)
    torch.testing.assert_close(distance, radii.sum(-1), rtol=0, atol=1e-9)
    torch.testing.assert_close(positions.mean(1), middle, rtol=0, atol=1e-9)  # each by half, whatever its mass


def test_a_collision_touches_only_the_videos_that_hit():
    positions, velocities, radii, masses = touching_pairs(0)
    hit = torch.arange(len(radii)) % 2 == 0
    x, v = positions.clone(), velocities.clone()
    balls.collide(x, v, radii, masses, hit, 0, 1)
    assert torch.equal(x[~hit], positions[~hit])
    assert torch.equal(v[~hit], velocities[~hit])
    assert (x[hit] != positions[hit]).any(-1).all()


@pytest.mark.parametrize(("mass", "expected"), [((1, 1), (0, 1)), ((1, 6), (-5 / 7, 2 / 7)), ((6, 1), (5 / 7, 12 / 7))])
def test_head_on_with_a_ball_at_rest_gives_the_speeds_of_the_textbook(mass, expected):
    positions = torch.tensor([[[5.0, 3.0], [5.0, 4.7]]], dtype=torch.float64)
    velocities = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    radii, masses = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([mass]).double()
    present = torch.ones(1, 2, dtype=torch.bool)
    _, after, contacts, _ = balls.step(positions, velocities, radii, masses, present)
    assert after[0, :, 1].tolist() == pytest.approx(expected)
    assert after[0, :, 0].tolist() == [0, 0]
    assert contacts.all()


def test_a_frame_is_the_walls_first_and_then_the_pairs_in_order():
    """Three balls in a row: the first is pushed by the wall into the second, and that one then into the third."""
    positions = torch.tensor([[[0.9, 5.0], [2.6, 5.0], [4.4, 5.0]]], dtype=torch.float64)
    velocities = torch.tensor([[[-0.4, 0.0], [0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    radii, masses = torch.full((1, 3), 0.95).double(), torch.ones(1, 3).double()
    x, v, contacts, bounces = balls.step(positions, velocities, radii, masses, torch.ones(1, 3, dtype=torch.bool))
    # 0.5 -> wall 0.95; pair 1: overlap 0.25, moved to 0.825 and 2.725; pair 2: overlap 0.225, to 2.6125 and 4.5125
    assert x[0, :, 0].tolist() == pytest.approx([0.825, 2.6125, 4.5125])
    assert v[0, :, 0].tolist() == pytest.approx([0, 0, 0.4])  # equal masses hand the velocity on
    assert contacts.tolist() == [[True, True, True]]
    assert bounces.tolist() == [[True, False, False]]


# ---------------------------------------------------------------------------------------------------------------- walls


@given(seeds)
@few
def test_no_ball_is_outside_after_the_walls_and_its_energy_is_what_it_was(seed):
    random = generator(seed)
    positions = -2 + 14 * torch.rand(64, 3, 2, generator=random, dtype=torch.float64)
    before = torch.randn(64, 3, 2, generator=random, dtype=torch.float64)
    radii = 0.5 + torch.rand(64, 3, generator=random, dtype=torch.float64)
    inside, after, bounces = balls.walls(positions, before, radii, torch.ones(64, 3, dtype=torch.bool))
    assert (inside >= radii[..., None]).all()
    assert (inside <= BOX - radii[..., None]).all()
    assert torch.equal(after.abs(), before.abs())  # a component changes its sign or nothing
    crossed = (positions < radii[..., None]) | (positions > BOX - radii[..., None])
    assert torch.equal(after != before, crossed)
    assert torch.equal(bounces, crossed.any(-1))
    assert torch.equal(inside[~crossed], positions[~crossed])


# ------------------------------------------------------------------------------------------------------------ the whole


@pytest.mark.parametrize("world", WORLDS)
def test_energy_is_conserved_for_200_frames_and_momentum_between_bounces(world):
    t = simulate(world, count=16, frames=200)
    e = energy(t.velocities, t.masses)
    torch.testing.assert_close(e, e[:1].expand_as(e), rtol=1e-9, atol=0)
    p = momentum(t.velocities, t.masses)
    free = ~t.bounces[1:].any(-1)
    assert t.contacts[1:].any(-1)[free].any()  # collisions happened in such frames
    torch.testing.assert_close(p[1:][free], p[:-1][free], rtol=0, atol=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_a_ball_leaves_the_box_only_by_the_push_of_another_and_only_for_a_frame(world):
    t = simulate(world, count=64, frames=100)
    out = ((t.positions < t.radii[..., None]) | (t.positions > BOX - t.radii[..., None])).any(-1) & t.present
    assert not out[~t.contacts].any()


@pytest.mark.parametrize("world", WORLDS)
def test_a_pair_that_collides_alone_does_not_overlap_in_that_frame(world):
    t = simulate(world, count=64, frames=100)
    alone = t.contacts.sum(-1) == 2  # (T,N)
    assert alone.any()
    for x, hit, radii in zip(t.positions[alone], t.contacts[alone], t.radii.expand(100, -1, -1)[alone], strict=True):
        (a, b), (r, s) = x[hit], radii[hit]
        assert (a - b).norm() >= r + s - 1e-9


@pytest.mark.parametrize("world", WORLDS)
def test_between_events_a_ball_goes_straight_on(world):
    t = simulate(world, count=16, frames=60)
    quiet = ~(t.contacts | t.bounces)[1:]
    assert torch.equal(t.velocities[1:][quiet], t.velocities[:-1][quiet])
    torch.testing.assert_close(
        t.positions[1:][quiet], (t.positions[:-1] + t.velocities[:-1])[quiet], rtol=0, atol=1e-12
    )
    loud = t.contacts[1:] & ~t.bounces[1:]
    assert (t.velocities[1:] != t.velocities[:-1]).any(-1)[loud].all()


@pytest.mark.parametrize("world", WORLDS)
def test_the_first_frame_is_as_the_world_says(world):
    w = WORLDS[world]
    t = simulate(world, count=600, frames=1)
    number = t.present.sum(-1)
    assert set(number.tolist()) == set(w.balls)
    assert not balls.overlaps(t.positions, t.radii, t.present).any()
    placed = t.positions[0][t.present]
    assert placed.min() >= w.margin
    assert placed.max() <= BOX - w.margin
    speed = t.velocities[0].square().sum((-2, -1)).sqrt()
    torch.testing.assert_close(speed, torch.full_like(speed, w.speed), rtol=1e-12, atol=0)
    assert (t.masses[~t.present] == 0).all()
    assert (t.radii[~t.present] == 0).all()
    heavy = t.radii[t.present] == w.radii[HEAVY]
    assert torch.equal(t.masses[t.present], torch.where(heavy, w.masses[HEAVY], w.masses[LIGHT]).double())
    if w.radii[LIGHT] != w.radii[HEAVY]:
        assert heavy.double().mean() == pytest.approx(0.5, abs=0.05)


def test_masses_do_not_depend_on_where_a_ball_fits():
    """Crowded videos keep their heavy balls: placing rejects positions, and not the videos with much to place."""
    t = simulate(dataclasses.replace(WORLDS["balls678mass"], balls=(8,)), count=500, frames=1)
    heavy = (t.radii == 1.0).sum(-1).double()
    assert heavy.mean() == pytest.approx(4, abs=0.3)
    assert heavy.max() >= 7


def test_the_authors_rate_of_collisions():
    """Contacts per 100 frames in their videos: 4-10 with 4 balls, 12-31 with 6-8, 6-8 behind the curtain."""
    for world, low, high in (("balls4mass", 4, 10), ("balls678mass", 12, 31), ("balls3curtain", 5, 9)):
        t = simulate(world, count=64, frames=101)
        pairs = t.contacts[1:].sum(-1).double().sum(0).mean() / 2
        assert low <= pairs <= high


def test_too_many_balls_are_refused_rather_than_tried_for_ever():
    with pytest.raises(ValueError, match=r"20 balls of radius .* are too many"):
        World(balls=(20,))


# ----------------------------------------------------------------------------------------------------- frames and seeds


@pytest.mark.parametrize("world", WORLDS)
def test_a_shorter_video_is_the_beginning_of_a_longer_one(world):
    long, short = simulate(world, frames=30), simulate(world, frames=11)
    for field in ("positions", "velocities", "contacts", "bounces"):
        assert torch.equal(getattr(long, field)[:11], getattr(short, field))


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("world", WORLDS)
def test_every_nth_frame_of_the_same_motion_carries_what_happened_since_the_one_before(world, stride):
    every, kept = simulate(world, frames=20 * stride + 1), simulate(world, frames=21, stride=stride)
    assert torch.equal(kept.positions, every.positions[::stride])
    assert torch.equal(kept.velocities, every.velocities[::stride])
    for field in ("contacts", "bounces"):
        since = getattr(every, field)[1:].unflatten(0, (20, stride))  # (20,stride,N,M)
        assert since[:, :-1].any()  # something did happen in a frame that is not kept
        assert torch.equal(getattr(kept, field)[1:], since.any(1))


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_a_video_does_not_depend_on_those_beside_it(seed):
    t = simulate("balls678mass", count=32, frames=1, seed=seed)
    together = (t.positions[0], t.velocities[0])
    alone = tuple(a[5:6] for a in together)
    for _ in range(40):
        together = balls.step(*together, t.radii, t.masses, t.present)[:2]
        alone = balls.step(*alone, t.radii[5:6], t.masses[5:6], t.present[5:6])[:2]
    assert torch.equal(together[0][5:6], alone[0])
    assert torch.equal(together[1][5:6], alone[1])


# -------------------------------------------------------------------------------------------------------------- raster


def by_definition(t: balls.Trajectories, frame: int, video: int, size: int):
    """One frame, pixel by pixel: features, groups, collisions (H,W)."""
    features, groups, collisions = np.zeros((3, size, size), np.uint8)
    for row in range(size):
        for column in range(size):
            point = np.array([row + 0.5, column + 0.5]) * BOX / size
            if t.curtain is not None:
                corner = t.curtain[video].numpy()
                if ((point >= corner) & (point < corner + BOX * 28 / 64)).all():
                    continue
            x, r = t.positions[frame, video].numpy(), t.radii[video].numpy()
            covering = [m for m in range(len(r)) if np.sqrt(((point - x[m]) ** 2).sum()) < r[m]]
            features[row, column] = len(covering) > 0
            groups[row, column] = covering[0] + 1 if len(covering) == 1 else 0
            collisions[row, column] = any(bool(t.contacts[frame, video, m]) for m in covering)
    return features, groups, collisions


@pytest.mark.parametrize(
    ("world", "size", "stride"), [("balls4mass", 32, 2), ("balls678mass", 20, 3), ("balls3curtain", 16, 4)]
)
def test_a_frame_is_its_definition(world, size, stride):
    t = simulate(world, count=3, frames=8, seed=3, stride=stride)
    assert t.contacts.any()
    drawn = [a.numpy() for a in balls.render(t, size)]
    for frame in range(8):
        for video in range(3):
            expected = by_definition(t, frame, video, size)
            for got, want in zip(drawn, expected, strict=True):
                assert np.array_equal(got[frame, video, 0], want)


def test_pixels_of_two_balls_belong_to_neither():
    t = simulate("balls4mass", count=1, frames=1)
    positions = t.positions.clone()
    positions[0, 0, :2] = torch.tensor([[5.0, 5.0], [5.0, 5.9]])
    features, groups, _ = balls.render(dataclasses.replace(t, positions=positions), 64)
    assert features[0, 0, 0, 32, 34] == 1
    assert groups[0, 0, 0, 32, 34] == 0
    assert groups[0, 0, 0, 32, 28] == 1
    assert groups[0, 0, 0, 32, 41] == 2


@pytest.mark.parametrize("world", WORLDS)
def test_groups_and_collisions_are_parts_of_what_is_on(world):
    t = simulate(world, count=16, frames=40)
    features, groups, collisions = balls.render(t, 32)
    assert features.max() == 1
    assert (features[groups > 0] == 1).all()
    assert (features[collisions > 0] == 1).all()
    assert groups.max() == t.radii.shape[-1]
    quiet = ~t.contacts.any(-1)
    assert collisions[quiet].sum() == 0
    if not WORLDS[world].curtain:
        assert (collisions[~quiet].sum((1, 2, 3)) > 0).all()


def test_a_disc_has_the_area_of_a_disc():
    t = simulate("balls4mass", count=32, frames=1)
    area = balls.render(t, 256)[0].double().sum((-1, -2)).squeeze() * (BOX / 256) ** 2
    torch.testing.assert_close(area, math.pi * t.radii.square().sum(-1), rtol=0.01, atol=0)


def test_the_curtain_is_a_black_square_of_28_pixels_that_the_balls_pass_behind():
    t = simulate("balls3curtain", count=6, frames=60)
    covered = balls.render(t, 64)[0]
    open_ = balls.render(dataclasses.replace(t, curtain=None), 64)[0]
    for video in range(6):
        top, left = (t.curtain[video] * 64 / BOX).round().long().tolist()
        square = (slice(None), video, 0, slice(top, top + 28), slice(left, left + 28))
        assert 0 <= min(top, left) <= max(top, left) <= 36
        assert covered[square].sum() == 0
        assert open_[square].sum() > 0
        covered[square] = open_[square]
    assert torch.equal(covered, open_)
