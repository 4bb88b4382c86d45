"""One run: optimise, validate, checkpoint, resume. A run is a function of its config (seed included) on one machine."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from rnem.errors import RunError, TrainingError
from rnem.evaluation import evaluate
from rnem.model import em
from rnem.model.fast import on_path, training_loss
from rnem.model.network import Network, build
from rnem.runs import files, provenance, store
from rnem.runs.config import RunConfig, TrainingConfig
from rnem.training import cuda_graph, muon
from rnem.videos import datasets
from rnem.videos.videos import Videos

CHECKPOINT, BEST, TRUNK = "checkpoint.safetensors", "best.safetensors", "trunk.safetensors"
LOOK_EVERY = 25
"""Updates between two looks at the losses."""


def step_size(training: TrainingConfig, update: int) -> float:
    """Factor on the step size of update number ``update``: linear warm-up, constant, linear decay."""
    warm = min((update + 1) / training.warmup, 1.0) if training.warmup else 1.0
    left = training.updates - trunk_end(training)
    return warm * (min((training.updates - update) / left, 1.0) if left else 1.0)


def sequence_steps(training: TrainingConfig, update: int) -> int:
    """Predicted frames of the sequences of update number ``update``, by the curriculum."""
    return next((steps for end, steps in training.curriculum if update < end), training.steps)


def trunk_end(training: TrainingConfig) -> int:
    """Updates before the decay begins: what a longer run has in common with this one."""
    return training.updates - round(training.decay * training.updates)


def generator_for(seed: int, update: int, device: torch.device | str) -> torch.Generator:
    """Generator of the noise and initial gamma of one update: a resumed run draws what the first one drew."""
    digest = hashlib.sha256(f"noise/{seed}/{update}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass
class State:
    """What a training is at, beside weights and optimisers; a checkpoint holds all of it."""

    code: list[str]
    """Digests of the code that had a part in it, in order."""
    update: int = 0
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)
    """One of metrics for each validation."""
    best: float = math.inf
    """Smallest validation loss, and ``stale``: how many validations ago it was."""
    stale: int = 0
    carried: em.Carried | None = None
    """What sequences hand on to the next update (TrainingConfig.stretches)."""


def train(
    config: RunConfig,
    *,
    root=None,
    accelerator: str = "auto",
    devices: int | str = 1,
    progress: bool = True,
    stop_after: int | None = None,
) -> store.Run | None:
    """Train a run, or go on where it (or a shorter run of the same trunk) stopped; return the finished run.

    ``stop_after`` ends this call after so many updates, checkpoint kept; None is returned then. TrainingError where
    the loss is not finite; RunError where another process trains this run, or its checkpoint is damaged.
    """
    with _own_settings():
        fabric = Fabric(
            accelerator=provenance.accelerator(accelerator), devices=devices, precision=config.training.precision
        )
        fabric.launch()
        _check_devices(config, fabric.world_size)
        with store.lock(config, root) if fabric.is_global_zero else contextlib.nullcontext():
            # Inside the lock: another process may just have finished it.
            if run := store.finished(config, root):
                return run
            return _train(config, fabric, root, progress and fabric.is_global_zero, stop_after)


def _train(config: RunConfig, fabric: Fabric, root, progress: bool, stop_after: int | None) -> store.Run | None:
    """Set up, then for each update: step size, batch, gradients, step; now and then validate and keep a checkpoint."""
    training, folder = config.training, store.work_folder(config, root)
    torch.manual_seed(config.seed)  # weights are drawn on the CPU: the same for every device
    # Images are kept channels last, which convolutions on a CPU and on tensor cores prefer.
    network = on_path(build(config.network), training.path).to(memory_format=torch.channels_last)
    optimizers = muon.optimizers(network, training.optimizer, training.lr, training.muon_lr)
    model, *wrapped = fabric.setup(training_loss(network, training.path), *optimizers)
    full_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    stream = datasets.Stretches(
        config.data, training.steps, training.batch, config.seed, training.stretches, fabric.device
    )
    validation = datasets.fixed(config.data, "validation", training.validation, validation_frames(training))
    environment = provenance.environment(fabric.device)
    state = State(code=[provenance.code_digest()])
    checkpoints = _Checkpoints(config, fabric, folder, network, optimizers, state)
    checkpoints.resume(root)
    graph: cuda_graph.Gradients | None = None
    losses: list[Tensor] = []  # since they were last looked at, which costs a GPU a synchronisation
    recent = float("nan")
    last = training.updates if stop_after is None else min(state.update + stop_after, training.updates)
    bar = tqdm(
        total=training.updates * training.batch,
        initial=state.update * training.batch,
        unit="seq",
        desc=f"{config.name}@{config.seed}",
        disable=not progress,
        mininterval=1.0,
    )
    begun = time.monotonic() - state.seconds
    while state.update < last and not _out_of_patience(training, state):
        if state.update == trunk_end(training) and training.decay:
            checkpoints.write(TRUNK)
        factor = step_size(training, state.update)
        for optimizer, lrs in zip(optimizers, full_lrs, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * factor

        batch = draw_batch(config, stream, state, fabric)
        if graph is None and cuda_graph.can_record(fabric, training, batch):
            graph = cuda_graph.Gradients(network, *batch)
        if graph is not None and graph.fits(*batch):
            loss, ended = graph(*batch)
        else:
            loss, ended = model(*batch)
            # Fabric averages gradients over devices; a device's share of the sequences is its weight in that mean.
            share = batch[0].shape[1] * fabric.world_size / training.batch
            loss = loss if share == 1 else loss * share
            fabric.backward(loss)
        # What is kept is the number: a graph of autograd that still lives breaks the recording of a CUDA graph.
        loss = loss.detach()
        if training.clip:
            torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip)
        for optimizer in wrapped:
            optimizer.step()
            optimizer.zero_grad()
        state.carried = ended if training.stretches != (1,) else None
        state.update += 1

        losses.append(loss)
        validates = state.update % training.evaluate_every == 0 or state.update == training.updates
        if len(losses) == LOOK_EVERY or validates:
            recent = mean_loss(losses, config, state.update, fabric, folder)
            losses.clear()
        if validates:
            state.seconds = time.monotonic() - begun
            is_best = validate(network, validation, config, state, recent)
            if is_best and training.patience:
                checkpoints.write(BEST)
            state.seconds = time.monotonic() - begun
            checkpoints.write(CHECKPOINT)
        bar.update(training.batch)
        bar.set_postfix_str(_shown(recent, state.rows), refresh=validates)
    bar.close()
    if state.update < training.updates and not _out_of_patience(training, state):
        state.seconds = time.monotonic() - begun
        checkpoints.write(CHECKPOINT)
        return None
    return checkpoints.finish(environment, root)


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Set what training needs of torch's global state, and put back what the caller had."""
    generator = torch.get_rng_state()
    flushed = float(torch.tensor(1e-40) * 1) == 0
    rounded = torch.backends.cudnn.allow_tf32
    # Momentum of dead units decays into subnormal numbers, which made Muon's products 30 times slower. Set before torch
    # starts its threads, since they inherit it.
    torch.set_flush_denormal(True)
    # float32 on a GPU too: by default its convolutions round to 10 bits, its matrix products do not.
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = rounded
        torch.set_flush_denormal(flushed)
        torch.set_rng_state(generator)


