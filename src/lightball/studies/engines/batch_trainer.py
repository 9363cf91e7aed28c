"""Training the runs of a chunk, many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from lightball.dynamics import Ensemble, Stepper, compiler_available
from lightball.dynamics.footprint import Footprint, measure_footprint
from lightball.errors import InputError
from lightball.oracles import MinibatchOracle, Sampling
from lightball.rules import canonical, schedules
from lightball.studies.runs import Chunk, Measure, Outcome, Run
from lightball.studies.settings import Settings
from lightball.workloads import Data, Workload


class BatchTrainer:
    """Trains runs of one workload at one batch size.

    Memory: the data, and ``width`` times parameters, buffers and activations; it does not grow with the number of
    runs.
    """

    def __init__(self, workload: Workload, settings: Settings, batch_size: int, device: str) -> None:
        self.workload = workload
        self.settings = settings
        self.device = device
        train = workload.train
        sampling = Sampling(len(train), batch_size, settings.sampling, settings.drop_last)
        self.oracle = MinibatchOracle(
            workload.model, workload.loss, train.inputs, train.targets, sampling, torch.device(device)
        )
        self.num_steps = settings.epochs * sampling.steps_per_epoch
        self._steppers: dict[int | None, Stepper] = {}

    @cached_property
    def footprint(self) -> Footprint:
        return measure_footprint(self.oracle)

    def compiles(self, num_runs: int) -> bool:
        """Whether compiling the step pays for ``num_runs`` runs; a rule, not a timing, so that plans repeat."""
        if self.settings.compile == "on" and not compiler_available():
            raise InputError(
                "compile is on, but there is no C++ compiler that runs (g++ or $CXX): install one, or use auto"
            )
        if self.settings.compile != "auto":
            return self.settings.compile == "on"
        return compiler_available() and self.footprint.worth_compiling(num_runs * self.num_steps)

    def seconds_per_run(self, width: int) -> float:
        """What one run takes in a chunk of ``width``, not compiled: a few steps and an evaluation, measured.

        Raises:
            InputError: the untrained model's loss over the training data is not finite.
        """
        hyper = canonical(torch.full((width,), 1e-3), torch.zeros(width))
        ensemble = Ensemble(self.oracle, range(width), hyper, stepper=self._stepper(None))
        if not ensemble.measure(self.oracle.loss).isfinite().all():
            raise InputError(
                "the untrained model's training loss is not finite: look at the inputs, the targets and the loss"
            )
        ensemble.advance(1)  # traces
        steps = min(3, self.oracle.steps_per_epoch)
        step = timed(lambda: ensemble.advance(steps)) / steps
        evaluation = timed(lambda: ensemble.measure(self.oracle.loss).cpu())
        return (self.num_steps * step + (self.settings.epochs + 2) * evaluation) / width

    def train(self, chunk: Chunk) -> list[Outcome]:
        """The outcomes of the chunk's runs, in order."""
        stepper = self._stepper(chunk.width if chunk.compiled else None)
        groups = [chunk.runs[i : i + chunk.width] for i in range(0, len(chunk.runs), chunk.width)]
        return [outcome for group in groups for outcome in self._train_group(group, chunk.width, stepper)]

    def _stepper(self, compile_width: int | None) -> Stepper:
        if compile_width not in self._steppers:
            self._steppers[compile_width] = Stepper(self.oracle, compile_width)
        return self._steppers[compile_width]

    def _train_group(self, runs: Sequence[Run], width: int, stepper: Stepper) -> list[Outcome]:
        # The last run stands in for missing ones where the step is compiled for a number of replicas.
        padded = [*runs, *[runs[-1]] * (width - len(runs))] if stepper.compile_width else list(runs)
        hyper = canonical(
            torch.tensor([run.effective_lr for run in padded]),
            torch.tensor([run.momentum for run in padded]),
            self.settings.weight_decay,
        )
        schedule = schedules.parse(self.settings.schedule, self.num_steps)
        ensemble = Ensemble(self.oracle, [run.seed for run in padded], hyper, schedule, stepper)
        untrained = self._evaluate(ensemble)
        curve = [ensemble.measure(self.oracle.loss).cpu()]
        for _ in range(self.settings.epochs):
            ensemble.advance(self.oracle.steps_per_epoch)
            curve.append(ensemble.measure(self.oracle.loss).cpu())
        final = self._evaluate(ensemble)
        untrained["train_loss"], final["train_loss"] = curve[0], curve[-1]
        curves = torch.stack(curve, dim=1)
        failed_at = ensemble.failed_at.tolist()
        return [
            Outcome(
                run=run,
                curve=tuple(curves[i].tolist()),
                untrained={name: float(values[i]) for name, values in untrained.items()},
                final={name: float(values[i]) for name, values in final.items()},
                failed_at=failed_at[i] if failed_at[i] >= 0 else None,
            )
            for i, run in enumerate(runs)
        ]

    def _evaluate(self, ensemble: Ensemble) -> dict[Measure, Tensor]:
        def metric(data: Data) -> Tensor:
            fn = self.workload.metric
            return ensemble.measure(lambda x: self.oracle.evaluate(x, data.inputs, data.targets, fn)).cpu()

        return {
            "validation_accuracy": metric(self.workload.validation),
            "test_accuracy": metric(self.workload.test),
        }


def timed(action: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of some calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)
