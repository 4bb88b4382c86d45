"""The subcommands of ``rnem``: a dataclass each, whose fields are its arguments and whose call does the work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

import rnem
from rnem.cli.arguments import (
    File,
    Name,
    RunName,
    Split,
    at_least,
    available,
    minutes,
    print_table,
    probability,
    seed_in_range,
    videos_for,
    without,
    without_nan,
    writable,
    write_animation,
)
from rnem.errors import UserError
from rnem.runs import experiments

# Whatever needs torch is imported where it is used, so that --help answers at once.


@dataclass
class Train:
    """Train a run, or go on where it stopped.
    $ rnem train laptop-balls4mass-rnem-k5 --seed 0
    """

    name: Name
    """A named run; `rnem runs names` lists them."""
    seed: int = 0
    """Seed of weights, training videos and noise."""
    updates: int | None = None
    """Optimiser steps, where not the named run's: more of them go on from a shorter run that is finished."""
    threads: int | None = None
    """Threads on the CPU (their number changes the last bits of a result)."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What to train on; auto: an NVIDIA GPU where there is one, else the CPU."""
    devices: int = 1
    """How many of them."""
    again: bool = False
    """Where the finished run is broken, set its folder aside and train anew; a good one stays."""
    quiet: bool = False
    """No progress bar."""

    def __call__(self) -> None:
        at_least(1, updates=self.updates, threads=self.threads, devices=self.devices)
        seed_in_range(self.seed)
        chosen = experiments.named(self.name).replace(
            seed=self.seed, **({} if self.updates is None else {"updates": self.updates})
        )
        import torch

        from rnem.runs import store
        from rnem.training import train

        accelerator = available(self.accelerator, self.devices)
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.again:
            store.set_broken_aside(chosen)
        run = train.train(chosen, accelerator=accelerator, devices=self.devices, progress=not self.quiet)
        print(f"{run.label}: {run.updates} updates in {minutes(run)} minutes, {run.path}")
        last = run.metrics().iloc[-1]
        print("validation: " + ", ".join(f"{name} {last[name]:.4g}" for name in ("loss", "bce", "relational", "ari")))


