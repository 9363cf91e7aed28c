"""What a run of the process engine takes, from a few of its steps: its time, and its memory or what would fit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from lightball.errors import InputError, reason_of
from lightball.oracles import PerExampleLoss, Sampling, build
from lightball.studies.engines.memory import is_exhausted, watch_peak
from lightball.studies.plan import Cost
from lightball.training import Recipe, train
from lightball.training.evaluation import mean_score
from lightball.training.measuring import Accuracies
from lightball.workloads import Data, Workload

_SECONDS = 1.0  # that measured steps may take, about
_MOST_STEPS = 200
_BATCHES = 8  # of each data set that are evaluated
_NEVER = 10**9


def num_steps(workload: Workload, recipe: Recipe) -> int:
    """The steps that a run takes, those of SVAG each by itself."""
    return recipe.ell * (recipe.num_steps or recipe.epochs * steps_per_epoch(workload, recipe))


def steps_per_epoch(workload: Workload, recipe: Recipe) -> int:
    """The steps of a pass over the training data, under SVAG those of ell = 1."""
    return Sampling(len(workload.train), recipe.batch_size, recipe.sampling, recipe.drop_last).steps_per_epoch


def measure_run(workload: Workload, recipe: Recipe, accuracies: Accuracies, device: str) -> Cost:
    """The time of a run in a worker that is warm, all its steps and evaluations counted, and the peak of its memory.

    Raises:
        InputError: the workload cannot be trained so, or not in the memory that there is; names what would fit.
    """
    workload = workload.of_seed(0)
    trial = _Trial(workload, recipe, device)
    peak = watch_peak(device)
    error = trial.error()
    if error is not None and is_exhausted(error):
        raise InputError(_what_fits(trial)) from error
    if error is not None:  # the user's own code runs here
        raise InputError(f"the task cannot be trained at batch size {recipe.batch_size}: {reason_of(error)}") from error
    start, step = trial.timing()
    evaluating = trial.seconds_of(evaluations(workload, recipe, accuracies))
    memory = peak()
    _free(device)
    return Cost(start + num_steps(workload, recipe) * step + evaluating, memory)


@dataclass(frozen=True)
class Evaluations:
    """How often a run evaluates some data."""

    data: Data
    score: PerExampleLoss
    times: float


def evaluations(workload: Workload, recipe: Recipe, accuracies: Accuracies) -> list[Evaluations]:
    """Those of a run. How often validation gets better than before is not known: at every other point, say."""
    every = recipe.eval_every or recipe.ell * steps_per_epoch(workload, recipe)
    points = 1.0 + math.ceil(num_steps(workload, recipe) / every)
    tested = {"ends": 2.0, "always": points, "best": (1 + points) / 2}[accuracies]
    return [
        Evaluations(workload.train if workload.measured is None else workload.measured, workload.loss, points),
        Evaluations(workload.validation, workload.metric, 2.0 if accuracies == "ends" else points),
        Evaluations(workload.test, workload.metric, tested),
    ]


@dataclass(frozen=True)
class _Trial:
    """Short runs of a recipe that evaluate next to nothing, at a rate at which nothing diverges."""

    workload: Workload
    recipe: Recipe
    device: str

    def error(self) -> Exception | None:
        """What a step or an evaluation raises, without its frames, which would keep memory; an InputError passes."""
        try:
            self._seconds(1)
            self.seconds_of([Evaluations(_first(self.workload.train, self._width), self.workload.loss, 1.0)])
        except InputError:
            raise
        except Exception as error:
            return error.with_traceback(None)
        return None

    def timing(self) -> tuple[float, float]:
        """Seconds of what comes before the first step or is longer in it, and of a step; caches have to be warm."""
        before, one = self._seconds(1)
        more = max(1, min(_MOST_STEPS, int(_SECONDS / one)))
        _, several = self._seconds(1 + more)
        step = max(several - one, 0.0) / more
        return before + max(one - step, 0.0), step / self.recipe.ell

    def seconds_of(self, wanted: Iterable[Evaluations]) -> float:
        """Of all these evaluations, from some batches of each, all over the data: texts differ in length."""
        model = build(self.workload.model, 0).to(self.device)
        total = 0.0
        for evaluation in wanted:
            data, examples = evaluation.data, 0
            start = time.perf_counter()
            for batch in _spread(range(0, len(data), self._width), _BATCHES):
                part = Data(data.inputs[batch : batch + self._width], data.targets[batch : batch + self._width])
                mean_score(model, evaluation.score, part, self._width, self.recipe.precision)
                examples += len(part)
            total += evaluation.times * len(data) * (time.perf_counter() - start) / examples
        return total

    @property
    def _width(self) -> int:
        """Examples that the loop evaluates at once."""
        return max(2 * -(-self.recipe.batch_size // self.recipe.accumulate), 32)

    def _seconds(self, steps: int) -> tuple[float, float]:
        """Until the first step of a run of so many steps (of ell = 1), and from there to its end."""
        few = _first(self.workload.validation, 2)
        trial = replace(
            self.workload, validation=few, test=_first(self.workload.test, 2), measured=_first(self.workload.train, 2)
        )
        short = replace(self.recipe, num_steps=steps, eval_every=_NEVER, schedule="constant", effective_lr=1e-9)
        times = [time.perf_counter()]
        train(trial, short, 0, device=self.device, on_point=lambda _: times.append(time.perf_counter()))
        return times[1] - times[0], time.perf_counter() - times[1]


def _what_fits(trial: _Trial) -> str:
    """What to do where a step does not fit: the micro-batch is halved until it does."""
    batch_size, accumulate = trial.recipe.batch_size, trial.recipe.accumulate
    micro_batch = -(-batch_size // accumulate)
    too_much = f"a step of {batch_size} examples"
    too_much += f", {micro_batch} at a time," if accumulate > 1 else ""
    too_much += f" does not fit the memory of {trial.device}"
    while micro_batch > 1:
        micro_batch = -(-micro_batch // 2)
        accumulate = -(-batch_size // micro_batch)
        smaller = replace(trial, recipe=replace(trial.recipe, accumulate=accumulate))
        _free(trial.device)
        error = smaller.error()
        if error is None:
            return (
                f"{too_much}: use --accumulate {accumulate}, which has micro-batches of {micro_batch}, or batch sizes "
                f"up to {micro_batch}"
            )
        if not is_exhausted(error):
            return f"{too_much}, and in micro-batches of {micro_batch} it fails: {reason_of(error)}"
    return f"{too_much}, and one at a time neither: use a smaller model, another --precision or --in-backward"


def _free(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _spread(items: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly spread."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]


def _first(data: Data, count: int) -> Data:
    return Data(data.inputs[:count], data.targets[:count])
