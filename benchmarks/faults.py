"""What happens when things go wrong: every fault is injected for real, then the same command is given again.

    python benchmarks/faults.py                          # the table
    python benchmarks/faults.py --only kill              # cases with this in their name
    python benchmarks/faults.py --out data/faults.csv    # also the file that the book shows

A row each: what the user saw, how many finished runs were lost, and whether the next call carried on to the weights and
metrics of an undisturbed training, bit by bit. tests/test_faults.py checks the same cases.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from injected import archives, book, damage, lab, training
from injected.case import Case

from rnem.runs import files

CASES = {case.id: case for part in (training, damage, book, archives) for case in part.CASES}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    id: str
    fault: str
    injected: str
    seen: str
    exit_code: int
    tracebacks: int
    lost_runs: int
    carried_on: bool

    @property
    def good(self) -> bool:
        return self.carried_on and not self.tracebacks and not self.lost_runs


def inject(case: Case) -> Row:
    """Do it, and say what happened; AssertionError where the user saw something else than the case says."""
    with lab.laboratory() as here:
        said, carried_on = case.call(here)
        tracebacks = sum("Traceback" in each.out + each.err for each in here.said)
        seen = here.clean(said.sentence)
        return Row(case.id, case.fault, case.how, seen, said.code, tracebacks, here.lost(), carried_on)


def write(path: Path, new: list[Row]) -> None:
    """Replace the rows of a table, and keep those of cases that were left out this time."""
    rows = {}
    if path.exists():
        with open(path, encoding="utf-8") as file:
            rows = {row["id"]: row for row in csv.DictReader(file)}
    rows |= {row.id: asdict(row) for row in new}
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[name] for name in CASES if name in rows)
    files.replace_file(path, text.getvalue().encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument("--only", default="", help="cases with this in their name")
    arguments = parser.parse_args()
    chosen = [case for case in CASES.values() if arguments.only in case.id]
    rows: list[Row] = []
    try:
        for case in chosen:
            begun = time.monotonic()
            try:
                row = inject(case)
                rows += [row] if row.good else []
                what = f"{'good' if row.good else 'BAD '} {case.id}: {row.seen}"
            except AssertionError as error:
                what = f"BAD  {case.id}: {error}"
            print(f"{time.monotonic() - begun:5.1f} s  {what}", flush=True)
            if arguments.out:
                write(arguments.out, rows)
    finally:
        lab.close()
    print(f"{len(chosen)} faults, {len(chosen) - len(rows)} not as they should be")
    return 0 if len(rows) == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
