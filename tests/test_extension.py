"""A new interaction function gets into training, a chapter and a figure by four edits, in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CLASS = '''class Average(Interaction):
    """Υ: each component reads the mean of all others beside itself."""

    def __init__(self, state: int, attention: int, actions: int) -> None:
        super().__init__()
        self.width = 2 * state
        self.encode = Dense(state + actions, state, "relu")

    def forward(self, theta, action):
        if action is not None:
            theta = torch.cat([theta, action], 2)
        e = self.encode(theta.flatten(0, 1)).view(*theta.shape[:2], -1)
        others = (e.sum(1, keepdim=True) - e) / max(e.shape[1] - 1, 1)
        return torch.cat([e, others], 2)


'''
EDITS = (
    # (file, what stands there, what is put before it)
    ("rnem/model/interaction.py", "INTERACTIONS: dict", CLASS),
    ("rnem/model/interaction.py", '"pairwise": Pairwise}', '"average": Average, '),
    ("rnem/model/config.py", '    "nem": Model("N-EM"', '    "average": Model("Average of the others", "average"),\n'),
    ("book/chapters/accuracy.md", "    - laptop-balls4mass-nem-k5\n", "    - laptop-balls4mass-average-k5\n"),
)
RUN = "smoke-balls4mass-average-k5"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project with the four edits, and a data folder of its own."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("rnem", "book"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    for name in ("pyproject.toml", "_config.yml"):
        shutil.copy(REPOSITORY / name, root)
    for name, anchor, new in EDITS:
        text = (root / name).read_text()
        assert text.count(anchor) == 1, f"{name} has {anchor!r} {text.count(anchor)} times"
        (root / name).write_text(text.replace(anchor, new + anchor))
    return root


def python(copy: Path, *arguments: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(copy), "RNEM_DATA": str(copy / "data"), "RNEM_BOOK": str(copy / "book"),
        "RNEM_FIGURES": str(copy / "figures"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout


def test_a_new_interaction_is_trained_and_shown_after_four_edits(copy):
    for run in (RUN, *(f"smoke-balls4mass-{model}" for model in ("rnem-k5", "nem-k5", "lstm", "rnn"))):
        python(copy, "-m", "rnem", "train", run, "--quiet")
    assert "Average of the others" in python(
        copy, "-c", "from rnem.model.config import MODEL_LABELS; print(MODEL_LABELS)"
    )
    program = (
        "from pathlib import Path; from rnem.book import chapters; "
        "chapters.execute('accuracy', {'profile': 'smoke', 'seeds': 1, 'count': 4}, output=Path('accuracy.ipynb'))"
    )
    python(copy, "-c", program)
    page = (copy / "accuracy.ipynb").read_text()
    outputs = [output for cell in json.loads(page)["cells"] for output in cell.get("outputs", [])]
    tables = [text for output in outputs if "Average of the others" in (text := json.dumps(output.get("data", {})))]
    assert any("text/html" in text for text in tables)
    colour = python(copy, "-c", "from rnem import figures; print(figures.MODEL_COLOURS['average'])").strip()
    drawn = [text for output in outputs if (text := "".join(output.get("data", {}).get("image/svg+xml", "")))]
    assert any(colour.lower() in text.lower() for text in drawn)


def test_the_new_interaction_is_refused_where_the_authors_have_none(copy):
    program = (
        "from rnem.authors.variables import variables_of; from rnem.runs.experiments import named\n"
        f"try: variables_of(named({RUN!r}).network)\n"
        "except ValueError as error: print(error)"
    )
    assert (
        python(copy, "-c", program) == "the authors have no Average of the others, so it has no form in their layout\n"
    )
