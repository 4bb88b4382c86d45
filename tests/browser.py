"""The browser of the machine, for tests that open pages from the disk."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--js-flags=--expose-gc", "--enable-precise-memory-info",
]  # fmt: skip


@contextmanager
def started(*needed: str) -> Iterator:
    """Chromium, driven by Playwright; skips where something is missing, unless RNEM_BROWSER=required."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    packages = [name for name in ("playwright", *needed) if not importlib.util.find_spec(name)]
    missing = "chromium" if program is None else ", ".join(packages)
    if missing and os.environ.get("RNEM_BROWSER") == "required":
        pytest.fail(f"there is no {missing}, and RNEM_BROWSER says that the page must be tried in a browser")
    if missing:
        pytest.skip(f"there is no {missing}: the page is not tried in a browser")
    from playwright import sync_api as api

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()
