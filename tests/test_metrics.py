"""Metrics against independent implementations (scipy, scikit-learn) and against what they must ignore."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.metrics import adjusted_rand_score

from rnem.evaluation import metrics


def one_hot(components: np.ndarray, K: int) -> torch.Tensor:
    """Soft gamma (T,B,K,1,H,W) whose argmax is ``components`` (T,B,1,H,W)."""
    hard = np.moveaxis(np.eye(K)[components], -1, 2)
    return torch.tensor(0.4 * hard + 0.6 / K)


def random_frames(seed: int, K: int = 4, shape=(3, 5, 1, 12, 12)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, shape)
    components = np.where(rng.random(shape) < 0.6, groups % K, rng.integers(0, K, shape))
    return groups, components


def sklearn_ari(groups: np.ndarray, components: np.ndarray) -> np.ndarray:
    return np.array(
        [
            [adjusted_rand_score(g[g > 0], c[g > 0]) for g, c in zip(frame, parts, strict=True)]
            for frame, parts in zip(groups, components, strict=True)
        ]
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_ari_is_scikit_learns_on_the_foreground(seed, dtype):
    groups, components = random_frames(seed, K=2 + seed)
    ours = metrics.ari(torch.tensor(groups).to(dtype), one_hot(components, 2 + seed))
    np.testing.assert_allclose(ours, sklearn_ari(groups, components), atol=1e-12)


@pytest.mark.parametrize(
    ("groups", "components", "expected"),
    [
        ([1, 1, 1, 1], [2, 2, 2, 2], 1.0),  # one ball in one component
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.0),  # one ball torn apart
        ([1, 1, 2, 2], [0, 0, 0, 0], 0.0),  # two balls in one component
        ([1, 1, 2, 2], [0, 0, 1, 1], 1.0),
        ([1, 1, 2, 2], [0, 1, 0, 1], -0.5),  # worse than chance
        ([1, 2, 3, 0], [0, 1, 2, 0], 1.0),  # every pixel its own ball and component
        ([0, 0, 0, 1], [0, 1, 2, 0], 1.0),  # a single pixel
    ],
)
def test_ari_of_degenerate_frames_is_scikit_learns(groups, components, expected):
    groups, components = (np.array(x).reshape(1, 1, 1, 2, 2) for x in (groups, components))
    ours = metrics.ari(torch.tensor(groups), one_hot(components, 3))
    assert ours.item() == pytest.approx(expected, abs=1e-12)
    assert ours.item() == pytest.approx(sklearn_ari(groups, components).item(), abs=1e-12)


def test_ari_of_a_frame_without_balls_is_not_a_number_and_leaves_its_neighbours():
    groups, components = random_frames(0)
    groups[1, 2] = 0
    ours = metrics.ari(torch.tensor(groups), one_hot(components, 4))
    assert torch.isnan(ours[1, 2])
    assert torch.isfinite(ours).sum() == ours.numel() - 1


def test_ari_ignores_the_background():
    groups = np.zeros((1, 1, 1, 8, 8), int)
    groups[..., :2, :2], groups[..., -2:, -2:] = 1, 2
    components = groups.copy()
    torn = components.copy()
    torn[groups == 0] = np.arange((groups == 0).sum()) % 3  # the background is given away at random
    for parts in (components, torn):
        assert metrics.ari(torch.tensor(groups), one_hot(parts, 3)).item() == pytest.approx(1.0)
    whole = adjusted_rand_score(groups.ravel(), torn.ravel())
    assert whole < 0.3  # over all pixels the same grouping would look bad
    merged = np.where(groups > 0, 1, 0)  # and a figure-ground split good, which groups nothing
    assert adjusted_rand_score(groups.ravel(), merged.ravel()) > 0.9
    assert metrics.ari(torch.tensor(groups), one_hot(merged, 3)).item() == pytest.approx(0.0, abs=1e-12)


def test_ari_does_not_change_when_balls_or_components_are_renamed():
    groups, components = random_frames(3)
    ours = metrics.ari(torch.tensor(groups), one_hot(components, 4))
    renamed = np.array([0, 3, 1, 2])[groups]
    torch.testing.assert_close(metrics.ari(torch.tensor(renamed), one_hot(3 - components, 4)), ours)


def test_ari_of_large_frames_stays_between_minus_one_and_one():
    groups = np.zeros((1, 1, 1, 64, 64), int)
    for ball, (y, x) in enumerate([(0, 0), (0, 32), (32, 0), (32, 32)], 1):
        groups[..., y : y + 30, x : x + 30] = ball
    assert metrics.ari(torch.tensor(groups), one_hot(groups, 5)).item() == pytest.approx(1.0)


def test_bce_is_scipys_cross_entropy_and_kl_its_relative_entropy():
    rng = np.random.default_rng(0)
    psi, x = rng.uniform(0.01, 0.99, (3, 2, 1, 6, 6)), rng.integers(0, 2, (3, 2, 1, 6, 6)).astype(float)
    expected = -(special.xlogy(x, psi) + special.xlog1py(1 - x, -psi)).sum((-3, -2, -1))
    np.testing.assert_allclose(metrics.bce(torch.tensor(psi), torch.tensor(x)), expected, rtol=1e-12)
    relative = (special.rel_entr(0.0, psi) + special.rel_entr(1.0, 1 - psi)).sum((-3, -2, -1))
    np.testing.assert_allclose(metrics.kl(torch.tensor(psi)), relative, rtol=1e-12)


def test_a_wrong_and_certain_pixel_costs_the_clip_and_not_infinity():
    off, on = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    assert metrics.bce(off, on).item() == pytest.approx(-np.log(1e-6), rel=1e-6)
    assert metrics.kl(on).item() == pytest.approx(-np.log(1e-6), rel=1e-6)
    assert metrics.bce(on, on).item() == pytest.approx(0, abs=2e-6)


def test_relational_bce_counts_the_pixels_in_collision_only():
    rng = torch.Generator().manual_seed(0)
    psi, x = torch.rand(4, 1, 6, 6, generator=rng), torch.ones(4, 1, 6, 6)
    mask = torch.zeros(4, 1, 6, 6, dtype=torch.uint8)
    assert metrics.relational_bce(psi, x, mask).tolist() == [0] * 4
    torch.testing.assert_close(metrics.relational_bce(psi, x, mask + 1), metrics.bce(psi, x))
    mask[1, 0, 2, 3] = 1
    only = metrics.relational_bce(psi, x, mask)
    assert only[1].item() == pytest.approx(-np.log(psi[1, 0, 2, 3].item()), rel=1e-5)
    assert only[[0, 2, 3]].tolist() == [0] * 3


def test_wrong_pixels_counts_both_kinds_of_error():
    x = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    psi = torch.tensor([[[0.9, 0.2, 0.6, 0.1]]])
    assert metrics.wrong_pixels(psi, x).item() == 2
    assert metrics.wrong_pixels(psi, x, threshold=0.15).item() == 1
    assert metrics.wrong_pixels(x[None], x[None]).tolist() == [0]


def test_interval_is_scipys_student_t_interval():
    values = [3.1, 2.7, 3.4, 2.9]
    mean, half = metrics.interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    mean, half = metrics.interval([2.5])
    assert mean == 2.5
    assert np.isnan(half)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.bce(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5)), r"psi is .*4,4\) and x is \(2,1,4,5\)"),
        (lambda: metrics.bce(torch.zeros(2, 5, 1, 4, 4), torch.zeros(2, 1, 4, 4)), r"psi is \(2,5,1,4,4\)"),
        (lambda: metrics.kl(torch.zeros(3, 4, 4)), r"psi is \(3,4,4\); it must be \(...,1,H,W\)"),
        (
            lambda: metrics.relational_bce(*[torch.zeros(2, 1, 4, 4)] * 2, torch.zeros(1, 4, 4)),
            r"collisions is \(1,4,4\)",
        ),
        (lambda: metrics.wrong_pixels(torch.zeros(4, 4), torch.zeros(4, 4)), r"psi is \(4,4\)"),
        (
            lambda: metrics.ari(torch.zeros(2, 3, 1, 4, 4), torch.zeros(2, 3, 1, 4, 4)),
            r"groups is \(2,3,1,4,4\) and gamma is \(2,3,1,4,4\)",
        ),
        (lambda: metrics.ari(torch.zeros(2, 3, 1, 4, 4), torch.zeros(3, 2, 5, 1, 4, 4)), r"gamma is \(3,2,5,1,4,4\)"),
        (lambda: metrics.ari(torch.zeros(2, 3, 2, 4, 4), torch.zeros(2, 3, 5, 2, 4, 4)), "one channel"),
        (lambda: metrics.interval([]), "one number per seed"),
        (lambda: metrics.interval([[1.0, 2.0]]), "one number per seed"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
