"""Every run of the book, by name: frozen dataclasses that together decide a result (with the seed and one machine)."""

from __future__ import annotations

import dataclasses

from rnem.errors import RnemError
from rnem.model.config import MODELS, NetworkConfig
from rnem.runs.config import PROFILES, RunConfig, TrainingConfig

# ---------------------------------------------------------------------------------------------------------------- runs

_NETWORK = {
    "smoke": {"autoencoder": "tiny16", "state": 24, "attention": 12, "output_bias": -2.0},
    "laptop": {"autoencoder": "coarse32", "state": 128, "attention": 64, "output_bias": -3.0},
    "paper": {"autoencoder": "balls64", "state": 250, "attention": 100},
}
_NETWORK["long"] = _NETWORK["laptop"]
_TRAINING = {
    "smoke": TrainingConfig(
        updates=40, batch=8, steps=6, optimizer="muon", muon_lr=4e-3, warmup=5, decay=0.2, clip=1.0, noise=0.02,
        evaluate_every=20, validation=16, validation_steps=10, patience=0,
    ),
    "laptop": TrainingConfig(
        updates=4000, batch=16, steps=14, optimizer="muon", muon_lr=6e-3, warmup=100, decay=0.5, clip=1.0, noise=0.02,
        evaluate_every=250, validation=128, validation_steps=29, patience=0,
    ),
    "paper": TrainingConfig(),
}  # fmt: skip
CARRIED = (1, 2, 3, 4)
"""Stretches of the long campaign: half of the sequences of a batch begin fresh, the oldest are 57 frames long."""
_TRAINING["long"] = dataclasses.replace(_TRAINING["laptop"], updates=12_000, stretches=CARRIED)
_SIZE = {"smoke": 16, "laptop": 32, "long": 32, "paper": 64}


def _balls(profile: str, balls: str, model: str, components: int, **training) -> RunConfig:
    name = f"{profile}-{balls}-{model}" + (f"-k{components}" if components > 1 else "")
    return RunConfig(
        name=name,
        data=f"{balls}{_SIZE[profile]}",
        network=NetworkConfig(model=model, components=components, **_NETWORK[profile]),
        training=dataclasses.replace(_TRAINING[profile], **training),
    )


def _invaders(profile: str, model: str, components: int, **network) -> RunConfig:
    """Space Invaders as the authors: K = 4, 25 frames, few flips; paper: their network and batch."""
    size = 84 if profile == "paper" else 42
    own = {
        "smoke": {"validation_steps": 10},
        "laptop": {"validation_steps": 24, "updates": 2000},  # one costs half as much again as with balls
        "long": {"validation_steps": 24, "updates": 6000},
        "paper": {"validation_steps": 24, "steps": 24, "batch": 32, "evaluate_every": 1562},
    }
    return RunConfig(
        name=f"{profile}-spaceinvaders-{model}" + (f"-k{components}" if components > 1 else ""),
        data=f"spaceinvaders{size}",
        network=NetworkConfig(
            model=model, components=components, actions=6,
            **_NETWORK[profile] | {"autoencoder": "atari84" if size == 84 else "coarse42"} | network,
        ),
        training=dataclasses.replace(_TRAINING[profile], noise=0.002, **own[profile]),
    )  # fmt: skip


def _with_authors_order(run: RunConfig) -> RunConfig:
    """The same with actions handed out as in the authors' code: what that defect costs."""
    profile, data, model = run.name.split("-", 2)
    network = dataclasses.replace(run.network, action_order="authors")
    return dataclasses.replace(run, name=f"{profile}-{data}-order_{model}", network=network)


def _with_authors_training(run: RunConfig) -> RunConfig:
    """The authors' optimiser and noise at another size, for as many updates: what departing from them does."""
    profile, data, model = run.name.split("-", 2)
    theirs = {
        name: getattr(_TRAINING["paper"], name)
        for name in ("optimizer", "lr", "muon_lr", "warmup", "decay", "clip", "noise")
    }
    run = run.replace(**theirs)
    return dataclasses.replace(
        run, name=f"{profile}-{data}-authors_{model}", network=dataclasses.replace(run.network, output_bias=0.0)
    )


def _carried(run: RunConfig) -> RunConfig:
    """The same with sequences that carry state from update to update, for as many updates."""
    profile, data, model = run.name.split("-", 2)
    return dataclasses.replace(run, name=f"{profile}-{data}-carried_{model}").replace(stretches=CARRIED)


def _longer(run: RunConfig, updates: int) -> RunConfig:
    """The first runs that were made, three times as long and with smaller steps: what more training gives."""
    profile, data, model = run.name.split("-", 2)
    run = dataclasses.replace(run, name=f"{profile}-{data}-long_{model}")
    return run.replace(updates=updates, muon_lr=3e-3, decay=0.2, evaluate_every=500)


def _paper_with_long_recipe(model: str, components: int) -> RunConfig:
    """The authors' network at 64 x 64 pixels, trained as the long campaign is: what a GPU does in ten minutes."""
    run = _balls("paper", "balls4mass", model, components)
    return dataclasses.replace(
        run,
        name=run.name.replace("balls4mass-", "balls4mass-long_"),
        network=dataclasses.replace(run.network, output_bias=_NETWORK["long"]["output_bias"]),
        training=dataclasses.replace(_TRAINING["long"], updates=6500, evaluate_every=1000),
    )


def _named() -> dict[str, RunConfig]:
    rows: list[RunConfig] = []
    for profile in PROFILES:
        rows += [_balls(profile, "balls4mass", model, 5) for model in MODELS if MODELS[model].several]
        rows += [_balls(profile, "balls4mass", model, 1) for model in MODELS if not MODELS[model].several]
        rows += [_balls(profile, "balls4mass", "rnem", k) for k in (2, 3, 4, 6, 8)]
        rows += [_balls(profile, "balls5mass", "rnem", 5)]
        rows += [_with_authors_training(_balls(profile, "balls4mass", model, 5)) for model in ("rnem", "nem")]
        rows += [_balls(profile, "balls3curtain", model, 5) for model in ("rnem", "nem")]
        rows += [_balls(profile, "balls3curtain", model, 1) for model in ("rnn", "lstm")]
        rows += [_invaders(profile, model, 4) for model in ("rnem", "nem")]
        rows += [_invaders(profile, model, 1) for model in ("rnn", "lstm")]
        rows += [_with_authors_order(_invaders(profile, "rnem", 4))]
    laptop = {row.name.removeprefix("laptop-balls4mass-"): row for row in rows}
    long = {"rnem-k5": 12000, "nem-k5": 12000, "lstm": 16000, "rnn": 22000}
    rows += [_longer(laptop[model], updates) for model, updates in long.items()]
    rows += [_carried(laptop["rnem-k5"])]
    rows += [_paper_with_long_recipe(model, k) for model, k in (("rnem", 5), ("nem", 5), ("lstm", 1))]
    return {row.name: row for row in rows}


RUNS: dict[str, RunConfig] = _named()
"""One named run per row of a results table: ``<profile>-<data>-<model>[-k<K>]``."""


def named(name: str) -> RunConfig:
    """The named run; RnemError lists the nearest names."""
    if name not in RUNS:
        import difflib

        near = difflib.get_close_matches(name, RUNS, n=3, cutoff=0.3) or list(RUNS)[:3]
        raise RnemError(f"no run is named {name!r}; did you mean {', '.join(near)}? (`rnem runs names` lists them)")
    return RUNS[name]
