"""Sphinx extension: the directive ``live``, a finished run that lives in the page.

    ```{live} laptop-balls4mass-rnem-k8@0 laptop-balls4mass-rnem-k5@0
    :start: scene=collision
    What the picture shows, for who does not play.
    ```

The first run is the one that plays; the others are loaded when chosen. ``NEW|OLD`` stands for the first of them that is
finished. Each build writes the runs' scripts and the program from rnem/live into ``_live`` of its output, from the
verified runs of the cache, and only pages with the directive load them. A page is read again where its runs change.

The role {play}`eight balls <scene=eight>` links to the page PAGE with a state in the address.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole, SphinxDirective

from rnem.errors import RnemError

# Whatever needs torch is imported where it is used: most builds read no page with a run in it.
if TYPE_CHECKING:
    from rnem.runs.store import Run

logger = logging.getLogger(__name__)
FOLDER = "_live"
VIDEOS = "videos.js"
PAGE = "play"
"""The page that links with a state lead to."""


def chosen(text: str) -> Run:
    """Return the first finished run of ``NAME@SEED|NAME@SEED|...`` as it is named; RnemError where there is none."""
    from rnem import paths
    from rnem.runs import store

    for label in text.split("|"):
        name, _, seed = label.partition("@")
        for run in store.exactly(name):
            if run.seed == int(seed or 0):
                return run
    raise RnemError(f"no finished run of {text} in {paths.runs_root()}")


def file_of(run: Run, ending: str) -> str:
    """Return the name of a file that is made of a run; another run gives another name, so no browser has an old one."""
    digest = run.manifest["files"]["weights.safetensors"]["sha256"]
    return f"{run.config.name}-{run.seed}-{run.key}-{digest[:8]}.{ending}"


class PlayRole(ReferenceRole):
    """{play}`eight balls <scene=eight>`: a link to the page, with a state in the address.

    Its ``run=NEW|OLD`` stands for the first of them that is finished, as in the directive.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        text = nodes.inline(self.title, self.title)
        if self.env.app.builder.format != "html":
            return [text], []
        try:
            state = re.sub(r"(?<=run=)[^&]+", lambda match: self._label(match[0]), self.target)
        except (RnemError, ValueError) as error:
            logger.warning(f"this links to nothing that lives: {error}", location=self.get_location(), type="rnem")
            return [text], []
        uri = "" if self.env.docname == PAGE else self.env.app.builder.get_relative_uri(self.env.docname, PAGE)
        return [nodes.reference("", "", text, refuri=f"{uri}#live&{state}", internal=True)], []

    def _label(self, text: str) -> str:
        """Return the label of the run that a text means now; the page is read again where it means another."""
        run = chosen(text)
        pages = self.env.rnem_live = getattr(self.env, "rnem_live", {})
        pages.setdefault(self.env.docname, {}).setdefault(text, set()).add(file_of(run, "js"))
        return run.label


