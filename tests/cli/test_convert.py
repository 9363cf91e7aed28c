"""`lightball convert`: text, JSON, refusals."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from lightball.cli.convert import convert
from lightball.errors import InputError
from lightball.rules.caveats import CONVENTIONS

USUAL = ["--lr", "0.1", "--momentum", "0.9", "--from", "torch", "--to", "sgd"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(convert, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_text() -> None:
    lines = invoke(*USUAL).splitlines()
    assert lines[:4] == [
        "from          torch  lr 0.1  momentum 0.9",
        "to            sgd  lr 1",
        "effective lr  1",
        "exact         no",
    ]
    assert lines[4].startswith("schedule      Keep the schedule")
    assert any(line.startswith("caveat        matched-rate: ") for line in lines)


@pytest.mark.parametrize("to", [c for c in CONVENTIONS if not c.endswith("ema")])
def test_fits_a_terminal(to: str) -> None:
    output = invoke(*USUAL[:4], "--to", to, "--nesterov", "--weight-decay", "1e-4", "--clip", "1")
    assert all(len(line) <= 80 for line in output.splitlines())
    assert "nesterov" in output.splitlines()[0]


def test_json_has_the_same_facts() -> None:
    facts = json.loads(invoke(*USUAL, "--weight-decay", "0.0001", "--clip", "1", "--json"))
    text = " ".join(invoke(*USUAL, "--weight-decay", "0.0001", "--clip", "1").split())
    assert set(facts) == {"from", "to", "effective_lr", "exact", "schedule_rule", "caveats"}
    assert facts["from"]["convention"] == "torch"
    assert facts["to"]["convention"] == "sgd"
    assert facts["to"]["lr"] == facts["effective_lr"] == pytest.approx(1.0)
    assert facts["exact"] is False
    assert facts["schedule_rule"] in text
    assert [c["name"] for c in facts["caveats"]] == [
        "matched-rate",
        "changing-momentum",
        "weight-decay",
        "clipping",
    ]
    assert all(f"{c['name']}: {c['sentence']}" in text for c in facts["caveats"])


def test_every_option_reaches_the_conversion() -> None:
    dampened = json.loads(invoke(*USUAL, "--dampening", "0.5", "--json"))
    assert dampened["effective_lr"] == pytest.approx(0.5)
    debiased = json.loads(invoke("--lr", "1", "--momentum", "0.9", "--from", "optax-ema", "--debias", "--json"))
    assert "ema-debias" in {c["name"] for c in debiased["caveats"]}


def test_refusals_propagate() -> None:
    with pytest.raises(InputError, match="unknown convention 'adam'"):
        invoke("--lr", "0.1", "--to", "adam")


def test_help_has_an_example_that_works() -> None:
    example = "lightball convert --lr 0.1 --momentum 0.9 --from torch --to sgd"
    output = invoke("--help")
    assert example in output
    assert ", ".join(CONVENTIONS) in output
    assert invoke(*example.split()[2:]) == invoke(*USUAL)
