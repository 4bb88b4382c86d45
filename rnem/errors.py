"""Errors that are meant for the user: the command line says their sentence, and no traceback.

Every other error is a fault of this package or of a library, and keeps its traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class RnemError(ValueError):
    """Something that the user can put right; one sentence that says what is wrong, and where."""


class ChapterError(RnemError):
    """A chapter's source, parameters or runs that are not what it needs; a notebook shows the sentence alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]  # IPython asks an error how it wants to be shown


class RunError(RnemError):
    """A run or checkpoint that cannot be used or written; one sentence that names the file and what is wrong."""


class UntrainedError(RunError):
    """A named run of which none is finished."""


class VideoError(RnemError):
    """A data set, or a file of videos, that cannot be used; one sentence."""


class UserError(RnemError):
    """What the user can put right; one sentence."""


class TrainingError(RnemError):
    """Training cannot go on; one sentence."""


class ArchiveError(RnemError):
    """An archive that is refused as a whole, or cannot be had; one sentence that names it and why."""


class BookError(RnemError):
    """A chapter that cannot be read or executed; one sentence that names it and what is wrong."""


@contextlib.contextmanager
def reading(file: object, kind: type[RnemError]) -> Iterator[None]:
    """Read a file that others may have made: whatever a library raises becomes one sentence that names the file.

    Our own sentences pass. A file can be damaged, or written to deceive, in more ways than a library documents.
    """
    try:
        yield
    except RnemError:
        raise
    except Exception as error:
        said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise kind(f"cannot read {file}: {' '.join(said.split())[:200]}") from error


def printable(text: str) -> str:
    """Return a text with its control characters as escapes, so that no file can command the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
