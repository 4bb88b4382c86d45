"""Tables about finished runs, computed once: what takes seconds per run is kept beside the runs, and committed.

    data/measures/<run's folder>/<what>-<key>.csv      one line of JSON about it, then the table

The key covers the run's digest (weights, metrics, config), the settings, and the code that computes the table: the
module that defines the measure and all modules of rnem that it imports, directly or through one another, but those of
NEUTRAL, without comments and docstrings. So a measure that was changed is computed again, and never read from before.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from rnem import errors
from rnem.paths import measures_root
from rnem.runs import files
from rnem.runs.code import code_digest, imported
from rnem.runs.store import Run

DIGITS = 7
"""Significant digits that are kept."""
NEUTRAL = (
    "rnem.analysis.cache", "rnem.errors", "rnem.model.config", "rnem.paths", "rnem.runs.archive", "rnem.runs.code",
    "rnem.runs.config", "rnem.runs.experiments", "rnem.runs.files", "rnem.runs.provenance", "rnem.runs.store",
)  # fmt: skip
"""Modules that find, describe and keep runs and tables: what they give a measure is in the key by other ways."""
TEST_VIDEOS = {"balls4mass": 200, "balls5mass": 100, "balls678mass": 100, "balls3curtain": 100, "spaceinvaders": 100}
"""How many test videos a measure takes where nothing else is asked for: what data/videos holds."""
SMOKE_VIDEOS = 20
"""At most so many for a run of the profile smoke, which tests the machinery."""


def cached(run: Run, what: str, module: str, compute: Callable[[], pd.DataFrame], **settings) -> pd.DataFrame:
    """The table that ``compute`` gives for a run, or gave before; numbers to DIGITS digits.

    ``module`` is the name of the one that defines the measure (``__name__``), and ``settings`` (plain JSON values) are
    everything else that decides the table. A damaged file is computed again, with a warning. Where the folder cannot be
    written, the table is still returned. Tables that other code gave for the same are removed when this one is kept.
    """
    about = {"what": what, "code": code_of(module), "run": run.manifest["digest"], "settings": settings}
    key = hashlib.sha256(files.canonical(about).encode()).hexdigest()[:10]
    path = measures_root() / run.path.name / f"{what}-{key}.csv"
    body = _read(path, about)
    if body is None:
        body = compute().to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
        _write(path, about, body)
    # Read back even when it was just computed, so that the first reader sees what every later one does.
    return pd.read_csv(io.StringIO(body))


def video_count(run: Run, videos: int, asked: int | None) -> int:
    """How many videos a measure takes: those ``asked`` for, else ``videos``, of smoke runs SMOKE_VIDEOS at most."""
    if asked is not None:
        return asked
    return min(videos, SMOKE_VIDEOS) if run.config.profile == "smoke" else videos


@functools.cache
def code_of(module: str) -> str:
    """Return a digest of the code behind a module's measures (by its dotted name), as this process first found it."""
    return code_digest(behind(module))[:16]


def behind(module: str) -> list[str]:
    """The modules of rnem that decide the measures of one (``rnem.analysis.grouping``), itself among them, sorted."""
    return imported([f"import {module}"], without=NEUTRAL)


def _read(path: Path, about: dict) -> str | None:
    """The table's text; None where there is none, or where it is not what was written."""
    try:
        head, _, body = path.read_text(encoding="utf-8").partition("\n")
        if json.loads(head) == about | {"sha256": _digest(body)}:
            return body
        problem = "was edited or belongs to another run"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({str(error).splitlines()[0]})"
    warnings.warn(f"{path} {problem}: it is computed again", stacklevel=3)
    return None


def _write(path: Path, about: dict, body: str) -> None:
    text = json.dumps(about | {"sha256": _digest(body)}, sort_keys=True) + "\n" + body
    try:
        with files.writing(f"measure {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_file(path, text.encode())
            _remove_superseded(path, about)
    except errors.RunError as error:
        warnings.warn(f"not kept: {error}", stacklevel=3)


def _remove_superseded(path: Path, about: dict) -> None:
    """Remove what other code gave for the same run, measure and settings."""
    for other in path.parent.glob(f"{about['what']}-*.csv"):
        with contextlib.suppress(ValueError, AttributeError):  # not one of ours: it stays
            head = json.loads(other.read_text(encoding="utf-8").partition("\n")[0])
            if other != path and all(head.get(name) == about[name] for name in ("what", "run", "settings")):
                other.unlink(missing_ok=True)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
