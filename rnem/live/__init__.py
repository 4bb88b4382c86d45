"""R-NEM in a web page: a finished run as a script, and the JavaScript that runs it (model, world, widget).

``model.js`` is rnem.model.network and rnem.model.em again, ``world.js`` rnem.videos.balls; tests hold them to the
Python. Every file is a classic script, since a page that is opened from a disk may load no other kind.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from rnem.errors import RnemError
from rnem.model.config import AUTOENCODERS, MODEL_LABELS, NetworkConfig, model_label
from rnem.runs.store import Run

FOLDER = Path(__file__).parent
SCRIPTS = ("model.js", "world.js", "views.js", "widget.js")
STYLE = "live.css"
MODELS = ("rnem", "rnem_noatt", "nem", "rnn")
"""The models that ``model.js`` has a step for, without actions."""


def script(run: Run) -> str:
    """Return a finished run as a classic script that puts it into ``window.RNEM_RUNS``, by its label.

    It holds config, key and the digest of the weights' file as the manifest has it, and the weights in float16.
    """
    from rnem.evaluation.evaluate import load_network

    known = {
        "label": run.label,
        "key": run.key,
        "digest": run.manifest["files"]["weights.safetensors"]["sha256"],
        "data": run.config.data,
        "name": model_label(f"{run.config.network.model}-k{run.config.network.components}"),
        "sequences": run.manifest.get("sequences_seen"),
    }
    text = json.dumps({**known, **payload(run.config.network, load_network(run).state_dict())}, separators=(",", ":"))
    return f"window.RNEM_RUNS = window.RNEM_RUNS || {{}};\nwindow.RNEM_RUNS[{json.dumps(run.label)}] = {text};\n"


def beginnings(count: int = 16) -> str:
    """Return the beginnings of the first test videos of each world as a script that sets ``window.RNEM_VIDEOS``.

    By world, for each video: {balls: [[y, x, vy, vx, radius, mass], ...], curtain: [y, x] or null}, exact.
    """
    from rnem.videos import balls, datasets

    worlds = {}
    for name in ("balls4mass", "balls678mass", "balls3curtain"):
        # The fixed sets keep rounded positions; the stream that they come from has the exact ones.
        generator = datasets._generator(name, "test", 0, 0)
        t = balls.simulate(datasets.WORLDS[name], datasets.BLOCK, 1, generator)
        worlds[name] = [
            {
                "balls": [
                    [*t.positions[0, n, m].tolist(), *t.velocities[0, n, m].tolist(), float(t.radii[n, m]),
                     float(t.masses[n, m])]
                    for m in range(t.present.shape[1]) if t.present[n, m]
                ],
                "curtain": None if t.curtain is None else t.curtain[n].tolist(),
            }
            for n in range(count)
        ]  # fmt: skip
    return f"window.RNEM_VIDEOS = {json.dumps(worlds, separators=(',', ':'))};\n"


def still(run: Run) -> bytes:
    """Return a PNG for who does not play: a test video, the prediction and the grouping at six times."""
    import io

    import matplotlib.pyplot as plt

    from rnem import figures
    from rnem.evaluation import evaluate
    from rnem.videos import datasets

    test = datasets.fixed(run.config.data, "test", 1, 31)
    psi, gamma = evaluate.predict(run, test)
    psi, gamma = psi[:, 0, :, 0].numpy(), gamma[:, 0, :, 0].numpy()  # (T-1,K,H,W)
    truth, best = test.features[1:, 0, 0].numpy().astype(float), psi.max(1)  # (T-1,H,W)
    grouping = figures.grouping_rgb(gamma, best)
    label = MODEL_LABELS[run.config.network.model]
    figure = figures.film_strip(truth, best, grouping, (0, 2, 5, 10, 19, 29), label=label)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    plt.close(figure)
    return picture.getvalue()


def payload(config: NetworkConfig, weights: Mapping[str, torch.Tensor]) -> dict:
    """Return a network as ``RNEM.model.load`` takes it: config, shape, names and shapes of the tensors, the weights."""
    if config.model not in MODELS or config.actions:
        actions = f" with {config.actions} actions" if config.actions else ""
        raise RnemError(f"{MODEL_LABELS[config.model]}{actions} cannot be exported; the page runs {', '.join(MODELS)}")
    tensors = dict(sorted(weights.items()))  # as read from a file they have no order, and the script is to have one
    packed = b"".join(
        tensor.to(torch.float16).contiguous().numpy().astype("<f2").tobytes() for tensor in tensors.values()
    )
    return {
        "config": dataclasses.asdict(config),
        "shape": dataclasses.asdict(AUTOENCODERS[config.autoencoder]),
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "weights": base64.b64encode(packed).decode(),
    }
