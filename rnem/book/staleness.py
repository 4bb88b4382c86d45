"""Digests of what a notebook, a run or a measure depends on, and the difference between two lists of them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

_CELL = re.compile(r"(?ms)^```\{code-cell\}[^\n]*\n(.*?)^```[ \t]*$")
_OPTIONS = re.compile(r"(?ms)\A(?:---\n.*?^---\n|(?::[^\n]*\n)*)\n?")


def digest(tree) -> str:
    """Of anything that JSON can write."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """Of a file's bytes, or ``absent``."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "absent"


def code_cells(text: str) -> list[str]:
    """The code of each cell of a chapter's source: what jupytext gives, which takes seconds to import."""
    return [_OPTIONS.sub("", body).rstrip("\n") for body in _CELL.findall(text)]


def read_notebook(path: Path) -> dict:
    """An executed notebook as nbformat reads it: text that the file has as a list of lines is one string.

    OSError or ValueError where it cannot be read; another error where it is no notebook.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        _join(cell, "source")
        for output in cell.get("outputs", []):
            _join(output, "text")
            for mime in output.get("data", {}):
                if not mime.endswith("json"):
                    _join(output["data"], mime)
    return notebook


def _join(part: dict, name: str) -> None:
    if isinstance(part.get(name), list):
        part[name] = "".join(part[name])


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What changed, is new or is gone, by name."""
    changed = [f"{name} changed" for name in now if name in before and before[name] != now[name]]
    added = [f"{name} is new" for name in now if name not in before]
    gone = [f"{name} is gone" for name in before if name not in now]
    return changed + added + gone