def _check_devices(config: RunConfig, devices: int) -> None:
    """Refuse a number of devices for which this run could not be what it is on one."""
    if devices > config.training.batch:
        raise TrainingError(
            f"{config.name}: {devices} devices are more than the {config.training.batch} sequences of an update"
        )
    if devices > 1 and config.training.stretches != (1,):
        raise TrainingError(
            f"{config.name}: its sequences carry state from update to update (training.stretches), which needs one "
            f"device, not {devices}"
        )


def draw_batch(config: RunConfig, stream: datasets.Stretches, state: State, fabric: Fabric) -> tuple:
    """Return this process' share of the next batch, as TrainingLoss takes it.

    features, flips (T,B,1,H,W), raw gamma (B,K,1,H,W), actions (T,B,A) or None; and where sequences go on from the
    update before, what is carried and which of them begin anew, bool (B,).
    """
    device, world, rank, update = fabric.device, fabric.world_size, fabric.global_rank, state.update
    videos = stream[update].first(sequence_steps(config.training, update) + 1)
    features = videos.features.to(device, torch.float32)
    generator = generator_for(config.seed, update, device)
    flips = (torch.rand(features.shape, generator=generator, device=device) < config.training.noise).float()
    shape = (features.shape[1], config.network.components, *features.shape[2:])
    raw = torch.randn(shape, generator=generator, device=device)
    actions = videos.to(device).one_hot(config.network.actions)
    actions = None if actions is None else actions[:, rank::world]
    batch = features[:, rank::world], flips[:, rank::world], raw[rank::world], actions
    fresh = stream.fresh(update)
    return batch if state.carried is None or bool(fresh.all()) else (*batch, state.carried, fresh.to(device))


