"""The files around the code agree with each other and with what the README promises."""

import ast
import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import expected  # of benchmarks/
import pytest
import tyro
import yaml
from packaging.requirements import Requirement

from rnem.authors.result_videos import HASHES
from rnem.cli import main
from rnem.model import em
from rnem.model.interaction import Pairwise
from rnem.model.network import Network

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))


def test_the_tables_of_expected_results_are_what_the_committed_runs_give():
    assert expected.readme() == README


def bounds(lines) -> dict[str, str]:
    requirements = [Requirement(line) for line in lines]
    return {requirement.name.lower(): str(requirement.specifier) for requirement in requirements}


def test_environment_and_project_have_the_same_packages_and_bounds():
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip[-1] == "-e ."
    assert bounds(pip[:-1]) == bounds(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
    (python,) = [entry for entry in CONDA["dependencies"] if str(entry).startswith("python")]
    assert bounds([python]) == {"python": str(Requirement(f"python{PROJECT['requires-python']}").specifier)}


def test_the_tested_versions_are_within_the_bounds():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {Requirement(line).name.lower().replace("_", "-"): line for line in lines if not line.startswith("#")}
    for requirement in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]):
        (specifier,) = Requirement(pinned[requirement.name.lower()]).specifier
        assert specifier.version in requirement.specifier, requirement


def test_jupyter_book_stays_at_the_version_that_reads_our_files():
    assert "2.0" not in Requirement(next(d for d in PROJECT["dependencies"] if d.startswith("jupyter-book"))).specifier


def test_the_folders_that_readers_expect_are_there():
    assert {"book", "rnem", "figures", "data"} <= {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    for name in ("environment.yml", "_config.yml", "README.md", "LICENSE", "CITATION.cff", "book/_toc.yml"):
        assert (REPOSITORY / name).is_file()


def shell_lines() -> list[str]:
    fenced = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
    in_line = re.findall(r"`((?:make|rnem|jupyter|papermill)[ -][^`]+)`", README)
    return [line.split("#")[0].strip() for line in fenced + in_line]


def test_the_readme_begins_with_the_two_commands():
    assert [line.split("#")[0].strip() for line in README.splitlines()[3:5]] == ["make book", "make test"]


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_knows_the_readmes_targets(line):
    done = subprocess.run(
        [*shlex.split(line), "--dry-run"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("rnem ")])
def test_the_command_line_takes_the_readmes_commands(line):
    tyro.cli(main.Command, args=shlex.split(line)[1:], config=main.SETTINGS)  # parses; exits where it cannot


def test_each_file_that_a_command_of_the_readme_reads_is_there_or_made_by_one_above():
    """Or published by the authors, whose videos the command downloads by their names."""
    there, read = set(HASHES), []
    for line in shell_lines():
        words = shlex.split(line)
        made = [value for option, value in itertools.pairwise(words) if option == "--out"]
        made += words[2:3] if words[:1] == ["papermill"] else []
        files = [word for word in words if re.fullmatch(r"[\w/-]+\.(h5|gif|tar|ipynb|yml)", word) and word not in made]
        files += [value for option, value in itertools.pairwise(words) if option == "--video"]
        read += files
        missing = [file for file in files if file not in there and not (REPOSITORY / file).exists()]
        assert missing == [], line
        there |= set(made)
    assert {"balls4mass64-test.h5", "runs.tar", "balls4mass_rnem1"} <= set(read)


def test_the_code_of_the_readme_runs_and_gives_the_numbers_of_an_evaluation(monkeypatch):
    monkeypatch.delenv("RNEM_DATA", raising=False)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in block.splitlines() if line]) <= 5
    code = "import torch; torch.set_num_threads(1)\n" + block
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = ast.literal_eval(done.stdout)
    assert {"bce", "relational", "ari"} <= set(summary)
    assert 40 < summary["bce"] < 75, (
        "nats of R-NEM with five components, which the table below has over all test videos"
    )


def test_the_readme_names_runs_that_exist():
    from rnem.runs.experiments import RUNS

    named = re.findall(r"\b(?:smoke|laptop|paper)-[a-z0-9]+-[a-z0-9_-]+", README)
    assert len(named) > 5
    assert set(named) <= set(RUNS)


def test_the_citation_is_valid_and_cites_the_paper():
    cff = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cff.keys()
    assert cff["version"] == PROJECT["version"]
    assert cff["license"] == PROJECT["license"]
    (paper,) = cff["references"]
    assert paper["title"].startswith("Relational Neural Expectation Maximization")
    assert [author["family-names"] for author in paper["authors"]] == [
        "van Steenkiste",
        "Chang",
        "Greff",
        "Schmidhuber",
    ]


MODULES = sorted((REPOSITORY / "rnem").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_file_names_a_place_on_somebodys_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    texts = (".py", ".md", ".yml", ".toml", ".ipynb", ".json", ".svg", ".txt", ".cff")
    for name in tracked.split():
        path = REPOSITORY / name
        if path.suffix in texts and path.is_file() and path != Path(__file__):
            assert not re.search(r"/(?:root|home|Users|work)/\w", path.read_text(encoding="utf-8")), name


def test_the_number_of_each_equation_of_the_model_page_stands_in_the_docstring_of_its_code():
    text = (REPOSITORY / "book" / "chapters" / "model.md").read_text(encoding="utf-8")
    code = {
        "input": em.masked_difference, "mstep": Network.forward, "estep": em.e_step, "upsilon": Pairwise,
        "loss": em.loss,
    }  # fmt: skip
    labels = re.findall(r"\(eq-(\w+)\)", text)
    assert labels == list(code)
    for number, label in enumerate(labels, 1):
        assert code[label].__doc__.startswith(f"Equation {number}"), label
