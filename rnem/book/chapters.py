"""Chapters of the book: which executed notebooks are out of date, and executing them again.

A chapter is one text file, ``book/chapters/NAME.md`` (jupytext MyST Markdown). Its notebook ``NAME.ipynb`` is made
from it: executed by papermill, committed beside it, and published only when every cell ran. The front matter declares
what else the chapter depends on, so that staleness is decided without executing anything:

    rnem:
      runs: [laptop-balls4mass-rnem-k5, laptop-balls4mass-lstm]   # needed; a pattern (…-k*) may match none
      data: [videos/balls4mass32-test.h5]                         # files below the data folder
      parameters: {videos: 500}                                   # what papermill injects, where not the cell's own

The inputs are: code cells and declaration, prose, the repository's address (of the Colab cell), each ``rnem`` module
that the cells import directly or not, each run (its manifest's digest covers weights and metrics), each data file, and
the parameters. The notebook stores all of them, so that a stale one can say WHICH changed. Runs and data are the
laptop's where no parameter says otherwise: with ``parameters: {profile: smoke}`` the same declaration is about the runs
and videos of that profile (rnem.book.parameters).
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import filelock

from rnem import paths
from rnem.book import cells, parameters, staleness
from rnem.book import notebook as notebooks
from rnem.errors import BookError, ChapterError
from rnem.paths import repository
from rnem.runs import files, store
from rnem.runs.code import code_digest, imported
from rnem.runs.provenance import environment

if TYPE_CHECKING:
    import nbformat  # which takes seconds to import, as jupytext does; a state needs neither

ADDRESS = "address of the repository"
State = Literal["fresh", "stale", "missing", "failed"]
SHOWN = 4
"""Reasons that are given for a page that is out of date."""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One chapter: its text source and the notebook made from it."""

    name: str
    root: Path

    @property
    def source(self) -> Path:
        return self.root / "chapters" / f"{self.name}.md"

    @property
    def notebook(self) -> Path:
        return self.source.with_suffix(".ipynb")

    @property
    def failed(self) -> Path:
        """Where the notebook of a failed execution is kept, to look at; never published."""
        return self.root.parent / "_build" / "failed" / f"{self.name}.ipynb"

    def text(self) -> str:
        """The source; BookError where it cannot be read."""
        try:
            return self.source.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BookError(f"chapter {self.name} cannot be read from {self.source}: {error}") from None

    def read(self) -> nbformat.NotebookNode:
        """The source as a notebook without outputs."""
        import jupytext

        return jupytext.reads(self.text(), fmt="md:myst")

    def declares(self) -> dict:
        """What its front matter says it depends on: runs, data, parameters."""
        try:
            return cells.declared(self.source)
        except (OSError, UnicodeDecodeError, ChapterError) as error:
            raise BookError(f"chapter {self.name}: {error}") from None

    def parameters(self, given: dict | None = None) -> dict:
        """What papermill injects: those it declares, and those given instead."""
        return self.declares()["parameters"] | (given or {})

    def chosen(self, given: dict | None = None) -> parameters.Chosen:
        """The profile, device and seeds of an execution."""
        try:
            return parameters.check(self.parameters(given))
        except ChapterError as error:
            raise BookError(f"chapter {self.name}: {error}") from None

    def runs(self, given: dict | None = None) -> dict[str, list[store.Run]]:
        """The runs that it declares: name -> one per seed, none where none is finished; weights are not hashed."""
        return cells.resolve(self.declares()["runs"], self.chosen(given), weights=False)


