"""A callback for ``transformers.Trainer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightball.errors import InputError
from lightball.forecast.monitor.loaders import dataset_size
from lightball.forecast.monitor.monitor import Monitor
from lightball.forecast.monitor.verdict import Summary
from lightball.probe.objective import Loss

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise InputError(
        "the monitor's callback for transformers.Trainer needs transformers and accelerate, which are not installed: "
        "pip install 'lightball[transformers]'"
    ) from error


class MonitorCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Runs a :class:`Monitor` in ``Trainer(..., callbacks=[MonitorCallback(every=1000)])``.

    Batches are what the model is called with in training, caught by a hook on it between the first and the last step.
    The optimizer must be given to the trainer for forecasts: ``optimizers=(torch.optim.SGD(...), None)``; the trainer's
    own is AdamW, of which noise and curvature are measured. The trainer must not shard the model.

    Args:
        loss: (model, inputs) → the mean loss; by default the ``loss`` that the model returns.
        every, monitor: as for :class:`Monitor`.
    """

    def __init__(self, loss: Loss | None = None, every: int = 1000, **monitor: Any) -> None:
        self.monitor: Monitor | None = None
        self._loss, self._every, self._settings = loss or loss_of_outputs, every, monitor
        self._inputs: dict[str, Any] = {}
        self._hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, at the step that the trainer begins with."""
        if args.n_gpu > 1:
            raise InputError(
                f"the trainer spreads the model over {args.n_gpu} GPUs in one process, but a monitor needs one process "
                "for each: start it with torchrun, or show it one GPU by CUDA_VISIBLE_DEVICES"
            )
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        self._let_go()
        settings = {
            "accumulation": args.gradient_accumulation_steps,
            "scaler": getattr(optimizer, "scaler", None),
            "training_examples": dataset_size(kwargs.get("train_dataloader")),
            "start": state.global_step,
            **self._settings,
        }
        self.monitor = Monitor(model, optimizer, self._loss, self._every, **settings)
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each step of the optimizer, before that of the schedule."""
        if self.monitor is not None:
            inputs, self._inputs = self._inputs, {}
            self.monitor.step(inputs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let go of the model."""
        self._let_go()

    def summary(self) -> Summary:
        """Verdicts by phase of the training so far; see :meth:`Monitor.summary`.

        Raises:
            InputError: training has not begun.
        """
        if self.monitor is None:
            raise InputError("nothing is measured yet: give the callback to a Trainer and call its train()")
        return self.monitor.summary()

    def _see(self, model: nn.Module, positional: tuple[Any, ...], inputs: Mapping[str, Any]) -> None:
        # Evaluations are none of training. The probe's own passes come after the batch has been taken.
        if model.training and inputs:
            # With the number of all items of an accumulated step the loss would be a part of that step's.
            self._inputs = {name: value for name, value in inputs.items() if name != "num_items_in_batch"}

    def _let_go(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self.monitor is not None:
            self.monitor.close()


def loss_of_outputs(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The loss that a Hugging Face model returns when it is called with labels.

    Raises:
        InputError: it returns none.
    """
    outputs = model(**inputs)
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if loss is None:
        raise InputError(
            f"the model returns no loss for inputs {', '.join(inputs)}: give MonitorCallback a loss(model, inputs)"
        )
    return loss  # type: ignore[no-any-return]
