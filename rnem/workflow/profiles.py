"""Editions of the book: that of another profile is a copy of its sources whose front matter declares that profile.

    _build/smoke/   _config.yml  book/  figures/  _build/html/

So everything that works on the book works on an edition: staleness, execution, figures, pages (see rnem.book.chapters).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from rnem import paths
from rnem.analysis import cache
from rnem.book import chapters
from rnem.book.parameters import Chosen
from rnem.errors import UserError
from rnem.paths import repository
from rnem.runs import files
from rnem.videos import datasets, hdf5

FEWER = {"count": cache.SMOKE_VIDEOS, "watched": cache.SMOKE_VIDEOS, "rolled": 10}
"""Videos that a chapter looks at, where what it finds only has to be there."""


def sources(out: Path | None, chosen: Chosen) -> Path:
    """The book's folder: the book itself, or its sources copied to ``out`` and declared to be of that profile.

    Only what changed is written; chapters that the book no longer has go.
    """
    if out is None:
        return paths.book_root()
    root, target = paths.book_root(), out / "book"
    if out.resolve() in (root.resolve(), root.resolve().parent):
        raise UserError(f"--out is {out}, where the book itself is: give another folder")
    given = {"profile": chosen.profile, "device": chosen.device, "seeds": chosen.seeds}
    kept = {target / path.relative_to(root): path.read_bytes() for path in _files(root)}
    kept |= {
        target / "chapters" / f"{each.name}.md": declaring(each.source.read_text(encoding="utf-8"), given).encode()
        for each in chapters.chapters(root)
    }
    kept[out / "_config.yml"] = (root.parent / "_config.yml").read_bytes()
    with files.writing(f"book {target}"):
        for path, data in kept.items():
            if not path.exists() or path.read_bytes() != data:  # Sphinx reads again what is newer
                path.parent.mkdir(parents=True, exist_ok=True)
                files.replace_file(path, data)
        for chapter in chapters.chapters(target):
            if chapter.source not in kept:
                chapter.source.unlink()
    return target


def _files(root: Path) -> Iterator[Path]:
    """Everything of the book that is not a chapter or a product."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and parts[0] not in ("chapters", "_build") and not any(p.startswith(".") for p in parts):
            yield path


def declaring(text: str, given: dict) -> str:
    """A chapter's source whose front matter also declares these parameters, and for smoke the numbers of FEWER."""
    end = text.index("\n---\n", 3)
    front = yaml.safe_load(text[4:end])
    block = front["rnem"] = front.get("rnem") or {}
    own = block.get("parameters") or {}
    fewer = {name: FEWER[name] for name in own if name in FEWER and given["profile"] == "smoke"}
    block["parameters"] = own | fewer | given
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{text[end + 5 :]}"


@contextmanager
def trial(out: Path | None, chosen: Chosen) -> Iterator[Path]:
    """:func:`sources` in a folder that is gone afterwards, with the notebooks of ``out``: to plan without a trace."""
    if out is None:
        yield paths.book_root()
        return
    with tempfile.TemporaryDirectory() as folder:
        root = sources(Path(folder), chosen)
        for notebook in (out / "book" / "chapters").glob("[!.]*.ipynb"):
            shutil.copy(notebook, root / "chapters")
        yield root


def bring_data(root: Path, say: Callable[[str], None] = print) -> None:
    """Data files that chapters declare and this data folder lacks: those of the repository, else new videos."""
    declared = {
        each.chosen().declared_file(name) for each in chapters.chapters(root) for name in each.declares()["data"]
    }
    for name in sorted(declared):
        path, source = paths.data_root() / name, repository() / "data" / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            with files.writing(f"data {path}"):
                files.replace_file(path, source.read_bytes())
        elif path.parent.name == "videos":
            data, _, split = path.stem.rpartition("-")
            count = cache.TEST_VIDEOS[datasets.dataset(data).family]
            say(f"writing {count} {split} videos of {data}")
            hdf5.write({split: [datasets.fixed(data, split, count)]}, path)
