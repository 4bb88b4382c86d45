"""The tables of *Expected results* in README.md, from the finished runs and what was measured of them.

python benchmarks/expected.py            # print them
python benchmarks/expected.py --write    # put them into README.md
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from rnem.analysis import curves, occlusion, space_invaders
from rnem.claims import scorecard
from rnem.model.config import model_label
from rnem.runs import store
from rnem.runs.store import Run

README = Path(__file__).resolve().parents[1] / "README.md"
MARK = re.compile(r"(<!-- expected: (\w+) -->\n).*?(?=\n\n)", re.DOTALL)
"""A table in the README: a comment that names it, then lines up to an empty one."""
_WRONG = "wrong pixels of 1024"
_QUANTITIES = {
    "bce": "BCE (nats)",
    "relational": "relational BCE",
    "wrong": _WRONG,
    "ari": "ARI",
    "copy_last": _WRONG,
}
Row = dict[str, str]


def over_seeds(found: list[Run], one: Callable[[Run], float]) -> str:
    """Mean ± 95% interval of a number of each run."""
    return scorecard.number(one(run) for run in found)


def named(label: str, name: str, measured: Callable[[list[Run]], Row]) -> Row:
    """A table's row: the model, how many seeds are finished, what was measured, minutes a run."""
    found = store.exactly(name)
    if not found:
        return {}
    took = sum(run.manifest["wall_seconds"] for run in found) / 60 / len(found)
    return {"model": label, "seeds": str(len(found))} | measured(found) | {"minutes a run": f"{took:.0f}"}


def frames(data: str, *quantities: str) -> Callable[[list[Run]], Row]:
    """Means over frames 10–29 of test videos."""

    def mean(run: Run, quantity: str) -> float:
        return curves.late_frames(curves.table([run], data))[quantity].mean()

    def measured(found: list[Run]) -> Row:
        alone = found[0].config.network.components == 1  # then there is nothing to group
        return {
            _QUANTITIES[q]: "–" if q == "ari" and alone else over_seeds(found, lambda run, q=q: mean(run, q))
            for q in quantities
        }

    return measured


def at_both_budgets(data: str, models: dict[str, str], measured: Callable[[list[Run]], Row]) -> list[Row]:
    """Rows of the first campaign's runs and, after them, of the long campaign's; ``models`` with their labels."""
    return [
        named(label + more, f"{profile}-{data}-{model}", measured)
        for profile, more in (("laptop", ""), ("long", ", long campaign"))
        for model, label in models.items()
    ]


def balls() -> list[Row]:
    late = frames("balls4mass32", "bce", "relational", "wrong", "ari")

    def measured(found: list[Run]) -> Row:
        updates, sequences = found[0].updates, found[0].manifest["sequences_seen"]
        return {"updates": f"{updates:,}", "sequences seen": f"{sequences:,}"} | late(found)

    models = ("rnem-k5", *(f"rnem-k{k}" for k in (8, 6, 4, 3, 2)), "rnem_noatt-k5", "nem-k5", "lstm", "rnn")
    rows = at_both_budgets("balls4mass", {model: model_label(model) for model in models}, measured)
    variants = [(f"authors_{model}", model, "the authors' optimiser and noise") for model in ("rnem-k5", "nem-k5")]
    variants += [("carried_rnem-k5", "rnem-k5", "sequences carry state")]
    rows += [
        named(f"{model_label(model)}, {what}", f"laptop-balls4mass-{name}", measured) for name, model, what in variants
    ]
    copied = frames("balls4mass32", "copy_last")
    return [*rows, {"model": "copy the last frame"} | copied(store.exactly("laptop-balls4mass-rnem-k5")[:1])]


def curtain() -> list[Row]:
    late = frames("balls3curtain32", "bce", "relational")

    def faint(run: Run) -> float:
        rows = occlusion.returns(run)
        return rows.loc[(rows["hidden"] >= 2) & rows["frame"].between(10, 50), "faint"].median()

    def measured(found: list[Run]) -> Row:
        return late(found) | {
            "returns predicted within 2 pixels (%)": over_seeds(found, lambda r: 100 * occlusion.returned(r, 10, 50)),
            "how far off what shows faintly is (pixels)": over_seeds(found, faint),
        }

    models = {model: model_label(model) for model in ("rnem-k5", "nem-k5", "lstm", "rnn")}
    return at_both_budgets("balls3curtain", models, measured)


def game() -> list[Row]:
    def late(run: Run) -> pd.Series:
        return space_invaders.per_step(run).set_index("step").loc[10:24].mean()

    def measured(found: list[Run]) -> Row:
        return {
            "BCE (nats)": over_seeds(found, lambda run: late(run)["bce"]),
            "BCE on pixels that change": over_seeds(found, lambda run: late(run)["moving"]),
            "turns (%)": over_seeds(found, lambda run: 100 * space_invaders.turning(run, 10, 24)["right"].mean()),
        }

    models = {model: model_label(model) for model in ("rnem-k4", "nem-k4", "lstm")}
    models["order_rnem-k4"] = "R-NEM, actions in the authors' order"
    rows = at_both_budgets("spaceinvaders", models, measured)
    copy = late(store.exactly("laptop-spaceinvaders-rnem-k4")[0])
    names = {"BCE (nats)": "copy", "BCE on pixels that change": "copy_moving"}
    return [
        *rows,
        {"model": "copy the last frame"} | {name: scorecard.number([copy[of]]) for name, of in names.items()},
    ]


def markdown(rows: list[Row]) -> str:
    """A Markdown table; models without a finished run are left out."""
    rows = [row for row in rows if row]
    columns = list(rows[0])
    lines = [columns, [":--", *["--:"] * (len(columns) - 1)], *([row.get(c, "") for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"balls": balls, "curtain": curtain, "game": game}


def readme() -> str:
    """README.md with every table as it is now."""
    return MARK.sub(lambda found: found[1] + markdown(TABLES[found[2]]()), README.read_text(encoding="utf-8"))


@dataclass
class Expected:
    """Print the tables of README.md, or put them there."""

    write: bool = False

    def __call__(self) -> None:
        if self.write:
            README.write_text(readme(), encoding="utf-8")
        else:
            print("\n\n".join(markdown(rows()) for rows in TABLES.values()))


if __name__ == "__main__":
    tyro.cli(Expected)()
