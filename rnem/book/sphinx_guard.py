"""Sphinx extension: no build publishes a notebook that is out of date without saying so.

Before any page is read, stale and missing notebooks are executed (rnem.book.chapters). With ``RNEM_BOOK_EXECUTE=never``
nothing is executed, and each of them is a warning, hence an error under ``-W``. A page that stays out of date says so
at its top. The directive ``notebook-state`` makes the table of all notebooks.
"""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from rnem import errors
from rnem.book import chapters

logger = logging.getLogger(__name__)
MODES = ("auto", "never")


def guard(app: Sphinx, config: Config) -> None:
    """Execute what is out of date, or warn of it; remembers what is still out of date afterwards."""
    mode = os.environ.get("RNEM_BOOK_EXECUTE", "auto")
    if mode not in MODES:
        raise ExtensionError(f"RNEM_BOOK_EXECUTE is {mode!r}, not one of {', '.join(MODES)}")
    root = Path(app.srcdir)
    for state in _states(root):
        name, reason = state.chapter.name, f"{state.state} ({state.why})"
        if state.state == "fresh":
            continue
        if mode == "never":
            logger.warning(f"the notebook of chapter {name} is {reason}: `rnem chapter {name}`", type="rnem")
            continue
        logger.info(f"executing chapter {name}, whose notebook is {reason}")
        try:
            chapters.execute(name, root=root)
        except errors.BookError as error:
            logger.warning(f"{error}; its page shows the last notebook that ran, if any", type="rnem")
    config.rnem_states = {f"chapters/{state.chapter.name}": state for state in _states(root)}
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    for docname in config.rnem_states:
        if docname not in toc:
            logger.warning(f"{docname}.md is not in _toc.yml, so no page shows it", type="rnem")


def _states(root: Path) -> list[chapters.Status]:
    try:
        return chapters.status(root)
    except (errors.BookError, OSError) as error:
        raise ExtensionError(str(error)) from None


def reread(app: Sphinx, env: BuildEnvironment, *changes) -> list[str]:
    """Pages whose banner comes or goes, and the tables of states: the pages to read again."""
    banners = {name: state.why for name, state in app.config.rnem_states.items() if state.state != "fresh"}
    before, env.rnem_banners = getattr(env, "rnem_banners", {}), banners
    changed = {name for name in {*before, *banners} if before.get(name) != banners.get(name)}
    return sorted((changed | getattr(env, "rnem_tables", set())) & env.found_docs)


def banner(app: Sphinx, doctree: nodes.document) -> None:
    """Say at the top of a page that its notebook is out of date, and why."""
    state = app.config.rnem_states.get(app.env.docname)
    if state is None or state.state == "fresh":
        return
    text = f"This page is out of date: its notebook is {state.state} ({state.brief})."
    title = next(iter(doctree.findall(nodes.title)), None)
    if title is not None:
        title.parent.insert(title.parent.index(title) + 1, nodes.warning("", nodes.paragraph(text, text)))


class NotebookState(SphinxDirective):
    """``notebook-state``: a row per chapter: state, commit, runs, seconds, hardware."""

    HEADS = ("chapter", "state", "executed at", "runs", "seconds", "hardware")

    def run(self) -> list[nodes.Node]:
        if not hasattr(self.env, "rnem_tables"):
            self.env.rnem_tables = set()
        self.env.rnem_tables.add(self.env.docname)
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in self.HEADS), cols=len(self.HEADS))
        group += nodes.thead("", _row(nodes.Text(head) for head in self.HEADS))
        group += nodes.tbody("", *(self._chapter(name, state) for name, state in self.config.rnem_states.items()))
        return [nodes.table("", group, classes=["notebook-state"])]

    def _chapter(self, docname: str, state: chapters.Status) -> nodes.row:
        record, name = state.record, state.chapter.name
        commit = str(record.get("commit"))[:8] + (" and uncommitted changes" if record.get("dirty") else "")
        link = nodes.literal(name, name)
        if docname in self.env.found_docs:
            uri = self.env.app.builder.get_relative_uri(self.env.docname, docname)
            link = nodes.reference("", "", nodes.Text(name), refuri=uri, internal=True)
        return _row(
            [
                link,
                nodes.Text(state.state if state.state == "fresh" else f"{state.state}: {state.brief}"),
                nodes.Text(commit if record else "–"),
                nodes.Text(str(len(record["runs"])) if record else "–"),
                nodes.Text(f"{record['seconds']:.0f}" if record else "–"),
                nodes.Text(record.get("hardware", "–")),
            ]
        )


def _row(cells) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def setup(app: Sphinx) -> dict:
    app.add_config_value("rnem_states", {}, "", [dict])
    app.connect("config-inited", guard, priority=100)  # before the table of contents looks for files
    app.connect("env-get-outdated", reread)
    app.connect("doctree-read", banner)
    app.add_directive("notebook-state", NotebookState)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
