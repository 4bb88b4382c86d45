"""Sphinx extension: links to the glossary show a term's meaning where the pointer rests on them."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

PAGE = "glossary"


def meanings(glossary: nodes.document) -> dict[str, str]:
    """The anchor of each term -> its definition as plain text."""
    found = {}
    for item in glossary.findall(nodes.definition_list_item):
        text = " ".join(item[-1].astext().split())
        found |= {anchor: text for term in item.findall(nodes.term) for anchor in term["ids"]}
    return found


def explain(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Give each link to a term its meaning as a title."""
    if PAGE not in app.env.found_docs or page == PAGE:
        return
    links = [link for link in doctree.findall(nodes.reference) if f"{PAGE}.html#term-" in link.get("refuri", "")]
    if links:
        known = meanings(app.env.get_doctree(PAGE))
        for link in links:
            link["reftitle"] = known.get(link["refuri"].partition("#")[2], "")


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", explain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
