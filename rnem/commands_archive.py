"""The subcommands of ``rnem runs`` that take finished runs from one machine to another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from rnem.arguments import UserError, resolve

# Whatever needs torch is imported where it is used, so that --help answers at once.
if TYPE_CHECKING:
    from rnem.runs import Run


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
        from rnem import archive, runs

        chosen = [run for text in self.runs for run in _runs_of(text)] if self.runs else runs.find()
        if not chosen:
            raise UserError(f"there is no finished run in {runs.runs_root()}")
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
        from rnem import archive

        states: Counter[str] = Counter()
        with archive.local(self.archive, self.sha256) as path:
            for outcome in archive.merge(path):
                print(f"{outcome.name}: {outcome.state}" + (f": {outcome.why}" if outcome.why else ""), flush=True)
                states[outcome.state] += 1
        print(", ".join(f"{number} {state}" for state, number in states.items()))
        return 1 if states["conflict"] or states["refused"] else 0


def _runs_of(text: str) -> list[Run]:
    """All finished runs of a name, or the one that is named more closely."""
    from rnem import runs

    return runs.find(text) or [resolve(text)]