def mean_loss(losses: list[Tensor], config: RunConfig, update: int, fabric: Fabric, folder: Path) -> float:
    """Return the mean of the losses of the updates before ``update``; TrainingError where one is not finite."""
    together = torch.stack(losses)
    if fabric.world_size > 1:  # also so that all processes stop together
        together = fabric.all_reduce(together, reduce_op="mean")
    if not bool(together.isfinite().all()):
        first, batch = update - len(together) + int((~together.isfinite()).nonzero()[0]), config.training.batch
        raise TrainingError(
            f"{config.name}@{config.seed}: the loss of update {first} is not finite (sequences {first * batch} to "
            f"{(first + 1) * batch - 1} of its stream); the last good checkpoint stays in {folder}"
        )
    return float(together.cpu().mean())


def validation_frames(training: TrainingConfig) -> int:
    """Return how many frames a validation sequence has."""
    return max(training.steps, training.validation_steps) + 1


def validate(network: Network, validation: Videos, config: RunConfig, state: State, loss: float) -> bool:
    """Add a row of metrics to the state, the same on every process, and return whether its loss is the best so far."""
    result = evaluate.evaluate(network, validation, noise=config.training.noise, draw=0)
    row = {
        "update": state.update,
        "sequences": state.update * config.training.batch,
        "seconds": round(state.seconds, 1),
        "training_loss": loss,
        **{name: float(value) for name, value in result.summary().items()},
    }
    state.rows.append(row)
    is_best = row["loss"] < state.best
    state.best, state.stale = min(row["loss"], state.best), 0 if is_best else state.stale + 1
    return is_best


def _out_of_patience(training: TrainingConfig, state: State) -> bool:
    return 0 < training.patience <= state.stale


def _shown(loss: float, rows: list[dict]) -> str:
    """Return what the progress bar says: mean training loss of the last updates, and the last validation."""
    shown = "" if math.isnan(loss) else f"loss {loss:.1f}"
    if rows:
        shown += f", validation loss {rows[-1]['loss']:.1f} bce {rows[-1]['bce']:.1f} ari {rows[-1]['ari']:.2f}"
    return shown


# ---------------------------------------------------------------------------------------------------------- checkpoints


