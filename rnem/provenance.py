"""What a run was made with: commit, digest of the training code, versions, hardware."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
from pathlib import Path

import torch

from rnem import staleness

TRAINING_CODE = ("balls", "config", "em", "fast", "invaders", "networks", "optim", "sequences", "train", "videos")
"""Modules that decide what training computes."""


def repository() -> Path:
    """The repository's root: the folder above this package, or (where it is installed apart) above the work folder."""
    candidates = [Path(__file__).resolve().parent.parent, Path.cwd(), *Path.cwd().parents]
    return next((path for path in candidates if (path / "pyproject.toml").is_file()), candidates[0])


def environment(device: torch.device | str = "cpu") -> dict:
    """What a run was made with: commit, dirty, code_digest, torch, python, hardware, threads."""
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


def code_digest() -> str:
    """SHA-256 over the code that training runs through, without its comments and docstrings."""
    return staleness.code_digest(TRAINING_CODE)


def hardware(device: torch.device | str = "cpu") -> str:
    """Name of the accelerator, or of the processor with its vector instructions (they decide float32 rounding)."""
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
