# Two commands on a fresh machine: `make book` builds the book, `make test` runs the tests. Both make .venv first.
PYTHON ?= python3
VENV ?= .venv
# Versions that were tested; `make book CONSTRAINTS=/dev/null` takes the newest that pyproject.toml admits.
CONSTRAINTS ?= constraints.txt
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# On Linux without an NVIDIA driver PyPI's torch would bring gigabytes of CUDA: look at PyTorch's CPU wheels first,
# unless pip was already told of a place to find torch.
TORCH_INDEX ?= $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && [ -z "$$PIP_FIND_LINKS" ] \
	&& ! $(PYTHON) -m pip config get global.find-links >/dev/null 2>&1 \
	&& echo --extra-index-url https://download.pytorch.org/whl/cpu)
PAGE = _build/html/index.html

export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONNOUSERSITE := 1

.PHONY: book pdf test lint clean help

help:
	@echo "make book    build the book (re-executing what is stale) and say where the page is"
	@echo "make pdf     the same as one PDF, by a headless Chromium of this machine"
	@echo "make test    run the tests"
	@echo "make lint    check style (ruff)"
	@echo "make clean   remove the built pages"

$(VENV)/.installed: pyproject.toml $(filter-out /dev/null,$(CONSTRAINTS))
	@echo "Making $(VENV) and installing (one to three minutes) ..."
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: Python 3.11 to 3.13 is needed, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --retries 2 $(TORCH_INDEX) -c $(CONSTRAINTS) torch numpy
	$(PIP) install --quiet -c $(CONSTRAINTS) -e ".[test]"
	touch $@

book: $(VENV)/.installed
	jupyter-book build book/ -W --keep-going
	@echo
	@echo "The book is at $(abspath $(PAGE))"

pdf: book
	python -c 'from pathlib import Path; from rnem.book import pdf; print("The book is at", pdf.write(Path("_build/html"), Path("_build/rnem.pdf")))'

test: $(VENV)/.installed
	python -m pytest

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .

clean:
	rm -rf _build
