"""A callback for ``lightning.Trainer``."""

from __future__ import annotations

from typing import Any

from lightball.errors import InputError
from lightball.forecast.monitor.loaders import dataset_size
from lightball.forecast.monitor.monitor import Log, Monitor
from lightball.forecast.monitor.verdict import Summary
from lightball.probe.objective import Loss

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as error:
    raise InputError(
        "the monitor's callback for lightning.Trainer needs Lightning, which is not installed: "
        "pip install 'lightball[lightning]'"
    ) from error


class MonitorCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Runs a :class:`Monitor` in ``lightning.Trainer(callbacks=[MonitorCallback(loss, every=1000)])``.

    For automatic optimisation with one optimizer. Records go to the trainer's loggers too, as ``lightball/…``.

    Args:
        loss: (module, batch) → the mean loss of a batch: what ``training_step`` returns, without its logging.
        every, log, monitor: as for :class:`Monitor`.
    """

    def __init__(self, loss: Loss, every: int = 1000, *, log: Log | None = None, **monitor: Any) -> None:
        self.monitor: Monitor | None = None
        self._loss, self._every, self._log, self._settings = loss, every, log, monitor
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, at the step that the trainer begins with."""
        if len(trainer.optimizers) != 1 or not pl_module.automatic_optimization:
            raise InputError(
                f"the module has {len(trainer.optimizers)} optimizers, or steps by hand, but this callback is for "
                "automatic optimisation with one: call Monitor.step in training_step instead"
            )
        self._let_go()
        settings = {
            "accumulation": trainer.accumulate_grad_batches,
            "scaler": getattr(trainer.precision_plugin, "scaler", None),
            "training_examples": dataset_size(trainer.train_dataloader),
            "start": trainer.global_step,
            **self._settings,
        }

        def log(scalars: dict[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics({f"lightball/{name}": value for name, value in scalars.items()}, step)
            if self._log is not None:
                self._log(scalars, step)

        self._steps = trainer.global_step
        self.monitor = Monitor(pl_module, trainer.optimizers[0], self._loss, self._every, log=log, **settings)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After a batch; under accumulation only the last one of a step has made a step."""
        if self.monitor is not None and trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.monitor.step(batch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Let go of the model."""
        self._let_go()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the model."""
        self._let_go()

    def summary(self) -> Summary:
        """Verdicts by phase of the training so far; see :meth:`Monitor.summary`.

        Raises:
            InputError: training has not begun.
        """
        if self.monitor is None:
            raise InputError("nothing is measured yet: give the callback to a Trainer and call its fit()")
        return self.monitor.summary()

    def _let_go(self) -> None:
        if self.monitor is not None:
            self.monitor.close()
