"""Sphinx extension: the buttons that lead from a page to its repository, to Binder and to Colab.

They need an address, and ``repository.url`` in ``_config.yml`` is the one place that has it; without it there are none.
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config

LAUNCH = {
    "notebook_interface": "jupyterlab",
    "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com",
}


def buttons(app: Sphinx, config: Config) -> None:
    """Turn the buttons on where the repository's address is known, and off where it is not."""
    options = config.html_theme_options
    known = bool(options.get("repository_url"))
    options["launch_buttons"] = dict(LAUNCH) if known else {}
    options |= {"use_repository_button": known, "use_issues_button": known}


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
