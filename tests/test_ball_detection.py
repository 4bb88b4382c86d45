"""Finding balls in frames: where they were drawn, however many, however close, and none where there is none."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnem.evaluation import ball_detection
from rnem.videos import datasets
from rnem.videos.balls import BOX, discs, pixel_centres

few = settings(max_examples=25, deadline=None)
SIZE = 32
PIXEL = BOX / SIZE


def draw(*balls: tuple[float, float, float], size: int = SIZE) -> torch.Tensor:
    """A frame (H,W) with discs (y, x, radius) in box units: a pixel is on iff its centre is nearer than the radius."""
    known = torch.tensor(balls, dtype=torch.float64).view(-1, 3)
    return discs(known[:, :2], known[:, 2], pixel_centres(size)).any(0).float()


inside = st.floats(1.0, 9.0)


@few
@given(inside, inside, st.sampled_from(ball_detection.RADII), st.sampled_from([32, 64]))
def test_one_ball_is_found_where_it_was_drawn(y, x, radius, size):
    found = ball_detection.find(draw((y, x, radius), size=size)[None])
    assert found.counts.tolist() == [1]
    assert found.radii[0, 0] == pytest.approx(radius)
    assert np.hypot(*(found.centres[0, 0].numpy() - (y, x))) < 0.6 * BOX / size


def test_a_ball_at_the_wall_is_found():
    found = ball_detection.find(draw((0.8, 5, 0.8), (9.0, 9.0, 1.0))[None])
    assert found.counts.tolist() == [2]
    np.testing.assert_allclose(found.centres[0], [(9.0, 9.0), (0.8, 5)], atol=0.5 * PIXEL)
    np.testing.assert_allclose(found.radii[0], (1.0, 0.8))


@pytest.mark.parametrize("gap", [1.0, 0.95])  # of the sum of radii; in the videos it is never below 0.96
@pytest.mark.parametrize(("a", "b"), [(0.8, 0.8), (0.8, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("angle", [0.0, 0.4, 0.8, 1.2])
def test_balls_that_touch_or_overlap_are_counted_apart(gap, a, b, angle):
    away = gap * (a + b) * np.array([np.sin(angle), np.cos(angle)])
    found = ball_detection.find(draw((4, 4, a), (4 + away[0], 4 + away[1], b))[None])
    assert found.counts.tolist() == [2]
    assert sorted(found.radii[0].tolist()) == pytest.approx([a, b])
    _, _, distance = ball_detection.match(found.centres[0].numpy(), np.array([(4, 4), 4 + away]))
    assert distance.max() < PIXEL


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5])
def test_there_is_no_ball_in_a_frame_of_grey(value):
    found = ball_detection.find(torch.full((3, SIZE, SIZE), value))
    assert found.counts.tolist() == [0, 0, 0]
    assert found.centres.isnan().all()
    assert found.radii.isnan().all()


@pytest.mark.parametrize(("value", "counted"), [(0.6, 0), (0.74, 0), (0.76, 1), (0.9, 1)])
def test_a_faint_ball_counts_from_half_the_score_of_a_perfect_one(value, counted):
    """Value v has (v - 1/2) of the 1/2 that a certain pixel has: half of it at v = 3/4."""
    frame = draw((5, 5, 1.0)) * value
    assert ball_detection.find(frame[None]).counts.tolist() == [counted]
    assert ball_detection.find(frame[None], share=0.1).counts.tolist() == [1]


def test_a_ball_cut_to_a_third_is_none():
    frame = draw((5, 5, 1.0))
    frame[15:] = 0  # its middle is row 16
    assert ball_detection.find(frame[None]).counts.tolist() == [0]


def test_frames_do_not_see_each_other():
    test = datasets.generate("balls678mass32", "test", 0, 3, 3)
    frames = test.features[:, :, 0].flatten(0, 1).float()
    together = ball_detection.find(frames)
    for n, frame in enumerate(frames):
        alone = ball_detection.find(frame[None])
        M = int(alone.counts[0])
        assert int(together.counts[n]) == M
        torch.testing.assert_close(together.centres[n, :M], alone.centres[0])
        assert together.centres[n, M:].isnan().all()


@pytest.mark.parametrize(("data", "share"), [("balls4mass32", 0.99), ("balls678mass32", 0.97), ("balls4mass64", 0.99)])
def test_the_true_frames_of_videos_are_counted_right(data, share):
    test = datasets.generate(data, "test", 0, 10, 6)
    found = ball_detection.find(test.features[:, :, 0].flatten(0, 1).float())
    assert (found.counts == (test.masses > 0).sum(1).repeat(test.frames)).float().mean() >= share


def test_a_world_with_other_radii_is_searched_with_these():
    found = ball_detection.find(draw((5, 5, 1.2))[None], (1.2, 1.2))
    assert found.counts.tolist() == [1]
    assert found.radii[0, 0] == pytest.approx(1.2)


def test_no_more_balls_than_asked_for():
    frame = draw((2, 2, 1.0), (2, 8, 1.0), (8, 2, 1.0))
    assert ball_detection.find(frame[None], most=2).counts.tolist() == [2]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (torch.zeros(4, 8, 9), r"frames is \(4, 8, 9\), and must be \(N,H,W\) with H = W"),
        (torch.zeros(32, 32), r"must be \(N,H,W\)"),
        (torch.full((1, 8, 8), 1.5), "must lie in 0..1"),
        (torch.full((1, 8, 8), torch.nan), "must lie in 0..1"),
        (torch.zeros(0, 8, 8), "no frames"),
    ],
)
def test_other_input_is_one_clear_error(frames, said):
    with pytest.raises(ValueError, match=said):
        ball_detection.find(frames)


@few
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4))
def test_matching_has_the_least_total_distance(seed, A, B):
    rng = np.random.default_rng(seed)
    a, b = rng.random((A, 2)), rng.random((B, 2))
    i, j, distance = ball_detection.match(a, b)
    assert len(i) == len(set(i)) == len(set(j)) == min(A, B)
    np.testing.assert_allclose(distance, np.linalg.norm(a[i] - b[j], axis=1))
    small, large = sorted((a, b), key=len)
    best = min(
        np.linalg.norm(small - large[list(order)], axis=1).sum()
        for order in itertools.permutations(range(len(large)), len(small))
    )
    assert distance.sum() == pytest.approx(best)


def test_matching_leaves_out_nan_and_what_is_too_far():
    a = np.array([(0.0, 0.0), (np.nan, np.nan), (5.0, 5.0)])
    b = np.array([(np.nan, np.nan), (5.0, 8.0), (0.0, 1.0)])
    i, j, distance = ball_detection.match(a, b)
    assert sorted(zip(i, j, distance, strict=True)) == [(0, 2, 1.0), (2, 1, 3.0)]
    i, j, distance = ball_detection.match(a, b, limit=2)
    assert [*zip(i, j, distance, strict=True)] == [(0, 2, 1.0)]
    assert len(ball_detection.match(a[1:2], b)[0]) == 0
