"""The subcommand ``rnem export``: a finished run as the script that the book's page *Play with it* runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

import rnem
from rnem.cli.arguments import RunName, writable

# Whatever needs torch is imported where it is used, so that --help answers at once.


@dataclass
class Export:
    """Write a run as JavaScript: config, key, digest and weights in float16, for rnem/live/model.js in a web page.
    $ rnem export laptop-balls4mass-rnem-k8@0 --out rnem-k8.js
    """

    run: RunName
    """NAME (its best finished run), NAME@SEED, or a run's folder."""
    out: Annotated[Path, arg(metavar="FILE.js")]
    """File to write."""

    def __call__(self) -> None:
        writable(self.out)
        from rnem import live
        from rnem.runs import files

        run = rnem.load_run(self.run)
        text = live.script(run).encode()
        with files.writing(f"script {self.out}"):
            files.replace_file(self.out, text)
        print(f"{run.label} ({run.key}): {self.out}, {len(text) / 1000:.0f} kB, window.RNEM_RUNS[{run.label!r}]")
