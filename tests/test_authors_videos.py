"""The authors' result videos: read exactly, their balls found, and followed by our simulator."""

import dataclasses
import functools
import hashlib
import http.server
import threading
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image

from rnem.authors import ball_fitting, result_videos
from rnem.authors.ball_fitting import find, follow, locate, uncovered
from rnem.authors.result_videos import PIXEL, ResultVideo, fetch, read
from rnem.errors import VideoError
from rnem.videos import balls, datasets, videos

SHARED = Path(__file__).parents[1] / ".." / "shared" / "authors"
theirs = pytest.mark.skipif(not SHARED.is_dir(), reason="the authors' result videos are not here")


@functools.lru_cache
def result(name: str) -> ResultVideo:
    return read(fetch(name, SHARED))


def ours(world: str, number: int, frames: int) -> tuple[ResultVideo, videos.Videos]:
    """A video of ours as if it were one of theirs, and what is true of it."""
    v = datasets.generate(f"{world}64", "test", number, 1, frames)
    truth = v.features[:, 0, 0].numpy() > 0
    name = "curtain_ours" if world == "balls3curtain" else f"{world}_ours"
    return ResultVideo(name, truth, truth.astype(np.float32), np.zeros((*truth.shape, 3), np.uint8)), v


def matched(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distance in pixels from each true centre (n,2) to the nearest that was found; each is found once."""
    distance = np.hypot(*(true[:, None] - found).transpose(2, 0, 1)) / PIXEL
    assert len(set(distance.argmin(1))) == len(found) == len(true)
    return distance.min(1)


# ----------------------------------------------------------------------------------------------------------------- read


def write_gif(path: Path, frames: np.ndarray) -> Path:
    """Grey frames (F,194,64), without loss."""
    pictures = [Image.fromarray(frame, mode="L") for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], optimize=False)
    return path


def test_a_result_video_is_three_pictures_above_each_other(tmp_path):
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, (4, 64, 64), np.uint8)
    prediction = random.integers(0, 256, (4, 64, 64), np.uint8)
    grouping = random.integers(0, 256, (4, 64, 64), np.uint8)
    white = np.full((4, 1, 64), 255, np.uint8)
    path = write_gif(
        tmp_path / "balls678mass_rnem9.gif",
        np.concatenate([255 * truth, white, prediction, white, grouping], 1),
    )
    video = read(path)
    assert np.array_equal(video.truth, truth == 1)
    assert np.allclose(video.prediction, prediction / 255)
    assert np.array_equal(video.grouping, np.repeat(grouping[..., None], 3, -1))
    assert video.name == "balls678mass_rnem9"
    assert video.components == 8
    assert video.world == datasets.WORLDS["balls678mass"]


def test_a_colour_is_the_component_of_the_nearest_hue():
    video, _ = ours("balls4mass", 0, 1)
    red, yellow_green, green, blue, violet = (255, 0, 0), (204, 255, 0), (0, 255, 102), (0, 102, 255), (204, 0, 255)
    grouping = video.grouping.copy()
    for component, colour in enumerate((red, yellow_green, green, blue, violet)):
        grouping[0, component] = 0.8 * np.array(colour) + 0.2 * 128  # its gamma is not quite 1
    found = dataclasses.replace(video, grouping=grouping).assignment()
    for component in range(5):
        assert (found[0, component] == component).all()


def test_what_is_no_result_video_is_said_in_one_sentence(tmp_path):
    (tmp_path / "text.gif").write_text("no picture")
    write_gif(tmp_path / "small.gif", np.zeros((2, 64, 64), np.uint8))
    write_gif(tmp_path / "grey.gif", np.full((2, 194, 64), 100, np.uint8))
    for name, sentence in {
        "text": "is not a picture",
        "small": "has frames of 64 x 64 pixels, and a result video 64 x 194",
        "grey": "its upper part is not binary",
        "missing": "cannot read .*: No such file",
    }.items():
        with pytest.raises(VideoError, match=sentence) as said:
            read(tmp_path / f"{name}.gif")
        assert "\n" not in str(said.value)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_said_in_one_sentence(tmp_path, kept):
    random = np.random.default_rng(0)
    path = write_gif(tmp_path / "balls4mass_a.gif", random.integers(0, 2, (6, 194, 64), np.uint8) * 255)
    assert len(read(path).truth) == 6
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(VideoError, match=r"balls4mass_a\.gif is (truncated|damaged)|cannot read") as said:
        read(path)
    assert "\n" not in str(said.value)


def test_a_picture_of_another_format_or_a_huge_one_is_refused(tmp_path):
    Image.new("L", (64, 194)).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match=r"a\.png is no GIF"):
        read(tmp_path / "a.png")
    (tmp_path / "huge.gif").write_bytes(b"GIF89a" + b"\xff\xff\xff\xff\x80\0\0" + b"\0" * 6 + b";")
    with pytest.raises(VideoError, match=r"huge\.gif (is not a picture|is damaged|has frames of 65535 x 65535)"):
        read(tmp_path / "huge.gif")


def test_a_name_that_does_not_say_the_world_is_refused():
    video, _ = ours("balls4mass", 0, 1)
    with pytest.raises(VideoError, match="the name 'mine' does not say which balls"):
        _ = dataclasses.replace(video, name="mine").world


# ---------------------------------------------------------------------------------------------------------------- fetch


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A place that serves ``balls4mass_rnem1.gif``, and an empty cache."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "balls4mass_rnem1.gif").write_bytes(b"a video")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        monkeypatch.setattr(result_videos, "URL", f"http://127.0.0.1:{serving.server_port}/{{name}}.gif")
        monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
        yield folder
        serving.shutdown()
        thread.join()


def test_a_download_is_verified_and_made_once(server, monkeypatch):
    digest = "sha256:" + hashlib.sha256(b"a video").hexdigest()
    monkeypatch.setitem(result_videos.HASHES, "balls4mass_rnem1", digest)
    path = fetch("balls4mass_rnem1")
    assert path.read_bytes() == b"a video"
    (server / "balls4mass_rnem1.gif").unlink()
    assert fetch("balls4mass_rnem1") == path


def test_a_download_that_is_another_file_or_fails_is_said(server):
    with pytest.raises(VideoError, match=r"cannot download http.*balls4mass_rnem1\.gif.*hash"):
        fetch("balls4mass_rnem1")
    with pytest.raises(VideoError, match=r"cannot download http.*curtain_rnem1\.gif"):
        fetch("curtain_rnem1")
    with pytest.raises(VideoError, match="published no result video 'balls5_rnem1'; there are balls4mass_rnem1"):
        fetch("balls5_rnem1")


@theirs
@pytest.mark.parametrize("name", ["balls4mass_rnem1", "balls678mass_rnem2", "curtain_rnem1"])
def test_the_known_hashes_are_those_of_the_files(name):
    digest = hashlib.sha256(fetch(name, SHARED).read_bytes()).hexdigest()
    assert result_videos.HASHES[name] == f"sha256:{digest}"


# ----------------------------------------------------------------------------------------------------------- find balls


@pytest.mark.parametrize("world", ["balls4mass", "balls678mass"])
def test_the_balls_of_a_frame_are_found_within_a_fifth_of_a_pixel(world):
    video, v = ours(world, 1, 30)
    present = v.masses[0] > 0
    for frame in range(0, 30, 3):
        centres, radii = find(video.truth[frame], video.world)
        true = v.positions[frame, 0, present].double().numpy()
        assert matched(centres, true).max() < 0.35
        assert matched(centres, true).mean() < 0.2
        assert sorted(radii) == pytest.approx(sorted(v.radii[0, present].tolist()))


def test_a_frame_with_too_few_balls_is_refused():
    video, _ = ours("balls4mass", 0, 1)
    frame = video.truth[0] & (np.arange(64) < 20)
    with pytest.raises(VideoError, match=r"expected|are not those of"):
        find(frame, video.world)


def test_half_a_ball_that_shows_beside_the_curtain_is_enough_to_locate_it():
    y, x = (np.mgrid[:64, :64] + 0.5) * PIXEL
    seen = np.ones((64, 64), bool)
    seen[:, 32:] = False
    true = np.array([[4.03, 4.71]])
    frame = (np.hypot(y - true[0, 0], x - true[0, 1]) < 1.2) & seen
    found = locate(frame, true + np.array([0.4, -0.5]), np.array([1.2]), seen)
    assert matched(found, true).max() < 0.3


def test_the_curtain_is_the_square_that_never_lights_up():
    video, v = ours("balls3curtain", 3, 300)
    top, left = (v.curtain[0] * 6.4).round().int().tolist()
    expected = np.ones((64, 64), bool)
    expected[top : top + 28, left : left + 28] = False
    assert np.array_equal(uncovered(video), expected)


# --------------------------------------------------------------------------------------------------------------- follow


def test_the_initial_state_of_a_video_of_ours_is_recovered_from_its_pixels():
    video, v = ours("balls4mass", 2, 31)
    assert (v.events[1:] & 1).any()  # balls collide in it
    fit = follow(video, 0, 30)
    present = v.masses[0] > 0
    true = v.positions[:, 0, present].double().numpy()
    assert max(matched(p, q).max() for p, q in zip(fit.positions, true, strict=True)) < 0.3
    nearest = np.hypot(*(true[0][:, None] - fit.positions[0]).transpose(2, 0, 1)).argmin(1)
    assert np.abs(fit.velocities[nearest] - v.velocities[0, 0, present].numpy()).max() < 0.01  # of some 0.17
    assert fit.wrong.max() <= 8


def test_a_motion_that_is_not_ours_is_not_followed():
    video, _ = ours("balls4mass", 2, 31)
    backwards = dataclasses.replace(video, truth=np.concatenate([video.truth[:16], video.truth[:15]]))
    fit = follow(backwards, 0, 30)
    assert fit.wrong.max() > 80
    with pytest.raises(VideoError, match="31 frames, too few to follow 31 from frame 0"):
        follow(video, 0, 31)
    with pytest.raises(VideoError, match="from none of its frames"):
        follow(dataclasses.replace(video, truth=np.zeros_like(video.truth)), frames=30)


@theirs
def test_the_simulator_follows_the_authors_video_for_50_frames_within_a_pixel():
    """Only the first positions and velocities are fitted; every frame's balls are then found in that frame alone."""
    video = result("balls4mass_rnem1")
    fit = follow(video, 0, 50)
    off = [
        matched(find(frame, video.world)[0], centres).max()
        for frame, centres in zip(video.truth[:51], fit.positions, strict=True)
    ]
    assert len(off) == 51
    assert max(off) < 1
    assert np.median(off) < 0.2
    assert fit.wrong.max() <= 8  # of some 380 that are on
    speed = np.sqrt(np.square(fit.velocities).sum())
    assert speed == pytest.approx(1 / 3, abs=0.002)  # the norm over all balls together


@theirs
@pytest.mark.parametrize(("heavy", "follows"), [(6.0, True), (3.0, False)])
def test_only_a_heavy_ball_of_mass_6_follows_it(monkeypatch, heavy, follows):
    """From frame 50 on, where light and heavy balls collide; with another mass no initial state explains the frames."""
    video = result("balls4mass_rnem1")
    world = dataclasses.replace(video.world, masses=(1.0, heavy))
    monkeypatch.setattr(ResultVideo, "world", property(lambda self: world))
    wrong = follow(video, 50, 30).wrong
    assert wrong.max() <= 8 if follows else wrong.max() > 80


@theirs
def test_it_follows_eight_balls_and_three_behind_a_curtain():
    eight = follow(result("balls678mass_rnem2"), 0, 20)
    assert len(eight.radii) == 8
    assert eight.wrong.max() <= 10
    hidden = follow(result("curtain_rnem1"), 142, 30)
    assert len(hidden.radii) == 3
    assert hidden.wrong.max() <= 8
    covered = ~uncovered(result("curtain_rnem1"))
    centres = (hidden.positions / PIXEL).astype(int)
    assert covered[centres[..., 0], centres[..., 1]].any()  # a ball was behind it


@theirs
def test_their_frames_look_like_ours():
    """The same share of pixels on, and as many pixels in a disc of the same radius."""
    video = result("balls4mass_rnem1")
    t = balls.simulate(video.world, 256, 1, torch.Generator().manual_seed(0))
    areas = balls.render(t, 64)[0].double().mean((-1, -2)).flatten()
    assert areas.min() <= video.truth.mean((1, 2)).min()
    assert video.truth.mean((1, 2)).max() <= areas.max()
    centres, radii = find(video.truth[0], video.world)
    for disc, radius in zip(ball_fitting.discs(centres, radii), radii, strict=True):
        assert (disc & video.truth[0]).sum() == pytest.approx(np.pi * (radius / PIXEL) ** 2, rel=0.03)
