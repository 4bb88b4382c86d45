"""The package is a house: imports lead to the same floor or down, never in a circle, and no text names what moved."""

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FLOORS = (
    ("paths", "errors", "model"), ("videos", "runs"), ("evaluation", "authors", "book"), ("training", "analysis"),
    ("claims", "figures"), ("live", "workflow"), ("cli",),
)  # fmt: skip
"""Rooms from the ground up (DESIGN, The house)."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
OUTSIDE = ("rnem", "rnem.__main__")
"""The table of public names, each imported when it is asked for, and what python -m rnem runs."""


def modules() -> dict[str, ast.Module]:
    """Return every module and package of rnem by dotted name, parsed."""
    paths = {path.relative_to(REPOSITORY).with_suffix(""): path for path in (REPOSITORY / "rnem").rglob("*.py")}
    return {
        ".".join(name.parts).removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
    }


MODULES = modules()


class Import(NamedTuple):
    """One module imports another; where: at the top, in a function, or for types alone."""

    source: str
    target: str
    where: str


def imports_of(source: str, tree: ast.Module, known: set[str]) -> Iterator[Import]:
    """Yield what a module imports of those that are known, wherever its imports stand."""
    for_types = {
        id(node)
        for test in ast.walk(tree) if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for node in ast.walk(test)
    }  # fmt: skip
    in_functions = {
        id(node)
        for function in ast.walk(tree) if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }  # fmt: skip
    for node in ast.walk(tree):
        where = "types" if id(node) in for_types else "function" if id(node) in in_functions else "top"
        if isinstance(node, ast.Import):
            targets = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: imports are absolute here"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            targets = inner & known | ({node.module} if inner - known else set())
        else:
            continue
        for target in sorted(targets & known - {source}):
            yield Import(source, target, where)


IMPORTS = [each for name, tree in MODULES.items() for each in imports_of(name, tree, set(MODULES) - set(OUTSIDE))]


def room(module: str) -> str:
    return module.split(".")[1]


def upward(imports: list[Import]) -> list[Import]:
    return [
        each for each in imports if each.source not in OUTSIDE and FLOOR[room(each.source)] < FLOOR[room(each.target)]
    ]


def circle(imports: list[Import]) -> list[str]:
    """Return modules that import one another in a circle, the first one found, or none."""
    above: dict[str, set[str]] = {}
    for each in imports:
        above.setdefault(each.source, set()).add(each.target)
    finished: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        for target in sorted(above.get(path[-1], set()) - finished):
            found = path[path.index(target) :] if target in path else follow([*path, target])
            if found:
                return found
        finished.add(path[-1])
        return []

    return next(filter(None, (follow([source]) for source in sorted(above) if source not in finished)), [])


def test_every_module_is_in_a_room_and_every_room_on_a_floor():
    assert {room(name) for name in MODULES if name not in OUTSIDE} == set(FLOOR)
    for path in (REPOSITORY / "rnem").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} is no package"


@pytest.mark.parametrize("where", ["top", "function", "types"])
def test_imports_lead_to_the_same_floor_or_down(where):
    assert upward([each for each in IMPORTS if each.where == where]) == []


def test_the_model_imports_nothing_of_the_other_rooms():
    assert {room(each.target) for each in IMPORTS if each.source.startswith("rnem.model.")} == {"model"}


def test_no_module_imports_itself_through_others():
    assert circle(IMPORTS) == []


def test_this_test_sees_an_import_up_and_a_circle():
    known = {"rnem.model.em", "rnem.model.fast", "rnem.cli.main"}
    up = ast.parse("def f():\n    from rnem.cli import main\nfrom rnem.model.fast import step, flip")
    seen = list(imports_of("rnem.model.em", up, known))
    assert sorted(seen) == [
        ("rnem.model.em", "rnem.cli.main", "function"),
        ("rnem.model.em", "rnem.model.fast", "top"),
    ]
    assert upward(seen) == [("rnem.model.em", "rnem.cli.main", "function")]
    types = ast.parse("if TYPE_CHECKING:\n    import rnem.model.em")
    back = list(imports_of("rnem.model.fast", types, known))
    assert back == [("rnem.model.fast", "rnem.model.em", "types")]
    assert circle([*seen, *back]) == ["rnem.model.em", "rnem.model.fast"]


# ---------------------------------------------------------------------------------------------- names and paths in text


def texts() -> list[Path]:
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    folders = ("rnem", "book", "benchmarks", "README.md", "_config.yml", "pyproject.toml", "Makefile", ".ci")
    paths = [Path(name) for name in tracked.splitlines() if name.split("/")[0] in folders]
    return [path for path in paths if path.suffix not in (".ipynb", ".png") and (REPOSITORY / path).is_file()]


def there(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, or something that one has (fields of a dataclass too)."""
    parts = dotted.split(".")
    n = max(n for n in range(1, len(parts) + 1) if ".".join(parts[:n]) in MODULES)
    if n == len(parts):
        return True
    thing = importlib.import_module(".".join(parts[:n]))
    for name in parts[n:]:
        if name in getattr(thing, "__dataclass_fields__", {}):
            return True
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


@pytest.mark.parametrize("path", texts(), ids=str)
def test_what_a_text_names_is_there(path):
    """Docstrings, links, strings that are imported, pages: each survives the move of what it names."""
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    names = set(re.findall(r"(?<![\w./-])rnem(?:\.[A-Za-z_]\w*)+", text))
    assert sorted(name for name in names if not there(name)) == []
    files = set(re.findall(r"(?<![\w./-])rnem(?:/\w[\w.-]*)+(?<!\.)", text))
    assert sorted(name for name in files if not (REPOSITORY / name).exists()) == []
