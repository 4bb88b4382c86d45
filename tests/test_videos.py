"""Videos: one seed is one motion at every size, streams can be resumed, and files say what is wrong with them."""

import contextlib
import dataclasses
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnem.errors import VideoError
from rnem.videos import datasets, hdf5, videos
from rnem.videos.datasets import BLOCK, DATASETS, WORLDS, Stream, fixed, generate

COMMITTED = sorted((Path(__file__).parents[1] / "data" / "videos").glob("*.h5"))


def same(a: videos.Videos, b: videos.Videos) -> bool:
    """Every tensor equal, in type, too, and the same ones present."""
    one, two = a.arrays(), b.arrays()
    return one.keys() == two.keys() and all(
        two[f].dtype == one[f].dtype and torch.equal(one[f], two[f]) and two[f].is_contiguous() for f in one
    )


# -------------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].family != datasets.GAME])
def test_every_data_set_has_the_shapes_it_says(name):
    v = generate(name, "training", 0, 3, 4)
    size, balls = DATASETS[name].size, max(DATASETS[name].world.balls)
    assert len(v) == 3
    assert v.frames == 4
    assert v.name == name
    assert name.endswith(str(size))
    for images in (v.features, v.groups, v.collisions):
        assert images.shape == (4, 3, 1, size, size)
        assert images.dtype == torch.uint8
    assert v.events.shape == (4, 3, balls)
    assert v.positions.shape == v.velocities.shape == (4, 3, balls, 2)
    assert v.masses.shape == v.radii.shape == (3, balls)
    assert v.actions is None
    assert (v.curtain is not None) == DATASETS[name].world.curtain


