"""Probes at three phases of a short training, or at a checkpoint.

The training is a reference, the same for every setting of a task up to where it ends: SGD at the rate 1/λ_max, which is
measured on the way, with a batch that keeps noise small. It follows gradient flow, and runs at other rates, momenta and
batch sizes pass the same places at the same flow time as long as they are stable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from lightball.errors import InputError
from lightball.forecast.loading import load_checkpoint
from lightball.forecast.phase import CurvePoint, Phase, Phases
from lightball.forecast.trials import trials_of
from lightball.oracles import MinibatchStream, Sampling, build, generator
from lightball.probe import Probe, Supervised, look_ahead, probe, supervised
from lightball.probe.curvature import Curvature
from lightball.probe.forms import largest_node
from lightball.probe.objective import Objective
from lightball.probe.scope import unchanged
from lightball.training.evaluation import mean_score
from lightball.training.recipe import Recipe
from lightball.training.state import start, trainable
from lightball.training.step import take_step
from lightball.training.surroundings import find_device, surroundings_kept
from lightball.workloads import Workload

Progress = Callable[[str, int, int], None]
"""Told (what, done, of how many)."""

PLACES = {"start": 0.02, "middle": 0.2, "end": 1.0}
"""Where phases lie, as shares of the training: evenly on a logarithmic scale, on which a loss falls."""

_STEEPNESS = 1.0  # η λ_max of the reference training: half of what SGD stands
_LOOKS = 24  # points of the loss curve, evenly on a logarithmic scale of steps
_FEWEST = 50  # steps, however short the user's run is in flow time
_BATCHES = 32  # of the probe, for an honest interval of the noise where it does not come from single examples
_PER_EXAMPLE = 2**18  # parameters up to which gradients of single examples are cheap
_EXAMPLES_AT_ONCE = 256
_LANCZOS = 10  # steps for the sharpness between phases, within some per cent


@dataclass(frozen=True)
class Effort:
    """How much is spent on phases.

    Args:
        most_steps, batch_size: of the reference training.
        trial_steps, trial_seeds: of runs of SGD beyond 2/λ_max, see :mod:`lightball.forecast.trials`; 0 steps: none.
        examples: for noise and gradient, drawn at random where the training set has more; the path ahead too.
        curvature_examples: for curvature.
        horizon: flow time to which each probe follows the path ahead; 0: not at all; None: twice that of the forecast,
            or K/λ_max, beyond which no forecast is valid, if that is less.
        noise_vectors: of the noise's spectral measure; the interval of tr(HΣ) comes from them.
        curvature: "hessian", or "ggn" for its positive part.
        keep_weights: of each phase, for a verification.
    """

    most_steps: int = 1000
    batch_size: int = 128
    trial_steps: int = 100
    trial_seeds: int = 3
    examples: int = 4096
    curvature_examples: int = 2048
    horizon: float | None = None
    noise_vectors: int = 16
    curvature: Literal["hessian", "ggn"] = "hessian"
    keep_weights: bool = False


def phases_of(
    workload: Workload,
    *,
    effective_lr: float,
    momentum: float,
    batch_size: int,
    epochs: int = 24,
    num_steps: int = 100,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> Phases:
    """Train the workload's model for a while, and probe it at the start, in the middle and at the end.

    The training, see the top of the module, ends where the user's run would in flow time, or a run of SGD at its limit
    of stability, or after ``effort.most_steps``. Along it the loss on all examples and the largest curvature are
    recorded. With a ``checkpoint`` nothing is trained, and its weights are the one phase. Weights, generators and modes
    of the caller stay as they are.

    Args:
        effective_lr, momentum, batch_size, epochs: of the user's run, for its length in flow time.
        num_steps: of the forecast at each phase, for which the path ahead is followed.
        checkpoint: a state dict in a safetensors file.
        seed: of weights and data order.
        progress: told of training and probes.

    Cost: the training; and at each phase a few hundred products with the curvature.

    Raises:
        InputError: settings that cannot be used, a training that fails, or a checkpoint that does not fit.
    """
    effort = effort or Effort()
    Recipe(batch_size, effective_lr, momentum, epochs)  # refuses what cannot be used
    user = Sampling(len(workload.train), batch_size)
    where = find_device(device)
    prober = _Prober(workload, effort, effective_lr, num_steps, seed, progress)
    if checkpoint is not None:
        model = build(workload.model, seed).to(where).eval()
        load_checkpoint(model, Path(checkpoint))
        only = prober.phase("checkpoint", 0.0, model)
        return Phases((only,), prober.curve_ahead(only), (), _bytes_of(model), from_start=False)

    recipe = Recipe(min(effort.batch_size, len(workload.train)), effective_lr)
    steps_of_user = epochs * user.steps_per_epoch
    most = max(_FEWEST, effort.most_steps)
    looks = {round(most ** (i / (_LOOKS - 1))) for i in range(_LOOKS)}
    phases: list[Phase] = []
    with surroundings_kept(seed, where):
        state = start(workload, recipe, seed, where)
        draws = Sampling(len(workload.train), recipe.batch_size)
        stream = MinibatchStream(draws, [seed], workload.train.inputs.device)
        curve = [prober.look(state.model, 0.0)]
        time = 0.0
        for name, share in PLACES.items():
            while True:
                sharpest = max(point.sharpness or 0.0 for point in curve)
                end = steps_of_user * max(effective_lr, 2 / sharpest if sharpest > 0 else 0.0)
                if max(state.step / most, time / end) >= share and state.step > 0:
                    break
                rate = min(_STEEPNESS / max(curve[-1].sharpness or 0.0, 1e-12), end / _FEWEST)
                if not take_step(state, workload, recipe, [stream(state.step)[0]], rate):
                    raise InputError(_failed(state.step, rate))
                state.step += 1
                time += rate
                if state.step in looks:
                    curve.append(_finite(prober.look(state.model, time), state.step, rate))
                if progress is not None:
                    progress("training", round(1000 * max(state.step / most, time / end)), 1000)
            if progress is not None and share == 1:
                progress("training", 1000, 1000)
            if curve[-1].time < time:
                curve.append(_finite(prober.look(state.model, time), state.step, rate))
            phases.append(prober.phase(name, time, state.model))
        trials = []
        if effort.trial_steps and sharpest > 0:
            seeds = range(seed, seed + effort.trial_seeds)
            size, untrained = recipe.batch_size, curve[0].loss
            for trial in trials_of(workload, sharpest, untrained, size, effort.trial_steps, seeds, where):
                trials.append(trial)
                if progress is not None:
                    progress("rates", len(trials), 0)
    return Phases(tuple(phases), tuple(curve), tuple(trials), _bytes_of(state.model))


class _Prober:
    """Looks at a model on the examples that were drawn for it."""

    def __init__(
        self,
        workload: Workload,
        effort: Effort,
        effective_lr: float,
        num_steps: int,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.workload, self.effort, self.seed, self.progress = workload, effort, seed, progress
        self.effective_lr, self.num_steps = effective_lr, num_steps
        self.loss: Supervised = supervised(workload.loss)
        draw = generator(use="probe examples", seed=seed)
        self.examples = torch.randperm(len(workload.train), generator=draw)[: effort.examples]

    def batches(self, examples: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data = self.workload.train
        parts = [examples[i : i + size] for i in range(0, len(examples), size)]
        return [(data.inputs[some], data.targets[some]) for some in parts]

    @property
    def curved(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return self.batches(self.examples[: self.effort.curvature_examples], _EXAMPLES_AT_ONCE)

    def probe(self, name: str, model: nn.Module) -> Probe:
        """The probe, with the path ahead."""
        told = None if self.progress is None else _named(self.progress, name)
        single = sum(p.numel() for _, p in trainable(model)) <= _PER_EXAMPLE
        size = _EXAMPLES_AT_ONCE if single else min(_EXAMPLES_AT_ONCE, -(-len(self.examples) // _BATCHES))
        batches = self.batches(self.examples, size)
        found = probe(
            model,
            self.loss,
            batches,
            noise_vectors=self.effort.noise_vectors,
            curvature=self.effort.curvature,
            curvature_batches=self.curved,
            training_examples=len(self.workload.train),
            mode="eval",
            per_example=single,
            seed=self.seed,
            progress=told,
        )
        horizon = self.effort.horizon
        if horizon is None:
            horizon = self.num_steps * min(2 * self.effective_lr, 1 / max(found.sharpness.value, 1e-12))
        if horizon == 0:
            return found
        return look_ahead(
            found,
            model,
            self.loss,
            batches,
            horizon,
            mode="eval",
            per_example=single,
            seed=self.seed,
            progress=told,
        )

    def phase(self, name: str, time: float, model: nn.Module) -> Phase:
        """The probe with its name, and the weights where they are to be kept."""
        weights = None
        if self.effort.keep_weights:
            weights = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
        return Phase(name, time, self.probe(name, model), weights)

    def look(self, model: nn.Module, time: float) -> CurvePoint:
        """A point of the loss curve."""
        loss = mean_score(model, self.workload.loss, self.workload.train, 256, "float32")
        if not math.isfinite(loss):
            return CurvePoint(time, loss)
        with unchanged(model):
            objective = Objective(model, self.loss, mode="eval", seed=self.seed)
            product = Curvature(objective, self.curved, self.effort.curvature)
            _, gradient = product.loss_and_gradient()
            return CurvePoint(time, loss, largest_node(product, gradient, _LANCZOS, self.seed))

    @staticmethod
    def curve_ahead(phase: Phase) -> tuple[CurvePoint, ...]:
        """The curve that a checkpoint has: its path ahead."""
        return tuple(CurvePoint(p.time, p.loss, p.sharpness) for p in phase.probe.path)


def _named(progress: Progress, phase: str) -> Progress:
    return lambda what, done, total: progress(f"{phase}: {what}", done, total)


def _bytes_of(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for _, p in trainable(model))


def _finite(point: CurvePoint, step: int, rate: float) -> CurvePoint:
    if not math.isfinite(point.loss):
        raise InputError(_failed(step, rate))
    return point


def _failed(step: int, rate: float) -> str:
    return (
        f"the reference training fails at step {step}, at effective learning rate {rate:.3g}, half of what its "
        "curvature allows: give a checkpoint of your own run"
    )
