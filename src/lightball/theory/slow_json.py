"""The result of the long horizon as plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightball.theory.as_json import finite, slope_json
from lightball.theory.slow_runs import ALGORITHMS

if TYPE_CHECKING:
    from lightball.stats import OrderFit
    from lightball.stats.extrapolation import Limit
    from lightball.theory.slow import Slow
    from lightball.theory.slow_runs import Run


def slow_json(result: Slow) -> dict[str, Any]:
    """The main observable at the end first, then the others, and all of them along the way; null for what diverged."""
    main, *others = (_observable(result, i) for i in range(len(result.observables)))
    return {
        "model": result.model.name,
        "slow_time": float(result.path.times[-1]),
        **main,
        "orders": {
            "sgd_error": _order(result.error_order("sgd")),
            "sgdm_error": _order(result.error_order("sgdm")),
            "gap": _order(result.gap_order()),
        },
        "momentum": result.settings.momentum,
        "trajectories": result.runs[0].moments.num_trajectories,
        "seed": result.settings.seed,
        "more": others,
        "curves": [_curves(result, i) for i in range(len(result.observables))],
    }


def _observable(result: Slow, observable: int) -> dict[str, Any]:
    limits = {
        "sgd": result.limit("sgd", observable),
        "sgdm": result.limit("sgdm", observable),
        "gap": result.gap_limit(observable),
    }
    return {
        "observable": result.observables[observable],
        "slow_sde": finite(result.sde(observable)),
        "runs": [_run(run, observable) for run in result.runs],
        "extrapolated": {name: limit and _limit(limit) for name, limit in limits.items()},
        "verdicts": {algorithm: result.verdict(algorithm, observable) for algorithm in ALGORITHMS},
    }


def _run(run: Run, observable: int) -> dict[str, Any]:
    said: dict[str, Any] = {"eta": run.eta, "steps": run.num_steps}
    for algorithm in ALGORITHMS:
        said[algorithm] = {**_with_error(*run.end(algorithm, observable)), "diverged": run.diverged(algorithm)}
    return {**said, "gap": _with_error(*run.gap(observable))}


def _curves(result: Slow, observable: int) -> dict[str, Any]:
    path = result.path
    return {
        "observable": result.observables[observable],
        "slow_time": path.times.tolist(),
        "slow_sde": path.mean[:, observable].tolist(),
        "runs": [
            {
                "eta": run.eta,
                "slow_time": run.times.tolist(),
                **{a: [finite(v) for v in run.means(a, observable).tolist()] for a in ALGORITHMS},
            }
            for run in result.runs
        ],
    }


def _with_error(mean: float, error: float) -> dict[str, float | None]:
    return {"mean": finite(mean), "se": finite(error)}


def _limit(limit: Limit) -> dict[str, Any]:
    return {"value": limit.value, "se": limit.standard_error, "ci95": list(limit.ci95)}


def _order(found: OrderFit) -> dict[str, Any]:
    return {"fit": slope_json(found.fit), "local": slope_json(found.local), "used": list(found.used)}
