"""The forest plot: where ratios lie on its axis, and that no number breaks it."""

import math
import re
from xml.etree import ElementTree

import pytest

from rnem.figures import forest

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*lines: forest.Line) -> ElementTree.Element:
    return ElementTree.fromstring(forest.forest(lines, label="Some ratios."))


def xs(element: ElementTree.Element, tag: str) -> list[float]:
    return [float(found.get("cx") or found.get("x")) for found in element.iter(tag)]


def test_the_axis_is_logarithmic_and_has_equality_in_its_middle():
    assert forest.across(1) == pytest.approx(forest.WIDTH / 2)
    assert forest.across(2) - forest.across(1) == pytest.approx(forest.across(1) - forest.across(0.5))
    assert (forest.across(0), forest.across(math.inf)) == (0, forest.WIDTH)


def test_a_bar_reaches_from_equality_to_the_mean_and_every_seed_has_a_dot():
    picture = drawn(forest.Line([0.4, 0.5, 0.625], "holds", bound=0.8, authors=0.25, title="bce < 0.8"))
    (bar,) = picture.iter("rect")
    assert float(bar.get("x")) == pytest.approx(forest.across(0.5), abs=0.1)
    assert float(bar.get("x")) + float(bar.get("width")) == pytest.approx(forest.across(1), abs=0.1)
    assert xs(picture, "circle") == pytest.approx([forest.across(v) for v in (0.4, 0.5, 0.625)], abs=0.1)
    marks = {path.get("class"): path.get("d") for path in picture.iter("path")}
    assert re.match(r"M([\d.]+)", marks["forest-bound"])[1] == f"{forest.across(0.8):.1f}"
    assert re.match(r"M([\d.]+)", marks["forest-authors"])[1] == f"{forest.across(0.25) - 6:.1f}"
    assert picture.get("aria-label") == "Some ratios."
    assert picture.find("g").get("class") == "holds"
    assert picture.find("g/title").text == "bce < 0.8"


@pytest.mark.parametrize(
    ("values", "at", "arrow"),
    [
        ([math.inf] * 3, forest.WIDTH, True),
        ([0.0] * 3, 0, True),
        ([50.0, math.inf, 40.0], forest.WIDTH, True),
        ([1e-9, 1e-9], 0, True),
        ([1.0, 1.0], forest.WIDTH / 2, False),
    ],
)
def test_what_is_off_the_axis_lies_at_its_end_with_an_arrow(values, at, arrow):
    picture = drawn(forest.Line(values, "opposite"))
    assert xs(picture, "circle") == pytest.approx([at] * len(values))
    assert ("forest-arrow" in {path.get("class") for path in picture.iter("path")}) == arrow


def test_without_a_mean_there_are_only_dots_and_without_numbers_nothing():
    assert not list(drawn(forest.Line([0.0, math.inf], "inconclusive")).iter("rect"))
    assert len(list(drawn(forest.Line([0.0, math.inf, math.nan], "inconclusive")).iter("circle"))) == 2
    empty = drawn(forest.Line([], "untested"), forest.Line([math.nan], "untested"))
    assert not list(empty.iter("circle"))
    assert not list(drawn().iter("g"))


def test_twelve_lines_fit_the_same_height_as_one():
    picture = drawn(*[forest.Line([0.5], "holds")] * 12, forest.Line([0.9], "other", share=0.5))
    height = float(picture.get("viewBox").split()[3])
    heights = [float(circle.get("cy")) for circle in picture.iter("circle")]
    assert heights == sorted(heights)
    assert 0 < heights[0] < heights[-1] < height
