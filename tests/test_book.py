"""The book publishes a notebook only if it is what its inputs give: nothing stale, failed or edited goes unnoticed."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import expected
import nbformat
import pandas
import pytest
import torch
import yaml
from sphinx.errors import ExtensionError

from rnem import errors, paths
from rnem.book import cells, chapters, sphinx_buttons, sphinx_guard, sphinx_source, staleness
from rnem.book import notebook as notebooks
from rnem.claims import rules
from rnem.claims.measured import measure_with
from rnem.model import config
from rnem.runs import code, experiments, store
from rnem.runs.code import module_path
from rnem.runs.experiments import named

REPOSITORY = Path(__file__).resolve().parents[1]
RUN = named("smoke-balls4mass-rnn")
CHAPTER = """\
---
kernelspec: {name: python3, display_name: Python 3}
rnem:
  runs: [smoke-balls4mass-rnn]
  data: [videos/tiny.bin]
  parameters: {count: 3}
---
# A chapter

Two *words* of prose, and code: {src}`rnem.evaluation.metrics.ari`.

```{code-cell} ipython3
:tags: [parameters]
count = 2
```

```{code-cell} ipython3
from rnem.book import cells

seeds = [run.seed for run in cells.runs("small")["smoke-balls4mass-rnn"]]
print("seeds", seeds, "count", count, object())
```

```{code-cell} ipython3
import pandas

pandas.DataFrame({"a": [1]}).style
```
"""
DRAWING = """\
---
kernelspec: {name: python3, display_name: Python 3}
---
# A drawing

See {numref}`fig-drawing`, and {src}`the network <rnem.model.network.Network>`.

```{code-cell} ipython3
:tags: [hide-input]
import matplotlib.pyplot as plt
from rnem import figures
from rnem.book import cells

figure, axes = plt.subplots()
axes.plot([1, 4, 9])
figures.save(figure, "drawing", alt="A line that rises from 1 to 9.", caption="Squares of $k$.")
```

