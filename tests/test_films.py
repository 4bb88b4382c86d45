"""Films: one picture that holds every frame where the page looks for it, and labels beside it."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from rnem import figures
from rnem.figures import films, pictures

T, H, W = 5, 6, 8


def video(value: float = 1.0) -> np.ndarray:
    """A dot that goes to the right."""
    frames = np.zeros((T, H, W))
    frames[np.arange(T), 2, np.arange(T)] = value
    return frames


def picture(film: figures.Film) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(film.sheet)).convert("RGB"))


def test_the_sheet_has_every_frame_of_every_panel_where_the_page_looks_for_it():
    film = figures.film({"R-NEM": {"truth": video(), "prediction": video(0.5)}}, alt="A dot.")
    sheet = picture(film)
    assert sheet.shape == (T * (H + 2), 2 * (W + 2), 3)
    style = dict(re.findall(r"--([a-z]+):([\d.]+)%", film.html))
    lefts = [float(left) for left in re.findall(r"--left:([\d.]+)%", film.html)]
    for panel, value in enumerate((1.0, 0.5)):
        for t in range(T):
            # What CSS makes of the percentages: a share of what the sheet is larger than the panel, in panels' pixels.
            tall, wide = float(style["down"]) / 100 * H, float(style["across"]) / 100 * W
            top = (t * float(style["step"]) + float(style["top"])) / 100 * (tall - H)
            left = lefts[panel] / 100 * (wide - W)
            assert (top, left) == (
                pytest.approx(t * (H + 2) + 1, abs=1e-3),
                pytest.approx(panel * (W + 2) + 1, abs=1e-3),
            )
            part = sheet[round(top) : round(top) + H, round(left) : round(left) + W]
            np.testing.assert_allclose(part[..., 0] / 255, video(value)[t], atol=0.01)


def test_the_page_holds_that_sheet_and_says_what_it_shows():
    film = figures.film({"R-NEM": {"truth": video()}}, alt='A "dot".', caption="It goes < right.", first=3)
    (data,) = re.findall(r"url\(data:image/png;base64,([^)]+)\)", film.html)
    assert base64.b64decode(data) == film.sheet
    assert 'role="img" aria-label="A &quot;dot&quot;."' in film.html
    assert "It goes &lt; right." in film.html
    assert 'data-frames="5" data-first="3"' in film.html
    assert "--frame:4" in film.html  # of a short film the last: by then groups have had the most time


def test_labels_stand_at_rows_and_once_above_columns_that_have_the_same():
    rows = {"R-NEM": {"truth": video(), "prediction": video()}, "N-EM": {"truth": video(), "prediction": video()}}
    film = figures.film(rows, alt="Dots.")
    assert re.findall(r'film-label">([^<]+)<', film.html) == ["truth", "prediction"]
    assert re.findall(r'film-name">([^<]+)<', film.html) == ["R-NEM", "N-EM"]


def test_a_prediction_shows_each_component_in_its_colour():
    truth, gamma = video(), np.zeros((T, 2, H, W))
    gamma[:, 0], gamma[:, 1] = truth, 1 - truth
    film = figures.of_prediction(truth, np.stack([truth, 0 * truth], 1), gamma, alt="A dot in one component.")
    assert re.findall(r'film-label">([^<]+)<', film.html) == ["truth", "prediction", "grouping", "ψ₁", "ψ₂"]
    assert re.findall(r"border-color:([^\"]+)", film.html) == ["rgb(230,159,0)", "rgb(82,82,82)"]  # and the background
    assert "film-name" not in film.html
    alone = figures.of_prediction(truth, truth[:, None], np.ones((T, 1, H, W)), alt="A dot.")
    assert re.findall(r'film-label">([^<]+)<', alone.html) == ["truth", "prediction"]


def test_a_switch_shows_the_first_and_hides_the_others():
    films = {
        (scene, model): figures.film({"": {model: video()}}, alt=f"{scene}, {model}.")
        for scene in ("four balls", "eight")
        for model in ("R-NEM", "LSTM")
    }
    both = figures.switch(films, ("scene", "model"), label="What it predicts")
    found = re.findall(r'data-choice="([^"]+)"( hidden)?', both.html)
    assert found == [("four balls|R-NEM", ""), *((f"{a}|{b}", " hidden") for a, b in list(films)[1:])]
    assert re.findall(r'name="([^"]+)" value="([^"]+)"( checked)?', both.html) == [
        ("film-what-it-predicts-0", "four balls", " checked"), ("film-what-it-predicts-0", "eight", ""),
        ("film-what-it-predicts-1", "R-NEM", " checked"), ("film-what-it-predicts-1", "LSTM", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alt": " "}, "needs an alt text"),
        ({"alt": "A dot.", "still": 6}, "frame 6 is none of this film's, 1 to 5"),
    ],
)
def test_a_film_that_cannot_be_shown_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        figures.film({"": {"truth": video()}}, **settings)


def test_panels_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 6, 8\), \(5, 6, 8\)"):
        figures.film({"": {"truth": video(), "prediction": video()[:4]}}, alt="A dot.")


def test_a_saved_film_has_a_history_and_is_shown_as_html(tmp_path):
    film = figures.film({"": {"truth": video()}}, alt="A dot.")
    shown = figures.save(film, "dot", folder=tmp_path)
    assert (tmp_path / "dot.png").read_bytes() == film.sheet
    assert json.loads((tmp_path / "dot.json").read_text())["alt"] == "A dot."
    assert shown._repr_mimebundle_()[0]["text/html"] == film.html


def test_models_compared_show_their_wrong_pixels_and_count_the_late_ones():
    truth = np.zeros((2, 12, 8, 8))
    truth[:, :, 2:4, 2:4] = 1
    missed, invented = np.zeros((2, 12, 2, 8, 8)), np.ones((2, 12, 1, 8, 8))
    missed[0, :9, 0] = truth[0, :9]  # right until frame 9, nothing from frame 10 on
    missed[1, :, 1] = truth[1]
    film = films.compared(truth, {"one": missed, "two": invented}, alt="Two models.")
    assert "one: 4.0" in film.html
    assert "one: 0.0" in film.html
    assert film.html.count("two: 60.0") == 2
    assert "from 10 on" in film.html
    assert "one: 1.0" in films.compared(truth, {"one": missed}, alt="One model.", since=1).html
    assert "one: 1.0" in films.compared(truth, {"one": missed}, alt="A later part.", first=15).html
    picture = pictures.errors_rgb(np.array([1.0, 0.2, 0.9, 0.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert np.allclose(picture[1], pictures.MISSED)
    assert np.allclose(picture[2], pictures.INVENTED)
    assert picture[3].sum() == 0 < picture[0].sum()
