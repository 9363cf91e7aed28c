"""The long horizon: SGD, SGDM and the slow SDE on one axis, the time t = η²k, over O(1/η²) steps.

arXiv:2307.15196, §5: with label noise, SGD and SGDM at the same η slide along the minimizers to flat ones at one speed,
that of the slow SDE, as η falls. Each is off by O(η), so runs at several η are extrapolated to η = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lightball.dynamics.manifold import project
from lightball.dynamics.population import Arm, Observer, simulate
from lightball.dynamics.slow_sde import SlowPath, diffusion, point, simulate_slow
from lightball.dynamics.threads import one_torch_thread
from lightball.errors import InputError
from lightball.oracles import seed_of
from lightball.stats import OrderFit, fit_order
from lightball.stats.extrapolation import Limit, extrapolate
from lightball.theory.models import MODELS, Model
from lightball.theory.slow_json import slow_json
from lightball.theory.slow_runs import Algorithm, Run

_RECORDS, _RECORDS_OF_SDE = 11, 51  # of times, both ends among them
_STEPS_OF_SDE = 10  # at least, in the slow time that suits a model
_RESOLVED = 0.25  # of the way of the slow SDE: what is known less well than that is not said to agree

Verdict = Literal["agrees", "differs", "not resolved"]
"""Whether a limit is that of the slow SDE, or what was measured is too little to tell."""


@dataclass(frozen=True)
class SlowSettings:
    """What to measure. None chooses what suits the model, in seconds.

    Args:
        model: hyperbola, diagonal-net or matrix.
        etas: learning rates; each is changed slightly where slow_time/η² is not a whole number of steps.
        momentum: β of SGDM.
        slow_time: the time t = η²k at the end.
        trajectories: of SGD and of SGDM at each rate.
    """

    model: str = "hyperbola"
    etas: tuple[float, ...] | None = None
    momentum: float = 0.9
    slow_time: float | None = None
    trajectories: int | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError(f"model is {self.model!r}; required is one of {', '.join(MODELS)}")
        if self.slow_time is not None and not 0 < self.slow_time < math.inf:
            raise InputError(f"slow_time is {self.slow_time:g}; required is a finite number > 0: η²k after k steps")
        if self.etas is not None and (len(set(self.etas)) < 2 or not all(0 < eta < math.inf for eta in self.etas)):
            raise InputError(
                f"the rates are {', '.join(f'{eta:g}' for eta in self.etas)}; required are two or more different ones "
                "above 0, to extrapolate to 0: try 0.1,0.05,0.025"
            )
        if not 0 < self.momentum < 1:
            raise InputError(f"momentum is {self.momentum:g}; required is 0 < momentum < 1: try 0.9")
        if self.trajectories is not None and self.trajectories < 2:
            raise InputError(f"trajectories is {self.trajectories}; required are at least 2, for a standard error")


@dataclass(frozen=True)
class Slow:
    """The measured runs beside the slow SDE; observables are counted as in the model, 0 is the main one."""

    settings: SlowSettings
    model: Model
    path: SlowPath
    runs: tuple[Run, ...]
    sde_bias: tuple[float, ...]
    """Of each observable of the slow SDE at the end: by how much half the time step moves it, where noise is along the
    minimizers and the step's error O(dt) therefore. Else 0: with label noise, of order 4, it is below 1e-8."""

    @property
    def observables(self) -> tuple[str, ...]:
        """Their names."""
        return self.path.observables

    @property
    def etas(self) -> tuple[float, ...]:
        """The learning rates, the largest first."""
        return tuple(run.eta for run in self.runs)

    def sde(self, observable: int = 0) -> float:
        """The value of the slow SDE at the end."""
        return float(self.path.mean[-1, observable])

    def limit(self, algorithm: Algorithm, observable: int = 0) -> Limit | None:
        """The value at the end as η → 0; None where fewer than two rates are stable."""
        return self._extrapolated([run.end(algorithm, observable) for run in self.runs])

    def gap_limit(self, observable: int = 0) -> Limit | None:
        """SGDM minus SGD as η → 0, which should hold 0."""
        return self._extrapolated([run.gap(observable) for run in self.runs])

    def gap_order(self, observable: int = 0) -> OrderFit:
        """How fast the gap between SGDM and SGD falls with η."""
        return self._order([run.gap(observable) for run in self.runs])

    def error_order(self, algorithm: Algorithm, observable: int = 0) -> OrderFit:
        """How fast the distance to the slow SDE falls with η."""
        ends = [run.end(algorithm, observable) for run in self.runs]
        of_sde = self.path.standard_error[-1, observable]
        return self._order([(value - self.sde(observable), math.hypot(error, of_sde)) for value, error in ends])

    def moved(self, observable: int = 0) -> float:
        """How far the slow SDE goes, |ζ(T) − ζ(0)|, beside which errors are large or small."""
        return float(abs(self.path.mean[-1, observable] - self.path.mean[0, observable]))

    def doubt(self, limit: Limit, observable: int = 0) -> float:
        """3 standard errors of a limit less the slow SDE (false alarms: 0.3 %), and the bias of the SDE's time step."""
        noise = math.hypot(limit.standard_error, self.path.standard_error[-1, observable])
        return 3 * noise + self.sde_bias[observable]

    def verdict(self, algorithm: Algorithm, observable: int = 0) -> Verdict:
        """Whether the limit is that of the slow SDE.

        It differs if they are further apart than the doubt. It is not resolved where there is no limit, or the doubt is
        more than a quarter of the way that the slow SDE goes: too much to say that they agree.
        """
        limit = self.limit(algorithm, observable)
        if limit is None:
            return "not resolved"
        doubt = self.doubt(limit, observable)
        if abs(limit.value - self.sde(observable)) > doubt:
            return "differs"
        return "agrees" if doubt <= _RESOLVED * self.moved(observable) else "not resolved"

    def agrees(self, algorithm: Algorithm, observable: int = 0) -> bool:
        """Whether it was measured that the limit is that of the slow SDE."""
        return self.verdict(algorithm, observable) == "agrees"

    def _extrapolated(self, ends: list[tuple[float, float]]) -> Limit | None:
        return extrapolate(self.etas, [value for value, _ in ends], [error for _, error in ends])

    def _order(self, ends: list[tuple[float, float]]) -> OrderFit:
        return fit_order(self.etas, [abs(value) for value, _ in ends], [error for _, error in ends])

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers; null for what diverged."""
        return slow_json(self)


def run_slow(
    settings: SlowSettings, make: Callable[[str], Model] | None = None, observer: Observer | None = None
) -> Slow:
    """Measure SGD and SGDM, and simulate the slow SDE beside them, on the CPU.

    Cost: for each η, slow_time/η² steps of both algorithms on the same noise.

    Args:
        settings: what to measure.
        make: device → a model of your own, in place of the one that the settings name.
        observer: told how it goes on.

    Raises:
        InputError: the settings cannot be used; the model has no manifold of minimizers, or noise along it and one
            trajectory of the slow SDE.
    """
    make = make or MODELS[settings.model]
    with one_torch_thread():
        model = make("cpu")
        moving = model if settings.device == "cpu" else make(settings.device)
        slow_time = settings.slow_time or model.slow_time
        _require_enough(model)
        path, bias = slow_path(model, slow_time, settings.seed)
    runs = tuple(
        _run(moving, eta, slow_time, settings, observer)
        for eta in sorted(set(settings.etas or model.etas), reverse=True)
    )
    return Slow(settings, model, path, runs, bias)


def slow_path(model: Model, slow_time: float, seed: int) -> tuple[SlowPath, tuple[float, ...]]:
    """With the bias of its steps: what half a step changes on the same noise, which is what is left with an O(dt)."""

    def path(dt: float, draws: int = 1) -> SlowPath:
        return simulate_slow(
            model.oracle,
            slow_time=slow_time,
            dt=dt,
            observables=model.observables,
            num_trajectories=model.sde_trajectories,
            num_records=_RECORDS_OF_SDE,
            draws=draws,
            seed=seed,
        )

    longest = model.slow_time / _STEPS_OF_SDE
    if model.sde_trajectories == 1:
        return path(longest), (0.0,) * len(model.observables)
    coarse = path(longest, draws=2)
    fine = path(coarse.dt / 2)
    return fine, tuple(np.abs(fine.mean[-1] - coarse.mean[-1]).tolist())


def _require_enough(model: Model) -> None:
    at = point(model.oracle, project(model.oracle, model.oracle.start(1)))
    if model.sde_trajectories == 1 and float(diffusion(at).norm()) > 1e-6 * float(at.factor.norm()):
        raise InputError(
            f"the noise of the model {model.name!r} has a part along its minimizers, where one trajectory of the slow "
            "SDE is one of many: give the model sde_trajectories, such as 1000"
        )


def _run(model: Model, eta: float, slow_time: float, settings: SlowSettings, observer: Observer | None) -> Run:
    num_steps = max(1, round(slow_time / eta**2))
    fitting = math.sqrt(slow_time / num_steps)
    lr = eta if math.isclose(fitting, eta, rel_tol=1e-9) else fitting
    moments = simulate(
        model.oracle,
        {"sgd": Arm(lr), "sgdm": Arm(lr, settings.momentum)},
        num_steps,
        settings.trajectories or model.trajectories,
        model.observables,
        record_at=np.unique(np.linspace(0, num_steps, _RECORDS).round().astype(int)).tolist(),
        seed=seed_of(use="slow", seed=settings.seed, eta=lr),  # rates must not share noise: fits weigh them
        device=settings.device,
        observer=observer,
    )
    return Run(lr, moments)
