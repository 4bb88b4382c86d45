"""Notebooks as files: prepare one from its source, run it with papermill, and take out what differs from run to run."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rnem.book.parameters import SOURCE as PARAMETERS
from rnem.book.parameters import assigned
from rnem.errors import ChapterError
from rnem.runs import files

if TYPE_CHECKING:
    import nbformat  # which takes seconds to import

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
LANGUAGE = {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
_STYLED = re.compile(
    r"\bT_[0-9a-f]{5}(?=_row|_level|\b)"
)  # the id, drawn anew each time, of a table that pandas styled
# The first cell, hidden in the book: a reader on Colab has neither this package nor its runs.
_COLAB = """\
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 {url} /content/rnem-book && pip install --quiet -e /content/rnem-book
    sys.path.insert(0, "/content/rnem-book")"""


def prepare(notebook: nbformat.NotebookNode, parameters: dict, config: Path) -> nbformat.NotebookNode:
    """Give a notebook read from text its kernel, Colab cell, parameters with their check, and ids that stay."""
    import nbformat
    from papermill.parameterize import parameterize_notebook

    kept = {
        "jupytext": notebook.metadata.get("jupytext", {}),
        "kernelspec": dict(KERNEL),
        "language_info": dict(LANGUAGE),
    }
    notebook.metadata = nbformat.from_dict(kept)
    known = _add_parameters(notebook)
    if unknown := parameters.keys() - known:
        raise ChapterError(f"its parameters cell does not set {', '.join(sorted(unknown))}")
    if parameters:
        notebook.metadata["papermill"] = {}  # it takes both for granted, as in notebooks that it loaded itself
        for cell in notebook.cells:
            cell.metadata.setdefault("tags", [])
        notebook = parameterize_notebook(notebook, parameters, kernel_name=KERNEL["name"], language="python")
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-input")
    if url := address(config):
        colab = nbformat.v4.new_code_cell(_COLAB.format(url=url), metadata={"tags": ["remove-cell"]})
        notebook.cells.insert(0, colab)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        _tidy(cell)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def address(config: Path) -> str:
    """The repository's public address of a ``_config.yml``, or ""."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else {}
    return (settings.get("repository") or {}).get("url") or ""


def _add_parameters(notebook: nbformat.NotebookNode) -> list[str]:
    """Put what every chapter can be given above its own parameters, and their check below; the names of all."""
    import nbformat

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    own = next((cell for cell in code if "parameters" in cell.metadata.get("tags", [])), None)
    if own is not None and own is not code[0]:
        raise ChapterError("its cell tagged `parameters` is not the first code cell, and all others may depend on it")
    if own is None:
        own = nbformat.v4.new_code_cell("", metadata={"tags": ["parameters", "remove-input"]})
        notebook.cells.insert(notebook.cells.index(code[0]) if code else len(notebook.cells), own)
    own.source = f"{PARAMETERS}\n{own.source}".rstrip()
    names = assigned(own.source)
    check = f"from rnem.book import cells\n\ncells.use_parameters({', '.join(f'{name}={name}' for name in names)})"
    cell = nbformat.v4.new_code_cell(check, metadata={"tags": ["remove-input"]})
    notebook.cells.insert(notebook.cells.index(own) + 1, cell)
    return names


def run(notebook: nbformat.NotebookNode, folder: Path, name: str) -> tuple[nbformat.NotebookNode, str]:
    """Execute every cell in ``folder``; the notebook as far as it came, and its first error in one line (or "")."""
    import nbformat
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    logging.getLogger("papermill").setLevel(logging.WARNING)
    handle, name = tempfile.mkstemp(suffix=".ipynb", prefix=f".running-{name}+", dir=folder)
    os.close(handle)
    path, error = Path(name), ""
    try:
        nbformat.write(notebook, path)
        papermill.execute_notebook(
            path, path, kernel_name=KERNEL["name"], cwd=folder, progress_bar=False,
            extra_arguments=["--log-level=ERROR"],  # of the kernel, which warns of each connection without encryption
        )  # fmt: skip
    except papermill.PapermillExecutionError as failure:
        # papermill puts a banner above the failed cell, so the cell is found by its own error output.
        source = next((line for line in failure.source.splitlines() if line.strip()), "")
        error = f"code cell {failure.exec_count} ({source.strip()!r}): {failure.ename}: {_one_line(failure.evalue)}"
    except DeadKernelError:
        error = "its kernel, which died (out of memory?)"
    except CellTimeoutError as failure:
        error = f"a cell that took too long: {_one_line(str(failure))}"
    except NoSuchKernel as failure:
        error = f"starting: there is no Jupyter kernel {failure.name!r} (`pip install ipykernel`)"
    finally:
        executed = nbformat.read(path, as_version=4) if path.stat().st_size else notebook
        path.unlink()
    return executed, error


