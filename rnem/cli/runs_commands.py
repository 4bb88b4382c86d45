"""The subcommands of ``rnem runs``: look at finished runs, check them, take them from one machine to another."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg, subcommand

import rnem
from rnem.cli.arguments import RunName, minutes, print_table, without_nan, writable
from rnem.errors import UntrainedError, UserError, printable
from rnem.runs import config, experiments

# Whatever needs torch is imported where it is used, so that --help answers at once.
if TYPE_CHECKING:
    from rnem.runs.store import Run


@dataclass
class RunsList:
    """List the finished runs.
    $ rnem runs list laptop-balls4mass-rnem-k5
    """

    name: Annotated[str | None, Positional, arg(metavar="[NAME]")] = None
    """Only runs of this name."""
    json: bool = False
    """Print the manifests as JSON."""

    def __call__(self) -> None:
        from rnem import paths
        from rnem.runs import store

        found = store.find(self.name)
        if self.json:
            print(json.dumps([run.manifest for run in found], indent=2))
            return
        rows = [(run.label, run.key, str(run.updates), minutes(run), run.fact("created") or "-",
                 run.fact("hardware") or "-", (run.fact("commit") or "-")[:7]) for run in found]  # fmt: skip
        print(f"finished runs in {paths.runs_root()}: {len(found)}")
        print_table(("run", "key", "updates", "minutes", "created", "hardware", "commit"), rows)
        for run in found:
            for note in _beside(run.path):
                print(f"note: {run.label} is good, {note}")


@dataclass
class RunsShow:
    """Show a run: its config with every hyperparameter and, where it is finished, what made it and its last evaluation.
    $ rnem runs show laptop-balls4mass-rnem-k5@0
    """

    run: RunName
    """NAME (its best finished run), NAME@SEED, or a run's folder."""

    def __call__(self) -> None:
        try:
            run = rnem.load_run(self.run)
        except UntrainedError:
            name, _, seed = self.run.partition("@")
            chosen = experiments.named(name).replace(seed=int(seed or 0))
            print(f"not trained yet; `rnem train {name} --seed {chosen.seed}` makes it")
            print(json.dumps({"config": config.to_dict(chosen)}, indent=2))
            return
        last = without_nan(run.metrics().iloc[-1].to_dict())
        print(run.path)
        print(json.dumps({"config": config.to_dict(run.config), "manifest": run.manifest, "last": last}, indent=2))


@dataclass
class RunsVerify:
    """Check hashes, sizes and keys of finished runs; exit code 1 where one is damaged.
    $ rnem runs verify
    """

    folders: Annotated[tuple[Path, ...], Positional, arg(metavar="[FOLDER ...]")] = ()
    """Folders of runs; all in the cache when none is given."""

    def __call__(self) -> int:
        from rnem.runs import store

        folders = self.folders or tuple(store.folders())
        broken = 0
        for folder in folders:
            problems = store.verify(folder)
            broken += bool(problems)
            for line in problems or [", ".join(["good", *_beside(folder)])]:
                print(f"{folder}: {line}")
        print(f"{len(folders) - broken} good, {broken} broken")
        return 1 if broken else 0


@dataclass
class RunsNames:
    """List the named runs: what there is to train, and which seeds are finished.
    $ rnem runs names laptop
    """

    part: Annotated[str, Positional, arg(metavar="[PART]")] = ""
    """Only names with this in them."""

    def __call__(self) -> None:
        from rnem.runs import store

        finished: dict[str, list[str]] = {}
        for run in store.find():
            finished.setdefault(run.config.name, []).append(str(run.seed))
        names = [name for name in experiments.RUNS if self.part in name]
        rows = [(name, experiments.RUNS[name].data, str(experiments.RUNS[name].training.updates),
                 " ".join(dict.fromkeys(finished.get(name, [])))) for name in names]  # fmt: skip
        print_table(("name", "data", "updates", "finished seeds"), rows)


@dataclass
class RunsPack:
    """Write finished runs to one file, to bring them to another machine.
    $ rnem runs pack laptop-balls4mass-rnem-k5 --out runs.tar
    """

    runs: Annotated[tuple[str, ...], Positional, arg(metavar="[RUN ...]")] = ()
    """Each a NAME (all its seeds), NAME@SEED, or a run's folder; all finished runs when none is given."""
    out: Annotated[Path, arg(metavar="FILE.tar")] = Path("runs.tar")
    """File to write."""
    trunk: bool = False
    """Also what a longer run would go on from (three times as large)."""

    def __call__(self) -> None:
        from rnem import paths
        from rnem.runs import archive, store

        writable(self.out)
        chosen = [run for text in self.runs for run in _runs_of(text)] if self.runs else store.find()
        if not chosen:
            raise UserError(f"there is no finished run in {paths.runs_root()}")
        archive.pack(chosen, self.out, trunk=self.trunk)
        count, size = len({run.path for run in chosen}), self.out.stat().st_size / 1e6
        print(f"{count} runs, {size:.1f} MB: `rnem runs merge {self.out}` brings them into another cache")


@dataclass
class RunsMerge:
    """Bring the runs of a file into the cache, once each is verified; exit code 1 where one is not taken.
    $ rnem runs merge runs.tar
    """

    archive: Annotated[str, Positional, arg(metavar="FILE.tar")]
    """What `rnem runs pack` wrote, or its http(s) address."""
    sha256: str | None = None
    """What its SHA-256 must be; needed for an address."""

    def __call__(self) -> int:
        from rnem.runs import archive

        states: Counter[str] = Counter()
        with archive.local(self.archive, self.sha256) as path:
            for outcome in archive.merge(path):
                print(
                    f"{outcome.name}: {outcome.state}" + (f": {printable(outcome.why)}" if outcome.why else ""),
                    flush=True,
                )
                states[outcome.state] += 1
        print(", ".join(f"{number} {state}" for state, number in states.items()))
        return 1 if states["conflict"] or states["refused"] else 0


def _beside(folder: Path) -> list[str]:
    """A note of files that are not the run's own, and do no harm; none where there are none."""
    from rnem.runs import store

    names = store.strangers(folder)
    return [f"left alone beside it: {', '.join(names)}"] if names else []


def _runs_of(text: str) -> list[Run]:
    """All finished runs of a name, or the one that is named more closely."""
    from rnem.runs import store

    return store.find(text) or [rnem.load_run(text)]


Runs = (
    Annotated[RunsList, subcommand("list")]
    | Annotated[RunsShow, subcommand("show")]
    | Annotated[RunsVerify, subcommand("verify")]
    | Annotated[RunsNames, subcommand("names")]
    | Annotated[RunsPack, subcommand("pack")]
    | Annotated[RunsMerge, subcommand("merge")]
)
