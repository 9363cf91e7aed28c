"""A training run that tells, every thousand steps, what limits it and what momentum is worth to it."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from lightball.errors import InputError, reason_of
from lightball.forecast.monitor.assess import Outlook, assessed
from lightball.forecast.monitor.journal import Journal, read_monitor, tensorboard_log
from lightball.forecast.monitor.live import live, unwrapped_optimizer
from lightball.forecast.monitor.pairs import GradientPairs
from lightball.forecast.monitor.parallel import check_measurable, rank_and_size, scale_of
from lightball.forecast.monitor.quick import Effort, quick_probe
from lightball.forecast.monitor.record import Record
from lightball.forecast.monitor.spread import Spread
from lightball.forecast.monitor.verdict import Summary, summary_of
from lightball.probe.batches import Batch, num_examples
from lightball.probe.objective import Loss, Mode, unwrapped

Log = Callable[[dict[str, float], int], None]
"""Takes numbers by name and the step, as loggers do: ``lambda scalars, step: wandb.log(scalars, step=step)``."""

_STRETCH = 50  # steps over which the rate is taken as one, for the flow time
_logger = logging.getLogger("lightball")


class Monitor:
    """Measures noise, curvature and the value of momentum in a plain loop, and never changes the training.

        monitor = Monitor(model, optimizer, loss)
        for batch in batches:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            monitor.step(batch)
        print(monitor.summary())

    Between measurements it keeps copies of a few microbatches and looks at a few pairs of gradients as they are
    computed (see :class:`GradientPairs`: before clipping, and without loss scaling where ``scaler`` is given). On every
    ``every``-th step it probes the model on the kept microbatches. Weights, optimizer state, generators and modes are
    bit for bit as if it were not there. What goes wrong in it is a record with ``error``, and training goes on.

    Forecasts are for ``torch.optim.SGD`` with one learning rate; of other optimizers it measures noise and curvature.
    Under DistributedDataParallel the first process measures, while the others wait for it at their next exchange of
    gradients. Sharded parameters, DataParallel and several optimizers are not supported.

    Args:
        model: any module.
        optimizer: what trains it.
        loss: (model, batch) → the mean loss of a batch, without the factor of gradient accumulation.
        every: steps from one measurement to the next.
        path: the file of JSON lines to add records to; see :func:`read_monitor`.
        log: given the numbers of each record, and the step.
        tensorboard: a folder for TensorBoard's events.
        accumulation: microbatches, and backward passes, of one step.
        batch_size: examples of a step; by default those of the given batch × ``accumulation`` × processes.
        training_examples: size of the training set, which advice needs; by default without end.
        outlook: what is forecast at each record.
        effort: what is measured.
        mode: "eval" or "train" for the model in a probe; by default as its modules are.
        scaler: of mixed precision.
        start: steps made before, when training goes on from a checkpoint.
        seed: of what is drawn, from generators of its own.
        on_error: "record", or "raise" to let exceptions through.

    Raises:
        InputError: arguments out of range, a model that cannot be measured, a file that cannot be written.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: Loss,
        every: int = 1000,
        *,
        path: str | os.PathLike[str] = "lightball-monitor.jsonl",
        log: Log | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
        accumulation: int = 1,
        batch_size: int | None = None,
        training_examples: int | None = None,
        outlook: Outlook | None = None,
        effort: Effort | None = None,
        mode: Mode = "as is",
        scaler: torch.amp.GradScaler | None = None,
        start: int = 0,
        seed: int = 0,
        on_error: Literal["record", "raise"] = "record",
    ) -> None:
        _check(model, mode, on_error, every=every, accumulation=accumulation)
        _check_optional(batch_size=batch_size, training_examples=training_examples)
        self.model, self.optimizer, self.loss, self.every = model, unwrapped_optimizer(optimizer), loss, every
        self.num_steps, self.flow_time = start, 0.0
        self.records: list[Record] = []
        self._batch_size, self._accumulation, self._examples = batch_size, accumulation, training_examples
        self._outlook, self._effort = outlook or Outlook(), effort or Effort()
        if self._outlook.sampling == "shuffle" and training_examples is None:
            raise InputError(
                "outlook.sampling is 'shuffle', whose epochs need the size of the training set: "
                "give training_examples, or choose sampling='iid'"
            )
        self._mode: Mode = mode
        self._seed, self._raises = seed, on_error == "raise"
        rank, self._processes = rank_and_size()
        self._measures = rank == 0
        if not self._measures:
            return
        self._journal = Journal(path)
        self._journal.begin(start, {"every": every, "optimizer": type(self.optimizer).__name__})
        self.records.extend(read_monitor(path))
        known = (record.flow_time for record in reversed(self.records) if record.flow_time is not None)
        self.flow_time = next(known, 0.0)
        self._logs = [each for each in (log, tensorboard_log(tensorboard) if tensorboard else None) if each]
        self._recent: deque[Batch] = deque(maxlen=self._effort.microbatches)
        self._keeps = Spread(self._effort.microbatches, every, seed=seed)
        self._pairs = GradientPairs(
            [p for p in unwrapped(model).parameters() if p.requires_grad],
            accumulation=accumulation,
            every=every,
            num_pairs=self._effort.pairs,
            scale=lambda: scale_of(scaler),
            seed=seed,
        )
        self._trouble = ""

    def step(self, batch: Batch) -> Record | None:
        """Tell that ``optimizer.step()`` was made; measure if it is time, and return the record then.

        Args:
            batch: what the step was computed on, the last microbatch of it under accumulation.
        """
        self.num_steps += 1
        if not self._measures:
            return None
        record = None
        try:
            self._collect(batch)
            if self.num_steps % self.every == 0:
                record = self._measured(batch)
        except Exception as error:
            if self._raises:
                raise
            self._trouble = reason_of(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._pairs.clear()
        if self.num_steps % self.every == 0:
            record = record or Record(self.num_steps, error=self._trouble, flow_time=self.flow_time)
            self._trouble = ""
            self._deliver(record)
        return record

    def summary(self) -> Summary:
        """Verdicts by phase of the training so far."""
        return summary_of(self.records)

    def close(self) -> None:
        """Let go of the model and of the batches; for the case that both live on after the training."""
        if self._measures:
            self._pairs.close()
            self._recent.clear()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _collect(self, batch: Batch) -> None:
        """What happens on every step; cheap on most."""
        self._pairs.after_step(self.num_steps, lambda: num_examples(batch))
        if self._keeps.chooses(self.num_steps):
            self._recent.append(deepcopy(batch))  # a loop may write the next batch into the same tensors
        stretch = min(self.every, _STRETCH)
        if self.num_steps % stretch == 0:
            self.flow_time += stretch * (live(self.optimizer).effective_lr or 0.0)

    def _measured(self, batch: Batch) -> Record:
        begun = time.perf_counter()
        now = live(self.optimizer)
        carries = isinstance(self.optimizer, torch.optim.SGD) and not now.obstacle and bool(now.momentum)
        probe = quick_probe(
            self.model,
            self.loss,
            list(self._recent),
            self._effort,
            buffer=self.optimizer if carries else None,
            training_examples=self._examples,
            mode=self._mode,
            seed=self._seed + self.num_steps,
        )
        size = self._batch_size or num_examples(batch) * self._accumulation * self._processes
        record = assessed(probe, now, self._pairs, size, self._outlook, step=self.num_steps, flow_time=self.flow_time)
        self._pairs.clear()
        return replace(record, seconds=time.perf_counter() - begun)

    def _deliver(self, record: Record) -> None:
        """To the file and to loggers, whose failures do not end a training."""
        self.records.append(replace(record, probe=None))
        try:
            self._journal.write(record)
            for log in self._logs:
                log(record.scalars(), record.step)
        except Exception as error:
            if self._raises:
                raise
            # A warning could be made an error, and end the training.
            _logger.warning("the record of step %d was not delivered: %s", record.step, reason_of(error))


def _check(model: nn.Module, mode: str, on_error: str, **counts: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}, but must be a torch.nn.Module")
    if mode not in ("as is", "eval", "train"):
        raise InputError(f"mode is {mode!r}, but must be 'as is', 'eval' or 'train'")
    if on_error not in ("record", "raise"):
        raise InputError(f"on_error is {on_error!r}, but must be 'record' or 'raise'")
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"{name} is {count!r}, but must be an integer of at least 1")
    check_measurable(model, mode)


def _check_optional(**counts: Any) -> None:
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 2):
            raise InputError(f"{name} is {count!r}, but must be an integer of at least 2, or left out")
