"""What a run was made with: commit, digest of the training code, versions, hardware."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rnem.paths import repository
from rnem.runs import code

if TYPE_CHECKING:
    import torch  # which takes seconds to import, and is not needed to name a run

TRAINING_CODE = (
    "rnem.model.config", "rnem.model.layers", "rnem.model.interaction", "rnem.model.network", "rnem.model.em",
    "rnem.model.fast", "rnem.videos.videos", "rnem.videos.balls", "rnem.videos.space_invaders",
    "rnem.videos.datasets", "rnem.runs.config", "rnem.runs.experiments", "rnem.training.muon",
    "rnem.training.cuda_graph", "rnem.training.train",
)  # fmt: skip
"""Modules that decide what training computes."""


def environment(device: torch.device | str = "cpu") -> dict:
    """What a run was made with: commit, dirty, code_digest, torch, python, hardware, threads."""
    import torch

    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": None if commit is None else bool(_git("status", "--porcelain", "--", "rnem")),
        "code_digest": code_digest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
    }


def accelerator(asked: str) -> str:
    """What "auto" means here: cuda where there is one, else the CPU; never Apple's GPUs, which lack float64."""
    import torch

    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def accelerator_problem(name: str) -> str:
    """Why nothing can be trained on this accelerator on this machine, or ""."""
    import torch

    if not {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(name, lambda: True)():
        return "this machine has none that PyTorch can use"
    if name == "mps":
        try:
            torch.zeros(1, dtype=torch.float64, device=name)
        except (TypeError, RuntimeError):
            return "it has no 64-bit numbers, which the simulator and the metrics need; cpu works"
    return ""


def code_digest() -> str:
    """SHA-256 over the code that training runs through, without its comments and docstrings."""
    return code.code_digest(TRAINING_CODE)


def hardware(device: torch.device | str = "cpu") -> str:
    """Name of the accelerator, or of the processor with its vector instructions (they decide float32 rounding)."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})"


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(repository()), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
