"""Task files: what works, and one line for everything that does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lightball.errors import InputError
from lightball.workloads import load

GOOD = """
import torch
from torch import nn
from lightball import Data, Workload

def make_task():
    inputs = torch.arange(24.0).reshape(8, 3) / 24
    data = Data(inputs, torch.arange(8) % 2)
    return Workload("mine", lambda: nn.Linear(3, 2), data, data, data)
"""


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(code: str, name: str = "my_task.py") -> str:
        (tmp_path / name).write_text(code, encoding="utf-8")
        return str(tmp_path / name)

    return write


def refusal(task: str) -> str:
    path = list(sys.path)
    with pytest.raises(InputError) as caught:
        load(task)
    assert sys.path == path
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_task_file(write) -> None:  # type: ignore[no-untyped-def]
    assert load(f"{write(GOOD)}:make_task").name == "mine"


def test_a_relative_path(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    write(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load("my_task.py:make_task").name == "mine"


def test_neighbours_of_the_file_can_be_imported(write) -> None:  # type: ignore[no-untyped-def]
    folder = Path(write("WIDTH = 3", "its_neighbour.py")).parent
    path = list(sys.path)
    try:
        assert load(f"{write('from its_neighbour import WIDTH' + GOOD)}:make_task").name == "mine"
        assert sys.path == [str(folder), *path]  # for what the file imports later, inside its functions
    finally:
        sys.modules.pop("its_neighbour", None)
        sys.path[:] = path


@pytest.mark.parametrize("task", ["digit", "digits.py", "", ":make_task", "notes.txt:make_task", "package.module"])
def test_unknown_task_names_the_choices(task: str) -> None:
    message = refusal(task)
    assert message == (
        f"unknown task {task!r}: choose one of digits, digits-conv, cifar10, or give your own as file.py:function"
    )


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/gone.py:make_task").startswith(f"there is no file '{tmp_path}/gone.py': give the path")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    assert "there is no file" in refusal(f"{tmp_path}/folder.py:make_task")


def test_no_such_function(write) -> None:  # type: ignore[no-untyped-def]
    message = refusal(f"{write(GOOD)}:make_tusk")
    assert message.startswith("my_task.py has no function 'make_tusk': define one that returns a lightball.Workload")


def test_not_a_function(write) -> None:  # type: ignore[no-untyped-def]
    assert "has no function 'SIZE'" in refusal(f"{write('SIZE = 3')}:SIZE")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def make_task():\n    raise RuntimeError('no data\\nhere')", "RuntimeError: no data"),
        ("def make_task():\n    raise KeyError", "KeyError: "),
        ("def make_task(size):\n    return size", "TypeError: make_task() missing 1 required positional argument"),
        ("def make_task(:\n    pass", "SyntaxError: invalid syntax (my_task.py, line 1)"),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
    ],
)
def test_code_that_fails(write, code: str, reason: str) -> None:  # type: ignore[no-untyped-def]
    message = refusal(f"{write(code)}:make_task")
    assert message.startswith(f"my_task.py:make_task fails with {reason}")
    assert message.endswith("(run the file in Python to see where)")


@pytest.mark.parametrize(("value", "kind"), [("None", "NoneType"), ("{'model': 3}", "dict"), ("Workload", "type")])
def test_wrong_return_type(write, value: str, kind: str) -> None:  # type: ignore[no-untyped-def]
    code = f"from lightball import Workload\ndef make_task():\n    return {value}"
    message = refusal(f"{write(code)}:make_task")
    assert message == f"the task is a {kind}, but must be a lightball.Workload: return Workload(...)"
