"""Every folder of the project, in one place."""

from __future__ import annotations

import os
from pathlib import Path


def repository() -> Path:
    """The repository's root: the folder above this package, or (where it is installed apart) above the work folder."""
    candidates = [Path(__file__).resolve().parent.parent, Path.cwd(), *Path.cwd().parents]
    return next((path for path in candidates if (path / "pyproject.toml").is_file()), candidates[0])


# -------------------------------------------------------------------------------------------------------------- folders


def data_root() -> Path:
    """``$RNEM_DATA``, or ``data`` in the repository."""
    given = os.environ.get("RNEM_DATA")
    return Path(given).expanduser() if given else repository() / "data"


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
    given = os.environ.get("RNEM_AUTHORS")
    return Path(given).expanduser() if given else repository().parent / "shared" / "authors"


def book_root() -> Path:
    """The folder of the book's sources: ``$RNEM_BOOK``, or ``book`` in the repository."""
    given = os.environ.get("RNEM_BOOK")
    return Path(given).expanduser() if given else repository() / "book"
