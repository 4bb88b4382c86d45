"""The built book as one PDF: all pages behind a list of them, printed by a headless Chromium."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

from rnem.errors import BookError
from rnem.paths import book_root

PRINTED = "print.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120_000
"""Milliseconds of the page's own clock for mathematics to be set."""


def write(html: Path, out: Path) -> Path:
    """Print the pages in folder ``html`` to the file ``out``; BookError without a browser, a page, or a result."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise BookError(f"a PDF needs a Chromium, and there is none of {', '.join(BROWSERS)}")
    page = html / PRINTED
    page.write_text(joined(html, listed(book_root() / "_toc.yml")), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            "--generate-pdf-document-outline", f"--virtual-time-budget={PATIENCE}",
            f"--print-to-pdf={out.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        raise BookError(f"{program} made no PDF: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return out


def listed(toc: Path) -> list[str]:
    """The pages of a table of contents, in its order."""
    tree = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = tree.get("parts", [tree])
    return [tree["root"], *(entry["file"] for part in parts for entry in part.get("chapters", []))]


def joined(html: Path, pages: list[str]) -> str:
    """One page of HTML with the articles of all, their links and names made to fit, and a list of them in front."""
    articles, names, mathematics = [], [], ""
    for page in pages:
        path = html / f"{page}.html"
        if not path.is_file():
            raise BookError(f"{path} is not there: build the book first")
        whole = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        _settle(whole, page, set(pages))
        scripts = whole.head.find_all("script")
        mathematics = mathematics or "".join(str(each) for each in scripts if re.search("MathJax|tex-svg", str(each)))
        article = whole.select_one("article")
        for useless in article.select("a.headerlink, script, .rnem-live"):
            useless.decompose()
        article["id"] = _name(page)
        names.append((article.h1.get_text() if article.h1 else page, _name(page)))
        articles.append(f'<div class="sheet">{article}</div>')
        if len(articles) == 1:
            for script in scripts:
                script.decompose()
            head = str(whole.head)
    contents = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for title, anchor in names[1:])
    style = "<style>.sheet{break-before:page} .sheet:first-of-type{break-before:auto} @page{margin:18mm 15mm}</style>"
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light">{head}{style}{mathematics}'
        f'<body class="bd-content"><main class="bd-article">{articles[0]}'
        f'<div class="sheet"><h1>Contents</h1><ol>{contents}</ol></div>{"".join(articles[1:])}</main></body></html>'
    )


def _name(page: str, part: str = "") -> str:
    return "-".join(filter(None, ("page", page.replace("/", "-"), part)))


def _settle(tree: Tag, page: str, pages: set[str]) -> None:
    """Names and addresses of a page as they are in one file at the top of the folder."""
    folder = posixpath.dirname(page)
    for tag in tree.find_all(id=True):
        tag["id"] = _name(page, tag["id"])
    for attribute in ("src", "href"):
        for tag in tree.find_all(attrs={attribute: True}):
            address, _, part = tag[attribute].partition("#")
            if re.match(r"[a-z]+:", tag[attribute]):
                continue
            target = posixpath.normpath(posixpath.join(folder, address)) if address else f"{page}.html"
            if target.removesuffix(".html") in pages:
                tag[attribute] = "#" + _name(target.removesuffix(".html"), part)
            else:
                tag[attribute] = target + (f"#{part}" if part else "")
