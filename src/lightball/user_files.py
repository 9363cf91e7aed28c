"""What a function in the user's own Python file makes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from lightball.errors import InputError

Used = TypeVar("Used")
_OWN = "lightball_task_"


def split(name: str) -> tuple[Path, str] | None:
    """The path and the function of ``path/to/file.py:function``, none if the name has another form."""
    path, colon, function = name.rpartition(":")
    return (Path(path), function) if colon and path.endswith(".py") else None


def made_by(path: Path, function: str, use: Callable[[object], Used], example: str, wanted: str) -> Used:
    """Call a function of a Python file, and hand what it returns to ``use``, whose result is returned.

    The file is the user's own code and runs as such; its folder is importable from then on, unless anything fails.
    ``example`` and ``wanted``, say ``my_task.py:make_task`` and ``lightball.Workload``, are for messages.

    Raises:
        InputError: no such file or function, the function fails, or ``use`` raises it.
    """
    if not function:
        raise InputError(f"'{path}:' names no function: give one that returns a {wanted}, as {example}")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}: give the path of a Python file, as {example}")
    # Registered under its own name, so that classes of the file can be found again.
    name = f"{_OWN}{path.stem}"
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
        used = use(_run(spec.loader, module, path, function, wanted))
        undo.pop_all()
    return used


def module_shown(name: str) -> str:
    """A module's name as the user knows it: a file that :func:`made_by` runs has a name of ours."""
    return name.removeprefix(_OWN)


def _run(loader: Loader, module: ModuleType, path: Path, function: str, wanted: str) -> object:
    try:
        loader.exec_module(module)
        make = getattr(module, function, None)
        if not callable(make):
            raise InputError(
                f"{path.name} has no function {function!r}: define one that returns a {wanted}, "
                f"or name another one as {path.name}:function"
            )
        return make()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code runs here: anything can be raised
        where = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{path.name}:{function} fails with {where} (run the file in Python to see where)") from error
