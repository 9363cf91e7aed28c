"""Verdicts stand out on a terminal; what is written elsewhere is plain."""

from __future__ import annotations

import os
import re
import sys

import click

_COLOURS = {"no value": "cyan", "helps": "green", "hurts": "red", "undecided": "yellow"}
_AT_THE_END = re.compile(rf"({'|'.join(_COLOURS)})$", re.MULTILINE)


def emphasised(text: str) -> str:
    """The text with the verdicts at the ends of lines in bold and colour, if it goes to a terminal that wants them."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return _AT_THE_END.sub(lambda match: click.style(match[0], fg=_COLOURS[match[0]], bold=True), text)
