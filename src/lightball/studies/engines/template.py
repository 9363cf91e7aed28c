"""A command with placeholders: what a script is told of a run.

    python train.py --lr {torch_lr} --momentum {momentum} --batch-size {batch_size} --seed {seed}

The command is split into words once, as a POSIX shell would, and a value never changes the number of words. No shell is
involved; for one, write ``bash -c '...'``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from lightball.errors import InputError, reason_of
from lightball.rules.conventions import Setting, convert
from lightball.studies.runs import Run
from lightball.studies.settings import Settings

RATES = ("lr", "effective_lr", "torch_lr")
FROM_SETTINGS = ("epochs", "weight_decay", "schedule")  # the same for all runs of a study
PLACEHOLDERS = (*RATES, "momentum", "batch_size", "seed", *FROM_SETTINGS, "out")
# A script is not told of these, so it must do what their defaults say.
_UNTOLD = (
    "sampling",
    "drop_last",
    "precision",
    "accumulate",
    "ell",
    "batch_norm",
    "clip_norm",
    "eval_every",
    "checkpoint",
    "num_steps",
    "decay",
    "in_backward",
    "compile",
)

# ${name} is a variable of a shell, {"name": 1} is JSON, and { name} is anything else.
_PLACEHOLDER = re.compile(r"(?<!\$)\{([a-z_][a-z0-9_]*)\}")
_WITH_FORMAT = re.compile(rf"(?<!\$)\{{({'|'.join(PLACEHOLDERS)})[:!]")


@dataclass(frozen=True)
class Template:
    """The words of a command, some with placeholders."""

    words: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The placeholders that occur."""
        return frozenset(name for word in self.words for name in _PLACEHOLDER.findall(word))

    def fill(self, values: Mapping[str, str]) -> list[str]:
        return [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in self.words]


def parse(command: str, settings: Settings) -> Template:
    """The template of a command that is told all that the settings vary or ask for.

    Raises:
        InputError: it cannot be split into words, has an unknown placeholder or lacks one, or a setting is not the
            default and the script would not know.
    """
    try:
        template = Template(tuple(shlex.split(command)))
    except ValueError as error:
        raise InputError(
            f"the command {command!r} cannot be split into words: {reason_of(error).lower()} "
            "(quote as in a POSIX shell)"
        ) from error
    if not template.words:
        raise InputError(f"the command is {command!r}, but must be a program with arguments, as python train.py {{lr}}")
    formatted = [found[1] for word in template.words if (found := _WITH_FORMAT.search(word))]
    if formatted:
        raise InputError(
            f"the placeholder {{{formatted[0]}}} has a format, but values are written in full: leave out what follows "
            "its name"
        )
    unknown = sorted(template.names - set(PLACEHOLDERS))
    if unknown:
        raise InputError(
            f"unknown placeholder {{{unknown[0]}}} in the command: the placeholders are "
            f"{_in_braces(PLACEHOLDERS)} (for braces of your own, put a space behind the first)"
        )
    _require_told(template.names, settings)
    return template


def values_of(run: Run, settings: Settings, out: Path) -> dict[str, str]:
    """The text of every placeholder; floats are written so that they read back as the same number."""
    return {
        "lr": repr(run.effective_lr),
        "effective_lr": repr(run.effective_lr),
        "torch_lr": repr(_without_dust(convert(Setting("ema", run.effective_lr, run.momentum), to="torch").setting.lr)),
        "momentum": repr(run.momentum),
        "batch_size": str(run.batch_size),
        "seed": str(script_seed(run)),
        "epochs": str(settings.epochs),
        "weight_decay": repr(settings.weight_decay),
        "schedule": settings.schedule,
        "out": str(out),
    }


def script_seed(run: Run) -> int:
    """The seed that a script gets: below 2³¹, since NumPy and others take no larger one."""
    return run.seed >> 32


def _without_dust(value: float) -> float:
    """0.02 for 0.019999999999999997: people read logs."""
    return float(f"{value:.15g}")


def _require_told(names: frozenset[str], settings: Settings) -> None:
    missing = []
    if names.isdisjoint(RATES):
        missing.append("{torch_lr} or {effective_lr}: without a rate all rates would be the same")
    if "momentum" not in names:
        missing.append("{momentum}: without it SGD and SGDM would be the same")
    if "batch_size" not in names and len(settings.batch_sizes) > 1:
        missing.append("{batch_size}: without it all batch sizes would be the same")
    if "seed" not in names:
        missing.append("{seed}: without it every run would be the same")
    if missing:
        raise InputError(f"the command has no {'; no '.join(missing)}")
    defaults = {field.name: field.default for field in fields(Settings)}
    for name in (*FROM_SETTINGS, *_UNTOLD):
        value, flag = getattr(settings, name), name.replace("_", "-")
        if name in names or value == defaults[name]:
            continue
        if name in FROM_SETTINGS:
            raise InputError(
                f"{flag} is {value}, but the command has no {{{name}}}: add it, or set it in the script and leave "
                f"{flag} out"
            )
        raise InputError(
            f"{flag} is {value}, but there is no placeholder for it: set it in the script and leave {flag} out"
        )


def _in_braces(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
