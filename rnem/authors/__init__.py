"""The authors' originals: weights, arrays, adjusted Rand index and result videos of theirs, read and run here."""

from rnem.authors.ari import Grouping, ari, ari_frames
from rnem.authors.replay import gradients, replay
from rnem.authors.variables import load_checkpoint, load_npz
from rnem.authors.weights import from_tensorflow, to_tensorflow

__all__ = [
    "Grouping", "ari", "ari_frames", "from_tensorflow", "gradients", "load_checkpoint", "load_npz", "replay",
    "to_tensorflow",
]  # fmt: skip
