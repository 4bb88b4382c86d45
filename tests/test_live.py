"""A run that lives in a page: what a build writes, and the page in a browser, opened from the disk."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import browser as browsers
import numpy as np
import pytest
import torch

from rnem.live import sphinx
from rnem.model import em
from rnem.model.network import build
from rnem.runs import store

REPOSITORY = Path(__file__).resolve().parents[1]
K8, K3, NEM = (f"laptop-balls4mass-{model}@0" for model in ("rnem-k8", "rnem-k3", "nem-k5"))
LONG, LONG_NEM = (f"long-balls4mass-{model}@0" for model in ("rnem-k5", "nem-k5"))
CURTAIN, CURTAIN_NEM = (f"laptop-balls3curtain-{model}@0" for model in ("rnem-k5", "nem-k5"))
PAGE = f"""\
# Play

```{{live}} long-balls4mass-rnem-k2@7|{K8} {K3} {NEM} {CURTAIN} {CURTAIN_NEM} {LONG_NEM} {LONG} {NEM}|{K8}
A picture for who does not play.
```

Look at {{play}}`eight balls <scene=eight&seed=3>`.
"""


def run_of(label: str) -> store.Run:
    return sphinx.chosen(label)


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """A book of three pages, built once; two have no run in them."""
    root = tmp_path_factory.mktemp("live")
    (root / "book" / "chapters").mkdir(parents=True)
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters:\n  - file: play\n  - file: chapters/other\n"
    )
    (root / "book" / "intro.md").write_text("# A book\n")
    (root / "book" / "play.md").write_text(PAGE)
    (root / "book" / "chapters" / "other.md").write_text(
        "# Other\n\nSee {play}`five balls <scene=five>`, "
        f"{{play}}`another <run=long-balls4mass-rnem-k2@7|{K3}&components=3>`.\n"
    )
    (root / "book" / "references.bib").write_text("")
    settings = (REPOSITORY / "_config.yml").read_text()
    settings = settings.replace('"chapters/*.md"', '"none/*.md"').replace("    - rnem.book.sphinx_guard\n", "")
    (root / "_config.yml").write_text(settings)
    shutil.copytree(REPOSITORY / "book" / "_static", root / "book" / "_static")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "book/", "-W", "--keep-going"]
    environment = os.environ | {"RNEM_DATA": str(REPOSITORY / "data"), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return root / "_build" / "html"


# ---------------------------------------------------------------------------------------------------------- the build


def test_only_the_page_with_the_directive_loads_its_scripts(html):
    assert "_live/" not in (html / "intro.html").read_text()
    assert "_live/" not in (html / "chapters" / "other.html").read_text()
    text = (html / "play.html").read_text()
    for script in ("model.js", "world.js", "views.js", "widget.js"):
        assert re.search(rf'<script defer src="_live/{script}\?[0-9a-f]{{8}}">', text)
    assert "A picture for who does not play." in text
    (picture,) = re.findall(r'<img src="(_live/[^"]+)" alt="[^"]{20,}"', text)
    assert (html / picture).stat().st_size > 5000


def test_the_build_writes_each_run_once_from_the_verified_run(html):
    written = {path.name for path in (html / "_live").iterdir()}
    found = [run_of(label) for label in (K8, K3, NEM, CURTAIN, CURTAIN_NEM, LONG_NEM, LONG)]
    assert {sphinx.file_of(run, "js") for run in found} <= written
    assert len(written) == len(found) + 7  # one picture, the test videos, four scripts, one style sheet
    text = (html / "_live" / sphinx.file_of(found[0], "js")).read_text()
    assert found[0].manifest["files"]["weights.safetensors"]["sha256"] in text


def test_links_with_a_state_lead_to_the_page(html):
    assert 'href="#live&amp;scene=eight&amp;seed=3"' in (html / "play.html").read_text()
    other = (html / "chapters" / "other.html").read_text()
    assert 'href="../play.html#live&amp;scene=five"' in other
    assert f'href="../play.html#live&run={K3}&components=3"' in unescape(other)  # docutils writes @ as an entity


def test_a_page_is_out_of_date_when_an_alternative_or_another_run_is_there(monkeypatch):
    older, newer = run_of(K8), run_of(K3)
    files = {sphinx.file_of(older, "js"), sphinx.file_of(older, "png")}
    env = SimpleNamespace(rnem_live={"play": {"new|old": files}}, found_docs={"play", "other"})
    monkeypatch.setattr(sphinx, "chosen", lambda text: older)
    assert sphinx.outdated(None, env) == []
    monkeypatch.setattr(sphinx, "chosen", lambda text: newer)
    assert sphinx.outdated(None, env) == ["play"]
    monkeypatch.setattr(sphinx, "chosen", lambda text: older)
    env.rnem_live_program = ["another program"]
    assert sphinx.outdated(None, env) == ["play"]


def test_a_run_that_is_not_there_is_named():
    with pytest.raises(sphinx.RnemError, match="no finished run of laptop-balls4mass-rnem-k8@99"):
        sphinx.chosen("laptop-balls4mass-rnem-k8@99")


def test_the_books_page_names_runs_that_are_there():
    text = (REPOSITORY / "book" / "play.md").read_text()
    (named,) = re.findall(r"```\{live\} (.*)", text)
    labels = [run_of(each).label for each in named.split()]
    assert len(labels) >= 5
    for run in re.findall(r"run=([\w@-]+)", text):
        assert run in labels


# -------------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    with browsers.started() as started:
        yield started


@pytest.fixture
def opened(browser, html):
    """Open the page at an address, paused at frame 0 unless it is to play; fails where the page asked or complained."""
    contexts, asked, complaints = [], [], []

    def at(address: str = "", *, paused: bool = True, page: str = "play.html", **settings):
        context = browser.new_context(viewport={"width": 1300, "height": 1000}, **settings)
        context.set_default_timeout(120_000)  # a machine that trains beside it is slow
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        tab.goto(f"file://{html}/{page}{address}")
        if page == "play.html":
            tab.wait_for_selector(".rnem-live.is-alive")
            tab.evaluate("RNEM.widgets[0].loading")
            if paused:
                tab.evaluate("() => { const w = RNEM.widgets[0]; w.play(false); w.setScene(); w.draw(); }")
        return tab

    yield at
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert complaints == []
    for context in contexts:
        context.close()


TRACE = """(steps) => {
  const w = RNEM.widgets[0], watcher = w.watchers[0], raw = Array.from(watcher.raw), states = [];
  const frames = [Array.from(w.rendered().features)];
  for (let t = 0; t < steps; t++) {
    w.tick();
    frames.push(Array.from(w.rendered().features));
    states.push(["psi", "gamma", "theta"].map((name) => Array.from(watcher.state[name])));
  }
  return { raw, frames, states, run: watcher.run.label, key: watcher.run.key };
}"""


def ticks(tab, count: int) -> None:
    tab.evaluate("(n) => { const w = RNEM.widgets[0]; for (let i = 0; i < n; i++) w.tick(); w.draw(); }", count)


def widget(tab, what: str):
    return tab.evaluate(f"() => {{ const w = RNEM.widgets[0]; return {what}; }}")


@pytest.mark.parametrize(("address", "real"), [("", 20), ("#live&imagine=8", 8), ("#live&imagine=8&feedback=grey", 8)])
def test_twenty_steps_of_the_page_are_torchs(opened, address, real, one_thread):
    trace = opened(address).evaluate(TRACE, 20)
    run = run_of(trace["run"])
    assert (run.label, run.key) == (K8, trace["key"])
    network = build(replace(run.config.network)).double().eval()
    network.load_state_dict({name: tensor.half().double() for name, tensor in run.weights().items()})
    frames = torch.tensor(trace["frames"], dtype=torch.float64).view(21, 1, 1, 32, 32)
    raw = torch.tensor(trace["raw"], dtype=torch.float64).view(1, -1, 1, 32, 32)
    feedback = "grey" if "grey" in address else "binary"
    with torch.no_grad():
        steps = em.unroll(
            network, frames, torch.zeros(()).expand(frames.shape), raw, real_steps=real, feedback=feedback
        )
        for state, ours in zip(steps, trace["states"], strict=True):
            for theirs, values in zip((state.psi, state.gamma, state.theta), ours, strict=True):
                assert np.abs(theirs.flatten().numpy() - np.array(values)).max() < 1e-9


def test_the_page_plays_by_itself_and_pauses_out_of_sight(opened):
    tab = opened(paused=False)
    tab.wait_for_function("RNEM.widgets[0].frame > 3")
    tab.evaluate("document.querySelector('.rnem-live').style.display = 'none'")
    tab.wait_for_function("!RNEM.widgets[0].insight")
    before = widget(tab, "w.frame")
    tab.wait_for_timeout(400)
    assert widget(tab, "w.frame") <= before + 1
    tab.evaluate("document.querySelector('.rnem-live').style.display = ''")
    tab.wait_for_function(f"RNEM.widgets[0].frame > {before + 2}")


def test_where_motion_is_unwelcome_it_waits_on_a_picture(opened):
    tab = opened(paused=False, reduced_motion="reduce")
    assert (widget(tab, "w.playing"), widget(tab, "w.frame")) == (False, 12)
    tab.get_by_role("button", name="One step").click()
    assert widget(tab, "w.frame") == 13


def test_the_page_says_which_run_it_is(opened):
    text = opened().locator(".rnem-live-run").inner_text()
    run = run_of(K8)
    assert run.label in text
    assert run.key in text
    assert run.manifest["files"]["weights.safetensors"]["sha256"][:16] in text


def test_every_control_does_what_it_says(opened):
    tab = opened()
    live = tab.locator(".rnem-live")
    for name, balls in {"A collision": 2, "Five balls": 5, "Eight balls": 8, "Empty box": 0, "Four balls": 4}.items():
        live.get_by_role("button", name=name).click()
        tab.wait_for_function(f"RNEM.widgets[0].balls.length === {balls}")
    live.get_by_role("button", name="Pause").click()
    ticks(tab, 5)
    live.get_by_role("button", name="Imagine").click()
    assert "true balls" in live.locator(".rnem-live-status").inner_text()
    ticks(tab, 2)
    assert widget(tab, "[w.mode, w.watchers[0].imagined]") == ["imagine", 2]
    live.get_by_role("button", name="Forget").click()
    assert widget(tab, "[w.mode, Math.max(...w.watchers[0].state.theta)]") == ["look", 0]
    live.get_by_role("button", name="+ heavy ball").click()
    assert widget(tab, "w.balls[4].mass") == 6
    live.get_by_label("Components at work").select_option("5")
    tab.wait_for_function("RNEM.widgets[0].watchers[0].network.K === 5")
    live.get_by_label("Effects of the others").select_option("mean")
    tab.wait_for_function("RNEM.widgets[0].watchers[0].network.effects === 'mean'")
    assert live.locator(".rnem-live-tile").count() == 5
    live.get_by_label("Network").select_option(K3)
    tab.wait_for_function("RNEM.widgets[0].watchers[0].network.K === 3")
    assert live.get_by_label("Effects of the others").is_disabled()  # both are the same at the trained K
    live.get_by_label("N-EM beside it").check()
    tab.wait_for_function("RNEM.widgets[0].watchers.length === 2")
    ticks(tab, 3)
    assert live.locator(".rnem-live-stage figure:visible").count() == 5
    live.get_by_label("Imagines").select_option("grey")
    live.get_by_label("Frames a second").select_option("24")
    assert widget(tab, "[w.settings.feedback, w.settings.speed]") == ["grey", 24]
    live.get_by_role("checkbox", name="Curtain").check()
    assert widget(tab, "w.curtain !== null")
    live.get_by_role("button", name="The curtain").click()
    tab.wait_for_function(f"RNEM.widgets[0].watchers[0].run.label === '{CURTAIN}'")
    assert "scene=curtain" in tab.url


def drag(tab, start, end, selector=".rnem-live-box canvas"):
    """A drag over the box, in box units (y, x)."""
    area = tab.locator(selector).bounding_box()
    points = [(area["x"] + x * area["width"] / 10, area["y"] + y * area["height"] / 10) for y, x in (start, end)]
    tab.mouse.move(*points[0])
    tab.mouse.down()
    tab.mouse.move(*points[1], steps=4)
    tab.mouse.up()


def test_a_ball_is_thrown_by_mouse_and_a_fast_one_is_slowed_down(opened):
    tab = opened("#live&scene=empty")
    drag(tab, (5, 2), (5, 4))
    (ball,) = widget(tab, "w.balls")
    assert (ball["radius"], ball["mass"]) == (0.8, 1)
    assert (ball["y"], ball["x"]) == (pytest.approx(5, abs=0.1), pytest.approx(2, abs=0.1))
    assert (ball["vy"], ball["vx"]) == (pytest.approx(0, abs=0.02), pytest.approx(0.26, abs=0.02))
    tab.get_by_label("Balls I throw").select_option("heavy")
    drag(tab, (2, 8), (9, 8))
    assert widget(tab, "[w.balls[1].mass, Math.hypot(w.balls[1].vy, w.balls[1].vx)]") == [6, pytest.approx(0.4)]
    assert "Slowed down" in tab.locator(".rnem-live-status").inner_text()
    drag(tab, (5, 2), (4, 2))  # it starts on a ball that is there
    assert widget(tab, "w.balls.length") == 2
    for place in range(8):
        drag(tab, (7 + place % 2, 1 + place), (7.5 + place % 2, 1 + place))
    assert widget(tab, "w.balls.length") <= 8


def test_the_curtain_is_dragged(opened):
    tab = opened("#live&scene=curtain")
    assert widget(tab, "w.watchers[0].run.label") == CURTAIN
    drag(tab, (5, 5), (6, 7))
    assert widget(tab, "[w.curtain.y > 3.5, w.curtain.x > 4.3, w.balls.length]") == [True, True, 3]


@pytest.mark.parametrize(("address", "watching"), [
    ("scene=curtain&beside=1", [CURTAIN, CURTAIN_NEM]), ("scene=four&beside=1", [K8, NEM]),
    (f"run={LONG}&beside=1", [LONG, LONG_NEM]), (f"run={LONG_NEM}&beside=1", [LONG_NEM, NEM]),
])  # fmt: skip
def test_the_n_em_beside_a_run_was_trained_on_the_same_videos(opened, address, watching):
    tab = opened(f"#live&{address}")
    ticks(tab, 2)
    assert widget(tab, "w.watchers.map((each) => each.run.label)") == watching
    assert all(value > 0 for value in widget(tab, "w.history[1].bce"))
    unequal = watching == [LONG_NEM, NEM]
    assert ("64,000" in tab.locator(".rnem-live-note").inner_text()) is unequal


def test_a_run_that_is_named_twice_is_offered_once(opened):
    tab = opened()
    offered = tab.get_by_label("Network").locator("option").evaluate_all("(all) => all.map((each) => each.value)")
    assert offered == [K8, K3, NEM, CURTAIN, CURTAIN_NEM, LONG_NEM, LONG]


def test_a_blank_box_does_not_make_components_equal_for_ever(opened):
    tab = opened("#live&scene=empty")
    gammas = []
    for _ in range(3):
        ticks(tab, 1)
        gammas.append(widget(tab, "Array.from(w.watchers[0].state.gamma.slice(0, 9))"))
    assert gammas[0] != gammas[1] != gammas[2]
    assert "drawn anew" in tab.locator(".rnem-live-status").inner_text()
    drag(tab, (5, 2), (5, 4))
    ticks(tab, 25)
    shares = widget(tab, "Array.from(w.watchers[0].state.gamma).filter((v, i) => w.rendered().features[i % 1024])")
    assert max(shares) > 0.9
    assert "drawn anew" not in tab.locator(".rnem-live-status").inner_text()


def test_a_click_on_a_pixel_shows_its_e_step(opened):
    tab = opened()
    ticks(tab, 20)
    tab.locator(".rnem-live-grouping canvas").first.click(position={"x": 30, "y": 30})
    pixel = widget(tab, "w.pixel")
    shown = [re.findall(r"[\d.]+", text) for text in tab.locator(".rnem-live-numbers pre").all_inner_texts()]
    size, K = 1024, 8
    assert len(shown) == K
    for k, (psi, p, gamma) in enumerate(shown):
        values = widget(
            tab, f"[w.watchers[0].state.psi[{k * size + pixel}], w.watchers[0].state.gamma[{k * size + pixel}]]"
        )
        assert (float(psi), float(gamma)) == (pytest.approx(values[0], abs=1e-3), pytest.approx(values[1], abs=1e-3))
        assert min(abs(float(p) - float(psi)), abs(float(p) - (1 - float(psi)))) < 2e-3
    assert sum(float(gamma) for _, _, gamma in shown) == pytest.approx(1, abs=0.01)


def test_it_is_played_by_keyboard_and_by_touch(opened):
    tab = opened("#live&scene=empty")
    tab.locator(".rnem-live-box canvas").focus()
    for key in ("l", "h", ".", "i"):
        tab.keyboard.press(key)
    assert widget(tab, "[w.balls.map((b) => b.mass).join(), w.frame, w.mode]") == ["1,6", 1, "imagine"]
    for key in ("ArrowUp", "ArrowLeft", "Enter"):
        tab.keyboard.press(key)
    assert widget(tab, "w.pixel") == 15 * 32 + 15
    tab.keyboard.press(" ")
    assert widget(tab, "w.playing") is True
    small = opened("#live&scene=empty", has_touch=True)
    small.set_viewport_size({"width": 390, "height": 844})
    canvas = small.locator(".rnem-live-box canvas")
    assert canvas.bounding_box()["width"] > 250
    canvas.tap(position={"x": 50, "y": 50})  # waits until the page has settled at its new width
    deadline = time.monotonic() + 20
    while widget(small, "w.pixel") is None:
        assert time.monotonic() < deadline, "a tap chooses no pixel"
        small.wait_for_timeout(50)
    assert small.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_address_sets_the_scene_and_a_link_changes_it(opened):
    tab = opened("#live&scene=five&seed=3&run=" + K3, paused=False)
    assert widget(tab, "[w.balls.length, w.settings.seed, w.watchers[0].network.K]") == [5, 3, 3]
    tab.get_by_role("link", name="eight balls").click()
    tab.wait_for_function("RNEM.widgets[0].balls.length === 8 && RNEM.widgets[0].watchers[0].network.K === 8")
    tab = opened("#live&scene=test&videos=balls3curtain&video=2")
    assert widget(tab, "[w.balls.length, w.watchers[0].run.label, w.curtain !== null]") == [3, CURTAIN, True]
    tab.get_by_role("button", name="A test video").click()
    tab.wait_for_function("RNEM.widgets[0].settings.video === 3")
    tab = opened("#live&imagine=4&stop=9", paused=False)
    tab.wait_for_function("RNEM.widgets[0].frame === 9 && !RNEM.widgets[0].playing")
    assert widget(tab, "w.watchers[0].imagined") == 5


def test_memory_is_steady_over_two_thousand_steps(opened):
    """One state kept a step would be 50 MB after these; the browser's own count moves by a few."""

    def used() -> int:
        return min(tab.evaluate("() => { gc(); return performance.memory.usedJSHeapSize; }") for _ in range(5))

    tab = opened("#live&run=" + K3)
    ticks(tab, 200)
    before = used()
    for _ in range(20):
        ticks(tab, 100)
    assert used() < before + 10_000_000


def test_without_javascript_there_is_a_picture_and_text(opened, html, browser):
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(120_000)
    tab = context.new_page()
    tab.goto(f"file://{html}/play.html")
    assert tab.locator(".rnem-live-still img").is_visible()
    assert tab.get_by_text("A picture for who does not play.").is_visible()
    context.close()


def test_a_dark_page_is_readable(opened):
    tab = opened(color_scheme="dark")
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    colours = tab.locator(".rnem-live button").first.evaluate(
        "(button) => ['color', 'backgroundColor'].map((name) => getComputedStyle(button)[name])"
    )
    ink, paper = (sum(map(float, re.findall(r"[\d.]+", colour)[:3])) for colour in colours)
    assert ink > paper + 300