@dataclass
class Evaluate:
    """Measure a run on videos that it never saw.
    $ rnem evaluate laptop-balls4mass-rnem-k5@0 --count 500
    $ rnem evaluate laptop-balls4mass-rnem-k5@0 --video balls4mass_rnem1
    """

    run: RunName
    """NAME (its best finished run), NAME@SEED, or a run's folder."""
    data: str | None = None
    """Another data set than the run's, of the same size in pixels, or a .h5 file."""
    split: Split | None = None
    """Which videos; without it those of the test split."""
    count: int = 500
    """How many."""
    frames: int = 51
    """Frames of each."""
    noise: float = 0.0
    """Bit-flip probability of the input frames (the authors evaluate with 0.2)."""
    real_steps: int | None = None
    """After so many steps feed the model its own predictions."""
    video: Annotated[Path | None, arg(metavar="VIDEO")] = None
    """One of the authors' result videos, instead of ours: a GIF, or the name of a published one, downloaded once."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        if self.video is not None:
            self._evaluate_video(self.video)
            return
        split = self.split or "test"
        at_least(1, count=self.count, real_steps=self.real_steps)
        at_least(2, frames=self.frames)
        probability(noise=self.noise)
        run = rnem.load_run(self.run)
        from rnem.evaluation import evaluate
        from rnem.evaluation.quantities import QUANTITIES

        videos = videos_for(run, self.data, split, self.count, self.frames)
        summary = evaluate.reported(run, videos, noise=self.noise, real_steps=self.real_steps).summary()
        if self.json:
            asked = {"split": split, "count": self.count, "frames": self.frames, "noise": self.noise}
            asked |= {"data": videos.name, "real_steps": self.real_steps}
            numbers = without_nan(summary)
            print(json.dumps({"run": run.label, "key": run.key, **asked, "summary": numbers}, indent=2))
            return
        print(f"{run.label} ({run.key}) on {len(videos)} {split} videos of {videos.name}, noise {self.noise:g}")
        rows = [
            (q, f"{summary[q]:.4g}", f"{summary[f'last10_{q}']:.4g}", QUANTITIES[q].about) for q in evaluate.QUANTITIES
        ]
        print_table(("", "all steps", "last 10", "per frame"), rows)

    def _evaluate_video(self, path: Path) -> None:
        without("video", self, "data", "split", "count", "frames", "noise", "real_steps")
        run = rnem.load_run(self.run)
        from rnem.analysis import authors_results
        from rnem.evaluation.quantities import QUANTITIES

        found = authors_results.evaluate_video(run, authors_results.file_of(path))
        found["windows"] = {name: without_nan(numbers) for name, numbers in found["windows"].items()}
        if self.json:
            print(json.dumps(found, indent=2))
            return
        print(f"{run.label} ({run.key}) on {found['video']}: {found['frames']} frames of {found['size']} pixels a side")
        windows = found["windows"].values()
        rows = [
            (q, *("-" if w[q] is None else f"{w[q]:.4g}" for w in windows), QUANTITIES[q].about)
            for q in authors_results.QUANTITIES
        ]
        print_table(("", *(f"{w['first']}-{w['last']}" for w in windows), "per frame, by window of frames"), rows)


@dataclass
class Rollout:
    """Let a run simulate: some steps on real frames, then on its own predictions.
    $ rnem rollout laptop-balls4mass-rnem-k5@0 --real-steps 10 --steps 30 --feedback binary --out rollout.gif
    """

    run: RunName
    """NAME (its best finished run), NAME@SEED, or a run's folder."""
    real_steps: int = 10
    """Steps on real frames."""
    steps: int = 30
    """Steps after that, on its own predictions."""
    feedback: Literal["grey", "binary"] = "grey"
    """What of a prediction the next step reads: the authors' mixture, grey, or where it is over 0.4, binary."""
    out: Annotated[Path | None, arg(metavar="FILE.gif")] = None
    """Animation to write: truth, prediction and grouping side by side, a row per video."""
    data: str | None = None
    """Another data set than the run's, of the same size in pixels, or a .h5 file."""
    split: Split = "test"
    """Which videos."""
    count: int = 4
    """How many."""

    def __call__(self) -> None:
        at_least(1, real_steps=self.real_steps, steps=self.steps, count=self.count)
        writable(self.out)
        run = rnem.load_run(self.run)
        from rnem.evaluation import evaluate

        frames = self.real_steps + self.steps + 1
        videos = videos_for(run, self.data, self.split, self.count, frames)
        network = evaluate.load_network(run)
        rollout = {"real_steps": self.real_steps, "feedback": self.feedback}
        result = evaluate.reported(run, videos, **rollout)
        bce, wrong, copied = (result.curve(quantity) for quantity in ("bce", "wrong", "copy_last"))
        print(f"{run.label} ({run.key}) on {len(videos)} {self.split} videos of {videos.name}")
        rows = []
        for t in range(self.real_steps - 1, frames - 1, max(1, self.steps // 10)):
            source = "real frame" if t < self.real_steps else "own prediction"
            rows.append((f"{t + 1}", source, f"{bce[t]:.4g}", f"{wrong[t]:.4g}", f"{copied[t]:.4g}"))
        print_table(("frame", "predicted from", "BCE (nats)", "wrong pixels", "of copying the last true frame"), rows)
        if self.out is not None:
            write_animation(self.out, videos, *evaluate.predict(network, videos, **rollout))
            print(f"wrote {self.out}: truth, prediction and grouping side by side, a row per video")


Profile = Literal["smoke", "laptop", "long", "paper"]


@dataclass
class Campaign:
    """List the runs that the claims of a profile need, with their cost, and train what is missing.
    $ rnem campaign laptop --jobs 2
    """

    profile: Annotated[Profile, Positional]
    """Which size and budget."""
    jobs: int = 2
    """Runs trained at the same time."""
    threads: int = 1
    """Threads of each on the CPU."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What to train on; auto: an NVIDIA GPU where there is one, else the CPU."""
    part: str = ""
    """Only runs with this in their names."""
    allow_dirty: bool = False
    """Train although rnem/ has uncommitted changes, so that nobody can say later with which code."""
    dry_run: bool = False
    """Only list them."""

    def __call__(self) -> int:
        at_least(1, jobs=self.jobs, threads=self.threads)
        from rnem.workflow import campaign

        available(self.accelerator, 1)
        planned = [each for each in campaign.plan(self.profile) if self.part in each.config.name]
        if not planned:
            raise UserError(f"no run of the {self.profile} campaign has {self.part!r} in its name")
        rows = [(each.label, str(each.config.training.updates), each.state, f"{each.seconds / 60:.0f}")
                for each in planned]  # fmt: skip
        print_table(("run", "updates", "state", "thread-minutes"), rows)
        states = [each.state for each in planned]
        missing, broken = states.count("missing"), states.count("broken")
        cost = sum(each.seconds for each in planned if each.state == "missing") / 60
        print(f"{states.count('finished')} finished, {missing} missing: {cost:.0f} thread-minutes; {broken} broken")
        if self.dry_run or not (missing or broken):
            return 0
        from rnem.runs.provenance import environment

        if self.profile != "smoke" and not self.allow_dirty and environment()["dirty"]:
            raise UserError("rnem/ has uncommitted changes: commit them first, or give --allow-dirty")
        print(f"training {self.jobs} at a time, about {cost / self.jobs:.0f} minutes; stop and repeat this as you like")
        failed = campaign.train(planned, self.jobs, accelerator=self.accelerator, threads=self.threads)
        return 1 if failed else 0


@dataclass
class Reproduce:
    """Train what a profile lacks, execute the chapters, build the book; given again it goes on where it stopped.
    $ rnem reproduce --chapter accuracy
    """

    profile: Profile = "laptop"
    """Which size: smoke tests the machinery, laptop and long are the book's, paper is the authors'."""
    chapter: Annotated[str | None, arg(metavar="NAME")] = None
    """Only this chapter, and the runs that it shows; without it all."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What to train on; auto: an NVIDIA GPU where there is one, else the CPU."""
    jobs: int | None = None
    """Runs, and then chapters, at the same time; without it one a CPU core."""
    seeds: int | None = None
    """At most so many seeds of each model; without it all of the campaign."""
    dry_run: bool = False
    """Only say what there is to do, and what it costs."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where notebooks, figures and pages go; without it _build/PROFILE, and with the profile laptop the book itself."""

    def __call__(self) -> int:
        at_least(1, jobs=self.jobs, seeds=self.seeds)
        from rnem.book.parameters import Chosen
        from rnem.workflow import reproduce

        if self.out is not None and self.out.resolve() in (here := Path.cwd(), *here.parents):
            raise UserError(f"--out is {str(self.out)!r}, the current folder or one above: give a folder of its own")
        available(self.device, 1, "device")
        chosen = Chosen(self.profile, self.device, self.seeds or 0)
        out = self.out or (None if self.profile == Chosen.profile else Path("_build") / self.profile)
        return reproduce.run(chosen, out, chapter=self.chapter, jobs=self.jobs, dry_run=self.dry_run)


# ------------------------------------------------------------------------------------------------------- book and data


@dataclass
class Chapter:
    """Execute a chapter of the book, or say which are out of date.
    $ rnem chapter accuracy --force
    """

    name: Annotated[str | None, Positional, arg(metavar="[NAME]")] = None
    """The chapter; without one the state of all is printed."""
    force: bool = False
    """Also where it is up to date."""

    def __call__(self) -> None:
        from rnem.book import chapters

        if self.name is not None:
            print(chapters.execute(self.name, force=self.force))
            return
        rows = [(status.chapter.name, status.state, status.brief) for status in chapters.status()]
        print_table(("chapter", "state", "why"), rows)


@dataclass
class DataWrite:
    """Write videos of a named data set in the authors' HDF5 layout.
    $ rnem data write balls4mass64 --split test --count 1000 --out balls4mass64-test.h5

    Those of Space Invaders need ale-py: pip install 'rnem[atari]'. It carries the game, and is under GPL-2.0.
    """

    name: Name
    """The data set and its size: balls4mass64, balls678mass32, spaceinvaders (of 84 pixels), spaceinvaders42, ..."""
    out: Annotated[Path, arg(metavar="FILE.h5")]
    """File to write."""
    split: Split = "test"
    """Which part: each has videos of its own."""
    count: int = 1000
    """Sequences."""
    frames: int | None = None
    """Frames of each; without it 51, of Space Invaders 25."""
    seed: int = 0
    """Another seed gives other videos (0 gives the fixed sets)."""

    def __call__(self) -> None:
        at_least(1, count=self.count, frames=self.frames)
        writable(self.out)
        seed_in_range(self.seed)
        from tqdm import tqdm

        from rnem.videos import datasets, hdf5

        name = f"{datasets.GAME}84" if self.name == datasets.GAME else self.name
        pieces = datasets.pieces(name, self.split, self.count, self.frames, self.seed)
        total = -(-self.count // datasets.BLOCK)
        hdf5.write({self.split: tqdm(pieces, total=total, disable=None, unit="block", desc=name)}, self.out)
        print(hdf5.check(self.out))


@dataclass
class DataCheck:
    """Say what is in a file of videos, ours or the authors', or what is wrong with it.
    $ rnem data check balls4mass64-test.h5
    """

    file: File
    """An HDF5 file."""

    def __call__(self) -> None:
        from rnem.videos import hdf5

        print(hdf5.check(self.file))


Data = Annotated[DataWrite, subcommand("write")] | Annotated[DataCheck, subcommand("check")]
