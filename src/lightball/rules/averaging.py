"""The averaged schedule: learning rates of the SGD that matches momentum with changing hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64
    from numpy.typing import ArrayLike


def averaged_schedule(
    lr: ArrayLike, momentum: ArrayLike, tail: Literal["drop", "hold"] = "drop"
) -> Float64[np.ndarray, " step"]:
    """The total displacement −η̄_j g_j that a gradient of step j causes in the canonical form.

        η̄_j = (1 − β_j) Σ_{s ≥ j} η_s Π_{τ=j+1..s} β_τ

    lr holds the effective rates η_k, shape (K,); momentum is β, a number or (K,). The sum ends with the run
    (tail "drop": what the last gradients would still have moved is lost) or the last (η, β) go on for ever
    (tail "hold"). Exact to rounding, by the recursion S_j = η_j + β_{j+1} S_{j+1} from the end; cost O(K).
    Nesterov momentum and Keras, whose buffer holds the rate, have other averages. Raises `InputError`.
    Source: arXiv:2307.15196.
    """
    rates = np.asarray(lr, dtype=np.float64)
    if rates.ndim != 1 or rates.size == 0:
        raise InputError(f"lr has shape {rates.shape}; required is one rate per step, shape (K,) with K ≥ 1")
    betas = np.asarray(momentum, dtype=np.float64)
    if betas.shape not in ((), rates.shape):
        raise InputError(f"momentum has shape {betas.shape}; required is one number or lr's shape {rates.shape}")
    _require(rates, (rates >= 0) & np.isfinite(rates), "lr", "a finite number ≥ 0 at every step")
    _require(betas, (betas >= 0) & (betas < 1), "momentum", "0 ≤ momentum < 1 at every step")
    if tail not in ("drop", "hold"):
        raise InputError(f"tail is '{tail}'; required is 'drop' (the run ends) or 'hold' (the last values go on)")

    betas = np.broadcast_to(betas, rates.shape)
    sums = np.empty_like(rates)
    sums[-1] = rates[-1] / (1 - betas[-1]) if tail == "hold" else rates[-1]
    for j in range(rates.size - 2, -1, -1):
        sums[j] = rates[j] + betas[j + 1] * sums[j + 1]
    return (1 - betas) * sums


def _require(values: np.ndarray, fine: np.ndarray, name: str, required: str) -> None:
    if not fine.all():
        raise InputError(f"{name} is {values[~fine].flat[0]:g}; required is {required}")
