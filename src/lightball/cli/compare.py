"""``lightball compare``: options in, plan, progress and verdict out."""

from __future__ import annotations

import math
import shlex
import sys
import time
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lightball.cli.lists import Floats, Ints

if TYPE_CHECKING:
    from lightball.report.live import LiveReport
    from lightball.studies import Plan


# Options that are no settings of a study, with a value of their type; the TOML file may hold them too.
_OTHERS = {
    "device": "auto",
    "workers": 1,
    "timeout": 1.0,
    "retry_failed": False,
    "out": "runs",
    "json": False,
    "quiet": False,
    "report": True,
    "time_budget": 1.0,
    "keep_runs": False,
}


def _read_config(context: click.Context, _: click.Parameter, path: Path | None) -> dict[str, Any]:
    """The settings in the file; what else it holds becomes the default of its flag, so that flags win."""
    from lightball.studies.settings import read_toml

    values = read_toml(path, also=_OTHERS) if path else {}
    context.default_map = {name: values.pop(name) for name in _OTHERS if name in values}
    return values


@click.command(short_help="Train a task with and without momentum, and give a verdict.")
@click.argument("task")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_read_config,
    help="TOML file of options by the same names; flags win.",
)
@click.option("--batch-sizes", type=Ints(), help="Comma-separated.  [default: 8,32,128,512]")
@click.option(
    "--lr",
    type=Floats(),
    help="Effective learning rates η to start from; SGDM runs at the torch rate "
    "η(1 − β).  [default: 0.05,0.1,0.2,0.4,0.8,1.6]",
)
@click.option("--momentum", type=Floats(), help="β of SGDM, one or several.  [default: 0.9]")
@click.option("--epochs", type=int, help="[default: 24]")
@click.option(
    "--num-steps", type=int, help="Steps of a run instead of epochs, 0 for epochs; process engine.  [default: 0]"
)
@click.option("--stages", type=Ints(), help="Pairs after which a verdict is tried, at least 6.  [default: 16,32,64]")
@click.option("--tuning-seeds", type=int, help="Seeds on which rates are chosen.  [default: 6]")
@click.option(
    "--margin-loss",
    type=float,
    help="Share of the decrease in training loss that does not matter.  [default: 0.01]",
)
@click.option("--margin-accuracy", type=float, help="Difference in accuracy that does not matter.  [default: 0.005]")
@click.option(
    "--select",
    type=click.Choice(["train_loss", "validation_accuracy"]),
    help="What rates are chosen by.  [default: train_loss]",
)
@click.option("--sampling", type=click.Choice(["shuffle", "iid"]), help="[default: shuffle]")
@click.option("--drop-last/--keep-last", default=None, help="The incomplete last batch.  [default: drop-last]")
@click.option("--weight-decay", type=float, help="[default: 0]")
@click.option(
    "--decay",
    type=click.Choice(["all", "matrices"]),
    help="What weight decay acts on: all, or all but biases and normalisation; process engine.  [default: all]",
)
@click.option(
    "--schedule", help="constant, cosine, linear, step:0.5,0.75:0.1, warmup:0.05+cosine.  [default: constant]"
)
@click.option("--max-extensions", type=int, help="How often each end of the grid may grow.  [default: 8]")
@click.option(
    "--tune", type=click.Choice(["both", "sgdm"]), help="sgdm: SGD takes the rate chosen for SGDM.  [default: both]"
)
@click.option(
    "--confirm-rates",
    type=click.Choice(["grid", "selected"]),
    help="On fresh seeds: both rules at every rate, or each at its selected one only.  [default: grid]",
)
@click.option("--compile", type=click.Choice(["auto", "on", "off"]), help="torch.compile the step.  [default: auto]")
@click.option(
    "--engine",
    type=click.Choice(["vectorised", "process", "command"]),
    help="vectorised: many small models at once. process: any model, each in a process. command: TASK is the command "
    "of a training script.  [default: vectorised]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Mixed precision; process engine.  [default: float32]",
)
@click.option("--eval-every", type=int, help="Steps between evaluations, 0: an epoch; process engine.  [default: 0]")
@click.option(
    "--checkpoint",
    type=click.Choice(["last", "best", "median"]),
    help="Weights whose accuracies count, best by validation; median: of the last five evaluations; process engine.  "
    "[default: last]",
)
@click.option("--accumulate", type=int, help="Micro-batches of a step; process engine.  [default: 1]")
@click.option(
    "--ell", type=int, help="SVAG: that many times the steps at 1/ell of the rate; process engine.  [default: 1]"
)
@click.option(
    "--batch-norm",
    type=click.Choice(["each", "once", "frozen"]),
    help="What updates BatchNorm's running statistics under SVAG; process engine.  [default: each]",
)
@click.option("--clip-norm", type=float, help="Clip the gradient norm, 0 for not; process engine.  [default: 0]")
@click.option(
    "--in-backward/--no-in-backward",
    default=None,
    help="Update parameters within the backward pass, to save memory; process engine.  [default: no-in-backward]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; scripts at a time.  [default: one a core, one script]"
)
@click.option("--timeout", type=float, help="Seconds after which a script is ended; command engine.")
@click.option(
    "--time-budget",
    type=float,
    metavar="MINUTES",
    help="Stop cleanly after so long; the same command goes on.",
)
@click.option(
    "--keep-runs/--no-keep-runs",
    default=False,
    help="Keep the curve of each run in OUT/runs, and checkpoints of it until it ends, from which it goes on; process "
    "engine.  [default: no-keep-runs]",
)
@click.option("--retry-failed", is_flag=True, help="Compute again what is stored of runs that crashed.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of results; the same command goes on from it.  [default: lightball-runs/TASK-HASH]",
)
@click.option(
    "--report/--no-report",
    default=True,
    help="Write report.html into the folder, also while it runs.  [default: report]",
)
@click.option("--json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Print the verdict only.")
def compare(
    task: str,
    config: dict[str, Any],
    device: str,
    workers: int | None,
    timeout: float | None,
    time_budget: float | None,
    keep_runs: bool,
    retry_failed: bool,
    out: Path | None,
    report: bool,
    json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Train TASK with SGD and with momentum SGD at matched effective learning rates, and say whether momentum helps.

    TASK is digits, digits-conv, cifar10, or your own file.py:function that returns a lightball.Workload; with --engine
    command it is the command of a training script. Both rules are tuned on seeds of their own, then compared on fresh
    ones as pairs: same initial weights, same data order. Finished runs are kept: the same command goes on from them,
    and several at once share the work.

    \b
    Examples:
      lightball compare digits
      lightball compare digits --batch-sizes 8,32 --momentum 0.9,0.99 --json
      lightball compare my_task.py:make_task --epochs 10 --out runs/mine
      lightball compare my_task.py:make_task --engine process --precision bfloat16
      lightball compare my_task.py:make_task --engine process --time-budget 60 --keep-runs
      lightball compare --engine command "python train.py --lr {torch_lr}
          --momentum {momentum} --batch-size {batch_size} --seed {seed}"
    """
    deadline = _deadline(time_budget)
    from lightball import studies
    from lightball.cli.emphasis import emphasised
    from lightball.cli.interrupts import exit_code
    from lightball.cli.progress import Progress
    from lightball.errors import OutOfTime
    from lightball.report.live import LiveReport
    from lightball.report.text import plan_text, result_text, verdict_text
    from lightball.studies.settings import make

    settings = make(config, options)
    silent = json or quiet
    folders: list[Path] = []

    def on_plan(name: str, plan: Plan, folder: Path) -> None:
        folders.append(folder)
        if report:
            live.follow(folder)
        if not silent:
            click.echo(plan_text(name, settings, plan, folder))

    with Progress(enabled=not silent) as progress:
        live = LiveReport(progress)
        try:
            result = studies.compare(
                task,
                out=out,
                device=device,
                workers=workers,
                timeout=timeout,
                retry_failed=retry_failed,
                settings=settings,
                observer=live,
                on_plan=on_plan,
                deadline=deadline,
                keep_runs=keep_runs,
            )
        except OutOfTime as spent:
            progress.stop()
            _give_unfinished(folders[0], str(spent), live if report else None, json, quiet)
            return 0
        except KeyboardInterrupt as interrupt:
            progress.stop()
            live.stop()
            if folders:
                command = _this_command()
                chunks = len(list(folders[0].glob("chunks/*.parquet")))
                finished = f"{chunks} finished chunk{'' if chunks == 1 else 's'}"
                click.echo(
                    f"lightball: interrupted; {finished} in {folders[0]}; go on with: {command}",
                    err=True,
                )
                return exit_code(interrupt)
            raise
    if json:
        page = live.write() if report else None
        click.echo(dumps({**studies.as_json(result), "finished": True, "report": page and str(page)}, indent=2))
    else:
        click.echo(emphasised(verdict_text(result) if quiet else result_text(result)))
        page = live.write() if report else None
        if page and not quiet:
            click.echo(f"report in {page}")
    return 0


def _give_unfinished(folder: Path, reason: str, live: LiveReport | None, json: bool, quiet: bool) -> None:
    """What is finished when the time is spent, and the command that goes on."""
    from lightball.cli.emphasis import emphasised
    from lightball.errors import InputError
    from lightball.report.text import study_text, verdict_text
    from lightball.studies import as_json
    from lightball.studies.study import Study, read_study

    study: Study | None = None
    with suppress(InputError):  # not one run is finished
        study = read_study(folder)
    page = live.write() if live and study else None
    if json:
        found = as_json(study.result) if study else {"batch_sizes": [], "folder": str(folder)}
        state = {"finished": False, "reason": reason, "go_on": _this_command(), "report": page and str(page)}
        click.echo(dumps({**found, **state}, indent=2))
        return
    if study and (study.result.batches or not quiet):
        click.echo(emphasised(verdict_text(study.result) if quiet else study_text(study)))
    click.echo(f"{reason}; go on with: {_this_command()}")
    if page and not quiet:
        click.echo(f"report in {page}")


def _deadline(minutes: float | None) -> float | None:
    from lightball.errors import InputError

    if minutes is not None and not 0 < minutes < math.inf:
        raise InputError(f"time-budget is {minutes:g}, but must be a finite number of minutes above 0")
    return None if minutes is None else time.time() + 60 * minutes


def _this_command() -> str:
    return shlex.join(["lightball", *sys.argv[1:]])
