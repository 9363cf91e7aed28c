"""Commands with placeholders: how they are split and filled, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightball.errors import InputError
from lightball.rules.conventions import Setting, convert
from lightball.studies.engines.command import prepare
from lightball.studies.engines.template import PLACEHOLDERS, parse, values_of
from lightball.studies.runs import Run, seeds
from lightball.studies.settings import Settings

COMPLETE = "python train.py --lr {torch_lr} --momentum {momentum} --batch-size {batch_size} --seed {seed}"
SETTINGS = Settings(engine="command")
RUN = Run(batch_size=8, effective_lr=0.4, seed=seeds("tune", 1)[0], momentum=0.9)

texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)


def filled(command: str, run: Run = RUN, settings: Settings = SETTINGS, out: str = "out.json") -> list[str]:
    return parse(command, settings).fill(values_of(run, settings, Path(out)))


def error_of(command: str, **settings: object) -> str:
    with pytest.raises(InputError) as caught:
        parse(command, Settings(engine="command", **settings))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(texts, st.lists(texts, max_size=4))
def test_a_value_never_changes_the_number_of_words(out: str, extra: list[str]) -> None:
    extra = [word.replace("{", "(") for word in extra]
    words = [*extra, "x{out}y{out}", "{momentum}{batch_size}{seed}{lr}"]
    done = filled(shlex.join(words), out=f"/{out}")
    path = str(Path(f"/{out}"))
    assert done == [*extra, f"x{path}y{path}", f"0.98{RUN.seed >> 32}0.4"]


@given(texts)
def test_a_value_that_looks_like_a_placeholder_is_not_filled_again(out: str) -> None:
    path = f"/{{seed}}{out.replace('/', '')}{{lr}}"
    assert filled(COMPLETE + " {out}", out=path)[-1] == str(Path(path))


@given(
    st.floats(1e-8, 1e4), st.one_of(st.just(0.0), st.floats(0.01, 0.9999)), st.floats(0, 10), st.integers(0, 2**63 - 1)
)
def test_numbers_read_back_as_they_were(rate: float, momentum: float, weight_decay: float, seed: int) -> None:
    settings = Settings(engine="command", weight_decay=weight_decay, epochs=3, schedule="warmup:0.05+cosine")
    run = Run(64, rate, seed, momentum)
    command = "x {lr} {effective_lr} {torch_lr} {momentum} {batch_size} {seed} {weight_decay} {epochs} {schedule}"
    values = filled(command, run, settings)[1:]
    in_torch = convert(Setting("ema", rate, momentum), "torch").setting.lr
    assert float(values[2]) == pytest.approx(in_torch, rel=1e-14)
    del values[2]
    assert [float(v) for v in values[:-1]] == [rate, rate, momentum, 64, seed >> 32, weight_decay, 3]
    assert int(values[4]) < 2**31
    assert values[-1] == "warmup:0.05+cosine"


def test_the_rate_in_torch() -> None:
    """In closed form: η (1 − β), and η itself for SGD, without the dust of rounding."""
    assert filled(COMPLETE)[3] == "0.04"
    assert filled(COMPLETE, Run(8, 0.4, 5, 0.0))[3:6] == ["0.4", "--momentum", "0.0"]


def test_seeds_of_a_study_stay_different() -> None:
    every = [seed >> 32 for phase in ("tune", "confirm") for seed in seeds(phase, 200)]  # type: ignore[arg-type]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("word", ["${HOME}", "${lr}", '{"train_loss": 1}', "{}", "{ print }", "{A}", "{a-b}", "{1}"])
def test_other_braces_are_left_alone(word: str) -> None:
    assert filled(f"{COMPLETE} {shlex.quote(word)}")[-1] == word


def test_no_shell_is_involved() -> None:
    assert filled(COMPLETE + " $HOME '*' ~ ; >x")[-5:] == ["$HOME", "*", "~", ";", ">x"]


@pytest.mark.parametrize("command", ["python 'train.py", 'python "', "python \\"])
def test_a_command_that_cannot_be_split(command: str) -> None:
    assert "cannot be split into words: no " in error_of(command)


@pytest.mark.parametrize("command", ["", "  "])
def test_an_empty_command(command: str) -> None:
    assert error_of(command).startswith(f"the command is {command!r}, but must be a program with arguments")


def test_an_unknown_placeholder() -> None:
    message = error_of(COMPLETE + " {learning_rate}")
    assert message.startswith("unknown placeholder {learning_rate} in the command: the placeholders are {lr}, ")
    assert all(f"{{{name}}}" in message for name in PLACEHOLDERS)


@pytest.mark.parametrize(
    ("placeholder", "why"),
    [
        ("torch_lr", "the command has no {torch_lr} or {effective_lr}: without a rate all rates would be the same"),
        ("momentum", "the command has no {momentum}: without it SGD and SGDM would be the same"),
        ("batch_size", "the command has no {batch_size}: without it all batch sizes would be the same"),
        ("seed", "the command has no {seed}: without it every run would be the same"),
    ],
)
def test_a_missing_placeholder(placeholder: str, why: str) -> None:
    assert error_of(COMPLETE.replace(f"{{{placeholder}}}", "1")) == why


def test_all_that_is_missing_is_named() -> None:
    message = error_of("python train.py")
    assert message.count("; no {") == 3
    assert message.startswith("the command has no {torch_lr}")


@pytest.mark.parametrize("rate", ["{lr}", "{effective_lr}", "{torch_lr} {effective_lr}"])
def test_any_rate_will_do(rate: str) -> None:
    parse(COMPLETE.replace("{torch_lr}", rate), SETTINGS)


def test_one_batch_size_need_not_be_told() -> None:
    parse(COMPLETE.replace("{batch_size}", "8"), Settings(engine="command", batch_sizes=(8,)))


@pytest.mark.parametrize(("name", "value"), [("weight_decay", 0.1), ("schedule", "cosine"), ("epochs", 5)])
def test_a_setting_that_the_script_is_not_told(name: str, value: object) -> None:
    flag = name.replace("_", "-")
    wanted = (
        f"{flag} is {value}, but the command has no {{{name}}}: add it, or set it in the script and leave {flag} out"
    )
    assert error_of(COMPLETE, **{name: value}) == wanted
    parse(f"{COMPLETE} {{{name}}}", Settings(engine="command", **{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling", "iid"),
        ("drop_last", False),
        ("precision", "bfloat16"),
        ("accumulate", 2),
        ("ell", 2),
        ("batch_norm", "once"),
        ("eval_every", 5),
        ("checkpoint", "best"),
        ("clip_norm", 1.0),
        ("compile", "off"),
    ],
)
def test_a_setting_without_a_placeholder(name: str, value: object) -> None:
    flag = name.replace("_", "-")
    wanted = f"{flag} is {value}, but there is no placeholder for it: set it in the script and leave {flag} out"
    assert error_of(COMPLETE, **{name: value}) == wanted


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(InputError, match="begins with 'no-such-program', which is no program on the PATH"):
        prepare(COMPLETE.replace("python", "no-such-program"), SETTINGS, 1)


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan, math.inf])
def test_a_timeout_that_cannot_be(timeout: float) -> None:
    with pytest.raises(InputError, match=f"timeout is {timeout:g}, but must be a number of seconds above 0"):
        prepare(COMPLETE.replace("python", "bash"), SETTINGS, 1, timeout)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").touch(0)
    with pytest.raises(InputError, match=r"cannot read 'train\.py', a file of the command: Permission denied"):
        prepare(COMPLETE.replace("python", "bash"), SETTINGS, 1)


def test_the_basis_is_what_determines_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("1")
    Path("data").mkdir()
    command = f"bash train.py data {COMPLETE.partition('train.py')[2]} --decay {{weight_decay}}"

    def basis(**settings: object) -> object:
        return prepare(command, Settings(engine="command", **settings), 1).basis  # type: ignore[arg-type]

    first = prepare(command, SETTINGS, 1)
    assert first.task == "train.py"
    assert json.loads(json.dumps(first.basis)) == first.basis
    assert first.basis["settings"] == {"weight_decay": 0.0}
    assert first.basis["command"] == shlex.split(command)
    assert list(first.basis["files"]) == ["train.py"]
    assert prepare(command, SETTINGS, 7, timeout=9.0).basis == first.basis
    assert basis(lr=(1.0,), momentum=(0.5,), batch_sizes=(3,), stages=(8,)) == first.basis
    assert basis(weight_decay=0.1) != first.basis
    Path("train.py").write_text("2")
    assert basis() != first.basis


@pytest.mark.parametrize(
    ("begin", "task"),
    [
        ("bash", "bash"),
        ("bash train.py x.toml", "train.py"),
        ("bash -c 'python train.py'", "bash"),
        ("./train.sh x.toml", "train.sh"),
        (f"{shlex.quote(sys.executable)} -m x", Path(sys.executable).name),
        (f"{shlex.quote(sys.executable)} train.py", "train.py"),
    ],
)
def test_the_name_of_the_task(begin: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train.py", "train.sh", "x.toml"):
        Path(name).touch(0o755)
    assert prepare(begin + COMPLETE.partition("train.py")[2], SETTINGS, 1).task == task


def test_the_plan_knows_how_many_runs_but_not_how_long() -> None:
    plan = prepare(COMPLETE.replace("python", "bash"), SETTINGS, 3).make_plan({})
    assert plan.num_workers == 3
    assert plan.seconds is None
    assert [batch.batch_size for batch in plan.batches] == list(SETTINGS.batch_sizes)
