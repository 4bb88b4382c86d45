"""Sphinx extension: the head of every page says what the page is about, and loads no script that it does not use.

Code that is folded stands below what it makes, so that a picture follows the sentence which it shows.

Thebe, which Jupyter Book loads on every page, runs cells on a server that this book has none of, and declares a name
twice; MathJax (2 MB) is loaded where there is mathematics.
"""

from __future__ import annotations

import html
import shutil
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, HideInputCells
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

LONGEST = 180
"""Letters of a description."""
CARD = "card.png"
"""In the folder of figures: the picture that goes with a link to the book (rnem.claims.front_page.card)."""


def head(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Take out scripts and styles that a page does not use, and say what the page is about."""
    body = context.get("body", "")
    context["script_files"] = [each for each in context["script_files"] if _used(each, body)]
    context["css_files"] = [each for each in context["css_files"] if "sphinx-thebe" not in str(each)]
    # The theme for references calls itself a list, and has no list items: a screen reader would announce an empty one.
    context["body"] = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    if doctree is None:
        return
    title = context.get("title") or app.config.html_title
    said = {"og:type": "article", "og:title": title, "og:site_name": app.config.html_title}
    tags = ""
    if text := description(doctree):
        tags, said["og:description"] = f'<meta name="description" content="{html.escape(text)}">\n', text
    if app.config.html_baseurl:  # the picture of a link needs a whole address
        said |= {
            "og:image": f"{app.config.html_baseurl.rstrip('/')}/_static/{CARD}",
            "twitter:card": "summary_large_image",
        }
    tags += "\n".join(f'<meta property="{name}" content="{html.escape(str(value))}">' for name, value in said.items())
    context["metatags"] = f"{context.get('metatags', '')}\n{tags}"


class CodeBelow(SphinxPostTransform):
    """Put the folded code of a cell after its output; myst-nb puts it before."""

    default_priority = HideInputCells.default_priority + 1
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for folded in list(self.document.findall(HideCodeCellNode)):
            cell = folded.parent
            if "above-input" in folded["classes"] and len(cell) > 1:
                cell.remove(folded)
                cell.append(folded)


def copy_card(app: Sphinx) -> None:
    """Bring the picture of links to the built pages, where a chapter has made it."""
    card = Path(app.srcdir).parent / "figures" / CARD
    if app.builder.format == "html" and card.exists():
        target = Path(app.outdir) / "_static" / CARD
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(card, target)


def _used(script: object, body: str) -> bool:
    text = f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', '')}"
    if "thebe" in text:
        return False
    return 'class="math' in body or not any(name in text for name in ("tex-svg.js", "window.MathJax"))


def description(doctree: nodes.document) -> str:
    """The first sentences of a page outside boxes, as many as LONGEST admits; "" where it has no text."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section) and (text := " ".join(paragraph.astext().split())):
            if len(text) <= LONGEST:
                return text
            cut = text[:LONGEST]
            end = max(cut.rfind(". "), cut.rfind("? "))
            return cut[: end + 1] if end > 60 else cut[: cut.rfind(" ")] + " …"
    return ""


def setup(app: Sphinx) -> dict:
    app.add_post_transform(CodeBelow)
    app.connect("builder-inited", copy_card)
    app.connect("html-page-context", head, priority=900)  # after all who add scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
