"""Digests of what a notebook, a run or a measure depends on, and the difference between two lists of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def digest(tree) -> str:
    """Of anything that JSON can write."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """Of a file's bytes, or ``absent``."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "absent"


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What changed, is new or is gone, by name."""
    changed = [f"{name} changed" for name in now if name in before and before[name] != now[name]]
    added = [f"{name} is new" for name in now if name not in before]
    gone = [f"{name} is gone" for name in before if name not in now]
    return changed + added + gone
