"""The authors' result videos (GIF): read them, find their balls, and follow these with our simulator.

A GIF is 64 wide and 194 high: rows 0-63 the true frame, exactly binary, rows 65-128 their model's prediction, rows
130-193 its grouping in colour. They are the authors' (MIT License, Copyright (c) 2019 Sjoerd van Steenkiste), so they
are downloaded by URL and hash, or read from a folder given by hand.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
from PIL import Image, ImageSequence, UnidentifiedImageError

from rnem.errors import VideoError, reading
from rnem.paths import plain_file
from rnem.videos.balls import BOX, World
from rnem.videos.datasets import WORLDS

URL = "https://raw.githubusercontent.com/sjoerdvansteenkiste/Relational-NEM/{commit}/animations/{name}.gif"
COMMIT = "40b5ad6c74b8f1525711d7e4b6c90aef1e108ef6"
"""A commit of theirs that has the animations (8a7d0b2, from which our copies are, is not known in full); the hashes
decide whether a file is the right one."""
KINDS = {"balls4mass": "balls4mass", "balls678mass": "balls678mass", "curtain": "balls3curtain"}
"""First word of a video's name -> its world in rnem.videos.datasets."""
HASHES = {
    "balls4mass_rnem1": "sha256:ff30e6ad70e67fc0779ec2a8742634d659463bcb8da559cdb60ba3eecc5a81e6",
    "balls4mass_rnem2": "sha256:a0022373e9543061a794186ae94b6ce5e1e487749b14a802640b903d6a059a6d",
    "balls4mass_rnem3": "sha256:a3a0bf143e008103a7f30bcd07e3751edc870a9ca51306d78700b4b0467aeae6",
    "balls4mass_rnem4": "sha256:bb3bdf7a9f93fea4535c73ea6e65f1770aaeaa60b6f007b51fb3f378d244308b",
    "balls678mass_rnem1": "sha256:d9f667d8ed02eb2e71d7163ef025445d69c7e4644a60131a9d5495992b039c97",
    "balls678mass_rnem2": "sha256:181378d2d34b31ff94e313be4b9c8962c7c578e5ac6235ba71ea556deea57736",
    "balls678mass_rnem3": "sha256:70f9eb84d654b5b69f557b2e8e5cab091126699a08f4bb8094257ea8759b6538",
    "balls678mass_rnem4": "sha256:f7ba77ee55cab0cbb7ec8263391d514dcd804a9d1386cf7b24dd659a0b8cf777",
    "curtain_rnem1": "sha256:a8cee1c08354dfc4e5bcdad0b3f9b628deb20aeb7c0e4c39f67462391cb290ac",
    "curtain_rnem2": "sha256:736dd89a50347e23d8603ff80d25c2983797b3f5f2718d6469506a523693f289",
    "curtain_rnem3": "sha256:36c8d9d9c1ac9f07cea52c243fba4e60167a27495edc5b8fc59c7fe4c58fa621",
    "curtain_rnem4": "sha256:62f7afbaf67c446ce1417b49a26f857aa32db5af558157074282808dec34cc97",
}
"""The published result videos."""
MOST_FRAMES = 1000
"""Of a video that is read."""
SIZE = 64
PIXEL = BOX / SIZE
"""Side of a pixel, box units."""


@dataclass(frozen=True)
class ResultVideo:
    """One of the authors' result videos, F frames; frame 0 is most likely the second of its sequence."""

    name: str
    truth: np.ndarray
    """bool (F,64,64)"""
    prediction: np.ndarray
    """float32 (F,64,64) in 0..1, sum over k of gamma psi"""
    grouping: np.ndarray
    """uint8 (F,64,64,3), component k of K in hue k/K, mixed by gamma"""

    @property
    def kind(self) -> str:
        """The first word of its name, a key of KINDS where it is one of theirs."""
        return self.name.split("_")[0]

    @property
    def world(self) -> World:
        """The world of its balls; VideoError where its name does not say."""
        if self.kind not in KINDS:
            raise VideoError(
                f"the name {self.name!r} does not say which balls the video has: it must begin with {', '.join(KINDS)}"
            )
        return WORLDS[KINDS[self.kind]]

    @property
    def components(self) -> int:
        """K of the model that made it."""
        return 8 if self.kind == "balls678mass" else 5

    def assignment(self) -> np.ndarray:
        """The component 0..K-1 whose hue is nearest to each colour, uint8 (F,64,64); on balls argmax of gamma."""
        hues = [colorsys.hsv_to_rgb(k / self.components, 1, 1) for k in range(self.components)]
        colours = self.grouping.astype(np.float32) / 255
        far = np.stack([np.square(colours - np.float32(hue)).sum(-1) for hue in hues])  # (K,F,64,64)
        return far.argmin(0).astype(np.uint8)


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Return the path of a result video: in ``folder`` where one is given, else downloaded (once) and verified."""
    if name not in HASHES:
        raise VideoError(f"the authors published no result video {name!r}; there are {', '.join(HASHES)}")
    if folder is not None:
        return Path(folder) / f"{name}.gif"
    url, cache = URL.format(commit=COMMIT, name=name), pooch.os_cache("rnem")
    try:
        return Path(pooch.retrieve(url, HASHES[name], f"{name}.gif", cache, progressbar=False))
    except (OSError, ValueError) as error:  # no network; a hash that differs
        raise VideoError(f"cannot download {url}: {error}") from None


def digest(path: str | Path) -> str:
    """``sha256:...`` of a file, as HASHES has it; VideoError where it cannot be read."""
    with reading(path, VideoError):
        return f"sha256:{hashlib.sha256(plain_file(path).read_bytes()).hexdigest()}"


def read(path: str | Path) -> ResultVideo:
    """Read a result video; VideoError says why it is none."""
    with reading(path, VideoError):
        data = plain_file(path).read_bytes()
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            raise VideoError(f"{path} is not a picture") from None
        with image:
            width, height = image.size
            if (width, height) != (SIZE, 194):
                raise VideoError(f"{path} has frames of {width} x {height} pixels, and a result video 64 x 194")
            if image.format != "GIF" or not data.endswith(b";"):  # Pillow shows what there is of one without an end
                raise VideoError(f"{path} is {'truncated' if image.format == 'GIF' else 'no GIF'}")
            pictures = itertools.islice(ImageSequence.Iterator(image), MOST_FRAMES + 1)
            frames = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    if len(frames) > MOST_FRAMES:
        raise VideoError(f"{path} has more than {MOST_FRAMES} frames")
    truth = frames[:, :64, :, 0]
    if not np.isin(truth, (0, 255)).all():
        raise VideoError(f"{path} is not a result video: its upper part is not binary")
    prediction = frames[:, 65:129, :, 0].astype(np.float32) / 255
    return ResultVideo(Path(path).stem, truth > 0, prediction, frames[:, 130:])
