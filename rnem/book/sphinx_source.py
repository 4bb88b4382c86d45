"""Sphinx extension: links between equations and code.

{src}`rnem.model.em.e_step` links to the highlighted lines of that function inside the built book, and each function
there links back to the chapters that cite it. Nothing is imported.
"""

from __future__ import annotations

import ast
import html
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole

from rnem.runs.code import module_path

logger = logging.getLogger(__name__)
# Code has longer lines than prose, so its pages use the column that a chapter leaves to its table of contents.
_WIDE = "<style>.bd-main .bd-content .bd-article-container { max-width: 72rem; }</style>\n"


def page_of(module: str) -> str:
    """Name of the page that shows a module."""
    return "code/" + module


def definitions(source: str) -> dict[str, int]:
    """Name within its module -> line of its definition, for functions, classes, methods and module-level names."""
    return dict(_definitions(ast.parse(source).body, ""))


def _definitions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, int]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name, node.decorator_list[0].lineno if node.decorator_list else node.lineno
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((prefix + target.id, node.lineno) for target in targets if isinstance(target, ast.Name))


def split(symbol: str) -> tuple[str, str]:
    """Return rnem.model.em.e_step as ("rnem.model.em", "e_step"): the longest module; one alone has no second part."""
    parts = symbol.split(".")
    for n in range(len(parts), 1, -1):
        if module_path(".".join(parts[:n])).is_file():
            return ".".join(parts[:n]), ".".join(parts[n:])
    return ".".join(parts[:2]), ".".join(parts[2:])


class SourceRole(ReferenceRole):
    """{src}`rnem.model.em.e_step` or {src}`the E-step <rnem.model.em.e_step>`: a link to that code."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        module, name = split(self.target)
        cited = self.env.rnem_cited = getattr(self.env, "rnem_cited", {})
        cited.setdefault(self.env.docname, []).append((self.target, self.get_location()))
        text = self.title if self.has_explicit_title else self.target.removeprefix("rnem.")
        literal = nodes.literal(text, text, classes=["src"])
        if self.env.app.builder.format != "html":
            return [literal], []
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page_of(module)) + (f"#{name}" if name else "")
        return [nodes.reference("", "", literal, refuri=uri, internal=True)], []


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    getattr(env, "rnem_cited", {}).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    cited = env.rnem_cited = getattr(env, "rnem_cited", {})
    cited |= {name: found for name, found in getattr(other, "rnem_cited", {}).items() if name in docnames}


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each link to code that is not there (any more)."""
    for found in getattr(env, "rnem_cited", {}).values():
        for symbol, location in found:
            module, name = split(symbol)
            path = module_path(module)
            if not path.is_file() or (name and name not in definitions(path.read_text(encoding="utf-8"))):
                logger.warning(f"there is no {symbol} to link to", location=location, type="rnem")


def pages(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """One page per module that is cited, with an anchor and the citing chapters at each definition."""
    cited = getattr(app.env, "rnem_cited", {})
    modules = {split(symbol)[0] for found in cited.values() for symbol, _ in found}
    for module in sorted(modules):
        if not module_path(module).is_file():  # of which `check` has warned
            continue
        source = module_path(module).read_text(encoding="utf-8")
        rendered = app.builder.highlighter.highlight_block(source, "python", linenos=False)
        lines = rendered.splitlines()
        # Pygments opens its <pre> on the first line, so line n of the source is line n of the result.
        for name, number in definitions(source).items():
            back = "".join(
                f'<a class="cited-by" href="{app.builder.get_relative_uri(page_of(module), docname)}">'
                f"{html.escape(app.env.titles[docname].astext())}</a>"
                for docname, found in sorted(cited.items())
                if any(symbol == f"{module}.{name}" for symbol, _ in found)
            )
            lines[number - 1] = f'<span id="{html.escape(name)}"></span>{back and back + chr(10)}' + lines[number - 1]
        body = f'{_WIDE}<h1>{module}</h1>\n<div class="module-code">' + "\n".join(lines) + "</div>"
        yield page_of(module), {"parents": [], "title": module, "body": body}, "page.html"


def setup(app: Sphinx) -> dict:
    app.add_role("src", SourceRole())
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-check-consistency", check)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
