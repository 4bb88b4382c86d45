"""R-NEM: Relational Neural Expectation Maximization, replicated (van Steenkiste et al., arXiv 1802.10353).

    import rnem
    run = rnem.load_run("laptop-balls4mass-rnem-k5@0")
    print(rnem.evaluate(rnem.load_network(run), rnem.fixed("balls4mass32", "test", 20)).summary())

Every public name is imported when it is first asked for, so that ``import rnem`` is fast.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
PUBLIC = {
    "named": "rnem.runs.experiments",
    "load_run": "rnem.runs.store",
    "load_network": "rnem.evaluation.evaluate",
    "unroll": "rnem.model.em",
    "evaluate": "rnem.evaluation.evaluate",
    "fixed": "rnem.videos.datasets",
}
"""Public name -> the module that defines it."""
__all__ = [*PUBLIC]


def __getattr__(name: str) -> Any:
    """Return a public name from its module."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'rnem' has no attribute {name!r}; public are {', '.join(PUBLIC)}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
