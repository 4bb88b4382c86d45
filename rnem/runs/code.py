"""Digests of code: what modules of rnem do, without comments and docstrings, and which modules some code imports."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from collections.abc import Container, Iterable
from pathlib import Path

import rnem
from rnem.errors import ChapterError

SOURCES = Path(__file__).parents[2]
"""The folder in which the package ``rnem`` is."""


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
        fields = [(name, _tree(value)) for name, value in ast.iter_fields(node) if value is not None]
        return [type(node).__name__, [(name, tree) for name, tree in fields if tree != []]]
    if isinstance(node, list):
        return [_tree(each) for each in node if not _is_text(each)]
    return ascii(node)


def _is_text(node) -> bool:
    """Whether a statement is a string alone, such as a docstring, also one below a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def imported(cells: Iterable[str], without: Container[str] = ()) -> list[str]:
    """Return the modules of ``rnem`` that this code imports, directly or through one another, by dotted name, sorted.

    A package counts with its ``__init__``; ``rnem`` itself only with the modules of the public names that are used.
    Modules in ``without`` are left out, and what only they import. ChapterError where a module is missing.
    """
    found: set[str] = set()
    # Lines for IPython alone (%magic, !shell) are no Python, and import nothing of ours.
    waiting = [("", re.sub(r"(?m)^\s*[%!].*$", "", cell)) for cell in cells]
    while waiting:
        package, source = waiting.pop()
        named = {_module(*each) for each in _imports(source, package)}
        for module in {each for name in named for each in _with_packages(name)} - found - {"rnem"}:
            if module in without:
                continue
            found.add(module)
            path = module_path(module)
            if not path.exists():
                raise ChapterError(f"code imports {module}, and there is no {path}")
            above = module if path.name == "__init__.py" else module.rpartition(".")[0]
            waiting.append((above, path.read_text(encoding="utf-8")))
    return sorted(found)


@functools.lru_cache(maxsize=512)
def _imports(source: str, package: str) -> tuple[tuple[str, str], ...]:
    """Return what code of this package takes from ``rnem``: pairs of a module and the name taken from it, or ""."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ChapterError(f"a code cell is not Python: {error.msg}: {(error.text or '').strip()}") from None
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # In rnem.runs.store, whose package is rnem.runs, ".files" is rnem.runs.files and "..paths" is rnem.paths.
            parts = package.split(".")
            above = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            found += [(".".join(filter(None, (above, node.module))), alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in rnem.PUBLIC:
            found += [(node.value.id, node.attr)]  # rnem.evaluate(...), which may be in another cell than its import
    return tuple((module, name) for module, name in found if module.split(".")[0] == "rnem")


def _module(module: str, name: str) -> str:
    """Return the module that a name of a module comes from; where a package lacks the name, one that is missing."""
    if module == "rnem" and name in rnem.PUBLIC:
        return rnem.PUBLIC[name]
    inner, path = f"{module}.{name}", module_path(module)
    if name in ("", "*") or not path.exists():
        return module
    if module_path(inner).exists():
        return inner
    in_package = path.name == "__init__.py" and not re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"))
    return inner if in_package else module


def _with_packages(name: str) -> list[str]:
    """Return a dotted name and all packages above it: importing it runs them too."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def module_path(name: str) -> Path:
    """Return where a module or package of ``rnem`` (by dotted name) is, or would be."""
    path = SOURCES.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
