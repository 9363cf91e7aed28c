"""The SDEs that SGD and SGDM follow, moved by the same update rule in smaller steps.

    first order    dX = −∇L dt + √η Σ^{1/2} dW
    underdamped    dX = −M dt,   dM = c (∇L − M) dt + c √η Σ^{1/2} dW        for 1 − β = cη

in the time t = ηk (arXiv:2307.15196, §4). :class:`Diffusion` is an SDE as an oracle; here are the arms that go with
it, and an arm for a coarse step that is made of fine ones, so that one Brownian path can drive an algorithm and its
SDE: their difference then has a small variance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightball.dynamics.population import Arm, Moments, Observable, Observer, simulate
from lightball.errors import InputError
from lightball.oracles import Diffusion

if TYPE_CHECKING:
    import torch

    from lightball.oracles import CovarianceOracle


def first_order_arm(effective_lr: float, substeps: int) -> Arm:
    """The first-order SDE of SGD with learning rate η = ``effective_lr``, by Euler–Maruyama with the step η/n."""
    return Arm(effective_lr / substeps)


def underdamped_arm(effective_lr: float, damping: float, substeps: int) -> Arm:
    """The underdamped SDE of SGDM with 1 − β = cη, c = ``damping``, by semi-implicit Euler–Maruyama with step η/n.

    Raises:
        InputError: cη/n is not in (0, 1]: β would not be in [0, 1).
    """
    return Arm(effective_lr / substeps, momentum_of(effective_lr / substeps, damping))


def momentum_of(effective_lr: float, damping: float) -> float:
    """β = 1 − cη, where the memory of the buffer lasts 1/(cη) steps. Raises `InputError` unless 0 < cη ≤ 1."""
    if not 0 < damping * effective_lr <= 1:
        raise InputError(
            f"damping × effective_lr is {damping * effective_lr:g}; required is a number in (0, 1], since momentum "
            "is 1 minus it"
        )
    return 1 - damping * effective_lr


def coarse_arm(effective_lr: float, momentum: float, num_steps: int, substeps: int) -> Arm:
    """SGDM with steps as large as n = ``substeps`` steps of the SDE, for the same :class:`Diffusion`.

    A coarse step takes the mean of n fine gradients at a point that does not move: they differ in their noise √n S zⱼ
    only, and its mean is S z with z ~ N(0, I). Within a step the rate is 0 but at the end, and

        βⱼ = Bⱼ / Bⱼ₊₁,   Bⱼ = β + (1 − β) j/n        for j = 0 … n − 1,

    so that the buffer is multiplied by B₀ = β in all and each gradient counts Bⱼ₊₁ − Bⱼ = (1 − β)/n. Exactly the law of
    the algorithm where its noise is Gaussian.
    """
    kept = momentum + (1 - momentum) * np.arange(substeps + 1) / substeps
    rates = np.zeros(substeps)
    rates[-1] = effective_lr
    return Arm(np.tile(rates, num_steps), np.tile(kept[:-1] / kept[1:], num_steps))


def simulate_sde(
    oracle: CovarianceOracle,
    effective_lr: float,
    num_steps: int,
    num_trajectories: int,
    observables: Mapping[str, Observable],
    damping: float | None = None,
    substeps: int = 16,
    record_at: Sequence[int] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    observer: Observer | None = None,
) -> Moments:
    """Moments of the first-order SDE, or of the underdamped one if ``damping`` c is given, up to t = η · num_steps.

    ``num_steps`` and ``record_at`` count steps of the algorithm with learning rate η = ``effective_lr``; the moments'
    ``steps`` are theirs times ``substeps``. Observables see X, and in the underdamped equation M. Weak error:
    O(η/substeps).
    """
    arm = (
        first_order_arm(effective_lr, substeps) if damping is None else underdamped_arm(effective_lr, damping, substeps)
    )
    return simulate(
        Diffusion(oracle, substeps),
        {"sde": arm},
        num_steps * substeps,
        num_trajectories,
        observables,
        record_at=[k * substeps for k in (range(num_steps + 1) if record_at is None else record_at)],
        seed=seed,
        device=device,
        observer=observer,
    )
