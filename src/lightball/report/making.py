"""The last section of a page that a command made: how to make it again."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

import numpy as np
import torch

from lightball.report.page import Code, Facts, Part, Section
from lightball.report.settings import command_line
from lightball.version import __version__


def making(settings: Sequence[tuple[str, str]] = ()) -> Section:
    """The command that is running, its settings by name, and the versions behind it."""
    versions = {"lightball": __version__, "python": platform.python_version()}
    versions |= {"torch": torch.__version__, "numpy": np.__version__}
    facts = Facts((*settings, ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))))
    line = command_line(sys.argv)
    parts: tuple[Part, ...] = (Code(line), facts) if line else (facts,)
    return Section("Make it again", (), parts, folded=True)
