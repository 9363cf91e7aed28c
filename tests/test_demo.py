"""The demo gives the verdict that it is known for: what `make demo` runs, from nothing, on all cores."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The JSON of a full demo, and the text that the same command then makes from its files."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "lightball", "compare", "digits"]
    first = subprocess.run([*command, "--json"], cwd=folder, capture_output=True, text=True, timeout=600)
    assert first.returncode == 0, first.stderr
    again = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert re.search(r"^0 runs computed", again.stdout, flags=re.MULTILINE)
    return json.loads(first.stdout), again.stdout


def test_training_loss_verdicts(demo: tuple[dict[str, Any], str]) -> None:
    verdicts = {b["batch_size"]: b["sgdm"][0]["difference"]["train_loss"]["verdict"] for b in demo[0]["batch_sizes"]}
    assert verdicts == {8: "no value", 32: "no value", 128: "helps", 512: "helps"}
    assert demo[0]["summary"]["train_loss"] == {"no_value_up_to": 32, "helps_from": 128}


def test_losses_are_those_of_trained_networks(demo: tuple[dict[str, Any], str]) -> None:
    for batch in demo[0]["batch_sizes"]:
        assert batch["sgdm"][0]["train_loss"] < 0.1
        assert batch["sgdm"][0]["test_accuracy"] > 0.95
    sgd = {b["batch_size"]: b["sgd"]["train_loss"] for b in demo[0]["batch_sizes"]}
    assert sgd[8] < sgd[128] < sgd[512] < 1.0


def test_readme_quotes_the_verdict(demo: tuple[dict[str, Any], str]) -> None:
    printed = demo[1].splitlines()
    quoted = re.search(r"<!-- demo -->\n```text\n(.*?)```", README, flags=re.DOTALL)
    assert quoted is not None
    answers = [line for line in printed if re.match(r"(Training loss|Test accuracy): ", line)]
    assert len(answers) == 2
    assert all(answer in quoted[1] for answer in answers)
