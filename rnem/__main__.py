"""``python -m rnem``: the command line."""

import sys

from rnem.cli.main import main

sys.exit(main())