@dataclasses.dataclass(frozen=True)
class Status:
    """Whether a chapter's notebook is what its inputs would give today, and if not, which of them changed."""

    chapter: Chapter
    state: State
    why: str
    record: dict
    """``metadata.rnem`` of the published notebook; empty where there is none."""

    @property
    def brief(self) -> str:
        """The first few reasons of ``why``, and how many more there are: a module that moved is one for every page."""
        reasons = self.why.split("; ")
        more = len(reasons) - SHOWN
        return "; ".join(reasons[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


# --------------------------------------------------------------------------------------------------------------- status


def chapters(root: Path | None = None) -> list[Chapter]:
    """Every chapter that has a source, in the order of the table of contents."""
    root = paths.book_root() if root is None else Path(root)
    toc = (root / "_toc.yml").read_text(encoding="utf-8") if (root / "_toc.yml").exists() else ""
    names = sorted(path.stem for path in (root / "chapters").glob("[!.]*.md"))
    return [Chapter(name, root) for name in sorted(names, key=lambda n: toc.find(f"chapters/{n}") % (len(toc) + 1))]


def chapter(name: str, root: Path | None = None) -> Chapter:
    """The chapter of that name; BookError lists the others."""
    found = {each.name: each for each in chapters(root)}
    if name not in found:
        raise BookError(f"there is no chapter {name!r}; the book has {', '.join(found) or 'none'}")
    return found[name]


def inputs(chapter: Chapter, given: dict | None = None) -> dict[str, str]:
    """Everything the notebook depends on: what it is -> a digest of it (BookError where the source cannot be read).

    ``given``: parameters other than the declared ones.
    """
    declared, text = chapter.declares(), chapter.text()
    code = staleness.code_cells(text)
    tree = {
        "code cells": staleness.digest([code, declared["runs"], declared["data"]]),
        "prose": staleness.digest(text),
        "parameters": staleness.digest(chapter.parameters(given)),
        ADDRESS: staleness.digest(notebooks.address(chapter.root.parent / "_config.yml")),
    }
    with _named(chapter):
        modules = imported(code)
    tree |= {name: code_digest([name])[:16] for name in modules}
    for name, found in chapter.runs(given).items():
        tree |= {f"run {run.path.name}": run.manifest["digest"][:16] for run in found}
        tree |= {} if found else {f"run {name}": "none is finished"}
    files = map(chapter.chosen(given).declared_file, declared["data"])
    tree |= {f"data {name}": staleness.digest_file(paths.data_root() / name) for name in files}
    return tree


def status(root: Path | None = None) -> list[Status]:
    """The state of every chapter's notebook, in the book's order; nothing is executed."""
    return [state_of(each) for each in chapters(root)]


def state_of(chapter: Chapter) -> Status:
    """The state of one chapter's notebook."""
    now, record, notebook = inputs(chapter), {}, None
    if chapter.notebook.exists():
        try:
            notebook = staleness.read_notebook(chapter.notebook)
            record = notebook["metadata"].get("rnem", {})
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            return Status(chapter, "stale", f"its notebook cannot be read: {str(error).splitlines()[0]}", {})
    if (error := _failure(chapter)) and error["key"] == key(now):
        return Status(chapter, "failed", error["error"], record)
    if notebook is None:
        return Status(chapter, "missing", "it was never executed", {})
    if "inputs" not in record:
        return Status(chapter, "stale", "its notebook was not made by `rnem chapter`", record)
    changes = staleness.changes(record["inputs"], now)
    if record.get("content") != staleness.digest(notebook["cells"]):
        changes.append("the notebook was edited by hand")
    return Status(chapter, "stale" if changes else "fresh", "; ".join(changes), record)


def key(tree: dict[str, str]) -> str:
    """One digest over all inputs."""
    return staleness.digest(tree)


def _failure(chapter: Chapter) -> dict | None:
    try:
        return json.loads(chapter.failed.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# ------------------------------------------------------------------------------------------------------------ execution


def execute(
    name: str,
    given: dict | None = None,
    *,
    output: Path | None = None,
    force: bool = False,
    root: Path | None = None,
) -> Path:
    """Execute a chapter and publish its notebook and figures together, or nothing; the notebook's path.

    A fresh one is left alone unless ``force``; where only prose or the repository's address changed, outputs are kept
    and nothing runs. With parameters ``given`` other than the declared ones the notebook goes to ``output``, and the
    book stays as it is.
    BookError names the cell and its error; the old notebook stays, the failed one is kept below ``_build/failed``.
    RunError where the disk is full or read-only.
    """
    this = chapter(name, root)
    if given is not None and output is None:
        raise BookError(f"chapter {name} with parameters of your own is not the book's: say where its notebook goes")
    lock = this.root.parent / "_build" / "locks" / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(f"chapter {name}"), filelock.FileLock(lock):
        notebooks.sweep(this.source.parent, this.root.parent / "figures", name)
        if output is not None:
            _run(this, given, inputs(this, given), Path(output), None)
            return Path(output)
        old = state_of(this)
        if old.state == "fresh" and not force:
            return this.notebook
        shown_only = {f"{name} changed" for name in ("prose", ADDRESS)}
        if old.state == "stale" and set(old.why.split("; ")) <= shown_only and not force:
            new = notebooks.with_outputs(_prepared(this, this.parameters()), published(this))
            _stamp(new, old.record | {"inputs": inputs(this), "key": key(inputs(this))})
            notebooks.write(new, this.notebook)
            return this.notebook
        _run(this, None, inputs(this), this.notebook, this.root.parent / "figures")
    return this.notebook


def _run(chapter: Chapter, given: dict | None, tree: dict[str, str], target: Path, figures: Path | None) -> None:
    needed, injected = chapter.runs(given), chapter.parameters(given)
    if missing := [name for name, found in needed.items() if not found]:
        raise BookError(f"chapter {chapter.name} needs a finished run: `rnem train {missing[0]} --seed 0`")
    target.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    variables = {"RNEM_BOOK": chapter.root, "RNEM_CHAPTER": chapter.name}
    with notebooks.scratch(figures, chapter.name) as drawn, notebooks.environ(RNEM_FIGURES=drawn, **variables):
        notebook, error = notebooks.run(_prepared(chapter, injected), chapter.source.parent, chapter.name)
        if error:
            _keep_failed(chapter, notebook, key(tree), error)
            raise BookError(f"chapter {chapter.name} failed in {error} (all of it: {chapter.failed})")
        with _named(chapter):
            notebooks.clean(notebook, repository())
        where = environment()
        record = {
            "key": key(tree),
            "inputs": tree,
            "parameters": injected,
            "runs": sorted(run.path.name for found in needed.values() for run in found),
            "commit": where["commit"],
            "dirty": where["dirty"],
            "seconds": round(time.monotonic() - start, 1),
            "hardware": where["hardware"],
        }
        if figures is not None:
            notebooks.publish_figures(drawn, figures, chapter.name)
        _stamp(notebook, record)
        notebooks.write(notebook, target)
    for suffix in (".ipynb", ".json"):
        chapter.failed.with_suffix(suffix).unlink(missing_ok=True)


def _prepared(chapter: Chapter, injected: dict) -> nbformat.NotebookNode:
    with _named(chapter):
        return notebooks.prepare(chapter.read(), injected, chapter.root.parent / "_config.yml")


@contextmanager
def _named(chapter: Chapter) -> Iterator[None]:
    try:
        yield
    except ChapterError as error:
        raise BookError(f"chapter {chapter.name}: {error}") from None


def published(chapter: Chapter) -> nbformat.NotebookNode:
    """The notebook that a chapter has; OSError where there is none."""
    import nbformat

    return nbformat.read(chapter.notebook, as_version=4)


def _stamp(notebook: nbformat.NotebookNode, record: dict) -> None:
    notebook.metadata["rnem"] = record | {"content": staleness.digest(notebook.cells)}


def _keep_failed(chapter: Chapter, notebook: nbformat.NotebookNode, key: str, error: str) -> None:
    notebooks.write(notebook, chapter.failed)
    chapter.failed.with_suffix(".json").write_text(json.dumps({"key": key, "error": error}) + "\n", encoding="utf-8")
