"""``python -m lightball``: the command line."""

import sys

from lightball.cli.main import main

sys.exit(main())
