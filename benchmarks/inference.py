"""One next-frame step and a rollout, plain against fast path, in milliseconds and as ratios measured in one run.

python benchmarks/inference.py           # a table
python benchmarks/inference.py --json    # the same, and one line of JSON at the end
python benchmarks/inference.py --save    # also data/benchmarks/inference.json, which the Cost chapter shows
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from rnem.evaluation import evaluate
from rnem.model import em
from rnem.model.fast import on_path
from rnem.model.network import build
from rnem.runs import experiments, files
from rnem.runs.provenance import environment
from rnem.videos import datasets

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "data" / "benchmarks" / "inference.json"
ROLLOUT = (20, 30)  # true frames, simulated frames


def milliseconds(function, repeats: int) -> float:
    """Median over ``repeats`` calls, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


@torch.no_grad()
def row(run_name: str, path: str, batch: int) -> dict:
    """Time of one step from frame to next prediction, and of a whole rollout, for a batch of videos."""
    run = experiments.named(run_name)
    torch.manual_seed(0)
    network = on_path(build(run.network), path).to(memory_format=torch.channels_last).eval()
    seen = datasets.generate(run.data, "test", 0, batch, sum(ROLLOUT) + 1)
    x = seen.features.float()
    flips, raw = evaluate.dice(seen, run.network.components)
    state = em.initial_state(network, raw)

    def rollout() -> None:
        for _ in em.unroll(network, x, flips, raw, real_steps=ROLLOUT[0]):
            pass

    return {
        "run": run_name,
        "path": path,
        "batch": batch,
        "step_ms": milliseconds(lambda: em.step(network, state, x[0], x[1]), 7),
        "rollout_ms": milliseconds(rollout, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--save", action="store_true", help=f"write {SAVED.relative_to(ROOT)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, batches in (("laptop-balls4mass-rnem-k5", (1, 64)), ("paper-balls4mass-rnem-k5", (1, 8))):
        for batch in batches:
            pair = {path: row(name, path, batch) for path in ("plain", "fast")}
            rows += pair.values()
            print(
                f"{name}, batch {batch}: step {pair['plain']['step_ms']:.1f} -> {pair['fast']['step_ms']:.1f} ms, "
                f"rollout of {ROLLOUT[0]} + {ROLLOUT[1]} frames {pair['plain']['rollout_ms']:.0f} -> "
                f"{pair['fast']['rollout_ms']:.0f} ms",
                flush=True,
            )
    headline = {
        f"{rows[i]['run'].split('-')[0]}_batch{rows[i]['batch']}_{what}_ratio": round(
            rows[i][f"{what}_ms"] / rows[i + 1][f"{what}_ms"], 3
        )
        for i in range(0, len(rows), 2)
        for what in ("step", "rollout")
    }
    if arguments.save:
        SAVED.parent.mkdir(parents=True, exist_ok=True)
        result = {"headline": headline, "rows": rows, "hardware": environment()}
        files.replace_file(SAVED, (json.dumps(result, indent=1) + "\n").encode())
    if arguments.json:
        print(json.dumps(headline))


if __name__ == "__main__":
    main()
