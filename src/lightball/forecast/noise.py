"""By how much noise raises the expected loss: the exact second moments, pushed through a noise-weighted measure.

    excess_K = (1/B) ∫ ½ h V_K(h) dμ_Σ(h)

with V_K from `transfer`. Noise may change on the way, with its trace along the path, as that was measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lightball.forecast.transfer import NoiseSpread

if TYPE_CHECKING:
    from jaxtyping import Float64

    from lightball.forecast.cases import Cases
    from lightball.probe import SpectralMeasure


def excess(
    cases: Cases,
    measure: SpectralMeasure,
    momentum: float,
    relative_trace: Float64[np.ndarray, "step case"],
    record: tuple[int, ...],
) -> Float64[np.ndarray, "record case vector"]:
    """The excess after the recorded steps for each vector of the measure; their mean counts.

    Args:
        relative_trace: tr Σ at each step as a multiple of the measure's mass; the same for equal rates.

    Cost: some 30 multiplications for each step, node and rate, and also each batch size where batches are shuffled.
    """
    if cases.shuffled is None:  # independent batches differ by a factor 1/B only
        rates, first, back = np.unique(cases.effective_lr, return_index=True, return_inverse=True)
        unit = replace(cases, effective_lr=rates, batch_size=np.ones(len(rates), dtype=np.int64))
        alike = _excess(unit, measure, momentum, relative_trace[:, first], record)[:, back]
        return np.asarray(alike / cases.batch_size[:, None])
    return _excess(cases, measure, momentum, relative_trace, record)


def _excess(
    cases: Cases, measure: SpectralMeasure, momentum: float, relative_trace: np.ndarray, record: tuple[int, ...]
) -> np.ndarray:
    curvature = measure.nodes.ravel()
    spread = NoiseSpread(cases.linear(curvature, momentum), cases.shuffled)
    loads = 0.5 * curvature * measure.weights.ravel() / cases.batch_size[:, None]
    wanted = set(record)
    found = {0: np.zeros((len(cases.batch_size), len(measure.nodes)))}
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, max(record) + 1):
            spread.advance(relative_trace[step - 1])
            if step in wanted:
                found[step] = (loads * spread.variance).reshape(-1, *measure.nodes.shape).sum(axis=2)
    return np.stack([found[step] for step in record])