```{code-cell} ipython3
:tags: [remove-input]
from IPython.display import Markdown

Markdown(":::{dropdown} How this was judged\\nBy a rule.\\n:::")
```
"""


def save_run(seed: int, root: Path, updates: int = RUN.training.updates) -> store.Run:
    config = RUN.replace(seed=seed, updates=updates)
    known = {"wall_seconds": 60.0, "updates": updates, "sequences_seen": 8 * updates}
    metrics = [{"update": 1, "sequences": 8, "bce": 2.0}, {"update": 2, "sequences": 16, "bce": 1.0}]
    return store.save(config, weights={"w": torch.ones(2)}, metrics=metrics, manifest=known, root=root)


def write_book(root: Path, **chapters: str) -> Path:
    folder = root / "book"
    (folder / "chapters").mkdir(parents=True)
    listed = "".join(f"  - file: chapters/{name}\n" for name in chapters)
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{listed}  - file: state\n")
    (folder / "intro.md").write_text("# A book\n")
    (folder / "state.md").write_text("# State\n\n```{notebook-state}\n```\n")
    (folder / "references.bib").write_text("")
    shutil.copy(REPOSITORY / "_config.yml", root)
    shutil.copytree(REPOSITORY / "book" / "_static", folder / "_static", dirs_exist_ok=True)
    for name, text in chapters.items():
        (folder / "chapters" / f"{name}.md").write_text(text)
    return folder


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """A book of one executed chapter, with one run and one data file."""
    root = tmp_path_factory.mktemp("executed")
    save_run(0, root / "data" / "runs")
    (root / "data" / "videos").mkdir()
    (root / "data" / "videos" / "tiny.bin").write_bytes(b"1")
    folder = write_book(root, small=CHAPTER)
    with notebooks.environ(RNEM_DATA=root / "data"):
        chapters.execute("small", root=folder)
    return root


@pytest.fixture
def root(executed, tmp_path, monkeypatch):
    """A copy of it, to change."""
    shutil.copytree(executed, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("RNEM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RNEM_BOOK", str(tmp_path / "book"))
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def state(root: Path) -> tuple[str, str]:
    (only,) = chapters.status(root / "book")
    return only.state, only.why


# ----------------------------------------------------------------------------------------------------------- staleness


def test_a_notebook_just_executed_is_fresh(root):
    assert state(root) == ("fresh", "")


def test_a_notebook_that_is_not_there_is_missing(root):
    (root / "book" / "chapters" / "small.ipynb").unlink()
    assert state(root)[0] == "missing"


def source(root):
    return root / "book" / "chapters" / "small.md"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda root: edit(source(root), "object())", "None)"), "code cells changed; prose changed"),
        (lambda root: edit(source(root), "Two *words*", "Three *words*"), "prose changed"),
        (lambda root: edit(source(root), "count: 3", "count: 4"), "prose changed; parameters changed"),
        (lambda root: (root / "data/videos/tiny.bin").write_bytes(b"2"), "data videos/tiny.bin changed"),
        (lambda root: (root / "data/videos/tiny.bin").unlink(), "data videos/tiny.bin changed"),
        (lambda root: edit(source(root).with_suffix(".ipynb"), "seeds [0]", "seeds [7]"), "edited by hand"),
    ],
)
def test_a_changed_input_makes_it_stale_and_is_named(root, change, why):
    change(root)
    assert state(root) == ("stale", state(root)[1])
    assert why in state(root)[1]


def test_a_new_seed_makes_it_stale(root):
    new = save_run(1, root / "data" / "runs")
    assert state(root) == ("stale", f"run {new.path.name} is new")


def test_a_run_that_is_not_exactly_as_named_changes_no_page_no_verdict_and_no_table(root):
    """``rnem train NAME --seed 9 --updates 10`` once put an untrained network into every claim."""

    def everything():
        found = cells.runs("small")
        numbers = {name: [run.path.name for run in members] for name, members in found.items()}
        measured = measure_with(found)("rnn", rules.Measure("sequences", until="rnn"))
        row = expected.named("RNN", RUN.name, lambda members: {"runs": str([run.path.name for run in members])})
        return state(root), numbers, measured, row

    before = everything()
    assert before[0] == ("fresh", "")
    assert before[2].keys() == {0}
    save_run(9, root / "data" / "runs", updates=10)
    save_run(0, root / "data" / "runs", updates=400)
    assert everything() == before


def test_a_run_of_another_name_does_not_matter(root):
    config = named("smoke-balls4mass-lstm")
    known = {"wall_seconds": 1.0, "updates": 10, "sequences_seen": 80}
    store.save(config, weights={}, metrics=[{"update": 1}], manifest=known, root=root / "data" / "runs")
    assert state(root) == ("fresh", "")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("book.cells", "stale"),
        ("runs.files", "stale"),
        ("runs", "stale"),
        ("training.train", "fresh"),
        ("book.chapters", "fresh"),
        ("", "fresh"),
    ],
    ids=[
        "imported",
        "imported by what is imported",
        "a package around it",
        "not imported",
        "what executes it",
        "public names that it does not use",
    ],
)
def test_code_matters_where_the_chapter_imports_it(root, monkeypatch, module, expected):
    sources = root / "sources"
    shutil.copytree(REPOSITORY / "rnem", sources / "rnem", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "SOURCES", sources)
    module = ".".join(filter(None, ("rnem", module)))
    with code.module_path(module).open("a") as file:
        file.write("\nCHANGED = True\n")
    assert state(root) == (expected, f"{module} changed" if expected == "stale" else "")


def test_imports_are_found_however_they_are_written():
    cells_ = [
        "%matplotlib inline\nimport rnem.runs.experiments as c\n",
        "def f():\n    from rnem.training.muon import *\n",
        "!ls\n",
    ]
    found = code.imported(cells_)
    assert set(found) >= {"rnem.runs", "rnem.runs.experiments", "rnem.training", "rnem.training.muon"}
    assert not [name for name in found if name.startswith("rnem.cli")]


@pytest.mark.parametrize("gone", ["from rnem import cells", "from rnem.analysis import cells", "import rnem.cells"])
def test_a_chapter_that_imports_a_module_which_moved_is_named(root, gone):
    edit(source(root), "from rnem.book import cells", gone)
    with pytest.raises(errors.BookError, match=r"^chapter small: code imports rnem\.[\w.]*cells, and there is no /"):
        chapters.status(root / "book")


def test_a_declaration_with_a_typing_error_is_named(root):
    edit(source(root), "  runs: [", "  rums: [")
    with pytest.raises(errors.BookError, match=r"chapter small: .*'rums', which is none of runs, data, parameters"):
        chapters.status(root / "book")


# ----------------------------------------------------------------------------------------------------------- execution


def test_cells_get_the_runs_that_the_chapter_declares_and_its_parameters(executed):
    notebook = nbformat.read(executed / "book/chapters/small.ipynb", as_version=4)
    printed = [out.text for cell in notebook.cells for out in cell.get("outputs", []) if "text" in out]
    assert printed == ["seeds [0] count 3 <object object at 0x…>\n"]
    (table,) = [out.data["text/html"] for cell in notebook.cells for out in cell.get("outputs", []) if "data" in out]
    assert re.findall(r'table id="(.*?)"', table) == ["T_cell-5"]  # pandas draws another id each time
    (injected,) = [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "remove-input" in injected.metadata["tags"]


def test_the_notebook_says_what_made_it_and_nothing_that_only_the_clock_decides(executed):
    text = (executed / "book/chapters/small.ipynb").read_text()
    record = json.loads(text)["metadata"]["rnem"]
    assert record["parameters"] == {"count": 3}
    assert [name.rsplit("-", 1)[0] for name in record["runs"]] == [RUN.name]
    assert {"key", "commit", "seconds", "hardware"} <= record.keys()
    assert str(executed) not in text
    assert "start_time" not in text


def test_a_failing_chapter_is_not_published_and_the_old_one_stays(root):
    notebook = root / "book/chapters/small.ipynb"
    before = notebook.read_bytes()
    edit(source(root), "object())", "1 / 0)")
    with pytest.raises(errors.BookError, match=r"chapter small failed in code cell \d .*ZeroDivisionError") as caught:
        chapters.execute("small")
    assert "\n" not in str(caught.value)
    assert notebook.read_bytes() == before
    assert {path.name for path in notebook.parent.iterdir()} == {"small.md", "small.ipynb"}
    assert state(root)[0] == "failed"
    assert "ZeroDivisionError" in (root / "_build/failed/small.ipynb").read_text()
    edit(source(root), "1 / 0)", "object())")
    assert state(root)[0] == "fresh"


def test_where_only_prose_changed_outputs_are_kept_and_nothing_runs(root, monkeypatch):
    monkeypatch.setattr(notebooks, "run", lambda *_: pytest.fail("it ran"))
    edit(source(root), "Two *words*", "Three *words*")
    text = chapters.execute("small").read_text()
    assert "Three *words*" in text
    assert "seeds [0] count 3" in text
    assert state(root) == ("fresh", "")


def test_where_the_repository_got_another_address_its_cell_comes_and_nothing_runs(root, monkeypatch):
    monkeypatch.setattr(notebooks, "run", lambda *_: pytest.fail("it ran"))
    for url in ("https://github.com/somebody/rnem", ""):
        settings = yaml.safe_load((root / "_config.yml").read_text())
        settings["repository"]["url"] = url
        (root / "_config.yml").write_text(yaml.safe_dump(settings))
        assert state(root) == ("stale", "address of the repository changed")
        text = chapters.execute("small").read_text()
        assert ("git clone" in text) == bool(url)
        assert "seeds [0] count 3" in text
        assert state(root) == ("fresh", "")


def test_what_a_killed_execution_left_goes_with_the_next_call_for_that_chapter(root):
    left = root / "book" / "chapters" / ".running-small+abc.ipynb", root / "figures" / ".drawing-small+abc"
    others = root / "book" / "chapters" / ".running-small-too+abc.ipynb"
    (root / "figures").mkdir(exist_ok=True)
    left[1].mkdir()
    for path in (left[0], left[1] / "half.svg", others):
        path.touch()
    chapters.execute("small")
    assert not any(path.exists() for path in left)
    assert others.exists()


def test_parameters_of_your_own_go_elsewhere_and_leave_the_book_alone(root):
    before = (root / "book/chapters/small.ipynb").read_bytes()
    with pytest.raises(errors.BookError, match="say where"):
        chapters.execute("small", {"count": 5})
    output = chapters.execute("small", {"count": 5}, output=root / "mine.ipynb")
    assert "count 5" in output.read_text()
    assert (root / "book/chapters/small.ipynb").read_bytes() == before
    assert state(root) == ("fresh", "")


def test_a_chapter_whose_run_is_not_finished_says_which_command_trains_it(root):
    edit(source(root), "smoke-balls4mass-rnn]", "smoke-balls4mass-rnn, paper-balls4mass-lstm]")
    with pytest.raises(errors.BookError, match="needs a finished run: `rnem train paper-balls4mass-lstm --seed 0`"):
        chapters.execute("small")


def test_a_pattern_may_match_no_run(root):
    edit(source(root), "smoke-balls4mass-rnn]", "smoke-balls4mass-rnn, paper-*-lstm]")
    assert [*cells.runs("small")] == [RUN.name]


def test_a_chapter_that_does_not_exist_is_named(root):
    with pytest.raises(errors.BookError, match="no chapter 'smal'; the book has small"):
        chapters.execute("smal")


# --------------------------------------------------------------------------------------------------------- built pages


def build(root: Path, mode: str) -> subprocess.CompletedProcess:
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", "book/", "-W", "--keep-going"]
    environment = os.environ | {"RNEM_BOOK_EXECUTE": mode, "RNEM_DATA": str(root / "data"), "NO_COLOR": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def built(executed, tmp_path_factory):
    """The book with a second chapter that was never executed, built once."""
    root = tmp_path_factory.mktemp("built")
    write_book(root, small=CHAPTER, drawing=DRAWING)
    shutil.copytree(executed / "data", root / "data")
    shutil.copy(executed / "book/chapters/small.ipynb", root / "book/chapters")
    done = build(root, "auto")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return root


class Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.path, self.text, self.images, self.links, self.ids = path, path.read_text(encoding="utf-8"), [], [], set()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "img":
            self.images.append(found)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])


def test_the_build_executes_what_is_missing_and_shows_it(built):
    assert chapters.state_of(chapters.chapter("drawing", built / "book")).state == "fresh"
    page = Page(built / "_build/html/chapters/drawing.html")
    (image,) = [image for image in page.images if "_images/" in image["src"]]
    assert image["alt"] == "A line that rises from 1 to 9."
    assert (page.path.parent / image["src"]).is_file()
    assert "Fig. 1" in page.text
    assert re.search(r'<details class="sd-[^>]*sd-dropdown', page.text), "a directive in an output that is Markdown"
    assert page.text.index("_images/") < page.text.index('<details class="admonition hide above-input'), "code below"


def test_published_figures_are_files_with_their_history(built):
    sidecar = json.loads((built / "figures/drawing.json").read_text())
    assert sidecar["command"] == "rnem chapter drawing"
    assert all((built / "figures" / name).stat().st_size > 1000 for name in sidecar["files"])
    assert sorted(path.name for path in (built / "figures").iterdir()) == ["drawing.json", "drawing.png", "drawing.svg"]


def test_buttons_lead_to_the_repository_that_is_set_and_to_none_where_it_is_not(built, tmp_path):
    text = Page(built / "_build/html/chapters/drawing.html").text
    url = yaml.safe_load((built / "_config.yml").read_text())["repository"]["url"]
    assert ("mybinder.org" in text, "colab.research.google.com" in text) == 2 * (bool(url),)
    for url in ("", "https://github.com/somebody/rnem"):
        (tmp_path / "_config.yml").write_text(f'repository: {{url: "{url}"}}\n')
        source = chapters.chapter("drawing", built / "book").read()
        prepared = notebooks.prepare(source, {}, tmp_path / "_config.yml").cells
        cloned = [re.search(r"git clone --quiet --depth 1 (\S+)", cell.source) for cell in prepared]
        assert [match[1] for match in cloned if match] == [url] * bool(url)
        config = SimpleNamespace(html_theme_options={"repository_url": url})
        sphinx_buttons.buttons(None, config)
        options = config.html_theme_options
        assert bool(options["launch_buttons"]) == options["use_repository_button"] == bool(url)


def test_equations_show_without_a_network(built):
    page = Page(built / "_build/html/chapters/drawing.html")
    assert "_static/tex-svg.js" in page.text
    assert (built / "_build/html/_static/tex-svg.js").is_file()


def test_every_link_between_the_built_pages_leads_somewhere(built):
    html = built / "_build" / "html"
    pages = {path.resolve(): Page(path) for path in html.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            address, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", address) or anchor == "main-content":
                continue
            target = (path.parent / address).resolve() if address else path
            assert target.is_file(), f"{path.name} links to {link}"
            assert not anchor or target not in pages or anchor in pages[target].ids, f"{path.name} links to {link}"


def test_an_equations_code_links_back_to_its_chapter(built):
    page = Page(built / "_build/html/code/rnem.model.network.html")
    assert "../chapters/drawing.html" in page.links
    assert "Network" in page.ids


def test_the_page_of_states_is_made_from_the_notebooks(built):
    text = Page(built / "_build/html/state.html").text
    assert text.count("<p>fresh</p>") == 2


def test_a_build_that_may_not_execute_fails_on_a_stale_and_on_a_missing_notebook(built, tmp_path):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    edit(source(tmp_path), "object())", "1 / 0)")
    (tmp_path / "book/chapters/drawing.ipynb").unlink()
    done = build(tmp_path, "never")
    assert done.returncode != 0
    assert "the notebook of chapter small is stale (code cells changed; prose changed)" in done.stderr
    assert "the notebook of chapter drawing is missing" in done.stderr
    text = Page(tmp_path / "_build/html/chapters/small.html").text
    assert "This page is out of date: its notebook is stale (code cells changed; prose changed)." in text


def test_a_chapter_that_fails_while_the_book_is_built_is_a_warning(root, monkeypatch, caplog):
    monkeypatch.setattr(notebooks, "run", lambda notebook, folder, name: (notebook, "code cell 2: ValueError: no"))
    edit(source(root), "object())", "None)")
    config = SimpleNamespace()
    sphinx_guard.guard(SimpleNamespace(srcdir=root / "book"), config)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("chapter small failed in code cell 2: ValueError: no")
    assert config.rnem_states["chapters/small"].state == "failed"


def test_a_mode_with_a_typing_error_stops_the_build(root, monkeypatch):
    monkeypatch.setenv("RNEM_BOOK_EXECUTE", "newer")
    with pytest.raises(ExtensionError, match="'newer', not one of auto, never"):
        sphinx_guard.guard(SimpleNamespace(srcdir=root / "book"), SimpleNamespace())


# ------------------------------------------------------------------------------------------------------ the book itself


def published() -> list[Path]:
    return sorted((REPOSITORY / "book" / "chapters").glob("[!.]*.ipynb"))


def test_every_published_notebook_ran_to_its_end():
    for path in published():
        outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
        assert not [out.ename for out in outputs if out.output_type == "error"], path.name


def test_no_text_that_a_cell_shows_is_empty():
    """Of an empty one the page would show how Python names it."""
    for each in chapters.chapters(REPOSITORY / "book"):
        shown = [
            output.get("data", {}) for cell in chapters.published(each).cells for output in cell.get("outputs", [])
        ]
        assert all(data.get("text/markdown", "something").strip() for data in shown), each.name


def test_every_picture_has_an_alt_text():
    for path in published():
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if any(mime.startswith("image/") for out in cell.get("outputs", []) for mime in out.get("data", {})):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt) > 10, f"{path.name}, cell {number}"


def test_every_figure_file_says_where_it_came_from():
    for path in (REPOSITORY / "figures").glob("[!.]*"):
        if path.suffix in (".svg", ".png", ".gif"):
            sidecar = json.loads(path.with_suffix(".json").read_text())
            assert path.name in sidecar["files"]
            assert sidecar["alt"]
            assert sidecar["command"].startswith("rnem chapter ")


def test_a_states_own_readers_read_as_jupytext_and_nbformat():
    for each in chapters.chapters(REPOSITORY / "book"):
        code = [cell.source for cell in each.read().cells if cell.cell_type == "code"]
        assert staleness.code_cells(each.text()) == code, each.name
    for path in published():
        assert staleness.read_notebook(path) == nbformat.read(path, as_version=4), path.name


def test_the_states_of_all_pages_are_known_without_loading_what_takes_seconds():
    code = "import sys; from rnem.book import chapters; chapters.status(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "pandas", "nbformat", "jupytext"} & set(loaded)


def test_no_chapter_runs_what_a_file_says():
    for each in chapters.chapters(REPOSITORY / "book"):
        for cell in each.read().cells:
            tree = ast.parse(cell.source if cell.cell_type == "code" else "")
            called = {
                node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")
            }
            assert not called & {"eval", "exec", "compile", "__import__"}, each.name


def test_the_recipes_page_reads_the_curricula_of_the_table(monkeypatch):
    monkeypatch.delenv("RNEM_DATA", raising=False)
    page = chapters.chapter("recipe", REPOSITORY / "book").read()
    (code,) = [cell.source for cell in page.cells if "recipe.csv" in cell.source]
    scope = {
        "ast": ast,
        "pd": pandas,
        "store": store,
        "experiments": experiments,
        "paths": paths,
        "config": config,
        "Markdown": str,
    }
    exec(code, scope)
    assert set(scope["shown"]["curriculum"]) == {"", "6 steps up to 70%"}


def test_every_chapter_is_in_the_table_of_contents():
    toc = (REPOSITORY / "book" / "_toc.yml").read_text()
    assert [c.name for c in chapters.chapters() if f"chapters/{c.name}" not in toc] == []


def test_every_link_from_the_text_to_code_finds_it():
    for path in (REPOSITORY / "book").rglob("*.md"):
        for symbol in re.findall(r"\{src\}`(?:[^`<]*<)?([\w.]+)>?`", path.read_text(encoding="utf-8")):
            module, name = sphinx_source.split(symbol)
            code = module_path(module)
            assert code.is_file(), f"{path.name}: {symbol}"
            assert not name or name in sphinx_source.definitions(code.read_text(encoding="utf-8")), symbol
