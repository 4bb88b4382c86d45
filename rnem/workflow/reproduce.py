"""One command from an empty cache to a built book: train what a profile lacks, execute the chapters, build the pages.

Each step finds out by itself what is already done, so that it can be stopped anywhere, even killed, and given again.
The laptop's reproduction updates the book; that of another profile is an edition of it in a folder of its own
(rnem.workflow.profiles).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import filelock

from rnem.book import chapters
from rnem.book.cells import LATER
from rnem.book.parameters import Chosen
from rnem.errors import UserError
from rnem.runs.config import RunConfig
from rnem.runs.experiments import RUNS
from rnem.workflow import campaign, processes, profiles

ESTIMATED = "times of training are estimated from its operations, at the speed of the finished runs on one CPU thread"
"""Said of a plan that trains something; while it trains, the estimate is corrected from the runs that end."""
BUILD_SECONDS = 60
"""Of the pages: what it takes on two cores; only the estimate knows it."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A chapter of a plan."""

    name: str
    is_fresh: bool
    """By the rule of ``rnem chapter``, as long as the runs that it needs are not trained."""
    seconds: float
    """What its published notebook took."""
    needs: list[str]
    """Labels of the runs that are not finished and that it may show."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a reproduction has to do, as data: :func:`run` and workflow/cluster/Snakefile both read it."""

    runs: list[campaign.Planned]
    pages: list[Page]

    def to_train(self) -> list[campaign.Planned]:
        return [each for each in self.runs if each.state == "missing"]

    def to_execute(self) -> list[Page]:
        """Chapters that are out of date, and then those that are fresh until a run that they show is trained."""
        due = [page for page in self.pages if not page.is_fresh or page.needs]
        return sorted(due, key=lambda page: page.is_fresh)

    def graph(self) -> dict:
        """``runs``: run that is not finished -> seconds; ``chapters``: chapter to execute -> those that it needs."""
        # A broken run is among them: its training says what to do.
        runs = {each.label: each.seconds for each in self.runs if not each.finished}
        return {"runs": runs, "chapters": {page.name: page.needs for page in self.to_execute()}}


