"""Sphinx extension: equations that show without a network, from the MathJax that a Python package carries."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
FILE = "tex-svg.js"  # MathJax 3 with its fonts as paths, in one file


def bundled() -> Path | None:
    """That file in the package ``sphinx-mathjax-offline`` (which itself would copy 48 MB into every build)."""
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    path = Path(found.origin).parent / "static" / "mathjax" / FILE if found and found.origin else None
    return path if path and path.is_file() else None


def use_bundled(app: Sphinx) -> None:
    """Point the pages to that file, or leave them MathJax's CDN."""
    source = bundled()
    if source is None:
        logger.info("sphinx-mathjax-offline is not installed: equations will come from the network")
    elif app.builder.format == "html":
        app.config.mathjax_path = FILE
        target = Path(app.outdir) / "_static" / FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", use_bundled)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
