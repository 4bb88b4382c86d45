"""The authors' result videos as a test set: balls tracked, seen as the model sees them, and kept without the file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rnem import figures
from rnem.analysis import authors_results
from rnem.authors import ball_tracking, result_videos
from rnem.authors.result_videos import PIXEL, ResultVideo, read
from rnem.errors import VideoError
from rnem.evaluation import metrics
from rnem.model.network import build
from rnem.runs import experiments, store
from rnem.videos import datasets, videos

SHARED = Path(__file__).parents[1] / ".." / "shared" / "authors"
here = pytest.mark.skipif(not SHARED.is_dir(), reason="the authors' result videos are not here")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True, scope="module")
def _tracked_once():
    """Seconds a video, and several tests ask for the same."""
    track, known = authors_results.track, {}

    def once(video: ResultVideo):
        key = video.name, video.truth.tobytes()
        if key not in known:
            known[key] = track(video)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authors_results, "track", once)
        yield


def ours(world: str, number: int, frames: int) -> tuple[ResultVideo, videos.Videos]:
    """A video of ours as if it were one of theirs, and what is true of it."""
    v = datasets.generate(f"{world}64", "test", number, 1, frames)
    truth = v.features[:, 0, 0].numpy() > 0
    name = {"balls3curtain": "curtain"}.get(world, world) + "_ours"
    return ResultVideo(name, truth, truth.astype(np.float32), np.zeros((*truth.shape, 3), np.uint8)), v


def order_of(path: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Which tracked ball is which true one, from the first frame: (n,)."""
    distance = np.hypot(*(true[0][:, None] - path[0]).transpose(2, 0, 1))
    assert len(set(distance.argmin(1))) == true.shape[1]
    return distance.argmin(1)


def gif(path: Path, truth: np.ndarray, prediction: np.ndarray | None = None) -> Path:
    """A result video of frames (F,64,64), with a grouping that is all red."""
    upper = 255 * truth.astype(np.uint8)
    lower = upper if prediction is None else (255 * prediction).astype(np.uint8)
    white = np.full((len(truth), 1, 64), 255, np.uint8)
    grey = np.concatenate([upper, white, lower, white, np.zeros_like(upper)], 1)
    frames = np.repeat(grey[..., None], 3, -1)
    frames[:, 130:] = (255, 0, 0)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], optimize=False)
    return path


# ------------------------------------------------------------------------------------------------------------- tracking


@pytest.mark.parametrize(("world", "number"), [("balls4mass", 2), ("balls678mass", 1), ("balls3curtain", 0)])
def test_balls_are_tracked_through_collisions_and_behind_the_curtain(world, number):
    video, v = ours(world, number, 81)
    path, radii = authors_results.track(video)
    present = v.masses[0] > 0
    true = v.positions[:, 0, present].double().numpy()  # (F,n,2)
    which = order_of(path, true)
    off = np.hypot(*(path[:, which] - true).transpose(2, 0, 1)) / PIXEL  # pixels
    assert off.mean() < 0.1
    assert off.max() < 2  # while a ball is hidden
    assert radii[which] == pytest.approx(v.radii[0, present].numpy())
    assert ball_tracking.wrong_pixels(video, path, radii).max() <= 2 * len(radii)


def test_a_contact_is_where_two_balls_touch_and_turn_back():
    x = np.array([5.0, 4.5, 4.0, 3.5, 3.0, 3.5, 4.0])  # the right ball comes, touches at frame 4 and leaves
    path = np.stack([np.stack([np.full(7, 5.0), 1.4 + 0 * x], -1), np.stack([np.full(7, 5.0), x], -1)], 1)
    touched = ball_tracking.contacts(path, np.array([0.8, 0.8]))
    assert touched.tolist() == [[frame == 4] * 2 for frame in range(7)]
    passing = path + np.array([[0, 0], [1.7, 0]])  # as near as that, but a ball's width above
    assert not ball_tracking.contacts(passing, np.array([0.8, 0.8])).any()


def test_contacts_of_a_video_are_those_of_the_simulator():
    video, v = ours("balls678mass", 1, 81)
    path, radii = authors_results.track(video)
    true = (v.events[:, 0] & 1).bool().numpy()
    which = order_of(path, v.positions[:, 0, v.masses[0] > 0].double().numpy())
    found = ball_tracking.contacts(path, radii)[:, which]
    true = true[:, : found.shape[1]]
    assert true.sum() > 20
    near = np.stack([np.roll(true, shift, 0) for shift in (-1, 0, 1)]).any(0)  # a frame early or late
    assert (found & near).sum() >= 0.9 * found.sum()
    assert found.sum() >= 0.85 * true.sum()


