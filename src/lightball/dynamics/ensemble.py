"""Many trajectories of one oracle at once, each with its own seed, learning rate and momentum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.dynamics.stepper import States, Stepper
from lightball.errors import InputError
from lightball.rules import Hyperparameters, Schedule, kernel
from lightball.rules.schedules import constant

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from lightball.oracles.protocol import Oracle, Tensors


class Ensemble:
    """N replicas of an oracle, driven by the update rule with hyperparameters of their own.

    Args:
        oracle: the loss and its noisy gradients.
        seeds: one for each replica; equal seeds mean equal initial weights and equal noise (a pair).
        hyper: each hyperparameter a number for all, or ``Float[Tensor, "replica"]``.
        schedule: step → factor of the learning rate.
        stepper: pass one to share its traced and compiled programs; its oracle must be the same.

    A replica whose loss stops being finite has *failed*: ``failed_at[i]`` is the step at which it was seen (−1 while
    it lives), its measurements are NaN from then on, and it is not brought back. Once half of the replicas that are
    still computed have failed, the others go on without them, so that failures do not cost time for long.
    """

    def __init__(
        self,
        oracle: Oracle,
        seeds: Sequence[int],
        hyper: Hyperparameters,
        schedule: Schedule | None = None,
        stepper: Stepper | None = None,
    ) -> None:
        self.seeds = list(seeds)
        for name, value in vars(hyper).items():
            if isinstance(value, Tensor) and value.shape != (len(self.seeds),):
                raise InputError(
                    f"{name} has shape {tuple(value.shape)}, but there are {len(self.seeds)} replicas: give a number "
                    f"for all of them or a tensor of shape ({len(self.seeds)},)"
                )
        if stepper is not None and stepper.oracle is not oracle:
            raise InputError(
                "the stepper belongs to another oracle: share one only between ensembles of the same oracle"
            )
        kernel.validate(hyper)
        self.oracle = oracle
        self.schedule = schedule or constant()
        self.stepper = stepper or Stepper(oracle)
        self.step = 0
        self.x: Tensors = oracle.init(self.seeds)
        self.states: States = {name: kernel.init(p) for name, p in self.x.items()}
        some = next(iter(self.x.values()))
        device = some.device
        self.hyper = _like(some, hyper)
        self.rows: Int[Tensor, "active"] = torch.arange(len(self.seeds), device=device)
        self.failed_at: Int[Tensor, "replica"] = torch.full((len(self.seeds),), -1, device=device)
        self._stream = oracle.stream(self.seeds)

    def advance(self, num_steps: int) -> None:
        """Take ``num_steps`` steps; replicas are checked at the end of every epoch of the oracle."""
        end = self.step + num_steps
        while self.step < end and len(self.rows):
            block = min(end - self.step, self.oracle.steps_per_epoch)
            losses = torch.stack([self._one_step(k) for k in range(self.step, self.step + block)])
            self._mark_failed(losses)
            self.step += block
        self.step = end

    def measure(self, observable: Callable[[Tensors], Tensor]) -> Float[Tensor, "replica ..."]:
        """``observable(x)`` for every replica, NaN for those that failed."""
        if not len(self.rows):
            return torch.full((len(self.seeds),), torch.nan, dtype=torch.float64)
        values = observable(self.x)
        everywhere = values.new_full((len(self.seeds), *values.shape[1:]), torch.nan)
        everywhere[self.rows] = values
        everywhere[self.failed_at >= 0] = torch.nan
        return everywhere

    def _one_step(self, k: int) -> Float[Tensor, "active"]:
        factor = self.schedule(k)
        hyper = self.hyper if factor == 1.0 else replace(self.hyper, lr=self.hyper.lr * factor)
        return self.stepper(self.x, self.states, self._stream(k), hyper)

    def _mark_failed(self, losses: Float[Tensor, "step active"]) -> None:
        bad = ~losses.isfinite()
        ever = bad.any(dim=0) & (self.failed_at[self.rows] < 0)
        first = bad.int().argmax(dim=0) + self.step
        self.failed_at[self.rows[ever]] = first[ever]
        alive = self.failed_at[self.rows] < 0
        if int(alive.sum()) * 2 <= len(self.rows):
            self._keep(alive)

    def _keep(self, alive: Tensor) -> None:
        self.rows = self.rows[alive]
        self.x = {name: p[alive] for name, p in self.x.items()}
        self.states = {n: {key: value[alive] for key, value in s.items()} for n, s in self.states.items()}
        kept = {name: v[alive] if isinstance(v, Tensor) else v for name, v in vars(self.hyper).items()}
        self.hyper = Hyperparameters(**kept)
        self._stream = self.oracle.stream([self.seeds[i] for i in self.rows.tolist()])


def _like(x: Tensor, hyper: Hyperparameters) -> Hyperparameters:
    """Tensors on the device of x; the learning rate always one, since a number would be traced anew at every change.

    It gets the dtype of x, so that a number is not rounded to float32 on its way to a float64 model.
    """
    moved = {name: v.to(x.device) if isinstance(v, Tensor) else v for name, v in vars(hyper).items()}
    if not isinstance(hyper.lr, Tensor):
        moved["lr"] = x.new_full((len(x),), hyper.lr)
    return Hyperparameters(**moved)
