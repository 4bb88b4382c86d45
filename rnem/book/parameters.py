"""What a chapter is given from outside: whose runs it shows, the device, how many seeds, its own numbers.

Every notebook begins with these parameters and a cell that checks them (rnem.book.notebook.prepare), so that by hand

    papermill book/chapters/accuracy.ipynb out.ipynb -p profile smoke -p device cpu -p seeds 2

shows other runs through the same text, and a value that is wrong ends it there, with a sentence.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rnem.errors import ChapterError
from rnem.runs.config import PROFILES
from rnem.runs.experiments import RUNS

DEVICES = ("auto", "cpu", "cuda", "mps")
SOURCE = f"""\
profile: str = "laptop"  # whose runs are shown: {", ".join(PROFILES)}
device: str = "auto"  # {", ".join(DEVICES)}
seeds: int = 0  # at most so many of each model; 0: all that are finished"""
"""The cell of parameters that every chapter has."""
BOUNDS: dict[str, tuple[int, int]] = {"seeds": (0, 100), "video": (0, 499)}
"""Smallest and largest value of a whole number; of one that is not here: 1 to LARGEST."""
LARGEST = 500
"""Videos of a fixed set."""


@dataclass(frozen=True)
class Chosen:
    """Parameters that were checked; the book itself has these defaults."""

    profile: str = "laptop"
    device: str = "auto"
    seeds: int = 0

    def run(self, name: str) -> str:
        """``balls4mass-rnem-k5`` -> the name of that run in this profile."""
        return f"{self.profile}-{name}"

    def data(self, family: str) -> str:
        """``balls4mass`` -> the data set of that family at this profile's size."""
        named = {run.data.rstrip("0123456789"): run.data for run in RUNS.values() if run.profile == self.profile}
        return named.get(family, family + named["balls4mass"].removeprefix("balls4mass"))

    def declared_run(self, pattern: str) -> str:
        """What a front matter declares, which names the laptop's runs, in this profile."""
        return self.run(pattern.removeprefix("laptop-")) if pattern.startswith("laptop-") else pattern

    def declared_file(self, name: str) -> str:
        """The same of a data file: ``videos/balls4mass32-test.h5`` has this profile's size."""
        match = re.fullmatch(r"videos/(\w*[a-z])\d+-(\w+)\.h5", name)
        return f"videos/{self.data(match[1])}-{match[2]}.h5" if match else name


def check(given: dict) -> Chosen:
    """The parameters among ``given``, defaults for the rest; ChapterError says which is wrong, and what it may be."""
    for name, value in given.items():
        if name in ("profile", "device"):
            allowed = PROFILES if name == "profile" else DEVICES
            if value not in allowed:
                raise ChapterError(f"parameter {name} is {value!r}, not one of {', '.join(allowed)}")
            continue
        low, high = BOUNDS.get(name, (1, LARGEST))
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ChapterError(f"parameter {name} is {value!r}, and must be a whole number from {low} to {high}")
    return Chosen(**{name: given[name] for name in ("profile", "device", "seeds") if name in given})


def assigned(source: str) -> list[str]:
    """Names that the code of a cell sets."""
    return [node.id for node in ast.walk(ast.parse(source)) if isinstance(getattr(node, "ctx", None), ast.Store)]


def declared_only(injected: Iterable[str], declared: Iterable[str]) -> None:
    """ChapterError where a parameter is given that the chapter does not have: misspelt, it would change nothing."""
    if unknown := sorted(set(injected) - set(declared)):
        raise ChapterError(
            f"this chapter has no parameter {', '.join(unknown)}; its parameters are {', '.join(declared)}"
        )


def available(device: str) -> None:
    """ChapterError where PyTorch cannot use that device on this machine."""
    from rnem.runs.provenance import accelerator_problem

    if problem := accelerator_problem(device):
        raise ChapterError(f"parameter device is {device!r}, and {problem}")