class Live(SphinxDirective):
    """``live``: a box to throw balls into, and runs that watch it."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"start": directives.unchanged, "small": directives.flag}

    def run(self) -> list[nodes.Node]:
        pages = self.env.rnem_live = getattr(self.env, "rnem_live", {})  # page -> run as named -> files
        try:
            found = {text: chosen(text) for text in self.arguments[0].split()}
        except (RnemError, ValueError) as error:
            logger.warning(f"nothing lives here: {error}", location=self.get_location(), type="rnem")
            return []
        for run in found.values():
            for path in run.path.iterdir():
                self.env.note_dependency(str(path))
        page = pages.setdefault(self.env.docname, {})
        for place, (text, run) in enumerate(found.items()):
            page.setdefault(text, set()).update(file_of(run, ending) for ending in ("js", *(["png"] * (place == 0))))
        if self.env.app.builder.format != "html":
            return []
        different = list({run.label: run for run in found.values()}.values())
        return self._nodes(different, "../" * self.env.docname.count("/") + f"{FOLDER}/")

    def _nodes(self, found: list[Run], folder: str) -> list[nodes.Node]:
        known = {
            "folder": folder,
            "start": self.options.get("start", ""),
            "small": "small" in self.options,
            "runs": [_described(run) for run in found],
        }
        attributes = html.escape(json.dumps(known), quote=True)
        still = nodes.container("", classes=["rnem-live-still"])
        picture = f'<img src="{folder}{file_of(found[0], "png")}" alt="{html.escape(_caption(found[0]))}">'
        still += nodes.raw("", picture, format="html")
        self.state.nested_parse(self.content, self.content_offset, still)
        head = f'<link rel="stylesheet" href="{folder}{_versioned("live.css")}">'
        head += f'<div class="rnem-live" data-live="{attributes}">'
        names = [VIDEOS, *map(_versioned, _scripts())]
        scripts = "".join(f'<script defer src="{folder}{name}"></script>' for name in names)
        return [nodes.raw("", head, format="html"), still, nodes.raw("", "</div>" + scripts, format="html")]


def _described(run: Run) -> dict:
    """What a page knows of a run before it is loaded."""
    network = run.config.network
    known = {"label": run.label, "file": file_of(run, "js"), "model": network.model, "components": network.components}
    return known | {"data": run.config.data, "profile": run.config.profile}


def _caption(run: Run) -> str:
    return f"A test video, what {run.label} predicts of it, and its grouping of the pixels, at six times."


def _scripts() -> tuple[str, ...]:
    from rnem import live

    return live.SCRIPTS


def _versioned(name: str) -> str:
    """A file of the program with a digest of its content, so that no browser takes an old one from its cache."""
    from rnem import live

    return f"{name}?{hashlib.sha256((live.FOLDER / name).read_bytes()).hexdigest()[:8]}"


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    getattr(env, "rnem_live", {}).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    pages = env.rnem_live = getattr(env, "rnem_live", {})
    pages |= {name: page for name, page in getattr(other, "rnem_live", {}).items() if name in docnames}


def outdated(app: Sphinx, env: BuildEnvironment, *changes) -> list[str]:
    """Pages whose runs are others now, as where an alternative that comes first is finished, or whose program is."""
    pages = getattr(env, "rnem_live", {})
    program = [_versioned(name) for name in (*_scripts(), "live.css")] if pages else []
    before, env.rnem_live_program = getattr(env, "rnem_live_program", program), program
    return [
        docname
        for docname, page in pages.items()
        if docname in env.found_docs and (before != program or any(not _current(*item) for item in page.items()))
    ]


def _current(text: str, files: set[str]) -> bool:
    """Whether a page's files are of the run that its text means now."""
    try:
        return file_of(chosen(text), "js") in files
    except RnemError:
        return False


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the program, and the runs of all pages; remove those that no page has any more."""
    if exception is not None or app.builder.format != "html":
        return
    folder, wanted = Path(app.outdir) / FOLDER, {}
    for page in getattr(app.env, "rnem_live", {}).values():
        wanted |= {name: text for text, files in page.items() for name in files}
    if not wanted:
        shutil.rmtree(folder, ignore_errors=True)
        return
    from rnem import live

    folder.mkdir(exist_ok=True)
    for name in (*live.SCRIPTS, live.STYLE):
        shutil.copy(live.FOLDER / name, folder)
    (folder / VIDEOS).write_text(live.beginnings(), encoding="utf-8")
    for path in folder.iterdir():
        if path.name not in {*live.SCRIPTS, live.STYLE, VIDEOS, *wanted}:
            path.unlink()
    for name, text in wanted.items():
        if not (folder / name).exists():
            run = chosen(text)
            made = live.still(run) if name.endswith(".png") else live.script(run).encode()
            (folder / name).write_bytes(made)


def setup(app: Sphinx) -> dict:
    app.add_directive("live", Live)
    app.add_role("play", PlayRole())
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-get-outdated", outdated)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
