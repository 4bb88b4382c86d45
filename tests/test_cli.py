"""The command line: help that shows working examples, errors of the user in one line, faults of ours with traceback."""

import errno
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tyro
from PIL import Image

from rnem import paths
from rnem.cli import runs_commands
from rnem.cli.main import SETTINGS, Command, main
from rnem.errors import RnemError
from rnem.model.config import NetworkConfig
from rnem.runs import store
from rnem.runs.config import from_dict
from rnem.runs.experiments import RUNS

PACKAGE = Path(paths.__file__).parent

RUN = "smoke-balls4mass-rnem-k5"


def rnem(*arguments: str) -> subprocess.CompletedProcess:
    """The command as a process of its own."""
    return subprocess.run([sys.executable, "-m", "rnem", *arguments], capture_output=True, text=True, timeout=120)


def fails(capsys, *arguments: object, code: int = 2) -> str:
    """The one line that a command says when the user is wrong."""
    assert main([str(argument) for argument in arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", said.err), said.err
    return said.err


# ----------------------------------------------------------------------------------------------------------------- help


SUBCOMMANDS = [
    "train", "evaluate", "rollout", "runs", "runs list", "runs show", "runs verify", "runs names", "runs pack",
    "runs merge", "chapter", "data", "data write", "data check",
]  # fmt: skip


def help_of(capsys, subcommand: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*subcommand.split(), "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("subcommand", ["", *SUBCOMMANDS])
def test_help_shows_an_example_that_works(capsys, subcommand):
    examples = re.findall(r"^\$ rnem (.*)$", help_of(capsys, subcommand), re.MULTILINE)
    assert examples
    assert all(example.startswith(subcommand) for example in examples)
    for example in examples:
        words = shlex.split(example)
        command = tyro.cli(Command, args=words, config=SETTINGS)  # exits where an argument is not known
        assert callable(command)
        names = [word.split("@")[0] for word in words if word.startswith(("smoke-", "laptop-", "paper-"))]
        assert set(names) <= set(RUNS)


def test_help_answers_without_loading_torch():
    code = "import sys, rnem.cli.main\ntry: rnem.cli.main.main(['--help'])\nfinally: sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, "torch was imported"
    assert "usage: rnem" in done.stdout


def test_a_wrong_argument_is_not_a_traceback(capsys):
    for words in (["trian"], ["train"], ["train", RUN, "--sed", "3"], ["train", RUN, "--seed", "three"], []):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------- data


def video_file(path, **changes):
    """A good file of 3 sequences with 4 frames of 8 x 8 pixels; ``changes`` replace data sets, None leaves one out."""
    zeros = np.zeros((4, 3, 8, 8, 1), np.float32)
    data = {"features": zeros, "groups": zeros, "collisions": zeros, **changes}
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            if values is not None:
                file[f"test/{name}"] = values
    return path


def filled(value: float) -> np.ndarray:
    features = np.zeros((4, 3, 8, 8, 1), np.float32)
    features[2, 1, 5, 5] = value
    return features


def test_a_text_file_named_h5_is_one_sentence_and_no_traceback(tmp_path):
    (tmp_path / "notes.h5").write_text("not a video\n")
    done = rnem("data", "check", str(tmp_path / "notes.h5"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'notes.h5'} is not an HDF5 file\n"


def test_a_file_cut_off_by_a_broken_download_is_named(capsys, tmp_path):
    path = video_file(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated" in fails(capsys, "data", "check", path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "no data set features"),
        ({"features": np.zeros((4, 3, 8, 8))}, r"shape \(4,3,8,8\)"),
        ({"features": np.zeros((4, 3, 64, 48, 1))}, r"frames of 64 x 48 pixels, and only square ones can be used"),
        ({"groups": np.zeros((4, 2, 8, 8, 1))}, r"shape \(4,2,8,8,1\), which does not fit"),
        ({"features": filled(np.nan)}, "NaN or infinity, first at frame 2 of sequence 1"),
        ({"features": filled(1.5)}, r"outside 0\.\.1"),
        ({"features": filled(-0.5)}, r"outside 0\.\.1"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(capsys, tmp_path, changes, message):
    path = video_file(tmp_path / "a.h5", **changes)
    said = fails(capsys, "data", "check", path)
    assert str(path) in said
    assert re.search(message, said)


def test_a_file_that_is_not_there(capsys, tmp_path):
    assert "No such file" in fails(capsys, "data", "check", tmp_path / "absent.h5")
    assert fails(capsys, "data", "check", tmp_path)


def test_written_videos_pass_the_check(capsys, tmp_path):
    path = tmp_path / "a.h5"
    assert main(["data", "write", "balls4mass16", "--count", "3", "--frames", "5", "--out", str(path)]) == 0
    assert "3 sequences of 5 frames, 16 x 16" in capsys.readouterr().out
    assert main(["data", "check", str(path)]) == 0
    assert "3 sequences of 5 frames, 16 x 16" in capsys.readouterr().out


def test_videos_that_cannot_be_written(capsys, tmp_path):
    assert "balls4mass64" in fails(capsys, "data", "write", "balls9", "--count", 1, "--out", tmp_path / "a.h5")
    assert "--count is 0" in fails(capsys, "data", "write", "balls4mass16", "--count", 0, "--out", tmp_path / "a.h5")
    fails(capsys, "data", "write", "balls4mass16", "--count", 1, "--out", tmp_path / "absent" / "a.h5")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with two trained runs in it, made by the command itself."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNEM_DATA", str(root))
        for words in ("--updates 1", "--updates 2", "--updates 1 --seed 3"):
            assert main(["train", RUN, *words.split(), "--accelerator", "cpu", "--quiet"]) == 0
    return root


@pytest.fixture
def cached(cache, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(cache))
    return cache


def test_a_run_is_called_by_its_name_seed_or_folder(cached):
    longest = store.load_run(RUN)
    assert (longest.seed, longest.updates) == (0, 2)
    assert store.load_run(f"{RUN}@3").seed == 3
    assert store.load_run(str(longest.path)) == store.load_run(longest.path.name) == longest


def test_a_run_that_is_not_there(capsys, cached):
    assert f"did you mean {RUN}" in fails(capsys, "train", "smoke-balls4mas-rnem-k5")
    assert "`rnem runs names` lists them" in fails(capsys, "evaluate", "nonsense")
    assert f"`rnem train {RUN} --seed 7` makes one" in fails(capsys, "evaluate", f"{RUN}@7")
    assert "after the @ comes a seed" in fails(capsys, "rollout", f"{RUN}@last")
    assert "manifest.json is missing" in fails(capsys, "runs", "show", cached)


def test_numbers_that_make_no_sense(capsys, cached):
    assert "--updates is 0, and must be at least 1" in fails(capsys, "train", RUN, "--updates", 0)
    assert "--threads is 0" in fails(capsys, "train", RUN, "--threads", 0)
    assert "--noise is 1.5" in fails(capsys, "evaluate", RUN, "--noise", 1.5)
    assert "--count is 0" in fails(capsys, "evaluate", RUN, "--count", 0)
    assert "--real-steps is 0" in fails(capsys, "rollout", RUN, "--real-steps", 0)
    assert "16 x 16 pixels, and balls4mass32 has 32 x 32" in fails(capsys, "evaluate", RUN, "--data", "balls4mass32")


@pytest.mark.parametrize("seed", [-1, 2**64, -(10**30)])
def test_a_seed_that_no_generator_takes(capsys, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    sentence = f"--seed is {seed}, and must be a whole number from 0 to 2^64 - 1"
    assert sentence in fails(capsys, "train", RUN, "--updates", 1, f"--seed={seed}")
    assert sentence in fails(capsys, "data", "write", "balls4mass16", f"--seed={seed}", "--out", tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_the_largest_seed_is_trained_and_found(tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    words = ["train", "smoke-balls4mass-rnn", "--updates", "1", "--accelerator", "cpu", "--quiet"]
    assert main([*words, "--seed", str(2**64 - 1)]) == 0
    assert store.load_run(f"smoke-balls4mass-rnn@{2**64 - 1}").seed == 2**64 - 1


def test_an_accelerator_that_is_not_there(capsys, cached, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--accelerator is cuda, and this machine has none" in fails(capsys, "train", RUN, "--accelerator", "cuda")


def test_apples_gpus_are_taken_only_where_they_are_named_and_then_refused(capsys, cached, monkeypatch):
    """They have no float64. Here PyTorch has no MPS at all: a tensor on it fails, as one of float64 does there."""
    from rnem.runs import provenance
    from rnem.training import train

    asked = []
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(train, "train", lambda *_, accelerator, **__: asked.append(accelerator) or store.find(RUN)[0])
    assert main(["train", RUN]) == 0
    assert asked == ["cpu"]
    capsys.readouterr()
    assert "--accelerator is mps, and it has no 64-bit numbers" in fails(capsys, "train", RUN, "--accelerator", "mps")
    assert "--device is mps, and it has" in fails(capsys, "reproduce", "--profile", "smoke", "--device", "mps")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert provenance.accelerator("auto") == "cuda"


def test_evaluate_prints_every_quantity(capsys, cached):
    words = ["evaluate", RUN, "--count", "2", "--frames", "4"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["data"], found["count"]) == (f"{RUN}@0", "balls4mass16", 2)
    for quantity in ("loss", "bce", "relational", "ari"):
        assert quantity in found["summary"]
        assert re.search(rf"^{quantity} +[0-9.-]+ ", table, re.MULTILINE)


def test_evaluate_reads_a_file(capsys, cached, tmp_path):
    path = tmp_path / "a.h5"
    assert main(["data", "write", "balls4mass16", "--count", "2", "--frames", "4", "--out", str(path)]) == 0
    capsys.readouterr()
    words = ["evaluate", RUN, "--count", "2", "--frames", "4", "--json"]
    assert main(words) == 0
    assert main([*words, "--data", str(path)]) == 0
    generated, read = re.findall(r'"summary": (\{.*?\})', capsys.readouterr().out, re.DOTALL)
    assert generated == read
    assert "4 frames a sequence in test, and 9 are needed" in fails(
        capsys, "evaluate", RUN, "--count", 2, "--frames", 9, "--data", path
    )


@pytest.fixture
def authors_video(tmp_path):
    """A video of ours as the authors publish theirs, 64 frames."""
    from rnem.videos import datasets

    truth = 255 * datasets.generate("balls4mass64", "test", 2, 1, 64).features[:, 0, 0].numpy()
    white = np.full((len(truth), 1, 64), 255, np.uint8)
    frames = [Image.fromarray(f) for f in np.concatenate([truth, white, truth, white, truth], 1)]
    frames[0].save(tmp_path / "balls4mass_ours.gif", save_all=True, append_images=frames[1:], optimize=False)
    return tmp_path / "balls4mass_ours.gif"


def test_evaluate_on_an_authors_video(capsys, cached, authors_video):
    words = ["evaluate", RUN, "--video", str(authors_video)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert re.search(r"^ +10-15 +per frame", table, re.MULTILINE)
    assert re.search(r"^bce_mixture +[0-9.]+ ", table, re.MULTILINE)
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert list(found) == ["run", "key", "video", "sha256", "size", "stride", "frames", "windows"]
    assert (found["video"], found["size"], found["stride"], found["frames"]) == ("balls4mass_ours", 16, 4, 16)
    assert list(found["windows"]) == ["10-28"]
    window = found["windows"]["10-28"]
    assert (window["first"], window["last"]) == (10, 15)
    assert {"bce_max", "bce_mixture", "wrong", "copy_last", "ari"} <= set(window)


@pytest.mark.parametrize("name", ["balls4mass_rnem2", "balls4mass_rnem2.gif"])
def test_a_published_video_is_downloaded_by_its_name(capsys, cached, authors_video, monkeypatch, name):
    from rnem.analysis import authors_results
    from rnem.authors import result_videos

    asked = []
    monkeypatch.setattr(authors_results, "at_hand", lambda name: None)
    monkeypatch.setattr(result_videos.pooch, "retrieve", lambda *given, **_: asked.append(given[:2]) or authors_video)
    monkeypatch.setattr(result_videos.pooch, "os_cache", lambda _: authors_video.parent / "cache")
    assert main(["evaluate", RUN, "--video", name, "--json"]) == 0
    url = result_videos.URL.format(commit=result_videos.COMMIT, name="balls4mass_rnem2")
    assert asked == [(url, result_videos.HASHES["balls4mass_rnem2"])], "what is downloaded is checked"
    assert json.loads(capsys.readouterr().out)["frames"] == 16

    def offline(*arguments, **keywords):
        raise OSError("no network")

    monkeypatch.setattr(result_videos.pooch, "retrieve", offline)
    assert "cannot download https://" in fails(capsys, "evaluate", RUN, "--video", name)


def test_a_video_that_is_not_the_authors(capsys, cached, authors_video):
    folder = authors_video.parent
    (folder / "text.gif").write_text("no picture\n")
    (folder / "balls4mass_cut.gif").write_bytes(authors_video.read_bytes()[:-5000])
    Image.new("L", (32, 32)).save(folder / "balls4mass_small.gif")
    (folder / "mine.gif").write_bytes(authors_video.read_bytes())
    for name, sentence in {
        "absent": "cannot read .*absent.gif: No such file",
        "text": "text.gif is not a picture",
        "balls4mass_cut": "balls4mass_cut.gif is truncated",
        "balls4mass_small": "32 x 32 pixels, and a result video 64 x 194",
        "mine": "the name 'mine' does not say which balls",
    }.items():
        assert re.search(sentence, fails(capsys, "evaluate", RUN, "--video", folder / f"{name}.gif", "--json"))
    assert "cannot read" in fails(capsys, "evaluate", RUN, "--video", folder)


@pytest.mark.parametrize("words", ["--data balls4mass16", "--split test", "--count 3", "--noise 0.1", "--real-steps 2"])
def test_a_video_stands_alone(capsys, cached, authors_video, words):
    said = fails(capsys, "evaluate", RUN, "--video", authors_video, *words.split())
    assert f"{words.split()[0]} cannot be combined with --video" in said


def test_rollout_writes_an_animation(capsys, cached, tmp_path):
    path = tmp_path / "a.gif"
    words = ["rollout", RUN, "--real-steps", "2", "--steps", "3", "--count", "2", "--feedback", "binary", "--out"]
    assert main([*words, str(path)]) == 0
    sources = re.findall("real frame|own prediction", capsys.readouterr().out)
    assert sources == ["real frame"] + 3 * ["own prediction"]
    with Image.open(path) as gif:
        assert (gif.format, gif.n_frames) == ("GIF", 5)
    assert "there is no folder" in fails(capsys, *words, tmp_path / "absent" / "a.gif")


def test_runs_are_listed_and_shown(capsys, cached):
    assert main(["runs", "list"]) == 0
    assert len(re.findall(rf"^{RUN}@[03] ", capsys.readouterr().out, re.MULTILINE)) == 3
    assert main(["runs", "list", "nothing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["runs", "show", RUN]) == 0
    shown = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert (shown["config"]["name"], shown["manifest"]["updates"], shown["last"]["update"]) == (RUN, 2, 2)
    for text, seed in (("paper-balls4mass-lstm", 0), ("paper-balls4mass-lstm@7", 7), (f"{RUN}@7", 7)):
        assert main(["runs", "show", text]) == 0
        said, tree = capsys.readouterr().out.split("\n", 1)
        name = text.split("@")[0]
        assert said == f"not trained yet; `rnem train {name} --seed {seed}` makes it"
        assert from_dict(json.loads(tree)["config"]) == RUNS[name].replace(seed=seed)
    assert "did you mean" in fails(capsys, "runs", "show", "paper-balls4mas-lstm")
    assert main(["runs", "names", "smoke-balls4mass-rnem-"]) == 0
    assert re.search(rf"^{RUN} +balls4mass16 +40 +0 3$", capsys.readouterr().out, re.MULTILINE)


def test_a_damaged_run_is_found_and_never_used(capsys, cached, tmp_path, monkeypatch):
    run = store.load_run(f"{RUN}@3")
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    copy = paths.runs_root() / run.path.name
    copy.mkdir(parents=True)
    for file in run.path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert main(["runs", "verify"]) == 0
    assert "1 good, 0 broken" in capsys.readouterr().out

    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    assert main(["runs", "verify"]) == 1
    assert f"{copy}: weights.safetensors was edited" in capsys.readouterr().out
    assert main(["evaluate", f"{RUN}@3"]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert re.match("warning: left out a broken run: .*weights.safetensors was edited", warning)
    assert error.startswith("error: no finished run of")


def test_files_beside_a_run_are_noted_and_a_broken_run_is_not_trained_anew(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_DATA", str(tmp_path))
    train = ["train", "smoke-balls4mass-rnn", "--updates", "1", "--accelerator", "cpu", "--quiet"]
    assert main(train) == 0
    (run,) = store.find()
    (run.path / "notes.txt").write_text("the best one\n")
    created = run.manifest["created"]
    capsys.readouterr()
    assert main(["runs", "verify"]) == 0
    assert capsys.readouterr().out.startswith(f"{run.path}: good, left alone beside it: notes.txt\n1 good, 0 broken")
    assert main(["runs", "list"]) == 0
    assert f"note: {run.label} is good, left alone beside it: notes.txt" in capsys.readouterr().out
    assert main(train) == 0
    assert (store.load(run.path).manifest["created"], capsys.readouterr().err) == (created, "")

    metrics = run.path / "metrics.csv"
    metrics.write_bytes(damaged := metrics.read_bytes() + b"1\n")
    said = fails(capsys, *train)
    assert f"{run.path}: metrics.csv is edited" in said
    assert "--again" in said
    assert metrics.read_bytes() == damaged
    assert main([*train, "--again"]) == 0
    assert store.verify(run.path) == []
    (aside,) = paths.runs_root().glob(".broken-*")
    assert (aside / "notes.txt").exists()


def test_a_chapter_that_is_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RNEM_BOOK", str(tmp_path))
    assert "there is no chapter 'nonsense'" in fails(capsys, "chapter", "nonsense")


# --------------------------------------------------------------------------------------------------------------- faults


def raising(error: BaseException):
    def call(self):
        raise error

    return call


def test_our_own_faults_keep_their_traceback(monkeypatch):
    for fault in (ValueError("of a library"), TypeError("wrong"), KeyError("key"), AssertionError("never")):
        monkeypatch.setattr(runs_commands.RunsNames, "__call__", raising(fault))
        with pytest.raises(type(fault)):
            main(["runs", "names"])


def test_a_value_error_of_our_own_code_keeps_its_traceback(monkeypatch):
    """It decides nothing where an error was raised: only errors that are meant for the user are one line."""
    monkeypatch.setattr(runs_commands.RunsNames, "__call__", lambda self: NetworkConfig(model="nobody's"))
    with pytest.raises(ValueError, match=r"network\.model is"):
        main(["runs", "names"])


@pytest.mark.parametrize(
    "module",
    sorted(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("[!_]*.py")),
)
def test_every_error_class_of_ours_is_for_the_user(module):
    there = vars(importlib.import_module(module)).values()
    ours = {c for c in there if isinstance(c, type) and issubclass(c, Exception) and c.__module__.startswith("rnem.")}
    assert {c.__name__ for c in ours if not issubclass(c, RnemError)} == set()


def test_errors_of_the_system_are_one_line(capsys, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device", "data/runs/a")
    monkeypatch.setattr(runs_commands.RunsNames, "__call__", raising(full))
    assert fails(capsys, "runs", "names") == "error: data/runs/a: No space left on device\n"


def test_control_c_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(runs_commands.RunsNames, "__call__", raising(KeyboardInterrupt()))
    assert main(["runs", "names"]) == 130
    assert capsys.readouterr().err.startswith("interrupted")


def test_training_that_diverges_is_one_line(capsys, cached, monkeypatch):
    from rnem import errors
    from rnem.training import train

    def diverge(*arguments, **keywords):
        raise errors.TrainingError("the loss of update 7 is not finite")

    monkeypatch.setattr(train, "train", diverge)
    assert fails(capsys, "train", RUN) == "error: the loss of update 7 is not finite\n"
