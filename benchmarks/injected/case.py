"""What a case is, and what several of them do."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from injected.lab import Lab, Said

Happened = tuple[Said, bool]
"""What the user saw, and whether the next call carried on to the undisturbed result."""


@dataclass(frozen=True)
class Case:
    """A fault, how it is injected, and the function that does so."""

    id: str
    fault: str
    how: str
    call: Callable[[Lab], Happened]
    slow: bool = False
    """Many processes, or much like another case: left to the script."""


def registry(cases: list[Case]):
    """A decorator that adds a case to a list; ``settings`` are its function's further arguments."""

    def case(fault: str, how: str, *settings, id: str = "", slow: bool = False):
        def add(function):
            name = id or function.__name__.replace("_", "-")
            cases.append(Case(name, fault, how, lambda lab: function(lab, *settings), slow))
            return function

        return add

    return case


def expect(said: Said, code: int, sentence: str) -> None:
    """It ended with this code, and its last line matches."""
    assert said.code == code, f"exit code {said.code} instead of {code}: {said.sentence}"
    assert re.search(sentence, said.sentence), f"not {sentence!r}: {said.sentence}"


def line(said: Said, sentence: str) -> str:
    """The line that matches, among others."""
    found = [each for each in (said.err + said.out).splitlines() if re.match(sentence, each)]
    assert found, f"no {sentence!r}: {said.err}{said.out}"
    return found[0]


def die_at(moment: int) -> None:
    """Kill this process at its so-manieth update, write, sync, rename or removal."""
    from rnem.runs import files
    from rnem.training import train

    steps = itertools.count(1)

    def counted(function):
        def call(*arguments, **keywords):
            if next(steps) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    train._Training._one_update = counted(train._Training._one_update)
    files.write_file = counted(files.write_file)
    for name in ("fsync", "rename", "replace", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit, at a place that its name decides."""
    data = bytearray(path.read_bytes())
    data[random.Random(path.name).randrange(len(data))] ^= 4
    path.write_bytes(data)