def test_what_cannot_be_tracked_is_said():
    video, _ = ours("balls4mass", 2, 30)
    empty = np.zeros_like(video.truth)
    with pytest.raises(VideoError, match="no frame of balls4mass_none shows all its balls"):
        authors_results.track(ResultVideo("balls4mass_none", empty, empty.astype(np.float32), video.grouping))
    half = video.truth.copy()
    half[15:] = False
    with pytest.raises(VideoError, match=r"a ball of balls4mass_half is lost in frame 15: \d+ pixels are wrong"):
        authors_results.track(ResultVideo("balls4mass_half", half, half.astype(np.float32), video.grouping))


@here
@pytest.mark.parametrize("name", ["balls4mass_rnem1", "balls678mass_rnem2", "curtain_rnem1"])
def test_their_balls_are_tracked_in_all_500_frames(name):
    video = read(SHARED / f"{name}.gif")
    path, radii = authors_results.track(video)
    assert path.shape == (500, len(radii), 2)
    wrong = ball_tracking.wrong_pixels(video, path, radii)
    assert wrong.mean() < 1.5  # of 380 and more that are on
    assert wrong.max() < 2 * len(radii)  # of 80 and more of a ball
    moved = np.hypot(*np.diff(path, axis=0).transpose(2, 0, 1))
    assert moved.max() < 2 * video.world.speed  # no two balls change places


# --------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize(("world", "number"), [("balls4mass", 2), ("balls3curtain", 0)])
def test_a_smaller_frame_is_a_frame_of_training_and_no_block_rule_comes_near(world, number):
    video, _ = ours(world, number, 81)
    small = datasets.generate(f"{world}32", "test", number, 1, 41)  # the same trajectories
    seen = authors_results.as_videos(video, 32, 2)
    true = small.features[:, 0, 0].numpy()
    assert seen.features.shape == small.features.shape
    drawn = (seen.features[:, 0, 0].numpy() != true).sum((1, 2)).mean()
    share = video.truth[::2].reshape(-1, 32, 2, 32, 2).mean((2, 4))
    blocks = [((share >= part) != true).sum((1, 2)).mean() for part in (0.25, 0.5, 0.75, 1.0)]
    assert drawn < 1.2
    assert 4 * drawn < min(blocks)


@pytest.mark.parametrize(("world", "number"), [("balls4mass", 2), ("balls3curtain", 0)])
def test_at_full_size_the_frames_are_the_true_ones_and_groups_those_of_the_balls(world, number):
    video, v = ours(world, number, 41)
    seen = authors_results.as_videos(video)
    assert torch.equal(seen.features, v.features)
    path, _ = authors_results.track(video)
    which = order_of(path, v.positions[:, 0, v.masses[0] > 0].double().numpy())
    renamed = torch.tensor([0, *(which + 1)])[v.groups.long()]
    differ = (seen.groups.long() != renamed).sum((1, 2, 3, 4))
    assert differ.float().mean() < 2
    assert differ.max() < 12
    assert (seen.groups > 0).le(seen.features > 0).all()
    if v.curtain is not None:
        assert seen.curtain.numpy() == pytest.approx(v.curtain.numpy(), abs=PIXEL / 10)


def test_a_contact_in_a_frame_left_out_counts_for_the_next():
    events = np.zeros((7, 1), bool)
    events[[1, 4]] = True
    assert authors_results._since(events, 2)[:, 0].tolist() == [False, True, True, False]
    assert authors_results._since(events, 1).tolist() == events.tolist()


# ----------------------------------------------------------------------------------------------------------- evaluation


