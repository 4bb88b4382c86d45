"""Figures: colours that mean one thing, files that are the same twice, and a history for each."""

import io
import json
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rnem import figures
from rnem.model.config import MODELS

T, K, H = 6, 3, 8


def video():
    """Two balls on the left and right half, each in a component of its own; the third has the background."""
    truth = np.zeros((T, H, H))
    truth[:, 2:4, 1:3] = truth[:, 4:6, 5:7] = 1
    gamma = np.zeros((T, K, H, H))
    gamma[:, 0, :, :4] = gamma[:, 1, :, 4:] = truth[:, :, :4]
    gamma[:, 0], gamma[:, 1] = truth * (np.arange(H) < 4), truth * (np.arange(H) >= 4)
    gamma[:, 2] = 1 - truth
    return truth, gamma


def table(seeds=3, models=("rnem", "lstm")):
    return pd.DataFrame(
        {"model": model, "seed": seed, "step": step, "bce": 10.0 * place + seed + step}
        for place, model in enumerate(models)
        for seed in range(seeds)
        for step in (1, 2, 3)
    )


def test_every_model_has_a_colour_and_a_dash_pattern_of_its_own():
    assert set(figures.MODEL_COLOURS) == set(figures.MODEL_DASHES) == {*MODELS, "copy_last"}
    assert len(set(figures.MODEL_COLOURS.values())) == len(set(figures.MODEL_DASHES.values())) == len(MODELS) + 1


def test_a_model_without_colours_of_its_own_takes_the_next_ones_of_a_palette():
    code = (
        "from rnem.model import config\n"
        "config.MODEL_LABELS['a'], config.MODEL_LABELS['b'] = 'A', 'B'\n"
        "from rnem import figures\n"
        "print(len({*figures.MODEL_COLOURS.values()}), len({*figures.MODEL_DASHES.values()}), figures.LABELS['b'])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == [str(len(MODELS) + 3)] * 2 + ["B"]


def test_component_colours_are_far_apart():
    colours = figures.component_colours(8)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distance[~np.eye(8, dtype=bool)].min() > 0.3
    with pytest.raises(ValueError, match="colours for 8 components, not for 9"):
        figures.component_colours(9)


def test_a_component_keeps_its_colour_over_time_and_the_background_is_grey():
    truth, gamma = video()
    rgb = figures.grouping_rgb(gamma, truth)
    assert figures.background(gamma, truth) == 2
    for t in range(T):
        np.testing.assert_allclose(rgb[t, 2, 1], figures.COMPONENT_COLOURS[0])
        np.testing.assert_allclose(rgb[t, 5, 6], figures.COMPONENT_COLOURS[1])
    assert np.ptp(rgb[0, 0, 0]) == 0
    assert rgb[0, 0, 0].max() < 0.1


def test_where_all_share_the_background_none_is_grey():
    truth, gamma = video()
    gamma = np.where(truth[:, None] > 0, gamma, 1 / K)
    assert figures.background(gamma, truth) is None


def test_a_grouping_of_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"gamma is \(6, 3, 8, 8\) and mask is \(5, 8, 8\)"):
        figures.grouping_rgb(video()[1], video()[0][:5])


def test_curves_show_mean_and_interval_over_seeds():
    figure = figures.per_step(table(seeds=5), "bce")
    (axes,) = figure.axes
    assert len(axes.lines) == 2
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [3, 4, 5])  # seeds 0 to 4 at step 1: mean 3
    band = axes.collections[0].get_paths()[0].vertices
    half = 2.776445 * np.sqrt(2.5) / np.sqrt(5)  # t(0.975, 4) s / sqrt(n)
    assert band[:, 1].min() == pytest.approx(3 - half, rel=1e-4)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["R-NEM (5 seeds)", "LSTM (5 seeds)"]
    plt.close(figure)


def test_of_few_seeds_each_has_a_line_and_there_is_no_band():
    figure = figures.per_step(table(models=("rnem",)), "bce")
    mean, *seeds = figure.axes[0].lines
    np.testing.assert_allclose(mean.get_ydata(), [2, 3, 4])
    assert [line.get_ydata().tolist() for line in seeds] == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert {line.get_color() for line in figure.axes[0].lines} == {figures.MODEL_COLOURS["rnem"]}
    assert not np.isfinite(figure.axes[0].collections[0].get_datalim(figure.axes[0].transData).get_points()).all()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["R-NEM (3 seeds)"]
    plt.close(figure)


