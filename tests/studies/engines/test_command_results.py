"""What becomes of a script's output, of its failure, and of its log; every script here is a real process."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from pathlib import Path

import pytest

from lightball.studies.engines.command import prepare
from lightball.studies.engines.script_result import TAIL_BYTES
from lightball.studies.runs import MEASURES, Chunk, Outcome, Run
from lightball.studies.settings import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="scripts of a POSIX shell")

RUN = Run(batch_size=8, effective_lr=0.4, seed=123 << 32, momentum=0.9)
NAME = f"batch-8_lr-0.4_momentum-0.9_seed-{RUN.seed >> 32}"


def run_script(
    code: str,
    folder: Path,
    program: str = "bash -c",
    timeout: float | None = 60,
    arguments: str = "",
    **settings: object,
) -> Outcome:
    """One run of a script; its arguments are the rate, the momentum, the batch size and the seed."""
    command = f"{program} {shlex.quote(code)} script {{torch_lr}} {{momentum}} {{batch_size}} {{seed}} {arguments}"
    job = prepare(command, Settings(engine="command", **settings), 1, timeout)  # type: ignore[arg-type]
    ((_, (outcome,)),) = job.start(folder).compute([Chunk((RUN,))])
    assert outcome.run == RUN
    return outcome


def prints(folder: Path, text: str, **settings: object) -> Outcome:
    return run_script(f"cat <<'END'\n{text}\nEND", folder, **settings)  # type: ignore[arg-type]


def log_of(folder: Path) -> str:
    return (folder / "logs" / f"{NAME}.log").read_text(errors="replace")


def assert_failed(outcome: Outcome, *texts: str) -> None:
    assert outcome.error is not None
    assert "\n" not in outcome.error
    assert all(text in outcome.error for text in texts), outcome.error
    assert outcome.curve == ()
    assert all(math.isnan(outcome.final[m]) and math.isnan(outcome.untrained[m]) for m in MEASURES)


def test_everything_that_can_be_told(tmp_path: Path) -> None:
    told = {
        "train_loss": 0.25,
        "validation_accuracy": 0.75,
        "test_accuracy": 1,
        "untrained_train_loss": 2.5,
        "untrained_validation_accuracy": 0.1,
        "untrained_test_accuracy": 0.125,
        "curve": [2.5, 1, 0.25],
        "failed_at": 7,
        "device": "GPU",
    }
    outcome = prints(tmp_path, json.dumps(told))
    assert outcome == Outcome(
        RUN,
        (2.5, 1.0, 0.25),
        {"train_loss": 2.5, "validation_accuracy": 0.1, "test_accuracy": 0.125},
        {"train_loss": 0.25, "validation_accuracy": 0.75, "test_accuracy": 1.0},
        failed_at=7,
    )


def test_the_loss_is_enough(tmp_path: Path) -> None:
    outcome = prints(tmp_path, '{"train_loss": 3}')
    assert outcome.final["train_loss"] == 3.0
    assert outcome.error is None
    assert not outcome.failed
    assert outcome.curve == ()
    assert math.isnan(outcome.final["test_accuracy"])
    assert all(map(math.isnan, outcome.untrained.values()))


def test_a_curve_begins_at_the_untrained_loss(tmp_path: Path) -> None:
    assert prints(tmp_path, '{"train_loss": 1, "curve": [2, 1]}').untrained["train_loss"] == 2
    assert prints(tmp_path, '{"train_loss": 3, "curve": [2, 3]}').failed
    both = '{"train_loss": 1, "curve": [2, 1], "untrained_train_loss": 4}'
    assert prints(tmp_path, both).untrained["train_loss"] == 4


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity", "null", "1e999", "9" * 5000])
def test_a_diverged_run_is_a_result(tmp_path: Path, loss: str) -> None:
    outcome = prints(tmp_path, f'{{"train_loss": {loss}, "untrained_train_loss": 2.5, "failed_at": 12.0}}')
    assert outcome.error is None
    assert outcome.failed
    assert outcome.failed_at == 12
    assert outcome.score("train_loss") == 2.5


def test_the_last_object_counts(tmp_path: Path) -> None:
    text = """epoch 1
{"train_loss": 1}
  {"train_loss": 0.5, "note": "a } in text"}
{"test_accuracy": 1}
{"train_loss": 0.2
[{"train_loss": 0.1}]
done"""
    assert prints(tmp_path, text).final["train_loss"] == 0.5


def test_standard_error_and_progress_bars_are_read_too(tmp_path: Path) -> None:
    outcome = run_script(r"""printf '\r 50%%\r100%%\r{"train_loss": 0.5}\r  \r' >&2""", tmp_path)
    assert outcome.final["train_loss"] == 0.5


def test_the_command_itself_is_not_read(tmp_path: Path) -> None:
    assert_failed(run_script("true\n: '\n{\"train_loss\": 0.5}\n'", tmp_path), "printed no JSON object")


def test_a_script_in_another_language(tmp_path: Path) -> None:
    program = r"""BEGIN { printf "{\"train_loss\": %.17g, \"test_accuracy\": %d}\n", ARGV[2] + ARGV[3], ARGV[5] }"""
    outcome = run_script(program, tmp_path, program="awk")
    assert outcome.final["train_loss"] == pytest.approx(0.04 + 0.9)
    assert outcome.final["test_accuracy"] == 123


def test_standard_input_is_empty(tmp_path: Path) -> None:
    assert run_script("""read -r line || echo '{"train_loss": 0.5}'""", tmp_path).final["train_loss"] == 0.5


def test_the_out_file(tmp_path: Path) -> None:
    pretty = json.dumps({"train_loss": 0.5, "curve": [1, 0.5]}, indent=2)
    code = f"""echo '{{"train_loss": 9}}'; cat > "$5" <<'END'\n{pretty}\nEND"""
    outcome = run_script(code, tmp_path, arguments="{out}")
    assert outcome.final["train_loss"] == 0.5
    assert outcome.curve == (1.0, 0.5)


def test_an_out_file_of_an_earlier_run_is_not_read(tmp_path: Path) -> None:
    run_script("""echo '{"train_loss": 0.5}' > "$5" """, tmp_path, arguments="{out}")
    outcome = run_script("""echo '{"train_loss": 0.5}'""", tmp_path, arguments="{out}")
    assert_failed(outcome, "wrote no JSON object with train_loss to ", f"{NAME}.")


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ('{"train_loss": true}', "train_loss is true, but must be a number"),
        ('{"train_loss": "0.5"}', 'train_loss is "0.5", but must be a number'),
        ('{"train_loss": [0.5]}', "train_loss is [0.5], but must be a number"),
        ('{"train_loss": 1, "test_accuracy": "90 %"}', 'test_accuracy is "90 %", but must be a number'),
        ('{"train_loss": 1, "untrained_test_accuracy": {}}', "untrained_test_accuracy is {}, but must be a number"),
        ('{"train_loss": 1, "curve": 2}', "curve is 2.0, but must be a list of numbers"),
        ('{"train_loss": 1, "curve": false}', "curve is false, but must be a list of numbers"),
        ('{"train_loss": 1, "curve": [2, "1"]}', 'a value of curve is "1", but must be a number'),
        ('{"train_loss": 1, "failed_at": 1.5}', "failed_at is 1.5, but must be the whole number of a step"),
        ('{"train_loss": 1, "failed_at": -1}', "failed_at is -1.0, but must be the whole number of a step"),
        ('{"train_loss": 1, "failed_at": 1e300}', "failed_at is 1e+300, but must be the whole number of a step"),
        ('{"train_loss": 1, "failed_at": NaN}', "failed_at is NaN, but must be the whole number of a step"),
    ],
)
def test_a_result_that_cannot_be_read(tmp_path: Path, result: str, reason: str) -> None:
    assert_failed(prints(tmp_path, result), reason)


def test_what_rates_are_selected_by_is_no_matter_of_one_run(tmp_path: Path) -> None:
    """A stored outcome must not depend on it: the same runs serve a study that selects otherwise."""
    outcome = prints(tmp_path, '{"train_loss": 1}', select="validation_accuracy")
    assert outcome.error is None
    assert math.isnan(outcome.final["validation_accuracy"])


def test_a_curve_has_a_value_for_each_epoch(tmp_path: Path) -> None:
    def curve_of(result: str) -> Outcome:
        return run_script(f"echo '{result}'", tmp_path, arguments="{epochs}", epochs=2)

    assert curve_of('{"train_loss": 1, "curve": [3, 2, 1]}').curve == (3, 2, 1)
    diverged = curve_of('{"train_loss": NaN, "curve": [3, 2]}')
    assert diverged.error is None
    assert diverged.curve[:2] == (3, 2)
    assert math.isnan(diverged.curve[2])
    wanted = "but must have 3: the training loss before training and after each of 2 epochs"
    assert_failed(curve_of('{"train_loss": 1, "curve": [3, 2]}'), f"curve has 2 values, {wanted}")
    assert_failed(curve_of('{"train_loss": NaN, "curve": [3, 2, 1, 0]}'), f"curve has 4 values, {wanted}")


@pytest.mark.parametrize("code", [1, 3, 126, 127, 137, 143, 255])
def test_an_exit_code_is_a_failure_whatever_was_printed(tmp_path: Path, code: int) -> None:
    outcome = run_script(f"""echo '{{"train_loss": 0.5}}'; echo why >&2; exit {code}""", tmp_path)
    assert_failed(outcome, f"exit code {code}: ", "why", str(tmp_path / "logs" / f"{NAME}.log"))


@pytest.mark.parametrize(
    ("number", "name"), [(9, " (SIGKILL)"), (11, " (SIGSEGV)"), (15, " (SIGTERM)"), (2, " (SIGINT)"), (6, " (SIGABRT)")]
)
def test_a_signal(tmp_path: Path, number: int, name: str) -> None:
    assert_failed(
        run_script(f"echo before; kill -{number} $$; sleep 9", tmp_path), f"killed by signal {number}{name}: before"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="real-time signals")
def test_a_signal_without_a_name(tmp_path: Path) -> None:
    assert_failed(run_script("kill -40 $$; sleep 9", tmp_path), "killed by signal 40 (log: ")


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x00not a program")
    program.chmod(0o755)
    outcome = run_script("", tmp_path, program=shlex.quote(str(program)))
    assert_failed(outcome, "cannot start: ", "Exec format error")
    assert "exit code" not in str(outcome.error)


def test_a_program_that_disappears(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho '{\"train_loss\": 0.5}'")
    program.chmod(0o755)
    command = f"{shlex.quote(str(program))} {{lr}} {{momentum}} {{batch_size}} {{seed}}"
    engine = prepare(command, Settings(engine="command"), 1).start(tmp_path)
    ((_, (before,)),) = engine.compute([Chunk((RUN,))])
    assert before.error is None
    program.unlink()
    ((_, (after,)),) = engine.compute([Chunk((RUN,))])
    assert_failed(after, "cannot start: ", "No such file")


@pytest.mark.parametrize(
    "code",
    [
        "true",
        "echo 0.5",
        "echo '{\"loss\": 0.5}'",
        "echo '{\"train_loss\": 0.5'",
        "echo \"{'train_loss': 0.5}\"",
        "head -c 100000 /dev/urandom",
        r"printf '\xff\xfe{\x00\n'",
        "printf '{\"train_loss\": '; head -c 100000 /dev/zero | tr '\\0' '['",
    ],
)
def test_no_result(tmp_path: Path, code: str) -> None:
    outcome = run_script(code, tmp_path)
    assert_failed(outcome, "printed no JSON object with train_loss")
    assert outcome.error is not None
    assert outcome.error.isprintable()


def test_garbage_before_a_result(tmp_path: Path) -> None:
    outcome = run_script("""head -c 5000 /dev/urandom; echo; echo '{"train_loss": 0.5}'""", tmp_path)
    assert outcome.final["train_loss"] == 0.5


def test_the_end_of_the_log_is_told(tmp_path: Path) -> None:
    outcome = run_script("for i in 1 2 3 4 5 6 7; do echo line $i; echo; done; exit 1", tmp_path)
    log = tmp_path / "logs" / f"{NAME}.log"
    assert outcome.error == f"exit code 1: line 3 | line 4 | line 5 | line 6 | line 7 (log: {log})"
    long = run_script("for i in 1 2 3; do head -c 400 /dev/zero | tr '\\0' $i; echo; done; exit 1", tmp_path)
    assert long.error == f"exit code 1: {'2' * 97} | {'3' * 400} (log: {log})"


def test_an_enormous_output(tmp_path: Path) -> None:
    """It is neither held in memory nor read from the beginning; the peak is that of this process' own data."""
    import tracemalloc

    tracemalloc.start()
    try:
        noise = "head -c 50000000 /dev/zero | tr '\\0' x"
        outcome = run_script(f"""{noise}; echo; echo '{{"train_loss": 0.5}}'""", tmp_path)
        endless = run_script(noise, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.final["train_loss"] == 0.5
    assert_failed(endless, "printed no JSON object with train_loss: xxx")
    assert peak < 20 * TAIL_BYTES


def test_logs_are_kept(tmp_path: Path) -> None:
    run_script('echo out; echo err >&2; echo "{}"; exit 1', tmp_path)
    first, *rest = log_of(tmp_path).splitlines()
    assert first.startswith("$ bash -c ")
    assert shlex.split(first)[3:] == ['echo out; echo err >&2; echo "{}"; exit 1', "script", *arguments_of(RUN)]
    assert rest == ["out", "err", "{}"]
    run_script("""echo '{"train_loss": 0.5}'""", tmp_path)
    assert log_of(tmp_path).splitlines()[-1] == '{"train_loss": 0.5}'


def arguments_of(run: Run) -> list[str]:
    return [
        f"{run.effective_lr * (1 - run.momentum):.6g}",
        repr(run.momentum),
        str(run.batch_size),
        str(run.seed >> 32),
    ]


def test_each_run_has_a_log(tmp_path: Path) -> None:
    runs = [
        Run(8, rate, seed, momentum) for rate in (0.4, 1e-5) for seed in (1 << 32, 2 << 32) for momentum in (0.0, 0.9)
    ]
    command = """bash -c 'echo "{\\"train_loss\\": $2}"' x {lr} {momentum} {batch_size} {seed}"""
    engine = prepare(command, Settings(engine="command"), 2).start(tmp_path)
    finished = list(engine.compute(Chunk((run,)) for run in runs))
    assert {chunk.runs[0] for chunk, _ in finished} == set(runs)
    for chunk, (outcome,) in finished:
        assert outcome.run == chunk.runs[0]
        assert outcome.final["train_loss"] == outcome.run.momentum
    names = {f"batch-8_lr-{r.effective_lr}_momentum-{r.momentum}_seed-{r.seed >> 32}.log" for r in runs}
    assert {path.name for path in (tmp_path / "logs").iterdir()} == names
