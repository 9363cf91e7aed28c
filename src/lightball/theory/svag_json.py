"""The result of SVAG as plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightball.theory.as_json import finite, mean_json

if TYPE_CHECKING:
    from lightball.dynamics.weak_error import WeakError
    from lightball.theory.svag import SvagResult


def svag_json(result: SvagResult) -> dict[str, Any]:
    """The settings, the terms and the gaps by ℓ; null for what is not known or infinite."""
    given = result.settings
    simulated = {"largest": result.largest.simulated, "final": result.final.simulated}
    return {
        "lr": given.lr,
        "momentum": given.momentum,
        "memory": given.memory,
        "spectrum": list(given.spectrum),
        "variance": given.variance,
        "noise": given.noise,
        "horizon": given.horizon,
        "trajectories": given.trajectories,
        "seed": given.seed,
        "descent": result.descent,
        "terms": [
            {
                "ell": term.ell,
                "curvature": finite(term.curvature),
                "noise": finite(term.noise),
                "measured_curvature": mean_json(term.measured_curvature.mean, term.measured_curvature.se),
                "measured_noise": mean_json(term.measured_noise.mean, term.measured_noise.se),
            }
            for term in result.terms
        ],
        "gaps": {
            name: {
                "order": (local := gap.exact.order().local) and local.order,
                "exact": _points(gap.exact),
                "simulated": (error := simulated[name]) and _points(error),
            }
            for name, gap in (("largest", result.largest), ("final", result.final))
        },
    }


def _points(error: WeakError) -> list[dict[str, Any]]:
    columns = zip(error.etas, error.errors, error.standard_errors, error.order().used, strict=True)
    return [
        {"ell": round(1 / eta), "gap": finite(gap), "se": finite(se), "used": used} for eta, gap, se, used in columns
    ]