def test_one_seed_gives_a_curve_without_a_band():
    figure = figures.per_step(table(seeds=1), "bce")
    assert np.isfinite(figure.axes[0].lines[0].get_ydata()).all()
    assert not np.isfinite(figure.axes[0].collections[0].get_datalim(figure.axes[0].transData).get_points()).all()
    plt.close(figure)


def test_bars_have_a_dot_per_seed():
    rows = table().groupby(["model", "seed"], as_index=False)["bce"].mean()
    figure = figures.bars(rows, "bce", reference=5)
    assert [patch.get_width() for patch in figure.axes[0].patches] == [3, 13]
    assert [len(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "o"] == [3, 3]
    assert len(figure.axes[0].containers) == 2
    assert len(figures.bars(table(seeds=5)[lambda rows: rows["step"] == 1], "bce").axes[0].containers) == 4
    plt.close("all")


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no column 'ari'"):
        figures.per_step(table(), "ari")
    with pytest.raises(ValueError, match="'gru' is no model with a colour"):
        figures.per_step(table(models=("gru",)), "bce")


def test_a_film_strip_has_the_frames_that_were_asked_for():
    truth, gamma = video()
    truth = truth * np.linspace(0.5, 1, T)[:, None, None]
    figure = figures.film_strip(truth, truth, figures.grouping_rgb(gamma, truth), [0, 5], first=1)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 6
    np.testing.assert_array_equal(shown[1], truth[5])
    assert figure.axes[1].get_title() == "6"
    plt.close(figure)
    with pytest.raises(ValueError, match="time 6"):
        figures.strips({"truth": truth}, [6])


def test_components_compete_in_one_picture():
    truth, gamma = video()
    figure = figures.competition(truth[0], gamma[0], gamma[0])
    assert sum(len(axes.images) for axes in figure.axes) == 2 * K + 3
    plt.close(figure)


def test_an_animation_loops_and_shows_every_frame_exactly():
    truth, gamma = video()
    gif = Image.open(io.BytesIO(figures.animation(truth, truth, figures.grouping_rgb(gamma, truth), scale=3)))
    assert (gif.info["loop"], gif.size) == (0, (3 * (3 * H) + 2 * 6, 3 * H))
    truth[3, 0, 0] = 1  # all frames alike would be merged into one
    gif = Image.open(io.BytesIO(figures.animation(truth, truth, figures.grouping_rgb(gamma, truth), scale=3)))
    gif.seek(1)
    shown = np.asarray(gif.convert("L"))[1::3, 1 : 3 * H : 3] > 127
    np.testing.assert_array_equal(shown, truth[3] > 0.5)


def test_an_animation_too_large_for_a_page_is_refused():
    truth, gamma = video()
    with pytest.raises(ValueError, match="over 100: take fewer frames"):
        figures.animation(truth, truth, figures.grouping_rgb(gamma, truth), limit=100)


def draw():
    figure, axes = plt.subplots()
    axes.plot([1, 2], label="a")
    axes.legend()
    return figure


def test_a_figure_is_saved_twice_with_the_same_bytes_and_its_history(tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_CHAPTER", "accuracy")
    for place in ("one", "two"):
        figures.save(draw(), "curve", alt="A line that rises.", caption="A line.", folder=tmp_path / place)
    for kind in ("svg", "png", "json"):
        assert (tmp_path / f"one/curve.{kind}").read_bytes() == (tmp_path / f"two/curve.{kind}").read_bytes()
    said = json.loads((tmp_path / "one/curve.json").read_text())
    assert said["files"] == ["curve.png", "curve.svg"]
    assert (said["command"], said["alt"], said["runs"]) == ("rnem chapter accuracy", "A line that rises.", [])
    assert "commit" in said
    assert {path.suffix for path in (tmp_path / "one").iterdir()} == {".svg", ".png", ".json"}  # nothing half-written


def test_a_trial_by_hand_shows_the_figure_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("RNEM_FIGURES", raising=False)
    monkeypatch.chdir(tmp_path)
    data, metadata = figures.save(draw(), "curve", alt="A line that rises.")._repr_mimebundle_()
    assert data["image/svg+xml"].lstrip().startswith("<?xml")
    assert metadata["rnem"]["alt"] == "A line that rises."
    assert list(tmp_path.iterdir()) == []


def test_a_figure_without_alt_text_is_refused():
    figure = draw()
    with pytest.raises(ValueError, match="figure curve needs an alt text"):
        figures.save(figure, "curve", alt=" ")
    plt.close(figure)
