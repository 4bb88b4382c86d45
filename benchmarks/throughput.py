"""Training speed and memory of the fast path against the plain one, as ratios measured in one run on one machine.

    python benchmarks/throughput.py            # tables
    python benchmarks/throughput.py --json     # the same, and one line of JSON at the end
    python benchmarks/throughput.py --save     # also data/benchmarks/throughput.json, which the Cost chapter shows

Every measurement is a process of its own that trains for some seconds: data, forward, backward, clipping, optimiser.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rnem.model.network import build
from rnem.runs import files

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "data" / "benchmarks" / "throughput.json"


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement. At paper size ``batch`` is 32 (theirs: 64; plain needs 8 GB), and 8, as theirs was timed."""

    run: str = "laptop-balls4mass-rnem-k5"
    path: str = "fast"
    threads: int = 1
    batch: int = 16
    steps: int = 14
    components: int = 5
    seconds: float = 6.0


LAPTOP = Case()
PAPER = Case(run="paper-balls4mass-rnem-k5", batch=32, steps=30, threads=2, seconds=12.0)


# ------------------------------------------------------------------------------------------------- one measurement


def measure(case: Case) -> dict:
    """Train for about ``case.seconds`` in this process: sequences/s, peak memory, arithmetic, share spent on data."""
    import torch

    from rnem.model.fast import on_path, training_loss
    from rnem.runs import experiments
    from rnem.training import muon
    from rnem.videos import datasets

    torch.set_num_threads(case.threads)
    torch.set_flush_denormal(True)  # as training does
    torch.manual_seed(0)
    run = experiments.named(case.run)
    shape = dataclasses.replace(run.network, components=case.components)
    network = on_path(build(shape), case.path).to(memory_format=torch.channels_last)
    loss = training_loss(network, case.path)
    optimizers = muon.optimizers(network, run.training.optimizer, run.training.lr, run.training.muon_lr)
    stream = datasets.Stream(run.data, case.steps + 1, case.batch, 0)
    size = network.shape.size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def update(u: int) -> None:
        x = stream[u].features.float()
        flips = (torch.rand(x.shape) < run.training.noise).float()
        loss(x, flips, torch.randn(case.batch, case.components, 1, size, size))[0].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    update(0), update(1)
    print("ready", flush=True)
    sys.stdin.readline()  # the parent starts all measurements of a group at the same moment
    times, u = [], 2
    begun = time.perf_counter()
    while time.perf_counter() - begun < case.seconds or len(times) < 2:
        t = time.perf_counter()
        update(u)
        times.append(time.perf_counter() - t)
        u += 1
    speed = case.batch / statistics.median(times)
    begun = time.perf_counter()
    datasets.generate(run.data, "training", datasets.BLOCK, datasets.BLOCK, case.steps + 1)
    seconds_a_video = (time.perf_counter() - begun) / datasets.BLOCK
    return {
        "sequences_per_s": speed,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "training_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "gflop_per_sequence": _gflop(loss, case, size) / case.batch,
        "data_share": seconds_a_video * speed,
        "peak_gflops": _matrix_product_peak(),
    }


def _gflop(loss, case: Case, size: int) -> float:
    """Operations of one forward and backward pass in matrix products and convolutions, as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(case.steps + 1, case.batch, 1, size, size)
    with FlopCounterMode(display=False) as counter:
        loss(x, x, torch.randn(case.batch, case.components, 1, size, size))[0].backward()
    return counter.get_total_flops() / 1e9


def _matrix_product_peak(n: int = 1024) -> float:
    """GFLOP/s of one dense float32 product with this process' threads: the machine's practical peak."""
    import torch

    a = torch.randn(n, n)
    times = []
    for _ in range(12):
        t = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - t)
    return 2 * n**3 / statistics.median(times) / 1e9


def together(*cases: Case) -> list[dict]:
    """Measure the cases at the same time, one process each."""
    command = [sys.executable, __file__, "--measure"]
    children = []
    for case in cases:
        environment = os.environ | {"OMP_NUM_THREADS": str(case.threads)}
        children.append(
            subprocess.Popen(
                [*command, json.dumps(dataclasses.asdict(case))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    return [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]


# ------------------------------------------------------------------------------------------------- the tables


def benchmark() -> dict:
    """All measurements: rows of the tables, and the headline ratios."""
    rows = []

    def add(label: str, *cases: Case) -> dict:
        results = together(*cases)
        mean = {k: statistics.mean(r[k] for r in results) for k in results[0]}
        case = cases[0]
        mean["share_of_peak"] = mean["gflop_per_sequence"] * mean["sequences_per_s"] / mean["peak_gflops"]
        rows.append({"label": label, "processes": len(cases), **dataclasses.asdict(case), **mean})
        print(
            f"{label:40s} {case.path:5s} {case.threads} thread(s) x {len(cases)}"
            f"  {mean['sequences_per_s']:7.2f} sequences/s  {mean['peak_mb']:6.0f} MB"
            f" ({mean['training_mb']:6.0f} for training)  {100 * mean['share_of_peak']:3.0f}% of peak",
            flush=True,
        )
        return mean

    change = dataclasses.replace
    plain = add("laptop", change(LAPTOP, path="plain"))
    fast = add("laptop", LAPTOP)
    pair = add("laptop, two side by side", LAPTOP, LAPTOP)
    two = add("laptop, two threads", change(LAPTOP, threads=2))
    paper_plain = add("paper", change(PAPER, path="plain"))
    paper = add("paper", PAPER)
    add("paper", change(PAPER, threads=1))
    for path in ("plain", "fast"):
        add("paper, batch 8", change(PAPER, path=path, batch=8))
    for k in (2, 8):
        add(f"laptop, K = {k}", change(LAPTOP, components=k, seconds=4.0))
    for steps in (7, 29):
        add(f"laptop, {steps + 1} frames", change(LAPTOP, steps=steps, seconds=4.0))
    add("smoke size (16 x 16), K = 5, 15 frames", change(LAPTOP, run="smoke-balls4mass-rnem-k5", seconds=3.0))
    add("paper size (64 x 64), K = 5, 15 frames", change(LAPTOP, run="paper-balls4mass-rnem-k5", batch=8))
    headline = {
        "laptop_ratio": fast["sequences_per_s"] / plain["sequences_per_s"],
        "paper_ratio": paper["sequences_per_s"] / paper_plain["sequences_per_s"],
        "laptop_sequences_per_s": fast["sequences_per_s"],
        "paper_sequences_per_s": paper["sequences_per_s"],
        "memory_ratio": paper_plain["peak_mb"] / paper["peak_mb"],
        "pair_efficiency": pair["sequences_per_s"] / fast["sequences_per_s"],
        "two_thread_gain": two["sequences_per_s"] / fast["sequences_per_s"],
        "data_share": fast["data_share"],
    }
    return {"headline": {k: round(v, 4) for k, v in headline.items()}, "rows": rows, "hardware": hardware()}


def hardware() -> dict:
    """What the numbers were measured on."""
    import torch

    from rnem.runs.provenance import environment

    return {**environment(), "cores": os.cpu_count(), "torch": torch.__version__, "system": platform.system()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--save", action="store_true", help=f"write {SAVED.relative_to(ROOT)}")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Case(**json.loads(arguments.measure)))))
        return
    result = benchmark()
    print("\n".join(f"{name:24s} {value:.3g}" for name, value in result["headline"].items()))
    if arguments.save:
        SAVED.parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(SAVED, (json.dumps(result, indent=1) + "\n").encode())
    if arguments.json:
        print(json.dumps(result["headline"]))


if __name__ == "__main__":
    main()
