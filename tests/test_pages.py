"""Every page of the book in a browser, opened from the disk: light and dark, on a phone and on a desk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import browser as browsers
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTHS = {390: 844, 1280: 900}
SCHEMES = ("light", "dark")
RATIO = 4.5
"""Least contrast of text, WCAG 2 AA."""


def pages() -> list[str]:
    """Every page of the table of contents, one with code, and the search."""
    toc = yaml.safe_load((REPOSITORY / "book" / "_toc.yml").read_text(encoding="utf-8"))
    listed = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [toc["root"], *listed, "code/rnem.model.em", "search"]


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """The book as it is committed, built once; or the one that $RNEM_PAGES names."""
    if given := os.environ.get("RNEM_PAGES"):
        return Path(given).resolve()
    root = tmp_path_factory.mktemp("pages")
    for name in ("book", "figures"):
        shutil.copytree(REPOSITORY / name, root / name)
    shutil.copy(REPOSITORY / "_config.yml", root)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "book/"]
    environment = os.environ | {"RNEM_DATA": str(REPOSITORY / "data"), "RNEM_BOOK_EXECUTE": "never", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return root / "_build" / "html"


@pytest.fixture(scope="module")
def browser():
    with browsers.started("axe_playwright_python") as started:
        yield started


class Opened:
    """A page in a tab, and what it asked for and complained of."""

    def __init__(self, browser, path: Path, scheme: str = "light", width: int = 1280, motion: str = "reduce"):
        viewport = {"width": width, "height": WIDTHS[width]}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion=motion)
        self.context.set_default_timeout(120_000)
        self.asked, self.complaints = [], []
        self.tab = self.context.new_page()
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", lambda said: self._heard(said))
        self.tab.goto(path.as_uri())
        self.tab.wait_for_function("document.readyState === 'complete'")
        self.tab.wait_for_timeout(300)  # for what scripts do after that

    def _heard(self, said) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.context.close()


# Text in tables and captions -> those whose contrast with their ground is below the least one.
CONTRAST = """(least) => {
  const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const bad = [];
  for (const part of document.querySelectorAll("table, figcaption, .caption, .film, .front, .scorecard")) {
    const walk = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      const node = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
      const aside = node.closest("svg, mjx-container, script, style, .headerlink");
      if (!text || !node.getClientRects().length || aside) continue;
      const under = ground(node), a = light(over(rgba(getComputedStyle(node).color), under)), b = light(under);
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < least) bad.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
  }
  return bad;
}"""
PICTURES = """() => [...document.querySelectorAll("img, [role=img], svg.schematic")]
  .filter((it) => !(it.getAttribute("alt") || it.getAttribute("aria-label") || it.getAttribute("aria-labelledby")))
  .filter((it) => it.getAttribute("aria-hidden") !== "true").map((it) => it.outerHTML.slice(0, 120))"""
LINKS = "() => [...document.querySelectorAll('a[href]')].map((a) => a.href)"


@pytest.mark.parametrize("page", pages())
def test_a_page_can_be_read_everywhere(browser, html, page):
    from axe_playwright_python.sync_playwright import Axe

    axe, problems = Axe(), []
    with Opened(browser, html / f"{page}.html") as opened:
        tab = opened.tab
        for scheme in SCHEMES:
            tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            tab.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
            for width, height in WIDTHS.items():
                tab.set_viewport_size({"width": width, "height": height})
                wide = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
                problems += [f"{scheme}, {width} px: the page is {wide} px too wide"] if wide > 0 else []
                problems += [f"{scheme}, {width} px: contrast of {text}" for text in tab.evaluate(CONTRAST, RATIO)]
            found = axe.run(tab, options={"preload": False}).response["violations"]
            problems += [
                f"{scheme}: axe: {each['id']}: {node['html'][:160]}"
                for each in found
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"][:3]
            ]
        problems += [f"no alt text: {text}" for text in tab.evaluate(PICTURES)]
        problems += opened.complaints
        problems += [f"it asks for {url}" for url in opened.asked if not url.startswith(("file:", "data:", "blob:"))]
        urls = [urlparse(url) for url in tab.evaluate(LINKS)]
        problems += [f"{url.path} is not there" for url in urls if url.scheme == "file" and not _there(url.path)]
    assert problems == []


def _there(path: str) -> bool:
    return Path(unquote(path)).exists()


# ---------------------------------------------------------------------------------------------------------------- films

FILM = ".film:not([hidden])"


def frame(tab) -> int:
    return tab.evaluate(f"Number(document.querySelector('{FILM}').style.getPropertyValue('--frame'))")


def shown(tab) -> str:
    return tab.locator(f"{FILM} .film-number").inner_text()


def test_a_film_plays_by_itself_and_waits_where_motion_is_unwelcome(browser, html):
    first = html / f"{pages()[0]}.html"
    with Opened(browser, first, motion="no-preference") as opened:
        before = frame(opened.tab)
        opened.tab.wait_for_function(
            f"Number(document.querySelector('{FILM}').style.getPropertyValue('--frame')) !== {before}"
        )
    with Opened(browser, first) as opened:
        before = frame(opened.tab)
        opened.tab.wait_for_timeout(600)
        assert frame(opened.tab) == before


def test_a_film_obeys_the_keyboard(browser, html):
    with Opened(browser, html / f"{pages()[0]}.html") as opened:
        tab, keys = opened.tab, opened.tab.keyboard
        start = frame(tab)
        tab.locator(f"{FILM} .film-play").focus()
        keys.press("Enter")
        assert tab.locator(f"{FILM} .film-play").get_attribute("aria-label") == "Pause"
        keys.press("Space")
        assert tab.locator(f"{FILM} .film-play").get_attribute("aria-label") == "Play"
        at = frame(tab)
        assert at >= start
        keys.press(".")
        keys.press(".")
        keys.press(",")
        assert frame(tab) == at + 1
        tab.locator(f"{FILM} input[type=range]").focus()
        keys.press("Home")
        assert (frame(tab), shown(tab)) == (0, "frame 1")
        keys.press("ArrowRight")
        assert (frame(tab), shown(tab)) == (1, "frame 2")
        keys.press(",")
        keys.press(",")
        assert frame(tab) == tab.evaluate(f"Number(document.querySelector('{FILM}').dataset.frames) - 1")


def test_a_switch_keeps_the_frame_and_works_by_keyboard(browser, html):
    with Opened(browser, html / f"{pages()[0]}.html") as opened:
        tab, keys = opened.tab, opened.tab.keyboard
        tab.locator(f"{FILM} input[type=range]").focus()
        keys.press("Home")
        keys.press("ArrowRight")
        before = tab.locator(FILM).get_attribute("data-choice")
        tab.locator(".film-switch fieldset").nth(1).locator("input").first.focus()
        keys.press("ArrowRight")
        after = tab.locator(FILM).get_attribute("data-choice")
        assert (before.split("|")[0], frame(tab)) == (after.split("|")[0], 1)
        assert before.split("|")[1] != after.split("|")[1]


def test_the_first_page_is_one_screen(browser, html):
    for scheme in SCHEMES:
        with Opened(browser, html / f"{pages()[0]}.html", scheme) as opened:
            opened.tab.set_viewport_size({"width": 1440, "height": 900})
            assert opened.tab.evaluate("document.querySelector('.doors').getBoundingClientRect().bottom") <= 900