def clean(notebook: nbformat.NotebookNode, repository: Path) -> None:
    """Take out times, memory addresses, machine paths and stderr; move what figures say of themselves to their cell."""
    import nbformat

    kept = {name: value for name, value in notebook.metadata.items() if name in ("kernelspec", "jupytext")}
    notebook.metadata = nbformat.from_dict(kept | {"language_info": dict(LANGUAGE)})
    for cell in notebook.cells:
        _tidy(cell)
        if cell.cell_type == "code":
            cell.outputs = _joined([out for out in cell.outputs if out.get("name") != "stderr"])
            for output in cell.outputs:
                _clean_output(output, str(repository), cell.id)
            _describe_figure(cell)


def _tidy(cell: nbformat.NotebookNode) -> None:
    for name in ("papermill", "execution", "collapsed", "scrolled"):
        cell.metadata.pop(name, None)
    if cell.metadata.get("tags") == []:
        del cell.metadata["tags"]


def _joined(outputs: list) -> list:
    """Neighbouring pieces of standard output as one: where it is cut depends on the clock."""
    joined: list = []
    for output in outputs:
        if joined and output.output_type == "stream" and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _clean_output(output: nbformat.NotebookNode, repository: str, name: str) -> None:
    def scrub(text: str) -> str:
        return _STYLED.sub(f"T_{name}", _ADDRESS.sub("at 0x…", text)).replace(repository, ".")

    if output.output_type == "stream":
        output.text = scrub(output.text)
    for mime, content in output.get("data", {}).items():
        if isinstance(content, str) and mime.startswith("text/"):
            output.data[mime] = scrub(content)


def _describe_figure(cell: nbformat.NotebookNode) -> None:
    """Alt text, caption and name that ``figures.save`` gave, as the cell metadata that MyST-NB reads."""
    said = [output.metadata.pop("rnem") for output in cell.outputs if "rnem" in output.get("metadata", {})]
    if len(said) > 1:
        raise ChapterError(
            f"one cell shows {' and '.join(s['name'] for s in said)}: give each figure a cell of its own"
        )
    for figure in said:
        options = cell.metadata.setdefault("mystnb", {})
        options["image"] = {"alt": figure["alt"], "align": "center"} | dict(options.get("image", {}))
        if figure["caption"]:
            named = {"caption": figure["caption"], "name": f"fig-{figure['name']}"}
            options["figure"] = named | dict(options.get("figure", {}))


def with_outputs(notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A prepared notebook with the outputs of an executed one that has the same code cells."""
    old, new = ([cell for cell in each.cells if cell.cell_type == "code"] for each in (executed, notebook))
    old, new = ([cell for cell in each if "google.colab" not in cell.source] for each in (old, new))  # it has no output
    if [cell.source for cell in old] != [cell.source for cell in new]:
        raise ChapterError("the code cells differ, so the outputs cannot be kept")
    for before, after in zip(old, new, strict=True):
        after.outputs, after.execution_count = copy.deepcopy(before.outputs), before.execution_count
        if "mystnb" in before.metadata:
            after.metadata["mystnb"] = {**before.metadata["mystnb"], **after.metadata.get("mystnb", {})}
    return notebook


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Whole or not at all."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"
    files.replace_file(path, text.encode())


def publish_figures(drawn: Path, figures: Path, name: str) -> None:
    """Move what a chapter drew in place, and remove what it drew before and no longer does."""
    for sidecar in figures.glob("*.json"):
        mine = json.loads(sidecar.read_text(encoding="utf-8")).get("chapter") == name
        if mine and not (drawn / sidecar.name).exists():
            for path in figures.glob(f"{sidecar.stem}.*"):
                path.unlink()
    for path in sorted(drawn.iterdir()):
        os.replace(path, figures / path.name)


def sweep(folder: Path, figures: Path, name: str) -> None:
    """Remove what killed executions of this name left; for who knows that no other one is at work."""
    for path in folder.glob(f".running-{name}+*"):
        path.unlink()
    for path in figures.glob(f".drawing-{name}+*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def scratch(beside: Path | None, name: str) -> Iterator[Path]:
    """A folder that is gone afterwards; on the same disk as ``beside``, so that moving from it there is one step."""
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".drawing-{name}+", dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def environ(**variables: object) -> Iterator[None]:
    """Environment variables for the kernel, which inherits ours."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _one_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")