@pytest.mark.parametrize("family", WORLDS)
def test_the_same_seed_gives_the_same_motion_at_64_32_and_16_pixels(family):
    at64, at32, at16 = (generate(f"{family}{s}", "test", 5, 3, 1 + 10 * s // 16, seed=7) for s in (64, 32, 16))
    for stride, smaller in ((2, at32), (4, at16)):
        assert torch.equal(smaller.positions, at64.positions[::stride])
        assert torch.equal(smaller.velocities, at64.velocities[::stride])
        assert torch.equal(smaller.masses, at64.masses)
        skipped = at64.events[1:].unflatten(0, (-1, stride))
        either = [(skipped & bit).amax(1) for bit in (1, 2)]  # contact, wall
        assert torch.equal(smaller.events[1:], either[0] | either[1])


def test_events_positions_and_collisions_tell_the_same_story():
    v = generate("balls678mass32", "test", 0, 32, 30)
    hit = (v.events & 1).bool().any(-1)
    assert hit.any()
    assert torch.equal(v.collisions.flatten(2).any(-1), hit)
    wall = (v.events & 2).bool()
    turned = (v.velocities[1:].sign() != v.velocities[:-1].sign()).any(-1)
    assert turned[wall[1:] & ~(v.events[1:] & 1).bool()].all()
    for ball in range(8):  # a group's pixels are around its position
        pixels = (v.groups == ball + 1).squeeze(2).double()
        count = pixels.sum((-1, -2))
        rows = (pixels.sum(-1) * (torch.arange(32) + 0.5)).sum(-1) / count * 10 / 32
        columns = (pixels.sum(-2) * (torch.arange(32) + 0.5)).sum(-1) / count * 10 / 32
        whole = count > 0.95 * torch.pi * v.radii[:, ball].square() * (32 / 10) ** 2
        whole &= v.masses[:, ball] > 0
        assert whole.any()
        centre = torch.stack([rows, columns], -1)[whole]
        assert (centre - v.positions[:, :, ball][whole]).abs().max() < 0.15


@given(start=st.integers(0, 2 * BLOCK), count=st.integers(1, 5), frames=st.integers(1, 6), seed=st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_a_part_of_a_stream_is_that_part_and_a_shorter_video_the_beginning(start, count, frames, seed):
    part = generate("balls4mass16", "validation", start, count, frames, seed)
    more = generate("balls4mass16", "validation", max(0, start - 2), count + 4, 8, seed)
    skip = min(start, 2)
    assert same(part, more.select(slice(skip, skip + count)).first(frames)._map(lambda _, a: a.contiguous()))


@pytest.mark.parametrize("batch", [16, 48, 300])
def test_a_stream_gives_the_batch_of_any_update_in_any_order(batch):
    stream = Stream("balls4mass16", 3, batch, seed=11)
    for update in (0, 1, 7, 6, 7, 1):
        expected = generate("balls4mass16", "training", update * batch, batch, 3, seed=11)
        assert torch.equal(stream[update].features, expected.features)
        assert torch.equal(stream[update].positions, expected.positions)


def test_every_batch_seed_and_split_is_fresh():
    first = {
        generate("balls4mass16", split, start, 1, 1, seed).positions.numpy().tobytes()
        for split in ("training", "validation", "test")
        for seed in (0, 1)
        for start in (0, 1, BLOCK, 2 * BLOCK)
    }
    assert len(first) == 3 * 2 * 4


def test_what_cannot_be_generated_is_refused_in_words():
    with pytest.raises(VideoError, match="no data set is named 'balls9'; there are balls4mass64"):
        generate("balls9", "test", 0, 1, 1)
    with pytest.raises(VideoError, match="'exam' is not a split"):
        generate("balls4mass16", "exam", 0, 1, 1)
    with pytest.raises(VideoError, match="0 sequences of 5 frames"):
        generate("balls4mass16", "test", 0, 0, 5)


# ----------------------------------------------------------------------------------------------------------- fixed sets


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_a_committed_test_set_is_what_is_generated(path):
    name, split = path.stem.rsplit("-", 1)
    count = None
    if DATASETS[name].family == datasets.GAME:
        pytest.importorskip("ale_py")
        count = 30  # the game is slow, and every sequence of a block depends on those before it
    read = hdf5.read(path, split, count)
    assert path.stat().st_size < 2_000_000
    assert read.frames == DATASETS[name].frames
    assert same(generate(name, split, 0, len(read), read.frames), read)


def test_three_test_sets_are_committed_and_one_is_large_enough_to_report():
    assert {p.stem for p in COMMITTED} >= {f"{d}-test" for d in ("balls4mass32", "balls678mass32", "balls3curtain32")}
    path = next(p for p in COMMITTED if p.stem == "balls4mass32-test")
    assert hdf5.size(path, "test")[1] >= datasets.FIXED >= 500


def test_a_fixed_set_is_read_where_the_file_holds_enough_and_generated_elsewhere(tmp_path):
    expected = generate("balls4mass16", "test", 0, 6, 5)
    marked = dataclasses.replace(expected, masses=expected.masses + 100)
    hdf5.write({"test": marked}, tmp_path / "balls4mass16-test.h5")
    for count, frames, from_file in ((6, 5, True), (4, 3, True), (7, 5, False), (6, 6, False)):
        got = fixed("balls4mass16", "test", count, frames, root=tmp_path)
        assert (len(got), got.frames) == (count, frames)
        assert bool((got.masses > 100).all()) == from_file
        n, t = min(count, 6), min(frames, 5)
        assert torch.equal(got.features[:t, :n], expected.features[:t, :n])
    assert same(
        fixed("balls4mass16", "validation", 4, 3, root=tmp_path), generate("balls4mass16", "validation", 0, 4, 3)
    )


# ---------------------------------------------------------------------------------------------------------------- files


@given(
    frames=st.integers(1, 4),
    count=st.integers(1, 40),
    size=st.integers(1, 9),
    balls=st.integers(0, 3),
    actions=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, frames, count, size, balls, actions, seed):
    g = torch.Generator().manual_seed(seed)

    def uint8(most, *shape):
        return torch.randint(most + 1, (frames, count, *shape), generator=g, dtype=torch.uint8)

    def real(*shape):
        return torch.randn(*shape, generator=g)

    v = videos.Videos(
        features=uint8(1, 1, size, size),
        groups=uint8(255, 1, size, size),
        collisions=uint8(1, 1, size, size),
        events=uint8(3, balls),
        positions=real(frames, count, balls, 2),
        velocities=real(frames, count, balls, 2),
        masses=real(count, balls),
        radii=real(count, balls),
        actions=uint8(5) if actions else None,
        name="noise",
    )
    path = tmp_path_factory.mktemp("files") / "noise.h5"
    hdf5.write({"training": v, "test": v.select(slice(0, 1))}, path)
    assert same(v, hdf5.read(path, "training"))
    assert same(hdf5.read(path, "training", 1), hdf5.read(path, "test"))
    assert f"training: {count} sequences of {frames} frames" in hdf5.check(path)


@pytest.fixture
def clip() -> videos.Videos:
    return generate("balls4mass16", "test", 0, 5, 6)


def test_the_layout_is_the_authors(clip, tmp_path):
    hdf5.write({"training": clip, "validation": clip, "test": clip}, tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5") as file:
        assert set(file) == {"training", "validation", "test"}
        for split in file.values():
            for name in ("features", "groups", "collisions"):
                assert split[name].shape == (6, 5, 16, 16, 1)
            assert split["events"].shape == (6, 5, 4)
            assert split["positions"].shape == split["velocities"].shape == (6, 5, 4, 2)
            assert np.array_equal(split["features"][2, 3, :, :, 0], clip.features[2, 3, 0].numpy())


def test_a_split_can_be_written_in_pieces_and_is_read_in_pieces(tmp_path, monkeypatch):
    pieces = list(datasets.pieces("balls4mass16", "training", BLOCK + 3, 2))
    assert [len(p) for p in pieces] == [BLOCK, 3]
    hdf5.write({"training": iter(pieces)}, tmp_path / "v.h5")
    whole = generate("balls4mass16", "training", 0, BLOCK + 3, 2)
    assert same(whole, hdf5.read(tmp_path / "v.h5", "training"))
    monkeypatch.setattr(hdf5, "PIECE", 1)  # one chunk of sequences at a time
    assert same(whole, hdf5.read(tmp_path / "v.h5", "training"))
    assert f"{BLOCK + 3} sequences" in hdf5.check(tmp_path / "v.h5")


def authors_file(path: Path, splits=("training", "validation", "test"), **replaced) -> Path:
    """A file as the authors made theirs: float features, no masses; ``replaced`` data sets, None leaves one out."""
    v = generate("balls4mass16", "test", 0, 4, 5)
    fields = {f: getattr(v, f).movedim(2, -1).numpy() for f in hdf5.IMAGES}
    fields["features"] = fields["features"].astype(np.float32)
    fields |= {f: getattr(v, f).numpy() for f in ("events", "positions", "velocities")}
    with h5py.File(path, "w") as file:
        for split in splits:
            for field, values in (fields | replaced).items():
                if values is not None:
                    file.create_dataset(f"{split}/{field}", data=values)
    return path


def test_a_file_of_the_authors_is_read_and_described(tmp_path):
    path = authors_file(tmp_path / "balls4mass16.h5")
    v = hdf5.read(path, "validation", 3)
    expected = generate("balls4mass16", "test", 0, 3, 5)
    for field in ("features", "groups", "collisions", "events", "positions", "velocities"):
        assert torch.equal(getattr(v, field), getattr(expected, field))
    assert v.name == "balls4mass16"
    assert v.masses.shape == (3, 4)
    text = hdf5.check(path)
    for part in ("training: 4 sequences of 5 frames, 16 x 16", "validation", "test", "binary", "groups 0..4"):
        assert part in text


def test_partial_splits_and_partial_data_sets_are_fine(tmp_path):
    path = authors_file(tmp_path / "v.h5", ["validation"], groups=None, collisions=None, events=None, positions=None)
    assert "validation: 4 sequences" in hdf5.check(path)
    v = hdf5.read(path, "validation")
    assert v.groups.shape == v.features.shape
    assert not v.groups.any()
    with pytest.raises(VideoError, match="has no group test; it has validation"):
        hdf5.read(path, "test")


def test_grey_features_are_described_but_not_read_as_binary(tmp_path):
    path = authors_file(tmp_path / "v.h5", features=np.full((5, 4, 16, 16, 1), 0.5))
    assert "NOT binary, within 0..1" in hdf5.check(path)
    with pytest.raises(VideoError, match="training/features is not binary"):
        hdf5.read(path, "training")


def features(shape=(5, 4, 16, 16, 1), at=(), value=0.0):
    values = np.zeros(shape, np.float32)
    values[at] = value
    return values


@pytest.mark.parametrize(
    ("replaced", "sentence"),
    [
        ({"features": None}, "training has no data set features"),
        ({"features": features((5, 4, 16, 16))}, r"training/features has shape \(5,4,16,16\), and \(T,N,H,W,1\)"),
        ({"features": features((5, 4, 1, 16, 16))}, r"features has shape \(5,4,1,16,16\)"),
        ({"features": features((5, 0, 16, 16, 1))}, r"features has shape \(5,0,16,16,1\)"),
        ({"groups": features((5, 3, 16, 16, 1))}, r"groups has shape \(5,3,16,16,1\), which does not fit features"),
        ({"collisions": features((4, 4, 16, 16, 1))}, r"collisions has shape \(4,4,16,16,1\), which does not fit"),
        ({"positions": np.zeros((4, 5, 4, 2))}, r"positions has shape \(4,5,4,2\), which does not fit features"),
        ({"masses": np.zeros((5, 4))}, r"masses has shape \(5,4\), which does not fit"),
        ({"features": features(at=(2, 3, 0), value=np.nan)}, "NaN or infinity, first at frame 2 of sequence 3"),
        (
            {"features": features(at=(1, 2, 0), value=255)},
            r"features holds values outside 0\.\.1, first at frame 1 of s",
        ),
        ({"features": features(at=(1, 2, 0), value=-0.1)}, r"features holds values outside 0\.\.1"),
        ({"groups": features(at=(4, 1, 0), value=1.5)}, "groups holds numbers of groups that are not whole"),
        ({"groups": features(at=(4, 1, 0), value=-1)}, r"groups holds values outside 0\.\.255"),
        ({"collisions": features(at=(4, 1, 0), value=2)}, r"collisions holds values outside 0\.\.1"),
        ({"features": np.full((5, 4, 16, 16, 1), b"on")}, "features does not hold numbers"),
    ],
)
def test_one_sentence_says_what_is_wrong_with_a_file(tmp_path, replaced, sentence):
    path = authors_file(tmp_path / "v.h5", **replaced)
    with pytest.raises(VideoError, match=sentence) as said:
        hdf5.check(path)
    assert str(said.value).startswith(str(path))
    assert "\n" not in str(said.value)
    with pytest.raises(VideoError, match=sentence):
        hdf5.read(path, "training")


def test_what_is_no_hdf5_file_of_videos_is_said_in_one_sentence(clip, tmp_path):
    whole = tmp_path / "whole.h5"
    hdf5.write({"test": clip}, whole)
    data = whole.read_bytes()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.arange(3)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["test"] = np.arange(3)
    (tmp_path / "text.h5").write_text("these are no videos\n")
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "half.h5").write_bytes(data[: len(data) // 2])
    (tmp_path / "head.h5").write_bytes(data[:20])
    for name, sentence in {
        "text": "is not an HDF5 file",
        "empty": "is not an HDF5 file",
        "half": f"truncated or damaged HDF5 file: it ends after {len(data) // 2} of {len(data)} bytes",
        "head": "truncated or damaged HDF5 file",
        "other": "has none of the groups training, validation, test",
        "flat": "has no group test",
        "missing": "cannot read .*: No such file",
    }.items():
        path = tmp_path / f"{name}.h5"
        with pytest.raises(VideoError, match=sentence) as said:
            hdf5.check(path)
        assert str(path) in str(said.value)
        assert "\n" not in str(said.value)


def test_damage_inside_a_file_is_found(clip, tmp_path):
    path = tmp_path / "v.h5"
    hdf5.write({"test": clip}, path)
    with h5py.File(path) as file:
        at, length = (lambda c: (c.byte_offset, c.size))(file["test/groups"].id.get_chunk_info(2))
    data = bytearray(path.read_bytes())
    data[at + length // 3 : at + length // 2] = bytes(length // 2 - length // 3)
    path.write_bytes(data)
    for use in (hdf5.check, lambda p: hdf5.read(p, "test")):
        with pytest.raises(VideoError, match=r"test/groups is damaged at sequence 0 or after"):
            use(path)


def test_more_sequences_than_a_file_has_are_refused(clip, tmp_path):
    hdf5.write({"test": clip}, tmp_path / "v.h5")
    with pytest.raises(VideoError, match="has 5 sequences in test, and 6 are asked for"):
        hdf5.read(tmp_path / "v.h5", "test", 6)


# -------------------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def files_of_at_most(size: int):
    """No file can grow beyond so many bytes: a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [100, 3000, 12_000])
def test_a_full_disk_is_said_and_the_old_file_stays(clip, tmp_path, size):
    path = tmp_path / "v.h5"
    hdf5.write({"test": clip}, path)
    old = path.read_bytes()
    assert len(old) > size
    with files_of_at_most(size), pytest.raises(VideoError, match=f"cannot write {path}: File too large"):
        hdf5.write({"validation": clip, "test": clip}, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["v.h5"]


def test_a_write_that_is_interrupted_leaves_the_old_file(clip, tmp_path):
    path = tmp_path / "v.h5"
    hdf5.write({"test": clip}, path)
    old = path.read_bytes()

    def pieces():
        yield clip
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hdf5.write({"test": pieces()}, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["v.h5"]


def test_a_place_that_cannot_be_written_is_said(clip, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.h5").mkdir()
    for path, sentence in {
        tmp_path / "nowhere" / "v.h5": "there is no folder .*nowhere",
        tmp_path / "file" / "v.h5": "there is no folder .*file",
        tmp_path / "folder.h5": "Is a directory",
    }.items():
        with pytest.raises(VideoError, match=f"cannot write {path}: {sentence}"):
            hdf5.write({"test": clip}, path)
    with pytest.raises(VideoError, match="'exam' is not one of training, validation, test"):
        hdf5.write({"exam": clip}, tmp_path / "v.h5")
    with pytest.raises(VideoError, match="nothing"):
        hdf5.write({}, tmp_path / "v.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.h5"]
