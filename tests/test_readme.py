"""Every block of the README and of the pages in docs runs, and the files that they name exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
DOCS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
TASK = next(code for language, code in BLOCKS if "def make_task" in code)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def _lines(code: str) -> list[str]:
    return [line.split("#")[0].strip() for line in code.splitlines()]


def _commands() -> list[str]:
    return [line for language, code in BLOCKS if language == "sh" for line in _lines(code)]


@pytest.mark.parametrize("code", [c for language, c in BLOCKS if language == "sh" and c.startswith("lightball")])
def test_shell_block_runs(code: str, tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(TASK, encoding="utf-8")
    for command in _lines(code):
        done = _run([sys.executable, "-m", *shlex.split(command)], tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("command", [c for c in _commands() if c.startswith("make")])
def test_make_target_exists(command: str) -> None:
    done = _run(["make", "--dry-run", *command.split()[1:]], ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python" and code != TASK])
def test_python_block_runs(code: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(code, encoding="utf-8")
    done = _run([sys.executable, "block.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("name", DOCS)
def test_python_blocks_of_docs_run(name: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS[name], flags=re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / "blocks.py").write_text("\n".join(blocks), encoding="utf-8")
    done = _run([sys.executable, "blocks.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(blocks)


def test_commands_in_docs_exist() -> None:
    from lightball.cli.main import lightball
    from lightball.cli.theory.group import theory

    command = re.compile(r"(?:`|^ +)lightball ([\w-]+)", flags=re.MULTILINE)
    named = {name: set(command.findall(text)) for name, text in DOCS.items()}
    assert all(names <= set(lightball.commands) for names in named.values())
    assert "advise" in named["advise.md"]
    assert set(re.findall(r"`lightball theory ([\w-]+)", DOCS["theory.md"])) == set(theory.commands)


def test_the_orders_quoted_are_those_that_are_printed(tmp_path: Path) -> None:
    quoted = README.partition("<!-- weak -->")[2].partition("Orders of the error in η\n")[2].partition("```")[0]
    options = ["--trajectories", "0", "--no-page"]
    done = _run([sys.executable, "-m", "lightball", "theory", "weak", *options], tmp_path)
    assert quoted.count("\n") == 6
    assert done.stdout.endswith(quoted)


def test_the_advice_quoted_is_that_which_is_printed(tmp_path: Path) -> None:
    """In its words; its numbers depend on rounding."""
    quoted = README.partition("<!-- advise -->\n```text\n")[2].partition("```")[0]
    command, _, said = quoted.partition("\n")
    assert command.startswith("$ lightball advise digits ")
    done = _run([sys.executable, "-m", *shlex.split(command[2:]), "--no-page"], tmp_path)
    assert done.returncode == 0, done.stderr

    def words(text: str) -> str:
        return re.sub(r"[+−-]?\d[\d.,e+−-]*", "#", " ".join(text.split()))

    def critical(text: str) -> float:
        found = re.search(r"momentum pays from batch size (\d+)", text)
        assert found is not None
        return float(found[1])

    assert words(done.stdout) == words(said)
    assert critical(done.stdout) == pytest.approx(critical(said), rel=0.25)


def test_the_audit_quoted_is_that_which_is_printed(tmp_path: Path) -> None:
    quoted = README.partition("<!-- audit -->\n```text\n")[2].partition("```")[0]
    command, _, said = quoted.partition("\n")
    (tmp_path / "my_train.py").write_text(
        "import torch\n\n\ndef make_optimizer():\n    model = torch.nn.Linear(20, 10)\n"
        "    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)\n"
    )
    done = _run([sys.executable, "-m", *shlex.split(command[2:])], tmp_path)
    assert done.returncode == 0, done.stderr
    assert said
    assert done.stdout.startswith(said)


def test_no_command_is_left_out() -> None:
    assert {c.split()[0] for c in _commands()} == {"make", "lightball"}
    assert {language for language, _ in BLOCKS} == {"sh", "python", "text"}


def test_files_named_in_the_readme_exist() -> None:
    named = set(re.findall(r"`((?:tests|benchmarks|examples)/[\w/.]*)`", README)) | set(
        re.findall(r"python (benchmarks/\S+?)`", README)
    )
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]