@dataclass
class _Checkpoints:
    """Writes and reads all that a training is: weights, optimisers and state."""

    config: RunConfig
    fabric: Fabric
    folder: Path
    network: Network
    optimizers: list[torch.optim.Optimizer]
    state: State

    def write(self, name: str) -> None:
        """Replace the checkpoint of that name by what is now."""
        state = self.state
        tensors = {f"network/{name}": p for name, p in self.network.state_dict().items()}
        tensors |= {} if state.carried is None else {f"carried/{n}": v for n, v in vars(state.carried).items()}
        carried = muon.state_tensors(self.network, self.optimizers)
        tensors |= {f"optimizer/{name}": value for name, value in carried.items()}
        meta = {
            "key": store.key(self.config), "update": state.update, "seconds": state.seconds, "stale": state.stale,
            "best": None if math.isinf(state.best) else state.best, "code": state.code,
            "rows": [list(row.items()) for row in state.rows],  # pairs keep their order in sorted JSON
        }  # fmt: skip
        if self.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_state(self.folder / name, tensors, meta)
        self.fabric.barrier()

    def resume(self, root) -> None:
        """Go on from this run's own checkpoint, else from the longest trunk of a shorter finished run, else begin."""
        path, key = self.folder / CHECKPOINT, store.key(self.config)
        own = files.read_state(path)
        path, found = (path, own) if own else self._longest_trunk(root)
        if not found:
            return
        try:
            if own and found[1].get("key", key) != key:  # older checkpoints have none
                raise ValueError("it is of another run")
            self._restore(*found)
        except Exception as error:  # whatever is in it
            raise RunError(
                f"{path} does not fit {self.config.name}@{self.config.seed}: delete it to start again without it"
            ) from error

    def _restore(self, tensors: dict[str, Tensor], meta: dict) -> None:
        state, now = self.state, self.state.code[-1]
        self.network.load_state_dict(_below("network/", tensors))
        muon.load_state_tensors(self.network, self.optimizers, _below("optimizer/", tensors))
        state.update, state.seconds, state.stale = int(meta["update"]), float(meta["seconds"]), int(meta["stale"])
        state.rows = [dict(row) for row in meta["rows"]]
        state.best = math.inf if meta["best"] is None else meta["best"]
        if carried := _below("carried/", tensors):
            state.carried = em.Carried(**{name: value.to(self.fabric.device) for name, value in carried.items()})
        before = [digest for digest in meta.get("code", []) if digest != now]
        if before:
            warnings.warn(
                f"{self.config.name}@{self.config.seed} goes on from update {state.update} with code {now[:10]}; it "
                f"was trained with {', '.join(digest[:10] for digest in before)} so far, and its manifest will say so",
                stacklevel=2,
            )
        state.code = [*before, now]

    def _longest_trunk(self, root) -> tuple[Path, tuple[dict[str, Tensor], dict] | None]:
        config, trunks = self.config, [(0, self.folder / TRUNK, None)]
        for run in store.find(config.name, seed=config.seed, root=root):
            if run.config.replace(updates=config.training.updates) == config and trunk_end(
                run.config.training
            ) <= trunk_end(config.training):
                try:
                    trunks.append((trunk_end(run.config.training), run.path / TRUNK, run.trunk()))
                except RunError as error:
                    warnings.warn(f"not extended: {error}", stacklevel=2)
        return max(trunks, key=lambda trunk: trunk[0] if trunk[2] else -1)[1:]

    def finish(self, environment: dict, root) -> store.Run:
        """Publish the finished run and remove its checkpoints."""
        state, training = self.state, self.config.training
        weights = self.network.state_dict()
        if training.patience and (found := files.read_state(self.folder / BEST)):
            weights = _below("network/", found[0])
        trunk, trunk_meta = (files.read_state(self.folder / TRUNK) if training.decay else None) or (None, None)
        if self.fabric.is_global_zero:
            store.save(
                self.config,
                weights=weights,
                metrics=state.rows,
                manifest={
                    **environment,
                    "code_digests": state.code,
                    "devices": self.fabric.world_size,
                    "updates": state.update,
                    "sequences_seen": state.update * training.batch,
                    "wall_seconds": round(state.seconds, 1),
                },
                trunk=trunk,
                trunk_meta=trunk_meta,
                root=root,
            )
            for name in (CHECKPOINT, BEST, TRUNK):
                (self.folder / name).unlink(missing_ok=True)
        self.fabric.barrier()
        return store.load(self.config, root)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
