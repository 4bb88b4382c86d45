"""One run: optimise, validate, checkpoint, resume. A run is a function of its config (seed included) on one machine."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
import warnings
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from rnem import errors
from rnem.errors import TrainingError
from rnem.evaluation import evaluate
from rnem.model import em
from rnem.model.fast import on_path, training_loss
from rnem.model.network import Network, build
from rnem.runs import files, provenance, store
from rnem.runs.config import RunConfig, TrainingConfig
from rnem.training import cuda_graph, muon
from rnem.videos import datasets, videos

CHECKPOINT, BEST, TRUNK = "checkpoint.safetensors", "best.safetensors", "trunk.safetensors"


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


def train(
    config: RunConfig,
    *,
    root=None,
    accelerator: str = "auto",
    devices: int | str = 1,
    progress: bool = True,
    stop_after: int | None = None,
) -> store.Run | None:
    """Train a run, or go on where it (or a shorter run of the same trunk) stopped; the finished run if there is one.

    ``stop_after`` ends this call after so many updates, checkpoint kept; None is returned then.
    """
    with _own_settings():
        accelerator = provenance.accelerator(accelerator)
        fabric = Fabric(accelerator=accelerator, devices=devices, precision=config.training.precision)
        fabric.launch()
        _check_devices(config, fabric.world_size)
        with store.lock(config, root) if fabric.is_global_zero else contextlib.nullcontext():
            # Inside the lock: another process may just have finished it.
            if run := store.finished(config, root):
                return run
            return _Training(config, fabric, root, progress).run(stop_after)


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Set what training needs of torch's global state, and put back what the caller had."""
    generator = torch.get_rng_state()
    flushed = float(torch.tensor(1e-40) * 1) == 0
    # Momentum of dead units decays into subnormal numbers, which made Muon's products 30 times slower. Set before torch
    # starts its threads, since they inherit it.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
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


