"""Videos on disk, in the authors' HDF5 layout: write, read, check.

A file holds groups ``training``, ``validation`` and ``test`` (not all are needed), each with data sets whose first axis
is time T and whose second is the sequence N: features, groups, collisions (T,N,H,W,1), events, positions, velocities
(T,N,M,...) and, for games, actions. Only features are needed. Ours add masses, radii (N,M) and curtain (N,2).
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from rnem.errors import VideoError, printable, reading
from rnem.paths import plain_file
from rnem.runs import files
from rnem.videos.videos import PER_SEQUENCE, Videos

SPLITS = ("training", "validation", "test")
IMAGES = ("features", "groups", "collisions")
"""Stored (T,N,H,W,1)."""
STATES = {"events": 3, "positions": 4, "velocities": 4, "actions": 2}
"""Stored as they are, (T,N,...), and how many axes ours have."""
PIECE = 64 * 2**20
"""Bytes that are read at once, about."""
MOST_PACKED = 10_000
"""How many times as large as in the file a data set of more than PIECE may be: gzip gives 1032, bits for bytes 8."""


# --------------------------------------------------------------------------------------------------------------- write


def write(videos_by_split: Mapping[str, Videos | Iterable[Videos]], path: str | Path) -> None:
    """Write a file in the authors' layout; a split too large for memory is given as pieces, in order.

    The file appears, or replaces an older one, only when it is complete. VideoError says why it cannot be written.
    """
    path = Path(path)
    unknown = [split for split in videos_by_split if split not in SPLITS]
    if unknown or not videos_by_split:
        raise VideoError(
            f"cannot write {path}: {unknown[0] if unknown else 'nothing'!r} is not one of {', '.join(SPLITS)}"
        )
    try:
        with files.replacing(path) as temporary, _Disk(temporary) as disk:
            # From the earliest version that can, so that older readers can too.
            with h5py.File(disk, "w", libver=("earliest", "v110")) as file:
                for split, videos in videos_by_split.items():
                    for piece in [videos] if isinstance(videos, Videos) else videos:
                        _append(file.require_group(split), piece)
                        disk.check()
            disk.check()
    except OSError as error:
        reason = error.strerror if path.parent.is_dir() else f"there is no folder {path.parent}"
        raise VideoError(f"cannot write {path}: {reason}") from None


class _Disk(io.FileIO):
    """A file whose errors HDF5 does not see: it crashes the process when it cannot write. ``check`` raises them."""

    def __init__(self, path: Path):
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, data) -> int:
        rest = memoryview(data).cast("B")
        while self.error is None and len(rest):
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self.error is not None:
            raise self.error


def _append(group: h5py.Group, piece: Videos) -> None:
    """Add sequences to a split."""
    group.file.attrs["name"] = piece.name
    for field, tensor in piece.arrays().items():
        if field not in (*IMAGES, *STATES, *PER_SEQUENCE) or 0 in tensor.shape:  # no balls in this game
            continue
        values = tensor.cpu().movedim(2, -1).numpy() if field in IMAGES else tensor.cpu().numpy()
        axis = 0 if field in PER_SEQUENCE else 1
        if field not in group:
            _create(group, field, values, axis)
        data = group[field]
        start = data.shape[axis]
        data.resize(start + values.shape[axis], axis)
        data[(slice(None),) * axis + (slice(start, None),)] = values


def _create(group: h5py.Group, field: str, values: np.ndarray, axis: int) -> None:
    """An empty data set that grows along the sequences; chunks and filters are those that give the smallest file."""
    shape, limit, chunks = list(values.shape), list(values.shape), list(values.shape)
    shape[axis], limit[axis] = 0, None
    chunks[axis] = 1 if field == "groups" else 16 if field in IMAGES else 64
    filters = {"scaleoffset": 1} if field in ("features", "collisions") else {"shuffle": field == "positions"}
    return group.create_dataset(
        field,
        shape,
        values.dtype,
        maxshape=limit,
        chunks=tuple(chunks),
        compression="gzip",
        compression_opts=9,
        **filters,
    )


# ---------------------------------------------------------------------------------------------------------------- read


def read(path: str | Path, split: str, count: int | None = None) -> Videos:
    """The first ``count`` sequences (all) of a split of a file, ours or the authors'.

    What the file lacks but features is zeros, or has no balls (M = 0). VideoError says in a sentence what is wrong.
    """
    with _open(path) as file:
        group = _split(file, split)
        shapes = _shapes(group)
        frames, total = shapes["features"][:2]
        if count is not None and count > total:
            raise VideoError(f"{path} has {total} sequences in {split}, and {count} are asked for")
        count = total if count is None else count
        fields = {field: _load(group, field, count) for field in shapes}
        name = _name(file) or Path(path).stem
    fields = {f: a for f, a in fields.items() if f not in STATES or a.ndim == STATES[f]}
    balls = next((fields[f].shape[-1] for f in ("masses", "radii", "events") if f in fields), 0)
    images, empty = torch.zeros_like(fields["features"]), torch.zeros(frames, count, balls, 2)
    missing = {"groups": images, "collisions": images, "events": empty[..., 0].byte(), "positions": empty}
    missing |= {"velocities": empty, "masses": empty[0, ..., 0], "radii": empty[0, ..., 0], "actions": None}
    return Videos(**{**missing, **fields}, name=name, split=split)


def size(path: str | Path, split: str) -> tuple[int, int]:
    """T and N of a split of a file."""
    with _open(path) as file:
        return _shapes(_split(file, split))["features"][:2]


def _load(group: h5py.Group, field: str, count: int) -> Tensor:
    """One data set as Videos holds it, read in pieces so that only the wanted part is ever in memory."""
    data = group[field]
    axis = 0 if field in PER_SEQUENCE else 1
    shape = list(data.shape)
    shape[axis] = count
    whole = np.zeros(shape, np.float32 if field in ("positions", "velocities", *PER_SEQUENCE) else np.uint8)
    for start, piece in _pieces(data, axis, count):
        where = f"{group.file.filename}: {group.name[1:]}/{field}"
        if field in IMAGES:
            _check_values(where, field, piece, start)
        if field == "features" and not ((piece == 0) | (piece == 1)).all():
            raise VideoError(f"{where} is not binary, and the model is about binary videos")
        whole[(slice(None),) * axis + (slice(start, start + piece.shape[axis]),)] = piece
    return torch.from_numpy(whole).movedim(-1, 2).contiguous() if field in IMAGES else torch.from_numpy(whole)


def _pieces(data: h5py.Dataset, axis: int, count: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of a data set along the sequences: number of the first one, values."""
    total = data.shape[axis] if count is None else count
    bytes_each = max(1, data.size * max(4, data.dtype.itemsize) // max(1, data.shape[axis]))
    chunk = data.chunks[axis] if data.chunks else 1
    length = max(1, PIECE // (bytes_each * chunk)) * chunk
    for start in range(0, total, length):
        try:
            yield start, data[(slice(None),) * axis + (slice(start, min(start + length, total)),)]
        except OSError:
            raise VideoError(f"{data.file.filename}: {data.name[1:]} is damaged at sequence {start} or after") from None


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[h5py.File]:
    with reading(path, VideoError):
        with open(plain_file(path), "rb") as file:
            start = file.read(8)
        if start != b"\x89HDF\r\n\x1a\n":
            raise VideoError(f"{path} is not an HDF5 file")
        try:
            file = h5py.File(path, "r", rdcc_nbytes=16 * 2**20)
        except OSError as error:
            size = re.search(r"eof = (\d+), .*stored_eof = (\d+)", str(error))
            what = f"it ends after {size[1]} of {size[2]} bytes" if size else "its header cannot be read"
            raise VideoError(f"{path} is a truncated or damaged HDF5 file: {what}") from None
        with file:
            yield file


def _split(file: h5py.File, split: str) -> h5py.Group:
    group = _member(file, split)
    if not isinstance(group, h5py.Group):
        there = ", ".join(s for s in SPLITS if _member(file, s)) or "none of " + ", ".join(SPLITS)
        raise VideoError(f"{file.filename} has no group {split}; it has {there}")
    return group


def _member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What a group holds under a name, or None; VideoError where that is a link, or values that the file lacks."""
    where = f"{group.file.filename}: {'/'.join(filter(None, (group.name[1:], name)))}"
    if not group.id.links.exists(name.encode()):
        return None
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise VideoError(f"{where} is a link, and only what is in the file itself is read")
    member = group[name]
    if isinstance(member, h5py.Dataset):
        if member.is_virtual or member.external:
            raise VideoError(f"{where} has its values in other files, and only what is in the file itself is read")
        if member.shape is None:
            raise VideoError(f"{where} is empty: it has no shape")
        stored = member.id.get_storage_size()
        claimed = member.dtype.itemsize * max(math.prod(member.shape), math.prod(member.chunks or ()))
        if claimed > max(PIECE, MOST_PACKED * stored):
            raise VideoError(
                f"{where} claims {claimed:.2g} bytes, shape {_text(member.shape)}, of which {stored} are there"
            )
    return member


def _name(file: h5py.File) -> str:
    """The name that is given to the videos of a file; "" where there is none."""
    return printable(str(file.attrs["name"]))[:100] if "name" in file.attrs else ""


def _shapes(group: h5py.Group) -> dict[str, tuple[int, ...]]:
    """Shape of every data set that we know, after a check of each on its own and of all against features."""
    where = f"{group.file.filename}: {group.name[1:]}"
    members = {field: _member(group, field) for field in (*IMAGES, *STATES, *PER_SEQUENCE)}
    if not isinstance(members["features"], h5py.Dataset):
        raise VideoError(f"{where} has no data set features")
    shapes = {}
    for field, data in members.items():
        if data is None:
            continue
        if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "biuf":
            raise VideoError(f"{where}/{field} does not hold numbers")
        shapes[field] = data.shape
    shape = shapes["features"]
    if len(shape) != 5 or shape[4] != 1 or 0 in shape:
        raise VideoError(f"{where}/features has shape {_text(shape)}, and (T,N,H,W,1) is expected")
    if shape[2] != shape[3]:
        raise VideoError(
            f"{where}/features has frames of {shape[2]} x {shape[3]} pixels, and only square ones can be used"
        )
    for field, other in shapes.items():
        expected = shape if field in IMAGES else shape[1:2] if field in PER_SEQUENCE else shape[:2]
        if other[: len(expected)] != expected:
            raise VideoError(f"{where}/{field} has shape {_text(other)}, which does not fit features {_text(shape)}")
    return shapes


def _check_values(where: str, field: str, piece: np.ndarray, start: int) -> None:
    """VideoError where a piece of an image data set (T,n,H,W,1) holds what no video can."""
    bad = ~np.isfinite(piece) if piece.dtype.kind == "f" else np.zeros(piece.shape, bool)
    what = "NaN or infinity"
    if not bad.any():
        most = 255 if field == "groups" else 1
        bad, what = (piece < 0) | (piece > most), f"values outside 0..{most}"
    if not bad.any() and field == "groups" and piece.dtype.kind == "f":
        bad, what = piece != np.round(piece), "numbers of groups that are not whole"
    if bad.any():
        frame, sequence = np.argwhere(bad)[0][:2]
        raise VideoError(f"{where} holds {what}, first at frame {frame} of sequence {start + sequence}")


# --------------------------------------------------------------------------------------------------------------- check


def check(path: str | Path) -> str:
    """Read a whole file of videos, ours or the authors', and say what is in it; VideoError says what is wrong."""
    with _open(path) as file:
        splits = [split for split in SPLITS if _member(file, split)]
        if not splits:
            raise VideoError(f"{path} has none of the groups {', '.join(SPLITS)}")
        name = ", ".join(filter(None, ("videos in HDF5", _name(file))))
        return "\n".join([f"{path}: {name}", *(_describe(_split(file, split)) for split in splits)])


def _describe(group: h5py.Group) -> str:
    shapes = _shapes(group)
    frames, count, height, width, _ = shapes["features"]
    on, binary, most, colliding = 0.0, True, 0, 0
    for field in IMAGES:
        for start, piece in _pieces(group[field], 1) if field in shapes else ():
            _check_values(f"{group.file.filename}: {group.name[1:]}/{field}", field, piece, start)
            if field == "features":
                on += float(piece.sum(dtype=np.float64))
                binary = binary and bool(((piece == 0) | (piece == 1)).all())
            elif field == "groups":
                most = max(most, int(piece.max()))
            else:
                colliding += int(piece.any((2, 3, 4)).sum())
    said = [
        f"{'binary' if binary else 'NOT binary, within 0..1'} ({100 * on / np.prod(shapes['features']):.1f} % on)",
        f"groups 0..{most}" if "groups" in shapes else "no groups",
        f"collisions in {100 * colliding / (frames * count):.1f} % of frames"
        if "collisions" in shapes
        else "no collisions",
    ]
    for field in (*STATES, *PER_SEQUENCE):
        if field in shapes:
            bad = any(
                not np.isfinite(piece).all() for _, piece in _pieces(group[field], int(field not in PER_SEQUENCE))
            )
            said.append(f"{field} {_text(shapes[field])}{' with NaN or infinity' if bad else ''}")
    return f"  {group.name[1:]}: {count} sequences of {frames} frames, {height} x {width}; " + "; ".join(said)


def _text(shape: tuple[int, ...]) -> str:
    return "(" + ",".join(map(str, shape)) + ")"
