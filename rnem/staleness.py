"""Digests of what a notebook depends on, and the difference between two lists of them."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rnem.errors import ChapterError


def digest(tree) -> str:
    """Of anything that JSON can write."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """Of a file's bytes, or ``absent``."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "absent"


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What changed, is new or is gone, by name."""
    changed = [f"{name} changed" for name in now if name in before and before[name] != now[name]]
    added = [f"{name} is new" for name in now if name not in before]
    gone = [f"{name} is gone" for name in before if name not in now]
    return changed + added + gone


def imported(cells: Iterable[str]) -> list[str]:
    """Modules of ``rnem`` that this code imports, directly or through one another, sorted."""
    found: set[str] = set()
    # Lines for IPython alone (%magic, !shell) are no Python, and import nothing of ours.
    waiting = [re.sub(r"(?m)^\s*[%!].*$", "", cell) for cell in cells]
    while waiting:
        for module in set(_imports(waiting.pop())) - found:
            found.add(module)
            waiting.append(module_path(module).read_text(encoding="utf-8"))
    return sorted(found)


def _imports(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ChapterError(f"a code cell is not Python: {error.msg}: {(error.text or '').strip()}") from None
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names] if node.module else []
        for parts in (name.split(".") for name in names):
            if parts[0] == "rnem" and len(parts) > 1 and module_path(parts[1]).exists():
                yield parts[1]


def module_path(name: str) -> Path:
    """Where a module of ``rnem`` is, or would be."""
    return Path(__file__).with_name(f"{name}.py")
