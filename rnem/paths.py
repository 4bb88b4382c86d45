"""Every folder of the project, in one place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from rnem.errors import UserError


def repository() -> Path:
    """The repository's root: the folder above this package, or (where it is installed apart) above the work folder."""
    candidates = [Path(__file__).resolve().parent.parent, Path.cwd(), *Path.cwd().parents]
    return next((path for path in candidates if (path / "pyproject.toml").is_file()), candidates[0])


# -------------------------------------------------------------------------------------------------------------- folders


def data_root() -> Path:
    """``$RNEM_DATA``, or ``data`` in the repository."""
    return _given("RNEM_DATA") or repository() / "data"


def runs_root() -> Path:
    """Folder of the finished runs."""
    return data_root() / "runs"


def videos_root() -> Path:
    """Folder of the fixed sets of videos."""
    return data_root() / "videos"


def measures_root() -> Path:
    """Folder of the tables that were computed of finished runs."""
    return data_root() / "measures"


def verdicts_root() -> Path:
    """Folder of the verdicts that older readings of the rules gave."""
    return data_root() / "verdicts"


def authors_root() -> Path:
    """Folder of what was measured of the authors' videos."""
    return data_root() / "authors"


def authors_videos_root() -> Path:
    """Folder of the authors' videos: ``$RNEM_AUTHORS``, or ``shared/authors`` beside the repository."""
    return _given("RNEM_AUTHORS") or repository().parent / "shared" / "authors"


def book_root() -> Path:
    """The folder of the book's sources: ``$RNEM_BOOK``, or ``book`` in the repository."""
    return _given("RNEM_BOOK") or repository() / "book"


def _given(variable: str) -> Path | None:
    given = os.environ.get(variable)
    try:
        return Path(given).expanduser() if given else None
    except RuntimeError:
        raise UserError(f"{variable} is {given}, and there is no such user") from None


# ---------------------------------------------------------------------------------------------------------------- files


def plain_file(path: str | Path) -> Path:
    """Return the path of a plain file; OSError for a folder, and for a pipe or a device, which may have no end."""
    path = Path(path)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return path
