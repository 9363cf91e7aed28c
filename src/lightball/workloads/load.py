"""Workloads by name: those that come with lightball, and the user's own file."""

from __future__ import annotations

from collections.abc import Callable

from lightball.errors import InputError
from lightball.user_files import made_by, split
from lightball.workloads.checks import check
from lightball.workloads.cifar10 import cifar10
from lightball.workloads.digits import digits, digits_conv
from lightball.workloads.workload import Workload

BUNDLED: dict[str, Callable[[], Workload]] = {"digits": digits, "digits-conv": digits_conv, "cifar10": cifar10}


def load(task: str, together: bool = True) -> Workload:
    """The checked workload called ``task``: a bundled name, or ``path/to/file.py:function`` that returns one.

    A task file is the user's own code and runs as such; its folder is importable from then on. ``together``: whether
    many models of it are to be trained at once, see :func:`check`.

    Raises:
        InputError: no such name, file or function, the function fails, or what it returns cannot be trained.
    """
    if task in BUNDLED:
        return check(BUNDLED[task](), together)
    own = split(task)
    if own is None:
        raise InputError(
            f"unknown task {task!r}: choose one of {', '.join(BUNDLED)}, or give your own as file.py:function"
        )
    return made_by(*own, lambda made: check(made, together), "my_task.py:make_task", "lightball.Workload")