def saved_run(name: str, root: Path) -> store.Run:
    """A named run with weights as they were initialised, seed 0."""
    chosen = experiments.RUNS[name]
    torch.manual_seed(0)
    network = build(chosen.network)
    return store.save(
        chosen, weights=network.state_dict(), metrics=[{"update": 1, "loss": 1.0}], root=root,
        manifest={"wall_seconds": 1.0, "updates": 1, "sequences_seen": 1},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    return saved_run("laptop-balls4mass-rnem-k5", tmp_path / "runs")


@pytest.fixture
def video_file(tmp_path):
    video, _ = ours("balls4mass", 2, 64)
    return gif(tmp_path / "balls4mass_ours.gif", video.truth, np.full(video.truth.shape, 0.2))


def test_windows_are_counted_as_the_model_sees_them_and_end_with_the_video(run, video_file):
    found = authors_results.evaluate_video(run, video_file)
    assert (found["run"], found["video"], found["size"], found["stride"], found["frames"]) == (
        "laptop-balls4mass-rnem-k5@0", "balls4mass_ours", 32, 2, 32,
    )  # fmt: skip
    assert [(name, w["first"], w["last"]) for name, w in found["windows"].items()] == [
        ("10-28", 10, 28), ("29-48", 29, 31),
    ]  # fmt: skip
    seen = authors_results.as_videos(read(video_file), 32, 2)
    frames = seen.features[:, 0, 0].int()
    changed = (frames[1:] != frames[:-1]).sum((1, 2)).double()  # [0] is frame 1
    assert found["windows"]["10-28"]["copy_last"] == pytest.approx(changed[9:28].mean().item(), rel=1e-6)
    assert found["windows"]["29-48"]["copy_last"] == pytest.approx(changed[28:31].mean().item(), rel=1e-6)
    json.dumps(found, allow_nan=False)


def test_an_untrained_network_gives_the_numbers_that_it_gave(run, video_file):
    """But its ARI: components that are all alike leave that to rounding."""
    found = authors_results.evaluate_video(run, video_file)["windows"]["10-28"]
    kept = {
        "bce_max": 397.413,
        "bce_mixture": 397.413,
        "wrong": 117.053,
        "wrong_mixture": 117.053,
        "copy_last": 50.3158,
    }
    assert {q: found[q] for q in kept} == pytest.approx(kept, rel=1e-3), "a quantity changed its meaning"


def test_the_largest_psi_and_the_mixture_are_told_apart(monkeypatch):
    """Two components that predict 0.8 and 0.1 everywhere, with gamma 0.25 and 0.75: the mixture is 0.275."""
    seen = authors_results.as_videos(ours("balls4mass", 2, 12)[0])
    psi, gamma = (
        torch.tensor(pair).view(1, 1, 2, 1, 1, 1).expand(11, 1, 2, 1, 64, 64) for pair in ([0.8, 0.1], [0.25, 0.75])
    )
    monkeypatch.setattr(authors_results.evaluate, "predict", lambda network, videos, draw: (psi, gamma))
    found = authors_results._measure(None, seen, 0)
    on = seen.features[1:, 0].sum((1, 2, 3)).double().numpy()
    off = 64 * 64 - on
    assert found["bce_max"].numpy() == pytest.approx(-on * np.log(0.8) - off * np.log(0.2), rel=1e-4)
    assert found["bce_mixture"].numpy() == pytest.approx(-on * np.log(0.275) - off * np.log(0.725), rel=1e-4)
    assert found["wrong"].tolist() == off.tolist()
    assert found["wrong_mixture"].tolist() == on.tolist()
    assert found["ari"].numpy() == pytest.approx(0, abs=1e-9)


def test_what_was_measured_is_there_without_the_video(run, video_file, monkeypatch):
    before = authors_results.evaluate_video(run, video_file)
    monkeypatch.setattr(authors_results, "HASHES", {"balls4mass_ours": result_videos.digest(video_file)})
    video_file.unlink()
    rows, missing = authors_results.table([run])
    assert missing == {}
    assert rows["video"].tolist() == ["balls4mass_ours"] * 2
    assert rows["bce_max"].tolist() == [w["bce_max"] for w in before["windows"].values()]
    monkeypatch.setattr(authors_results, "HASHES", {"balls4mass_rnem2": "sha256:" + "0" * 64})
    rows, missing = authors_results.table([run])
    assert len(rows) == 0
    assert missing == {"balls4mass_rnem2": ["laptop-balls4mass-rnem-k5@0"]}


def test_a_curtain_video_is_for_runs_that_saw_curtains_where_there_are_any(tmp_path):
    names = ["laptop-balls4mass-rnem-k5", "laptop-balls4mass-lstm", "laptop-balls3curtain-rnem-k5"]
    open_, lstm, curtain = (store.Run(tmp_path, experiments.RUNS[name], {}) for name in names)
    assert authors_results._fitting([open_, lstm, curtain], "balls678mass_rnem2") == [open_, lstm]
    assert authors_results._fitting([open_, lstm, curtain], "curtain_rnem1") == [curtain, lstm]
    assert authors_results._fitting([open_, lstm], "curtain_rnem1") == [open_, lstm]


def test_the_comparison_forms_ratios_per_seed_and_says_what_is_not_known():
    theirs = pd.DataFrame(
        {"video": ["a"], "window": ["10-28"], "wrong_mixture": [5.0], "copy_last": [20.0], "ari": [1.0]}
    )
    ours = pd.DataFrame({
        "video": "a", "window": "10-28", "run": ["r", "r", "l"], "components": [5, 5, 1], "ari": [0.5, 0.7, 0.0],
        "wrong": [2.0, 6.0, 3.0], "wrong_mixture": [2.0, 6.0, 3.0], "copy_last": [10.0, 20.0, 10.0],
    })  # fmt: skip
    words = {"wrong_mixture/copy_last": "mixture", "wrong/copy_last": "max", "ari": "ARI"}
    found = figures.authors_results.compare(theirs, ours, words).query("window == '10-28'").set_index("quantity")
    half = metrics.interval([0.2, 0.3])[1]
    assert found["theirs"].tolist() == ["0.25", "–", "1.00"]
    assert found["r"]["mixture"] == f"0.25 ± {half:.2f}"
    assert found["l"].tolist() == ["0.30 (one seed)", "0.30 (one seed)", "–"]


def test_a_video_at_hand_is_used_only_with_its_known_hash(video_file, monkeypatch):
    monkeypatch.setenv("RNEM_AUTHORS", str(video_file.parent))
    monkeypatch.setattr(authors_results, "HASHES", {"balls4mass_ours": result_videos.digest(video_file)})
    assert authors_results.at_hand("balls4mass_ours") == video_file
    video_file.write_bytes(video_file.read_bytes() + b";")
    assert authors_results.at_hand("balls4mass_ours") is None


def test_more_balls_are_shown_to_eight_components(run, tmp_path, monkeypatch):
    asked = []
    load = authors_results.evaluate.load_network
    monkeypatch.setattr(
        authors_results.evaluate,
        "load_network",
        lambda run, **words: asked.append(words["components"]) or load(run, **words),
    )
    for world in ("balls4mass", "balls678mass"):
        authors_results.evaluate_video(run, gif(tmp_path / f"{world}_ours.gif", ours(world, 1, 30)[0].truth))
    assert asked == [None, 8]


def test_what_is_no_result_video_is_one_sentence(run, tmp_path):
    short, _ = ours("balls4mass", 2, 20)
    (tmp_path / "notes.gif").write_text("no picture")
    gif(tmp_path / "balls4mass_short.gif", short.truth)
    gif(tmp_path / "mine.gif", short.truth)
    for name, sentence in {
        "notes": "is not a picture",
        "balls4mass_short": "balls4mass_short has 10 frames as the model sees them, and at least 11 are needed",
        "mine": "the name 'mine' does not say which balls the video has: it must begin with balls4mass, balls678mass",
        "absent": "cannot read .*: No such file",
    }.items():
        with pytest.raises(VideoError, match=sentence):
            authors_results.evaluate_video(run, tmp_path / f"{name}.gif")


# --------------------------------------------------------------------------------------------------------------- theirs


def test_a_constant_prediction_and_one_component_have_known_numbers(video_file):
    found = authors_results.theirs(video_file)
    truth = read(video_file).truth[10:29]
    on, off = truth.sum((1, 2)).mean(), (~truth).sum((1, 2)).mean()
    level = 51 / 255
    assert found["window"].tolist() == ["10-28", "29-48", "49-499"]
    assert found["last"].tolist() == [28, 48, 63]
    assert found["bce_mixture"][0] == pytest.approx(-on * np.log(level) - off * np.log(1 - level), rel=1e-5)
    assert found["wrong_mixture"][0] == pytest.approx(on)
    assert found["ari"].tolist() == pytest.approx([0, 0, 0], abs=1e-9)  # four balls in one component


@here
def test_their_own_numbers_are_near_those_of_the_specification():
    """Which are means over four videos of a kind, of which one is here: BCE and ARI over frames 49-499."""
    for name, bce, ari in (
        ("balls4mass_rnem1", 22.8, 0.917), ("balls678mass_rnem2", 50.0, 0.885), ("curtain_rnem1", 22.0, 1.0),
    ):  # fmt: skip
        last = authors_results.theirs(SHARED / f"{name}.gif").set_index("window").loc["49-499"]
        assert bce / 1.4 < last["bce_mixture"] < bce * 1.4
        assert last["ari"] == pytest.approx(ari, abs=0.15)
        assert last["wrong_mixture"] < 0.25 * last["copy_last"]


@here
def test_the_kept_table_of_theirs_is_what_the_videos_give(tmp_path, monkeypatch):
    committed = authors_results.read_theirs()
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    assert authors_results.write_theirs(SHARED) == tmp_path / "authors" / "theirs.csv"
    made = authors_results.read_theirs()
    assert made.round(3).equals(committed.round(3)), "run rnem.analysis.authors_results.write_theirs"
    assert (tmp_path / "authors" / "theirs.csv").read_text().startswith("# authors_results.write_theirs: ")
    for name, sha256 in made[["video", "sha256"]].drop_duplicates().itertuples(index=False):
        assert result_videos.HASHES[name] == f"sha256:{sha256}"


def test_a_folder_without_their_videos_or_with_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    with pytest.raises(VideoError, match="has none of balls4mass_rnem1"):
        authors_results.write_theirs(tmp_path)
    gif(tmp_path / "balls4mass_rnem1.gif", ours("balls4mass", 2, 12)[0].truth)
    with pytest.raises(VideoError, match="is not the authors' balls4mass_rnem1: its hash is sha256:"):
        authors_results.write_theirs(tmp_path)
    with pytest.raises(VideoError, match=r"theirs\.csv cannot be read"):
        authors_results.read_theirs()
