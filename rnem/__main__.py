"""``python -m rnem``: the command line."""

import sys

from rnem.cli import main

sys.exit(main())