class _Training:
    """Everything that changes while a run is trained."""

    def __init__(self, config: RunConfig, fabric: Fabric, root, progress: bool) -> None:
        self.config, self.training, self.fabric, self.root = config, config.training, fabric, root
        self.progress = progress and fabric.is_global_zero
        self.folder = store.work_folder(config, root)
        torch.manual_seed(config.seed)  # weights are drawn on the CPU: the same for every device
        # Images are kept channels last, which convolutions on a CPU and on tensor cores prefer.
        self.network: Network = on_path(build(config.network), self.training.path)
        self.network.to(memory_format=torch.channels_last)
        self.optimizers = muon.optimizers(
            self.network, self.training.optimizer, self.training.lr, self.training.muon_lr
        )
        self.model, *self.optimizers = fabric.setup(training_loss(self.network, self.training.path), *self.optimizers)
        self.base_lrs = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.stream = datasets.Stretches(
            config.data, self.training.steps, self.training.batch, config.seed, self.training.stretches, fabric.device
        )
        self.carried: em.Carried | None = None
        self.graph: cuda_graph.Gradients | None = None
        self.update, self.rows, self.seconds, self.stale, self.best = 0, [], 0.0, 0, math.inf
        self.code = [provenance.code_digest()]  # of everything that had a part in this run, in order
        self.environment = provenance.environment(fabric.device)
        self.running: list[Tensor] = []
        self.last_losses: Tensor | None = None

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self, stop_after: int | None) -> store.Run | None:
        self._resume()
        validation = datasets.fixed(self.config.data, "validation", self.training.validation, self._validation_frames())
        last = self.training.updates if stop_after is None else min(self.update + stop_after, self.training.updates)
        bar = tqdm(
            total=self.training.updates * self.training.batch,
            initial=self.update * self.training.batch,
            unit="seq",
            desc=f"{self.config.name}@{self.config.seed}",
            disable=not self.progress,
            mininterval=1.0,
        )
        begun = time.monotonic()
        while self.update < last and not self._out_of_patience():
            if self.update == trunk_end(self.training) and self.training.decay:
                self._write(TRUNK)
            self._one_update()
            bar.update(self.training.batch)
            bar.set_postfix_str(self._shown(), refresh=False)
            if self.update % self.training.evaluate_every == 0 or self.update == self.training.updates:
                self.seconds += time.monotonic() - begun
                begun = time.monotonic()
                self._evaluate(validation)
                bar.set_postfix_str(self._shown())
                self.seconds += time.monotonic() - begun
                self._write(CHECKPOINT)
                begun = time.monotonic()
        bar.close()
        if self.update < self.training.updates and not self._out_of_patience():
            self._write(CHECKPOINT)
            return None
        return self._finish()

    def _out_of_patience(self) -> bool:
        return 0 < self.training.patience <= self.stale

    def _shown(self) -> str:
        """Of the progress bar: mean training loss of the last updates, and the last validation."""
        shown = "" if self.last_losses is None else f"loss {self.last_losses.mean():.1f}"
        if self.rows:
            row = self.rows[-1]
            shown += f", validation loss {row['loss']:.1f} bce {row['bce']:.1f} ari {row['ari']:.2f}"
        return shown

    def _one_update(self) -> None:
        """Make one optimiser step."""
        factor = step_size(self.training, self.update)
        for optimizer, base in zip(self.optimizers, self.base_lrs, strict=True):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * factor
        loss = self._gradients(*self._batch())
        if self.training.clip:
            self._clip()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.update += 1
        self.running.append(loss)
        if len(self.running) == 25:
            self._check_finite()

    def _gradients(self, *batch: Tensor | None) -> Tensor:
        """Leave the gradients of a batch in the parameters, and return its loss."""
        before = self._before()
        if self.graph is None and self._can_be_a_graph(before):
            self.graph = cuda_graph.Gradients(self.network, *batch, *before)
        if self.graph is not None and self.graph.fits(*batch, *before):
            loss, ended = self.graph(*batch, *before)
        else:
            loss, ended = self.model(*batch, *before)
            # Fabric averages gradients over devices; a device's share of the sequences is its weight in that mean.
            share = batch[0].shape[1] * self.fabric.world_size / self.training.batch
            loss = loss if share == 1 else loss * share
            self.fabric.backward(loss)
        if self.training.stretches != (1,):
            self.carried = ended
        return loss.detach()

    def _can_be_a_graph(self, before: tuple) -> bool:
        """Whether all later updates make the same calls as this one, on one GPU, in the parameters' own precision."""
        return (
            self.fabric.device.type == "cuda"
            and self.fabric.world_size == 1
            and self.training.path == "fast"
            and self.training.precision == "32-true"
            and not self.training.curriculum
            and bool(before) == (self.training.stretches != (1,))
        )

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """This process' share of the batch of this update: features, flips (T,B,1,H,W), raw gamma, actions."""
        device, world, rank = self.fabric.device, self.fabric.world_size, self.fabric.global_rank
        batch = self.stream[self.update].first(sequence_steps(self.training, self.update) + 1)
        features = batch.features.to(device, torch.float32)
        generator = generator_for(self.config.seed, self.update, device)
        flips = (torch.rand(features.shape, generator=generator, device=device) < self.training.noise).float()
        shape = (features.shape[1], self.config.network.components, *features.shape[2:])
        raw = torch.randn(shape, generator=generator, device=device)
        actions = batch.to(device).one_hot(self.config.network.actions)
        actions = None if actions is None else actions[:, rank::world]
        return features[:, rank::world], flips[:, rank::world], raw[rank::world], actions

    def _before(self) -> tuple[em.Carried, Tensor] | tuple[()]:
        """What the sequences of this update carry over, and which of them begin with it; nothing where all do."""
        fresh = self.stream.fresh(self.update)
        return () if self.carried is None or bool(fresh.all()) else (self.carried, fresh.to(self.fabric.device))

    def _clip(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.training.clip)

    def _check_finite(self) -> None:
        """Mean of the last losses, with one synchronisation for all of them."""
        losses = torch.stack(self.running)
        if self.fabric.world_size > 1:  # also so that all processes stop together
            losses = self.fabric.all_reduce(losses, reduce_op="mean")
        if not bool(losses.isfinite().all()):
            first = self.update - len(losses) + int((~losses.isfinite()).nonzero()[0])
            raise TrainingError(
                f"{self.config.name}@{self.config.seed}: the loss of update {first} is not finite (sequences "
                f"{first * self.training.batch} to {(first + 1) * self.training.batch - 1} of its stream); "
                f"the last good checkpoint stays in {self.folder}"
            )
        self.running.clear()
        self.last_losses = losses.cpu()

    # ------------------------------------------------------------------------------------------------ validation

    def _validation_frames(self) -> int:
        return max(self.training.steps, self.training.validation_steps) + 1

    def _evaluate(self, validation: videos.Videos) -> dict:
        """One row of metrics, the same on every process."""
        if self.running:
            self._check_finite()
        result = evaluate.evaluate(self.network, validation, noise=self.training.noise, draw=0)
        row = {
            "update": self.update,
            "sequences": self.update * self.training.batch,
            "seconds": round(self.seconds, 1),
            "training_loss": float(self.last_losses.mean()),
            **{name: float(value) for name, value in result.summary().items()},
        }
        self.rows.append(row)
        self.stale = 0 if row["loss"] < self.best else self.stale + 1
        if row["loss"] < self.best:
            self.best = row["loss"]
            if self.training.patience:
                self._write(BEST)
        return row

    # ------------------------------------------------------------------------------------------------ state

    def _tensors(self) -> dict[str, Tensor]:
        carried = muon.state_tensors(self.network, self._bare_optimizers())
        weights = {f"network/{name}": p for name, p in self.network.state_dict().items()}
        own = {} if self.carried is None else {f"carried/{n}": v for n, v in vars(self.carried).items()}
        return weights | own | {f"optimizer/{name}": value for name, value in carried.items()}

    def _bare_optimizers(self) -> list[torch.optim.Optimizer]:
        """As torch made them, without the wrappers of Fabric."""
        return [o.optimizer for o in self.optimizers]

    def _meta(self) -> dict:
        return {
            "update": self.update, "seconds": self.seconds, "stale": self.stale,
            "best": None if math.isinf(self.best) else self.best, "code": self.code,
            "rows": [list(row.items()) for row in self.rows],  # pairs keep their order in sorted JSON
        }  # fmt: skip

    def _write(self, name: str) -> None:
        if self.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_state(self.folder / name, self._tensors(), self._meta())
        self.fabric.barrier()

    def _restore(self, tensors: dict[str, Tensor], meta: dict) -> None:
        self.network.load_state_dict(_below("network/", tensors))
        muon.load_state_tensors(self.network, self._bare_optimizers(), _below("optimizer/", tensors))
        self.update, self.seconds, self.stale = meta["update"], meta["seconds"], meta["stale"]
        self.rows = [dict(row) for row in meta["rows"]]
        self.best = math.inf if meta["best"] is None else meta["best"]
        if own := _below("carried/", tensors):
            self.carried = em.Carried(**{name: value.to(self.fabric.device) for name, value in own.items()})
        before = [digest for digest in meta.get("code", []) if digest != self.code[-1]]
        if before:
            warnings.warn(
                f"{self.config.name}@{self.config.seed} goes on from update {self.update} with code "
                f"{self.code[-1][:10]}; it was trained with {', '.join(d[:10] for d in before)} so far, and its "
                "manifest will say so",
                stacklevel=2,
            )
        self.code = [*before, self.code[-1]]

    def _resume(self) -> None:
        """From this run's own checkpoint, else from the longest trunk of a shorter finished run."""
        found = files.read_state(self.folder / CHECKPOINT) or self._longest_trunk()
        if found:
            self._restore(*found)

    def _longest_trunk(self) -> tuple[dict[str, Tensor], dict] | None:
        trunks = []
        for run in store.find(self.config.name, seed=self.config.seed, root=self.root):
            if run.config.replace(updates=self.training.updates) == self.config and trunk_end(
                run.config.training
            ) <= trunk_end(self.training):
                try:
                    trunks.append(run.trunk())
                except errors.RunError as error:
                    warnings.warn(f"not extended: {error}", stacklevel=2)
        return max(filter(None, trunks), key=lambda found: found[1]["update"], default=None)

    def _finish(self) -> store.Run:
        weights = self.network.state_dict()
        if self.training.patience and (found := files.read_state(self.folder / BEST)):
            weights = _below("network/", found[0])
        trunk = files.read_state(self.folder / TRUNK) if self.training.decay else None
        if self.fabric.is_global_zero:
            store.save(
                self.config,
                weights=weights,
                metrics=self.rows,
                manifest={
                    **self.environment,
                    "code_digests": self.code,
                    "devices": self.fabric.world_size,
                    "updates": self.update,
                    "sequences_seen": self.update * self.training.batch,
                    "wall_seconds": round(self.seconds, 1),
                },
                trunk=trunk[0] if trunk else None,
                trunk_meta=trunk[1] if trunk else None,
                root=self.root,
            )
            for name in (CHECKPOINT, BEST, TRUNK):
                (self.folder / name).unlink(missing_ok=True)
        self.fabric.barrier()
        return store.load(self.config, self.root)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
