"""Sphinx extension: the script and the style that play films (rnem.figures.films), on the pages that have one."""

from __future__ import annotations

import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

FOLDER = Path(__file__).parent
SCRIPT, STYLE = "film.js", "film.css"


def load(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Have a page load both where its body has a film."""
    if 'class="film"' in context.get("body", ""):
        app.add_js_file(SCRIPT, loading_method="defer")
        app.add_css_file(STYLE)


def copy(app: Sphinx) -> None:
    if app.builder.format == "html":
        target = Path(app.outdir) / "_static"
        target.mkdir(parents=True, exist_ok=True)
        for name in (SCRIPT, STYLE):
            shutil.copyfile(FOLDER / name, target / name)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", copy)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