def run(
    chosen: Chosen,
    out: Path | None,
    *,
    chapter: str | None = None,
    jobs: int | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Reproduce a profile's book, or one ``chapter`` of it with the runs that it shows, and build the pages.

    Exit code 0, or 1 where a run or a chapter failed, of which it says why. BookError for an unknown chapter.
    """
    begun, jobs = time.monotonic(), jobs or processes.cores()
    if dry_run:
        with profiles.trial(out, chosen) as root:
            describe(plan(root, chosen, chapter), jobs, say)
        return 0
    root = profiles.sources(out, chosen)
    with alone(root):
        todo = plan(root, chosen, chapter)
        describe(todo, jobs, say)
        profiles.bring_data(root, say)
        failed = campaign.train(todo.runs, jobs, accelerator=chosen.device, say=say)
        trained = time.monotonic()
        if not failed:
            longest_first = sorted(todo.to_execute(), key=lambda page: -page.seconds)
            failed = execute([page.name for page in longest_first], root, jobs, say)
        if failed:
            say(f"{len(failed)} failed; what was finished stays, and the same command goes on from there")
            return 1
        executed = time.monotonic()
        page = build(root)
    times = {"training": trained - begun, "chapters": executed - trained, "pages": time.monotonic() - executed}
    say(", ".join(f"{what} {seconds / 60:.1f} minutes" for what, seconds in times.items()))
    say(f"The book is at {page.resolve()}")
    return 0


def describe(todo: Plan, jobs: int, say: Callable[[str], None] = print) -> None:
    """Say what there is to do, and what it costs."""
    runs, pages = todo.to_train(), todo.to_execute()
    if runs:
        say(ESTIMATED)
    for each in runs:
        say(f"  train    {each.label:42} {_time(each.seconds)}")
    for each in todo.runs:
        if each.state == "broken":
            say(f"  broken   {each.label}: {each.problem}")
    for page in pages:
        until = "fresh until the runs above are trained" if page.is_fresh else ""
        say(f"  execute  {page.name:42} {_time(page.seconds) if page.seconds or until else '':8} {until}".rstrip())
    training, chapters = (sum(each.seconds for each in steps) for steps in (runs, pages))
    later = sum(page.is_fresh for page in pages)
    because = f", {later} of them because of these runs" if later else ""
    say(
        f"{len(runs)} of {len(todo.runs)} runs to train ({_time(training)}), {len(pages)} of "
        f"{len(todo.pages)} chapters to execute ({_time(chapters)}{because}), the book to build: "
        f"{jobs} at a time, {_time((training + chapters) / jobs + BUILD_SECONDS)}"
    )


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# ------------------------------------------------------------------------------------------------------------- planning


def plan(root: Path, chosen: Chosen, only: str | None = None) -> Plan:
    """Return what is to be done for the book in ``root``, or for one chapter of it: what to train, what to execute, and
    what each needs.
    """
    runs = campaign.plan(chosen.profile, wanted=wanted(root, chosen, only))
    published = {each.name: each for each in chapters.chapters()}

    def page(status: chapters.Status) -> Page:
        chapter = status.chapter
        needs = [each.label for each in runs if not each.finished and _shows(chapter, each.config.name)]
        return Page(chapter.name, status.state == "fresh", _seconds(published.get(chapter.name)), needs)

    return Plan(runs, [page(status) for status in chapters.status(root) if only in (None, status.chapter.name)])


def wanted(root: Path, chosen: Chosen, only: str | None = None) -> list[RunConfig]:
    """The runs that a chapter (or the one named) may show, at most ``chosen.seeds`` of each name where it is not 0.

    They are those of the profile's campaign, and for the book itself also those of the later one.

    And one run of each name that a chapter cannot do without and that the campaign does not have.
    """
    every = chapters.chapters(root) if only is None else [chapters.chapter(only, root)]
    campaigns = (chosen.profile, *[LATER] * (chosen.profile == Chosen.profile))
    found = [
        run
        for run in itertools.chain.from_iterable(map(campaign.configs, campaigns))
        if (not chosen.seeds or run.seed < chosen.seeds) and any(_shows(each, run.name) for each in every)
    ]
    declared = {chosen.declared_run(name) for each in every for name in each.declares()["runs"]}
    return found + [RUNS[name] for name in sorted(declared & RUNS.keys() - {run.name for run in found})]


def _shows(chapter: chapters.Chapter, name: str) -> bool:
    patterns = map(chapter.chosen().declared_run, chapter.declares()["runs"])
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _seconds(chapter: chapters.Chapter | None) -> float:
    """What the published notebook of a chapter took, where there is one."""
    try:
        return chapters.published(chapter).metadata["rnem"]["seconds"]
    except (AttributeError, OSError, KeyError, ValueError):
        return 0.0


# ---------------------------------------------------------------------------------------------------------------- doing


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the right to reproduce this book; UserError where another process does. A killed one lets go by itself."""
    lock = root.parent / "_build" / "reproduce.lock"  # apart from those of chapters, of which one has this name
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(lock, timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(f"another `rnem reproduce` is at work on {root}") from None


def execute(names: Iterable[str], root: Path, jobs: int, say: Callable[[str], None] = print) -> list[str]:
    """Execute chapters, ``jobs`` at a time, each by a process of its own; what failed, a sentence each."""
    variables = {"RNEM_BOOK": str(root.resolve()), "OMP_NUM_THREADS": str(max(processes.cores() // jobs, 1))}
    failed = []
    with contextlib.closing(processes.run(names, jobs, lambda name: ["chapter", name], variables)) as ended:
        for name, problem, seconds in ended:
            say(f"chapter {name}: {problem or f'executed in {seconds:.0f} s'}")
            failed += [problem] * bool(problem)
    return failed


def build(root: Path) -> Path:
    """The pages, from executed notebooks; the first of them. UserError where there is a warning."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", root, "-W", "--keep-going", "-q"]
    variables = os.environ | {"RNEM_BOOK_EXECUTE": "never", "RNEM_BOOK": str(root.resolve())}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    page = root.parent / "_build" / "html" / "index.html"
    if done.returncode or not page.exists():
        lines = [line for line in done.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
        raise UserError(f"the book was not built: {lines[0] if lines else done.stderr.strip()[-300:]}")
    return page
