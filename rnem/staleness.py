"""Digests of what a notebook, a run or a measure depends on, and the difference between two lists of them."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from collections.abc import Container, Iterable
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


def code_digest(modules: Iterable[str]) -> str:
    """SHA-256 over what modules of ``rnem`` do, in this order: comments, docstrings and layout do not count.

    FileNotFoundError where a module is missing.
    """
    sources = [(name, module_path(name).read_text(encoding="utf-8")) for name in modules]
    return hashlib.sha256(json.dumps([(name, _meaning(source)) for name, source in sources]).encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def _meaning(source: str) -> str:
    return json.dumps(_tree(ast.parse(source)))


def _tree(node) -> list | str:
    """A syntax tree as lists: ast.dump, but alike in every version of Python, and without strings that do nothing."""
    if isinstance(node, ast.AST):
        # Newer versions have more fields (type_params), which are empty in code that an older one can read.
        fields = [(name, _tree(value)) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_tree(each) for each in node if not _is_text(each)]
    return ascii(node)


def _is_text(node) -> bool:
    """Whether a statement is a string alone, such as a docstring, also one below a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def imported(cells: Iterable[str], without: Container[str] = ()) -> list[str]:
    """Modules of ``rnem`` that this code imports, directly or through one another, sorted.

    Those in ``without`` are left out, and what only they import.
    """
    found: set[str] = set()
    # Lines for IPython alone (%magic, !shell) are no Python, and import nothing of ours.
    waiting = [re.sub(r"(?m)^\s*[%!].*$", "", cell) for cell in cells]
    while waiting:
        for module in set(_imports(waiting.pop())) - found:
            if module in without or not module_path(module).exists():
                continue
            found.add(module)
            waiting.append(module_path(module).read_text(encoding="utf-8"))
    return sorted(found)


@functools.lru_cache(maxsize=256)
def _imports(source: str) -> tuple[str, ...]:
    """Names below ``rnem`` that this code imports: modules, and what else the package might hold."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ChapterError(f"a code cell is not Python: {error.msg}: {(error.text or '').strip()}") from None
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names] if node.module else []
        found += [name.split(".")[1] for name in names if name.startswith("rnem.")]
    return tuple(found)


def module_path(name: str) -> Path:
    """Where a module of ``rnem`` is, or would be."""
    return Path(__file__).with_name(f"{name}.py")
