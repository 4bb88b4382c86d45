"""What the cells of a chapter call beside figures: its parameters, the runs that it declares, its runs.

A chapter declares what it depends on once, in its front matter (see rnem.book.chapters), and its cells ask for exactly
that. It names no profile: :func:`run` and :func:`data` give the names of the one that its parameters choose.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rnem.book import parameters
from rnem.errors import ChapterError
from rnem.model.config import MODELS
from rnem.paths import book_root, runs_root
from rnem.runs.experiments import RUNS
from rnem.runs.store import Run, exactly, names

if TYPE_CHECKING:
    import pandas as pd

LATER = "long"
"""The profile of the later campaign, at the laptop's size."""
_DECLARES = {"runs": list, "data": list, "parameters": dict}
_chosen = parameters.Chosen()
"""Of the chapter that this process executes: a kernel executes one."""


def declared(source: Path) -> dict:
    """The ``rnem`` block in a chapter's front matter, with every key present; ChapterError where it is wrong."""
    text = source.read_text(encoding="utf-8")
    if not text.startswith("---\n") or "\n---\n" not in text[3:]:
        raise ChapterError(f"{source} has no front matter between two lines of ---")
    try:
        block = _yaml(text[4 : text.index("\n---\n", 3)]).get("rnem") or {}
    except (yaml.YAMLError, AttributeError) as error:
        raise ChapterError(f"the front matter of {source} is no YAML: {' '.join(str(error).split())}") from None
    for name, value in block.items():
        if name not in _DECLARES:
            raise ChapterError(f"{source} declares {name!r}, which is none of {', '.join(_DECLARES)}")
        if not isinstance(value, _DECLARES[name]):
            raise ChapterError(f"{source} declares {name} as {value!r}, which is no {_DECLARES[name].__name__}")
    return {name: kind() for name, kind in _DECLARES.items()} | block


_yaml = functools.lru_cache(maxsize=64)(yaml.safe_load)
"""What a front matter says: it is asked for several times, and takes a hundredth of a second."""


def use_parameters(**given):
    """A chapter's parameters, from its first cell: checked, then in force; a note for the page where needed."""
    global _chosen
    parameters.declared_only(_injected(), given)
    _chosen = parameters.check(given)
    parameters.available(_chosen.device)
    if _chosen.profile != parameters.Chosen.profile:
        from IPython.display import Markdown

        return Markdown(_OTHER_PROFILE.format(profile=_chosen.profile))
    return None


def _injected() -> list[str]:
    """Names that papermill has set in this kernel: it takes any, in a cell that begins with its comment."""
    from IPython import get_ipython

    shell = get_ipython()
    history = shell.user_ns.get("In", []) if shell else []  # without a shell these are no cells of a notebook
    return [name for cell in history if cell.startswith("# Parameters\n") for name in parameters.assigned(cell)]


_OTHER_PROFILE = """\
:::{{admonition}} Profile {profile}
:class: warning
Numbers, tables and figures on this page are of the runs of profile *{profile}*. Its text was written for *laptop*:
sizes, settings and times that it names are the laptop's.
:::"""


def run(name: str) -> str:
    """``balls4mass-rnem-k5`` -> the name of that run in the profile that is shown."""
    return _chosen.run(name)


def data(family: str) -> str:
    """``balls4mass`` -> the data set of that family at the size of the profile that is shown."""
    return _chosen.data(family)


def profile() -> str:
    """The profile that is shown."""
    return _chosen.profile


def resolve(declared: Iterable[str], chosen: parameters.Chosen, *, weights: bool = True) -> dict[str, list[Run]]:
    """Run names and patterns -> name: one finished run per seed, exactly as named. A plain name is there with none.

    ``weights``: see rnem.runs.store.load.
    """
    # The long campaign is of the laptop's size: it stands beside the first campaign, and beside no other profile.
    here = [p for p in declared if chosen.profile == parameters.Chosen.profile or not p.startswith(f"{LATER}-")]
    patterns = [chosen.declared_run(pattern) for pattern in here]
    plain = {pattern for pattern in patterns if not set(pattern) & set("*?[")}
    there = names() & RUNS.keys()
    matched = plain | {name for name in there for pattern in patterns if fnmatch.fnmatchcase(name, pattern)}
    return {name: exactly(name, weights=weights)[: chosen.seeds or None] for name in sorted(matched)}


def runs(chapter: str) -> dict[str, list[Run]]:
    """The runs that a chapter declares, in the profile that is shown: name -> one run per seed, sorted by seed.

    ChapterError names those that are not finished and the chapter cannot do without, and the command that makes them.
    """
    found = resolve(declared(book_root() / "chapters" / f"{chapter}.md")["runs"], _chosen)
    if missing := [name for name, members in found.items() if not members]:
        raise ChapterError(
            f"chapter {chapter} needs finished runs that {runs_root()} does not have: {', '.join(missing)}; "
            f"`rnem train {missing[0]} --seed 0` makes one, `rnem reproduce --profile {_chosen.profile}` all that the "
            "book shows"
        )
    return found


def campaigns(found: Mapping[str, list[Run]], *needed: str, least_seeds: int = 3) -> dict[str, dict[str, list[Run]]]:
    """Return what :func:`runs` found by profile, the later campaign first: profile -> name without it -> runs.

    The later campaign is there where it has ``needed`` (where none is named, each name of the first that it knows) with
    ``least_seeds`` seeds or more. A page shows the first of these, and never mixes budgets.
    """
    parts = {
        profile: {
            name.removeprefix(f"{profile}-"): members
            for name, members in found.items()
            if name.startswith(f"{profile}-")
        }
        for profile in (LATER, _chosen.profile)
    }
    needed = needed or tuple(name for name in parts[_chosen.profile] if f"{LATER}-{name}" in RUNS)
    if not needed or any(len(parts[LATER].get(name, [])) < least_seeds for name in needed):
        del parts[LATER]
    return parts


def by_model(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return runs by their model, in the order of the table of models; models without a run are left out."""
    runs = list(runs)
    found = {model: [run for run in runs if run.config.network.model == model] for model in MODELS}
    return {model: members for model, members in found.items() if members}


def provenance(runs: Iterable[Run]) -> pd.DataFrame:
    """A table of runs: name, seed, key, updates, sequences seen, minutes, commit."""
    import pandas as pd

    return pd.DataFrame(
        {
            "run": run.config.name,
            "seed": run.seed,
            "key": run.key,
            "updates": run.updates,
            "sequences": run.manifest["sequences_seen"],
            "minutes": round(run.manifest["wall_seconds"] / 60, 1),
            "commit": str(run.manifest["commit"])[:8],
        }
        for run in runs
    )
