"""Workloads by name: those that come with lightball, and the user's own file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType

from lightball.errors import InputError
from lightball.workloads.checks import check
from lightball.workloads.digits import digits, digits_conv
from lightball.workloads.workload import Workload

BUNDLED: dict[str, Callable[[], Workload]] = {"digits": digits, "digits-conv": digits_conv}


def load(task: str, together: bool = True) -> Workload:
    """The checked workload called ``task``: a bundled name, or ``path/to/file.py:function`` that returns one.

    A task file is the user's own code and runs as such; its folder is importable from then on. ``together``: whether
    many models of it are to be trained at once, see :func:`check`.

    Raises:
        InputError: no such name, file or function, the function fails, or what it returns cannot be trained.
    """
    if task in BUNDLED:
        return check(BUNDLED[task](), together)
    path, colon, function = task.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise InputError(
            f"unknown task {task!r}: choose one of {', '.join(BUNDLED)}, or give your own as file.py:function"
        )
    return _call(Path(path), function, together)


def _call(path: Path, function: str, together: bool) -> Workload:
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}: give the path of a Python file, as my_task.py:make_task")
    # Registered under its own name, so that classes of the file can be found again.
    name = f"lightball_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    with ExitStack() as undo:
        if folder not in sys.path:  # as when Python runs the file: what lies beside it can be imported, later too
            sys.path.insert(0, folder)
            undo.callback(sys.path.remove, folder)
        workload = check(_run(spec.loader, module, path, function), together)
        undo.pop_all()
    return workload


def _run(loader: Loader, module: ModuleType, path: Path, function: str) -> object:
    try:
        loader.exec_module(module)
        make = getattr(module, function, None)
        if not callable(make):
            raise InputError(
                f"{path.name} has no function {function!r}: define one that returns a lightball.Workload, "
                f"or name another one as {path.name}:function"
            )
        return make()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code runs here: anything can be raised
        where = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{path.name}:{function} fails with {where} (run the file in Python to see where)") from error
