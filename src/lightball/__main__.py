"""``python -m lightball``: the command line."""

from lightball.cli.main import run

run()
