"""Search of the laptop recipe: variants of the named runs, each for the same minutes, judged on validation videos.

    python benchmarks/recipe.py NAME FIELD=VALUE ... [--model nem] [--minutes 10 | --updates 2000]

trains one variant on one thread and appends a row to data/search/recipe.csv: what was changed, how far it came, and how
good it was on the validation split (never the test split). The schedule (decay, curriculum) is laid over the number of
updates that fit into the minutes, measured first, so that variants compete at equal time; or over the updates given.
"""

from __future__ import annotations

import argparse
import ast
import csv
import dataclasses
import itertools
import tempfile
import time

import torch

from rnem import paths
from rnem.runs import config, experiments, provenance
from rnem.training import train

DEVICE = provenance.accelerator("auto")
TABLE = paths.repository() / "data" / "search" / "recipe.csv"
SHOWN = (
    *("loss", "training_loss", "bce", "relational", "wrong", "copy_last", "ari"),
    *("last10_bce", "last10_wrong", "last10_ari"),
)
SHORT, LONG = 10, 50
"""Updates of the two calls whose difference in time is the speed: what every call costs cancels."""


def variant(model: str, changes: dict) -> config.RunConfig:
    """The named laptop run of a model with other fields of its network or training."""
    name = f"laptop-balls4mass-{model}" + ("" if model in ("rnn", "lstm") else "-k5")
    base = experiments.named(name)
    network = {k: v for k, v in changes.items() if hasattr(base.network, k)}
    training = {k: v for k, v in changes.items() if k not in network}
    return dataclasses.replace(
        base,
        network=dataclasses.replace(base.network, **network),
        training=dataclasses.replace(base.training, **training),
    )


def scheduled(base: config.RunConfig, shares: list[tuple[float, int]], updates: int) -> config.RunConfig:
    """The run cut to ``updates``, its curriculum given as shares of them, five validations."""
    every = -(-updates // 5)
    curriculum = tuple((round(share * updates), steps) for share, steps in shares)
    return base.replace(updates=updates, curriculum=curriculum, evaluate_every=every)


def seconds_an_update(run: config.RunConfig, steps: int) -> float:
    """Measured on a few updates of ``steps`` predicted frames."""
    run = run.replace(updates=10**6, curriculum=((10**6, steps),), evaluate_every=10**6)
    seconds = {}
    with tempfile.TemporaryDirectory() as root:
        for count in (SHORT, SHORT, LONG):  # the first warms up
            begun = time.monotonic()
            train.train(run, root=root, accelerator=DEVICE, progress=False, stop_after=count)
            seconds[count] = time.monotonic() - begun
    return (seconds[LONG] - seconds[SHORT]) / (LONG - SHORT)


def updates_within(minutes: float, base: config.RunConfig, shares: list[tuple[float, int]]) -> int:
    """Return how many updates fit into the minutes on this machine, measured."""
    begins = [0.0] + [share for share, _ in shares] + [1.0]
    stages = [steps for _, steps in shares] + [base.training.steps]
    spans = zip(itertools.pairwise(begins), stages, strict=True)
    cost = sum((end - begin) * seconds_an_update(base, steps) for (begin, end), steps in spans)
    return round(60 * minutes / cost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what the variant is called in the table")
    parser.add_argument("changes", nargs="*", metavar="FIELD=VALUE", help="fields of NetworkConfig or TrainingConfig")
    parser.add_argument("--model", default="rnem")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--updates", type=int, help="train for so many updates instead")
    parser.add_argument("--shares", default="[]", help="curriculum as [(share of the updates, steps), ...]")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pairs = (change.split("=", 1) for change in given.changes)
    changes = {k: ast.literal_eval(v) if v[0] in "-0123456789(" else v for k, v in pairs}
    shares = ast.literal_eval(given.shares)
    torch.set_num_threads(1)
    base = variant(given.model, changes).replace(seed=given.seed)
    run = scheduled(base, shares, given.updates or updates_within(given.minutes, base, shares))
    with tempfile.TemporaryDirectory() as root:
        done = train.train(run, root=root, accelerator=DEVICE, progress=False)
        rows = done.metrics()
    last = rows.iloc[-1]
    row = {
        "variant": given.name, "model": given.model, "seed": given.seed,
        "changes": " ".join(given.changes), "curriculum": given.shares,
        "updates": done.updates, "sequences": done.manifest["sequences_seen"],
        "minutes": round(done.manifest["wall_seconds"] / 60, 1),
        **{name: f"{last[name]:.4g}" for name in SHOWN},
        "wrong_curve": " ".join(f"{value:.1f}" for value in rows["last10_wrong"]),
        "training_loss_curve": " ".join(f"{value:.1f}" for value in rows["training_loss"]),
        "hardware": done.manifest["hardware"], "commit": done.manifest["commit"][:8],
    }  # fmt: skip
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    new = not TABLE.exists()
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
