"""The book in one file: what the pages say of each other still leads there."""

import re

import pytest

from rnem.book import pdf
from rnem.errors import BookError

PAGE = """<html><head><link href="{up}_static/a.css" rel="stylesheet"/>{script}</head><body><nav>menu</nav><article>
<h1 id="top">{title}</h1>{body}</article></body></html>"""


@pytest.fixture
def html(tmp_path):
    (tmp_path / "chapters").mkdir()
    first = (
        '<a href="../play.html">play</a> <a href="https://arxiv.org">paper</a> <img alt="." src="../_images/a.png"/>'
    )
    (tmp_path / "chapters" / "intro.html").write_text(PAGE.format(up="../", script="", title="First", body=first))
    second = '<a href="chapters/intro.html#top">back</a> <a href="#top">up</a> <a href="code/rnem.html#run">code</a>'
    script = '<script src="_static/tex-svg.js"></script><script src="_static/menu.js"></script>'
    (tmp_path / "play.html").write_text(PAGE.format(up="", script=script, title="Play", body=second))
    return tmp_path


def test_links_between_pages_lead_inside_the_file(html):
    page = pdf.joined(html, ["chapters/intro", "play"])
    links = re.findall(r'href="([^"]+)"', page)
    assert links == [
        "_static/a.css", "#page-play", "https://arxiv.org", "#page-play", "#page-chapters-intro-top", "#page-play-top",
        "code/rnem.html#run",
    ]  # fmt: skip
    names = re.findall(r'id="([^"]+)"', page)
    assert sorted(names) == sorted(set(names))
    assert {link[1:] for link in links if link.startswith("#")} <= set(names)


def test_it_has_a_list_of_the_pages_and_only_the_script_for_mathematics(html):
    page = pdf.joined(html, ["chapters/intro", "play"])
    assert '<h1>Contents</h1><ol><li><a href="#page-play">Play</a></li></ol>' in page
    assert 'src="_images/a.png"' in page
    assert re.findall(r'<script src="([^"]+)"', page) == ["_static/tex-svg.js"]
    assert "menu" not in page


def test_the_pages_are_those_of_the_table_of_contents(tmp_path):
    toc = tmp_path / "_toc.yml"
    toc.write_text("root: a\nparts:\n- chapters:\n  - file: b\n- chapters:\n  - file: c\n")
    assert pdf.listed(toc) == ["a", "b", "c"]


def test_a_page_that_was_not_built_is_named(html):
    with pytest.raises(BookError, match=r"state\.html is not there: build the book first"):
        pdf.joined(html, ["chapters/intro", "state"])


def test_without_a_browser_it_says_so(html, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BookError, match="needs a Chromium"):
        pdf.write(html, html / "book.pdf")
